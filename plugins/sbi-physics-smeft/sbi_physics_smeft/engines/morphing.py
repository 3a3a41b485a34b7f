r"""Morphing: a quadratic from its values at basis points (arXiv:1805.00013).

With B points for B monomials m, :math:`M_{bk} = m_k(\theta_b)`,

.. math:: d\sigma(\theta) = \sum_b w_b(\theta)\, d\sigma(\theta_b), \qquad
          w(\theta) = M^{-T} m(\theta),

and errors of the basis ratios are amplified by :math:`\sum_b |w_b|`. Everything is computed in
parameters divided by the size of the points, which conditions M a hundred times better.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from sbi_physics import Prior
from sbi_physics.errors import ContractError
from sbi_physics.likelihood.gram import monomials, n_packed
from sbi_physics.types import BoolArray, FloatArray

_TRIALS = 200
_POINTS = 512


@dataclass(frozen=True, eq=False)
class MorphingBasis:
    """Basis points of a quadratic.

    Attributes:
        points: Shape (B, d); the first is usually zero.
        active: Which monomials the quadratic has, shape (entries,); those that vanish need no
            basis points.

    Raises:
        ContractError: If the points do not determine the quadratic.
    """

    points: FloatArray
    active: BoolArray

    def __post_init__(self) -> None:
        needed, b = int(self.active.sum()), len(self.points)
        if b != needed:
            raise ContractError(
                f"a quadratic with {needed} monomials needs {needed} basis points, zero included, "
                f"got {b}"
            )
        if np.linalg.matrix_rank(self.matrix) < needed:
            raise ContractError(
                f"the {b} basis points do not determine the quadratic: {self.points.tolist()}"
            )

    @classmethod
    def of(cls, points: ArrayLike, active: BoolArray | None = None) -> MorphingBasis:
        """Make a basis of points, shape (B, d), of all monomials unless told otherwise."""
        values = np.asarray(points, dtype=np.float64)
        every = np.ones(n_packed(values.shape[1]), dtype=np.bool_)
        return cls(values, every if active is None else active)

    @cached_property
    def scale(self) -> FloatArray:
        """Largest size of each parameter among the points, shape (d,)."""
        largest = np.abs(self.points).max(axis=0)
        return np.where(largest > 0, largest, 1.0)

    @cached_property
    def matrix(self) -> FloatArray:
        """Monomials of the points in scaled parameters, shape (B, B)."""
        matrix: FloatArray = monomials(self.points / self.scale)[:, self.active]
        return matrix

    @property
    def condition(self) -> float:
        """Condition number of the matrix in scaled parameters."""
        return float(np.linalg.cond(self.matrix))

    def weights(self, theta: ArrayLike) -> FloatArray:
        """Return w(theta), shape (..., B), at points (..., d)."""
        m = monomials(np.asarray(theta, dtype=np.float64) / self.scale)[..., self.active]
        return np.asarray(np.linalg.solve(self.matrix.T, m[..., None])[..., 0], np.float64)

    def amplification(self, theta: ArrayLike) -> FloatArray:
        """Return sum_b |w_b(theta)|, shape (...)."""
        total: FloatArray = np.abs(self.weights(theta)).sum(axis=-1)
        return total

    def gram(self, values: ArrayLike) -> FloatArray:
        """Return packed matrices, shape (..., entries), from values (..., B) at the points."""
        solved = np.linalg.solve(self.matrix, np.asarray(values, np.float64)[..., None])[..., 0]
        unit = monomials(self.scale) / monomials(np.ones_like(self.scale))
        packed = np.zeros((*solved.shape[:-1], len(self.active)))
        packed[..., self.active] = solved / unit[self.active]
        return packed


def optimise_basis(
    prior: Prior, rng: np.random.Generator, *, trials: int = _TRIALS
) -> MorphingBasis:
    r"""Choose basis points that amplify errors least over a prior.

    Random sets of prior points, zero always among them, are compared by
    :math:`E_\theta[\sum_b w_b^2]`.

    Args:
        prior: The region of interest.
        rng: Source of randomness.
        trials: Number of sets.
    """
    d = prior.d
    theta = prior.quasi_sample(_POINTS, rng)
    best: MorphingBasis | None = None
    lowest = np.inf
    for _ in range(trials):
        points = np.concatenate([np.zeros((1, d)), prior.sample(n_packed(d) - 1, rng)])
        try:
            basis = MorphingBasis.of(points)
        except ContractError:  # a degenerate set
            continue
        value = float((basis.weights(theta) ** 2).sum(axis=1).mean())
        if value < lowest:
            best, lowest = basis, value
    if best is None:
        raise ContractError(f"none of {trials} random sets of points is a basis")
    return best
