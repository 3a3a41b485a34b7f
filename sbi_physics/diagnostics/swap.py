r"""Exact p-values by exchanging the truth with a draw (randomisation test).

If the posterior is exact, the truth and its L draws are exchangeable given the data. So for *any*
statistic T of (truth, draws, data), relabelling in every pair a uniformly chosen point as the
"truth" gives replicates with the law of the observed T, at finite N and L and without asymptotics.
The *same* relabelling is used for all statistics of a replicate, which keeps their dependence, so
that the smallest p-value of several tests can be calibrated without Bonferroni's loss.

Two conditions: draws are independent given the data, and every auxiliary input (references,
scalings, centres) is computed without knowing which point is the truth.

Replicate 0 is the observed labelling; it goes through the same code as the others.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from sbi_physics.diagnostics.ranks import rank_type
from sbi_physics.types import AnyArray, FloatArray

MIN_SWAPS: Final = 4999
_CHUNK_CELLS: Final = 200_000


def n_swaps(n_tests: int, alpha: float) -> int:
    """Return how many relabellings resolve a combined p-value of `alpha`.

    With K tests the smallest combined p-value that can occur is about K / B; a fifth of alpha is
    asked for.

    Examples:
        >>> n_swaps(8, 0.01), n_swaps(20, 0.01)
        (4999, 10000)
    """
    return max(MIN_SWAPS, math.ceil(round(5 * n_tests / alpha, 6)))


def swap_labels(n_pairs: int, n_points: int, swaps: int, rng: np.random.Generator) -> AnyArray:
    """Return which point is taken for the truth, by pair and replicate.

    Args:
        n_pairs: Number of pairs.
        n_points: Points of each pair that may be taken; point 0 is the truth.
        swaps: Number of relabellings.
        rng: Source of randomness.

    Returns:
        Shape (n_pairs, swaps + 1), uint16 where they fit; column 0 is all zeros.
    """
    labels = rng.integers(0, n_points, (n_pairs, swaps + 1), dtype=rank_type(n_points))
    labels[:, 0] = 0
    return labels


def rank_statistics(ranks: AnyArray, labels: AnyArray) -> FloatArray:
    r"""Return the Anderson-Darling statistic of the ranks of each replicate's "truths".

    With :math:`C_k` the number of ranks up to k, mid-rank scores :math:`s_k = (k + 1/2) / M` and M
    points, summation by parts turns

    .. math:: A^2 = -N - \frac1N \Big[\sum_k (C_k^2 - C_{k-1}^2) \ln s_k
              + \sum_k \big((N - C_{k-1})^2 - (N - C_k)^2\big) \ln (1 - s_k)\Big]

    into two scalar products with the cumulative histogram.

    Args:
        ranks: Rank of every point among its pair's points, shape (n_pairs, M), M at least 2.
        labels: From `swap_labels`, shape (n_pairs, replicates), each below M.

    Returns:
        Shape (replicates,).
    """
    n, m = ranks.shape
    replicates = labels.shape[1]
    score = np.log((np.arange(m) + 0.5) / m)
    below, above = score[:-1] - score[1:], score[::-1][1:] - score[::-1][:-1]
    result = np.empty(replicates)
    flat, first = ranks.ravel(), (np.arange(n) * m)[:, None]
    step = max(1, min(_CHUNK_CELLS // m, _CHUNK_CELLS // n))
    for start in range(0, replicates, step):
        points = labels[:, start : start + step] + first
        width = points.shape[1]
        cells = np.take(flat, points) + np.arange(width) * m
        counts = np.bincount(cells.ravel(), minlength=width * m).reshape(width, m)
        up_to = np.cumsum(counts[:, :-1], axis=1, dtype=np.float64)
        total = (up_to**2) @ below + ((n - up_to) ** 2) @ above + 2.0 * n**2 * score[-1]
        result[start : start + step] = -n - total / n
    return result


def own_p_values(statistics: FloatArray) -> FloatArray:
    """Return the fraction of replicates that deviate at least as much, for every replicate.

    Args:
        statistics: Shape (..., replicates); large = deviating.
    """
    # Single precision makes equal statistics equal that rounding errors would tell apart.
    values = statistics.astype(np.float32)
    ordered = np.sort(values, axis=-1)
    flat, flat_ordered = np.atleast_2d(values), np.atleast_2d(ordered)
    smaller = np.stack(
        [np.searchsorted(o, v, side="left") for o, v in zip(flat_ordered, flat, strict=True)]
    )
    p: FloatArray = 1.0 - smaller.reshape(values.shape) / values.shape[-1]
    return p


def min_p(statistics: FloatArray) -> float:
    """Return the p-value of the smallest p-value of several tests.

    Args:
        statistics: Shape (tests, replicates), replicate 0 observed; large = deviating.

    Returns:
        (1 + number of relabellings whose worst test is at least as extreme) / replicates.

    Examples:
        >>> min_p(np.array([[9.0, 1.0, 2.0, 3.0], [0.0, 5.0, 4.0, 6.0]]))
        0.5
    """
    worst = own_p_values(statistics).min(axis=0)
    return float(np.mean(worst <= worst[0] * (1.0 + 1e-12)))
