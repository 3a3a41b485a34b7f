"""Samples of events that are reweighted to any coefficients: storing, drawing, counting."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from numba import njit
from numpy.typing import ArrayLike

from sbi_physics.errors import DataFileError, ObservationError
from sbi_physics.types import FloatArray, IntArray
from sbi_physics_smeft.conventions import ratio, unpack


@dataclass(frozen=True, eq=False)
class WeightedEvents:
    """Events whose cross section at any coefficients is known.

    Attributes:
        gram: Packed Gram matrices relative to theta = 0, shape (n, m).
        weight: Cross section of each event at theta = 0 in pb, shape (n,); the sum is that of
            the sample, with the branching ratios it was generated with.
        record: What was extracted from each event, shape (n, k).
    """

    gram: FloatArray
    weight: FloatArray
    record: FloatArray

    def __len__(self) -> int:
        return len(self.weight)

    def sigma_gram(self) -> FloatArray:
        """Cross section in pb as a quadratic in the coefficients, shape (d+1, d+1)."""
        return unpack(self.weight @ self.gram)

    def effective_size(self, theta: ArrayLike) -> float:
        """Number of equally weighted events that these are worth at theta of shape (d,)."""
        weight = self.weight * ratio(unpack(self.gram), theta)
        return float(weight.sum() ** 2 / (weight**2).sum())

    def draw(self, vectors: FloatArray, rng: np.random.Generator) -> IntArray:
        """Draw one event for each row, with replacement, with probability w v^T G v.

        Args:
            vectors: (1, theta) of each row, shape (n, d+1).
            rng: Source of randomness.

        Returns:
            Positions of the events, shape (n,).
        """
        gram, cumulative = self._tables
        root = np.sqrt(cumulative[:, -1])
        # A component that vanishes everywhere is never drawn from.
        per_root = np.divide(1.0, root, out=np.zeros_like(root), where=root > 0)
        bounds = np.abs(vectors) * (np.abs(vectors) @ root)[:, None] * per_root
        chosen = np.empty(len(vectors), dtype=np.int64)
        _resample(vectors, bounds, cumulative, gram, rng, chosen)
        return chosen

    @cached_property
    def _tables(self) -> tuple[FloatArray, FloatArray]:
        """Matrices, and running sums of each squared component, (d+1, n)."""
        gram = unpack(self.gram)
        squared = self.weight * np.einsum("naa->an", gram)
        return gram, np.ascontiguousarray(squared.cumsum(axis=1))

    def save(self, path: str | Path) -> None:
        """Write to an .npz file, which `load` reads a thousand times faster than an LHE file."""
        with Path(path).open("wb") as file:
            np.savez(file, gram=self.gram, weight=self.weight, record=self.record)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` has written.

        Raises:
            DataFileError: If there is no such file.
            ObservationError: If it holds something else.
        """
        if not Path(path).is_file():
            raise DataFileError(f"no events at {path}")
        with np.load(path, allow_pickle=False) as data:
            missing = [name for name in ("gram", "weight", "record") if name not in data.files]
            if missing:
                raise ObservationError(f"{path} has no array {', '.join(missing)}: not events")
            return cls(data["gram"], data["weight"], data["record"])


@njit(cache=True, nogil=True)
def _resample(
    vectors: np.ndarray,
    bounds: np.ndarray,
    cumulative: np.ndarray,
    gram: np.ndarray,
    rng: np.random.Generator,
    chosen: np.ndarray,
) -> None:
    """Draw events with probability w v^T G v, by rejection from the squared components.

    The bound is that of `phase_space`: v^T G v <= sum_a bounds_a G_aa.
    """
    size = vectors.shape[1]
    share = np.empty(size)
    for n in range(len(vectors)):
        total = 0.0
        for a in range(size):
            total += bounds[n, a] * cumulative[a, -1]
            share[a] = total
        while True:
            a = min(np.searchsorted(share, rng.random() * total, side="right"), size - 1)
            target = rng.random() * cumulative[a, -1]
            k = min(np.searchsorted(cumulative[a], target, side="right"), len(gram) - 1)
            value = bound = 0.0
            for i in range(size):
                bound += bounds[n, i] * gram[k, i, i]
                for j in range(size):
                    value += vectors[n, i] * gram[k, i, j] * vectors[n, j]
            if rng.random() * bound < value:
                chosen[n] = k
                break
