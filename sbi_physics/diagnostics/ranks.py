r"""Probability integral transform of the truth among posterior draws (arXiv:1804.06788).

For a scalar quantity with value :math:`f^*` at the truth and :math:`f_1 \dots f_L` at independent
posterior draws,

.. math:: u = \frac{n_< + V\,(n_= + 1)}{L + 1}, \qquad V \sim \mathrm{Uniform}(0, 1),

with :math:`n_<` draws below the truth and :math:`n_=` ties. When the posterior is exact, :math:`u`
is *exactly* uniform for every :math:`L \ge 1`, ties included (:math:`V (n_= + 1)` is a uniformly
chosen position among the ties plus a uniform jitter inside the rank), so tests for continuous
uniformity hold without a condition on :math:`L`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sbi_physics.types import AnyArray, FloatArray, IntArray

_RESOLUTION = 1e-9


def rank_type(n_points: int) -> type[np.unsignedinteger]:
    """Smallest unsigned type that numbers `n_points` points."""
    return np.uint16 if n_points <= 2**16 else np.uint32


def pool_ranks(points: FloatArray, tie_breaker: Callable[[int], np.random.Generator]) -> AnyArray:
    """Return the rank of every point among all points of its row, ties in random order.

    Args:
        points: A scalar quantity at the truth and at the draws, shape (batch, point), without NaN.
        tie_breaker: Gives the generator of one row; asked only where a row has ties.

    Returns:
        Ranks 0 to point - 1, each once in a row, shape (batch, point), uint16 where they fit.

    Examples:
        >>> pool_ranks(np.array([[0.5, 0.1, 0.9]]), np.random.default_rng).tolist()
        [[1, 0, 2]]
    """
    n = points.shape[1]
    order = np.argsort(points, axis=1)
    ordered = np.take_along_axis(points, order, axis=1)
    for row in np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(axis=1)).tolist():
        order[row] = np.lexsort((tie_breaker(row).random(n), points[row]))
    ranks = np.empty(points.shape, dtype=rank_type(n))
    np.put_along_axis(ranks, order, np.arange(n, dtype=ranks.dtype)[None], axis=1)
    return ranks


def pit_from_ranks(ranks: AnyArray, n_points: int, jitter: FloatArray) -> FloatArray:
    """Return u in (0, 1) from the rank of the truth among `n_points` points (itself included).

    Args:
        ranks: Shape (batch,).
        n_points: Number of draws plus one.
        jitter: Independent uniform numbers in [0, 1), shape (batch,).
    """
    return _kept_inside((ranks.astype(np.float64) + jitter) / n_points)


def pit_values(
    truth: FloatArray, draws: FloatArray, jitter: FloatArray, weights: FloatArray | None = None
) -> FloatArray:
    """Return u in (0, 1) for one scalar quantity.

    Args:
        truth: Quantity at the true parameters, shape (batch,).
        draws: Quantity at the posterior draws, shape (batch, draw).
        jitter: Independent uniform numbers in [0, 1), shape (batch,).
        weights: Non-negative weights of the draws, shape (batch, draw). The result is then uniform
            only
            approximately: a mean weight stands in for the truth's own.

    Returns:
        Shape (batch,), rounded to 1e-9 and kept that far from 0 and 1; NaN where the truth or any
        draw is NaN.

    Examples:
        >>> pit_values(np.array([0.5]), np.array([[0.1, 0.2, 0.9]]), np.array([0.5]))
        array([0.625])
    """
    below = draws < truth[:, None]
    ties = draws == truth[:, None]
    if weights is None:
        n_below, n_ties = below.sum(axis=1, dtype=np.float64), ties.sum(axis=1, dtype=np.float64)
        u = (n_below + jitter * (n_ties + 1.0)) / (draws.shape[1] + 1.0)
    else:
        own = weights.mean(axis=1)
        tied = (weights * ties).sum(axis=1) + own
        u = ((weights * below).sum(axis=1) + jitter * tied) / (weights.sum(axis=1) + own)
    u = _kept_inside(u)
    missing = np.isnan(truth) | np.isnan(draws).any(axis=1)
    return np.where(missing, np.nan, u)


def effective_sample_size(weights: FloatArray) -> FloatArray:
    """Return (sum w)^2 / sum w^2 of weights with shape (batch, draw); 0 where all vanish."""
    total, squares = weights.sum(axis=1), (weights**2).sum(axis=1)
    ess: FloatArray = np.divide(total**2, squares, out=np.zeros_like(total), where=squares > 0)
    return ess


def resample(
    draws: FloatArray, weights: FloatArray, n_draws: int, rng: np.random.Generator
) -> tuple[FloatArray, IntArray]:
    """Turn weighted draws into equally weighted ones, with replacement.

    Only sensible when the effective sample size is several times `n_draws`: repeated draws are not
    independent.

    Args:
        draws: Shape (batch, draw, param).
        weights: Shape (batch, draw), with a positive sum in each row.
        n_draws: How many to return per observation.
        rng: Source of randomness.

    Returns:
        The draws, shape (batch, n_draws, param), and the positions they came from, shape (batch,
        n_draws).
    """
    cumulative = np.cumsum(weights, axis=1, dtype=np.float64)
    marks = rng.random((len(draws), n_draws)) * cumulative[:, -1:]
    picks = np.stack(
        [np.searchsorted(c, m, side="right") for c, m in zip(cumulative, marks, strict=True)]
    )
    picks = np.minimum(picks, draws.shape[1] - 1)
    return np.take_along_axis(draws, picks[:, :, None], axis=1), picks


def _kept_inside(u: FloatArray) -> FloatArray:
    inside: FloatArray = np.clip(np.round(u, 9), _RESOLUTION, 1.0 - _RESOLUTION)
    return inside
