"""The kit tests itself: every check of a posterior or an engine has mutants that it must catch.

A mutant is the exact posterior, or the exact engine, with one planted defect, registered with the
check that must fail on it and a word that the message must contain: `sample_mutants_*.py`.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from sample_mutants import planted, undone
from sample_mutants_engines import Recording, engine_mutant
from sample_mutants_posteriors import posterior_mutant

from sbi_physics.errors import ConformanceError
from sbi_physics.testing import (
    ENGINE_CHECKS,
    POSTERIOR_CHECKS,
    EngineCase,
    ExactEngine,
    NotApplicable,
)
from sbi_physics.testing.kit import run

CHECKS = {"posterior": POSTERIOR_CHECKS, "engine": ENGINE_CHECKS}
MUTANTS = {"posterior": posterior_mutant.by_check, "engine": engine_mutant.by_check}
PLANTED = [
    parameter
    for kind, checks in CHECKS.items()
    for parameter in planted(checks, MUTANTS[kind], f"{kind}-")
]


@pytest.fixture(autouse=True)
def restored(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with undone():
        yield
    logging.getLogger("toy.trainer").handlers.clear()


@pytest.mark.parametrize(("check", "case", "word"), PLANTED)
def test_the_mutant_is_caught(check, case, word):
    with pytest.raises(ConformanceError) as caught:
        run(check, case())
    assert word in str(caught.value)


@pytest.mark.parametrize("kind", CHECKS)
def test_every_check_has_a_mutant(kind):
    names = {check.__name__ for check in CHECKS[kind]}
    tested = set(MUTANTS[kind])
    if kind == "engine":
        tested.add("plugin_module_is_light")  # test_testing_mutants_plugin.py
    assert names - tested == set(), "checks without a mutant prove nothing"
    assert tested - names == set(), "mutants of checks that do not exist"


def test_an_engine_with_epochs_passes_what_the_exact_one_skips():
    case = EngineCase(Recording)
    by_name = {check.__name__: check for check in ENGINE_CHECKS}
    for name in ("history_is_kept", "can_be_cancelled", "same_seed_same_fit"):
        run(by_name[name], case)


def test_refusing_unsupported_data_with_the_reason_passes():
    class NoImages(ExactEngine):
        def supports(self, observable):
            return "too many pixels" if observable.kind == "image" else None

    by_name = {check.__name__: check for check in ENGINE_CHECKS}
    run(by_name["unsupported_data_are_refused"], EngineCase(NoImages))
    with pytest.raises(NotApplicable, match="too many pixels"):
        run(by_name["accurate_on_images"], EngineCase(NoImages))
