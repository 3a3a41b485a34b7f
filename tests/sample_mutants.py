"""Mutants: simulators, posteriors and engines with one planted defect that the kit must catch."""

from __future__ import annotations

import contextlib
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sbi_physics.guard import preserve_state
from sbi_physics.parameters import ParameterSpace


class Mutants:
    """Mutants of one kind by the name of the check that each must fail."""

    def __init__(self, case: Callable[..., Any]) -> None:
        self.case = case
        self.by_check: dict[str, list[tuple[Any, str]]] = defaultdict(list)

    def __call__(self, check: str, word: str, **options: Any):
        """Register a mutant: the check it must fail, a word of the message, its case's options."""

        def register(make):
            self.by_check[check].append((lambda: self.case(make, **options), word))
            return make

        return register


def merged(*mutants: Mutants) -> dict[str, list[tuple[Any, str]]]:
    """The mutants of several modules, by the name of the check."""
    together: dict[str, list[tuple[Any, str]]] = defaultdict(list)
    for some in mutants:
        for check, entries in some.by_check.items():
            together[check] += entries
    return dict(together)


def planted(checks: Iterable[Any], mutants: dict[str, list[tuple[Any, str]]], kind: str = ""):
    """Every mutant as a test parameter: (check, case, word)."""
    return [
        pytest.param(check, case, word, id=f"{kind}{check.__name__}-{i}")
        for check in checks
        for i, (case, word) in enumerate(mutants.get(check.__name__, []))
    ]


def with_parameter(space: ParameterSpace, **changes: Any) -> ParameterSpace:
    """The same parameters but for changes of the first."""
    first = space[0]
    return space.replace(**{first.name: replace(first, **changes)})


@contextlib.contextmanager
def undone() -> Iterator[None]:
    """Undo what mutants change on purpose."""
    path, environ, options = list(sys.path), dict(os.environ), np.get_printoptions()
    with preserve_state():
        yield
    sys.path[:] = path
    os.environ.clear()
    os.environ.update(environ)
    np.set_printoptions(**{k: v for k, v in options.items() if k != "override_repr"})
