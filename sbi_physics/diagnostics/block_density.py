r"""Highest-density ranks of a block of parameters from draws of the joint posterior.

The marginal density of a block is estimated by a Gaussian kernel estimate on *one part* of the
draws; truth and the *other part* are ranked by it. The estimate depends on the data and on draws
that are not ranked, never on the truth, so the ranks of an exact posterior are exactly uniform
however rough the estimate is; roughness only makes the region a little larger than the true
highest-density region.
"""

from __future__ import annotations

import numpy as np

from sbi_physics.types import AnyArray, FloatArray

MAX_CENTRES = 250
_CHUNK_VALUES = 4_000_000


def n_centres(n_draws: int) -> int:
    """How many of `n_draws` draws carry kernels: a quarter, at most 250."""
    return max(1, min(MAX_CENTRES, n_draws // 4))


def kernel_log_density(centres: AnyArray, points: AnyArray) -> FloatArray:
    """Return the log of a Gaussian kernel density estimate, up to a constant for each observation.

    The kernel has the covariance of the centres times Scott's factor squared, m^(-1 / (d + 4)).

    Args:
        centres: Draws carrying a kernel, shape (batch, centre, param).
        points: Where to evaluate, shape (batch, point, param).

    Returns:
        Shape (batch, point). Directions in which the centres do not vary are ignored.
    """
    n, m, d = centres.shape
    mean = centres.mean(axis=1, keepdims=True, dtype=np.float64)
    shifted = centres - mean
    covariance = np.einsum("bmi,bmj->bij", shifted, shifted) / m
    values, vectors = np.linalg.eigh(covariance)
    scale = values.max(axis=1, initial=0.0)[:, None]
    # Rescaling by an exactly singular covariance would blow up rounding errors; drop those
    # directions instead.
    used = values > 1e-12 * scale
    inverse = np.where(used, 1.0 / np.sqrt(np.where(used, values, 1.0)), 0.0) * m ** (
        1.0 / (d + 4)
    )
    white = vectors * inverse[:, None, :]
    a = np.einsum("bmi,bij->bmj", shifted, white).astype(np.float32)
    b = np.einsum("bki,bij->bkj", points - mean, white).astype(np.float32)
    result = np.empty(b.shape[:2], dtype=np.float64)
    step = max(1, _CHUNK_VALUES // (m * b.shape[1]))
    for start in range(0, n, step):
        rows = slice(start, start + step)
        cross = b[rows] @ a[rows].transpose(0, 2, 1)
        exponent = cross - 0.5 * (a[rows] ** 2).sum(axis=2)[:, None, :]
        largest = exponent.max(axis=2, keepdims=True)
        np.exp(exponent - largest, out=exponent)
        total = np.log(exponent.sum(axis=2, dtype=np.float64)) + largest[..., 0]
        result[rows] = total - 0.5 * (b[rows].astype(np.float64) ** 2).sum(axis=2)
    return result
