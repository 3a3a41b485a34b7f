"""Reading the valid rows of a store by number, chunk by chunk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from sbi_physics.priors import Prior
from sbi_physics.store_arrays import LATENTS
from sbi_physics.store_index import ChunkEntry
from sbi_physics.types import AnyArray, BoolArray, IntArray

if TYPE_CHECKING:
    from sbi_physics.store import SimulationStore

_PREFIX = f"{LATENTS}/"


@dataclass(frozen=True, slots=True)
class Part:
    """The first `rows` rows of a committed chunk, or those of them that lie inside a prior."""

    entry: ChunkEntry
    rows: int
    within: Prior | None = None


class ValidRows:
    """The valid rows of some parts, numbered from 0.

    Args:
        store: Where they are.
        parts: In the order in which rows are numbered.
    """

    def __init__(self, store: SimulationStore, parts: Sequence[Part]) -> None:
        self._store, self._parts = store, tuple(parts)
        self._kept: dict[int, IntArray] = {}
        self._latest: dict[str, tuple[int, AnyArray]] = {}

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, name: str, index: IntArray) -> Any:
        """Read one array at some row numbers, in the order given; each chunk is read once."""
        if len(index) == 0:
            return self._empty(name)
        part_of = np.searchsorted(self._starts, index, side="right") - 1
        order = np.argsort(part_of, kind="stable")
        needed, firsts = np.unique(part_of[order], return_index=True)
        out: AnyArray | None = None
        for i, positions in zip(needed, np.split(order, firsts[1:]), strict=True):
            values = self._chunk(int(i), name)
            local = index[positions] - self._starts[i]
            if self._is_sparse(self._parts[i]):
                local = self.kept(int(i))[local]
            if out is None:
                out = np.empty((len(index), *values.shape[1:]), dtype=values.dtype)
            out[_span(positions)] = values[_span(local)]
        return out

    @cached_property
    def _starts(self) -> IntArray:
        """Number of valid rows before each part, and in total; shape (n_parts + 1,)."""
        counts = [
            len(self.kept(i)) if self._is_sparse(part) else part.rows
            for i, part in enumerate(self._parts)
        ]
        return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)

    def kept(self, i: int) -> IntArray:
        """Positions of the valid rows of part i."""
        if i not in self._kept:
            part = self._parts[i]
            valid = self._store.read(part.entry, "valid")[: part.rows].astype(np.bool_)
            self._kept[i] = np.flatnonzero(valid & self.inside(i))
        return self._kept[i]

    def inside(self, i: int) -> BoolArray:
        """Which rows of part i lie where the part looks, valid or not, shape (rows,)."""
        part = self._parts[i]
        if part.within is None:
            return np.ones(part.rows, dtype=np.bool_)
        theta = self._store.read(part.entry, "theta")[: part.rows]
        return part.within.contains(theta.astype(np.float64))

    @staticmethod
    def _is_sparse(part: Part) -> bool:
        return part.entry.invalid > 0 or part.within is not None

    def _chunk(self, i: int, name: str) -> AnyArray:
        """One array of the chunk behind part i; kept, as the next row is often in it too."""
        latest = self._latest.get(name)
        if latest is not None and latest[0] == i:
            return latest[1]
        entry = self._parts[i].entry
        if name == "weight" and not entry.weighted:
            return np.ones(entry.rows)
        values = self._store.read(entry, name)
        self._latest[name] = (i, values)
        return values

    def _empty(self, name: str) -> AnyArray:
        if name.startswith(_PREFIX):
            row, dtype = self._store.latent_layout(name.removeprefix(_PREFIX))
            return np.empty((0, *row), dtype=dtype)
        header = self._store.header
        rows = {"theta": (header.prior.d,), "x": tuple(header.observable.shape), "weight": ()}
        return np.empty((0, *rows[name]), dtype=np.float32 if name == "x" else np.float64)


def _span(index: IntArray) -> slice | IntArray:
    """The same rows as a slice where they are consecutive, which copies much faster."""
    consecutive: bool = bool((np.diff(index) == 1).all())
    return slice(int(index[0]), int(index[-1]) + 1) if consecutive else index
