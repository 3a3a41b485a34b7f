r"""Quadratic dependence on parameters, as a symmetric matrix for each event.

Amplitudes linear in :math:`\theta` make an intensity exactly quadratic,

.. math:: \frac{\lambda(x|\theta)}{\lambda(x|0)} = v^T G(x)\, v, \qquad
          v = (1, \theta_1, \dots, \theta_d),

with G symmetric and positive semidefinite. A *packed* matrix is its upper triangle, in the order
:math:`G_{00}, G_{01}, \dots, G_{0d}, G_{11}, \dots`, off-diagonal entries stored as they are.

Three conventions are in use, and a factor of two between them is the classic mistake:

- Gram (here): :math:`v^T G v`;
- polynomial: :math:`1 + \sum_i c_i\theta_i + \sum_{i \le j} c_{ij}\theta_i\theta_j` with
  :math:`c_i = 2G_{0i}`, :math:`c_{ii} = G_{ii}`, :math:`c_{ij} = 2G_{ij}`;
- derivatives at zero: :math:`1 + \sum_i R_i\theta_i + \frac12\sum_{ij} R_{ij}\theta_i\theta_j`
  with :math:`R_i = 2G_{0i}`, :math:`R_{ij} = 2G_{ij}`.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from sbi_physics.errors import ContractError
from sbi_physics.types import FloatArray, IntArray

AnyFrozen = TypeVar("AnyFrozen", bound=np.ndarray[Any, Any])


def n_packed(d: int) -> int:
    """Entries of a packed matrix for `d` parameters: 1 + d + d (d + 1) / 2."""
    return (d + 1) * (d + 2) // 2


def n_parameters(packed: int) -> int:
    """Number of parameters of a packed matrix.

    Raises:
        ContractError: If no number of parameters has so many entries.
    """
    d = (math.isqrt(8 * packed + 1) - 3) // 2
    if d < 1 or n_packed(d) != packed:
        raise ContractError(
            f"{packed} entries are no packed matrix: 1, 2, 3 parameters have 3, 6, 10 entries"
        )
    return d


@lru_cache
def triangle(d: int) -> tuple[IntArray, IntArray]:
    """Rows and columns of the packed entries, read-only."""
    rows, columns = np.triu_indices(d + 1)
    return _frozen(rows.astype(np.int64)), _frozen(columns.astype(np.int64))


def pack(gram: ArrayLike) -> FloatArray:
    """Pack symmetric matrices, shape (..., d + 1, d + 1), to shape (..., entries).

    Raises:
        ContractError: If the last axes are not square or the matrices not symmetric (to 1e-6 of
            the largest entry).
    """
    matrix = np.asarray(gram, dtype=np.float64)
    if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2] or matrix.shape[-1] < 2:
        raise ContractError(f"Gram matrices must be (..., d + 1, d + 1), got {matrix.shape}")
    difference = np.abs(matrix - np.swapaxes(matrix, -1, -2)).max(initial=0.0)
    if difference > 1e-6 * np.abs(matrix).max(initial=0.0):
        raise ContractError(f"Gram matrices must be symmetric; entries differ by {difference:.3g}")
    rows, columns = triangle(matrix.shape[-1] - 1)
    packed: FloatArray = matrix[..., rows, columns]
    return packed


def unpack(packed: ArrayLike) -> FloatArray:
    """Return symmetric matrices, shape (..., d + 1, d + 1), of packed ones (..., entries)."""
    values = np.asarray(packed, dtype=np.float64)
    d = n_parameters(values.shape[-1])
    rows, columns = triangle(d)
    matrix = np.empty((*values.shape[:-1], d + 1, d + 1))
    matrix[..., rows, columns] = values
    matrix[..., columns, rows] = values
    return matrix


def monomials(theta: ArrayLike) -> FloatArray:
    """Return m with v^T G v = m . packed G, shape (..., entries), of theta (..., d)."""
    points = np.asarray(theta, dtype=np.float64)
    v = _with_one(points)
    rows, columns = triangle(points.shape[-1])
    product: FloatArray = _multiplicity(points.shape[-1]) * v[..., rows] * v[..., columns]
    return product


def monomial_slopes(theta: ArrayLike) -> FloatArray:
    """Return the derivatives of `monomials`, shape (..., entries, d), of theta (..., d)."""
    points = np.asarray(theta, dtype=np.float64)
    slopes: FloatArray = _slope_tensor(points.shape[-1]) @ _with_one(points)[..., None, :, None]
    return slopes[..., 0]


def _with_one(points: FloatArray) -> FloatArray:
    v = np.ones((*points.shape[:-1], points.shape[-1] + 1))
    v[..., 1:] = points
    return v


@lru_cache
def _multiplicity(d: int) -> FloatArray:
    """How often each packed entry occurs in the full matrix, read-only."""
    rows, columns = triangle(d)
    return _frozen(np.where(rows == columns, 1.0, 2.0))


@lru_cache
def _slope_tensor(d: int) -> FloatArray:
    """Derivatives of the monomials as a linear map of v, shape (entries, d, d + 1), read-only."""
    rows, columns = triangle(d)
    tensor = np.zeros((len(rows), d, d + 1))
    for k, (a, b) in enumerate(zip(rows, columns, strict=True)):
        if a > 0:
            tensor[k, a - 1, b] += 1.0
        if b > 0:
            tensor[k, b - 1, a] += 1.0
    return _frozen(tensor * _multiplicity(d)[:, None, None])


def _frozen(values: AnyFrozen) -> AnyFrozen:
    values.setflags(write=False)
    return values


def background_gram(n: int, d: int) -> FloatArray:
    """Packed matrices, shape (n, entries), of events that no parameter changes: only G_00 = 1."""
    packed = np.zeros((n, n_packed(d)))
    packed[:, 0] = 1.0
    return packed


def gram_to_polynomial(packed: ArrayLike) -> FloatArray:
    """Return polynomial coefficients, c_00 first, in the order of the packed entries."""
    values = np.asarray(packed, dtype=np.float64)
    coefficients: FloatArray = values * _multiplicity(n_parameters(values.shape[-1]))
    return coefficients


def gram_from_polynomial(coefficients: ArrayLike) -> FloatArray:
    """Inverse of `gram_to_polynomial`."""
    values = np.asarray(coefficients, dtype=np.float64)
    packed: FloatArray = values / _multiplicity(n_parameters(values.shape[-1]))
    return packed


def gram_to_derivatives(packed: ArrayLike) -> FloatArray:
    """Return the value, R_i and R_ij (i <= j) at zero, in the order of the packed entries."""
    values = np.asarray(packed, dtype=np.float64)
    rows, columns = triangle(n_parameters(values.shape[-1]))
    derivatives: FloatArray = values * np.where(rows + columns == 0, 1.0, 2.0)
    return derivatives
