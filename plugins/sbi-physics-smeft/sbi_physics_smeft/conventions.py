r"""How a quadratic dependence on Wilson coefficients is written down.

With one insertion in each amplitude a differential cross section is exactly quadratic,

.. math:: \frac{d\sigma(z|\theta)}{d\sigma(z|0)} = v^T G(z)\, v, \qquad
    v = (1, \theta_1, \dots, \theta_d), \qquad G_{00} = 1,

with the Gram matrix :math:`G_{ab} = \mathrm{Re} \sum M_a^* M_b / \sum |M_0|^2`, symmetric and
positive semidefinite (arXiv:2410.07315, section 2). Three sets of numbers say the same:

============================ ================================================================
Gram matrix                  :math:`v^T G v`; what is stored
polynomial coefficients      :math:`\sum_k c_k m_k`: :math:`c_i = 2 G_{0i}, c_{ii} = G_{ii},
                             c_{ij} = 2 G_{ij}` for :math:`i < j`
derivatives at zero          :math:`R_i = 2 G_{0i}, R_{ij} = 2 G_{ij}`, also for :math:`i = j`
============================ ================================================================

The packed order of all three is the upper triangle, row by row: 00, 01, .., 0d, 11, 12, .., dd.
Packing and factors are those of `sbi_physics.likelihood.gram`; here are whole matrices.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from sbi_physics.errors import ContractError
from sbi_physics.likelihood import gram as packed
from sbi_physics.likelihood.gram import pack, unpack
from sbi_physics.types import FloatArray

__all__ = [
    "derivatives",
    "gram_from_derivatives",
    "gram_from_polynomial",
    "gram_from_weights",
    "monomials",
    "pack",
    "polynomial",
    "ratio",
    "sampling_ratio",
    "unpack",
    "vector",
]


def vector(theta: ArrayLike) -> FloatArray:
    """Return (1, theta), shape (..., d+1), for coefficients of shape (..., d)."""
    points = np.asarray(theta, dtype=np.float64)
    return np.concatenate([np.ones((*points.shape[:-1], 1)), points], axis=-1)


def ratio(gram: ArrayLike, theta: ArrayLike) -> FloatArray:
    """Cross section relative to theta = 0, v^T G v.

    Args:
        gram: Gram matrices, shape (..., d+1, d+1).
        theta: One point, shape (d,), or several, shape (k, d).

    Returns:
        Shape (...) for one point, (..., k) for several.

    Raises:
        ContractError: If the numbers of coefficients disagree.
    """
    matrices, v = np.asarray(gram, dtype=np.float64), vector(theta)
    if matrices.shape[-1] != v.shape[-1]:
        raise ContractError(
            f"the Gram matrices are of {matrices.shape[-1] - 1} coefficients, theta has "
            f"{v.shape[-1] - 1}"
        )
    if v.ndim == 1:
        return np.asarray((matrices @ v) @ v)
    return np.asarray(((matrices @ v.T) * v.T).sum(axis=-2))


def monomials(theta: ArrayLike) -> FloatArray:
    """1, theta_i and theta_i theta_j (i <= j) in packed order, shape (..., m)."""
    return packed.gram_from_polynomial(packed.monomials(theta))


def polynomial(gram: ArrayLike) -> FloatArray:
    """Coefficients c of shape (..., m) with ``(c * monomials(theta)).sum(-1)`` = v^T G v."""
    return packed.gram_to_polynomial(pack(gram))


def gram_from_polynomial(coefficients: ArrayLike) -> FloatArray:
    """Gram matrices, shape (..., d+1, d+1), from polynomial coefficients of shape (..., m)."""
    return unpack(packed.gram_from_polynomial(coefficients))


def derivatives(gram: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """First and second derivatives of v^T G v at theta = 0, shapes (..., d) and (..., d, d)."""
    matrices = np.asarray(gram, dtype=np.float64)
    return 2.0 * matrices[..., 0, 1:], 2.0 * matrices[..., 1:, 1:]


def gram_from_derivatives(first: ArrayLike, second: ArrayLike) -> FloatArray:
    """Gram matrices with G_00 = 1 from derivatives of shapes (..., d) and (..., d, d)."""
    slope, curvature = np.asarray(first, np.float64), np.asarray(second, np.float64)
    size = slope.shape[-1] + 1
    gram = np.ones((*slope.shape[:-1], size, size))
    gram[..., 0, 1:] = gram[..., 1:, 0] = slope / 2.0
    gram[..., 1:, 1:] = curvature / 2.0
    return gram


def gram_from_weights(weights: ArrayLike, basis: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Solve for the Gram matrices behind event weights at several points.

    Args:
        weights: Weights divided by that of theta = 0, shape (n, B).
        basis: The B points, shape (B, d).

    Returns:
        Gram matrices, shape (n, d+1, d+1), and the largest residual of each event relative to its
        largest weight, shape (n,): zero up to rounding where B is the number of monomials;
        otherwise it tells whether the weights are quadratic at all.

    Raises:
        ContractError: If the points do not determine the coefficients.
    """
    values = np.asarray(weights, dtype=np.float64)
    points = np.asarray(basis, dtype=np.float64)
    if values.ndim != 2 or points.ndim != 2 or values.shape[1] != len(points):
        raise ContractError(
            f"weights of shape {values.shape} do not belong to basis points of shape "
            f"{points.shape}; expected (n, B) and (B, d)"
        )
    scale = np.abs(points).max(axis=0)
    if not (scale > 0).all():
        raise ContractError("every coefficient must differ from zero in some basis point")
    # In units of the largest value the system is conditioned a hundred times better.
    matrix = monomials(points / scale)
    needed = matrix.shape[1]
    rank = int(np.linalg.matrix_rank(matrix))
    if rank < needed:
        raise ContractError(
            f"{len(points)} basis points of rank {rank} do not determine the {needed} "
            f"coefficients of a quadratic in {points.shape[1]} parameters"
        )
    coefficients = values @ np.linalg.pinv(matrix).T
    largest = np.maximum(np.abs(values).max(axis=1), np.finfo(np.float64).tiny)
    residual = np.abs(coefficients @ matrix.T - values).max(axis=1) / largest
    return gram_from_polynomial(coefficients / monomials(scale)), residual


def sampling_ratio(gram: ArrayLike, matrix: ArrayLike) -> FloatArray:
    """Density an event was drawn from relative to theta = 0, q(z)/p(z|0) = tr(M G).

    Args:
        gram: Gram matrices, shape (..., d+1, d+1).
        matrix: M of the sample, shape (d+1, d+1), see `EftSimulator.sampling_matrix`.
    """
    return np.asarray(
        (np.asarray(gram, np.float64) * np.asarray(matrix, np.float64)).sum(axis=(-2, -1))
    )
