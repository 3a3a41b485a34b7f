r"""Exact bands for proportions and for a whole empirical distribution function.

The simultaneous band (arXiv:2103.10522) is the set of central binomial intervals at :math:`z_k = k
/ K` whose common level makes the *joint* coverage of all points equal to the requested one. The
joint probability is computed without
simulation: counts of `n` uniform points in equal cells are independent Poisson counts conditioned
    on their sum, so the
probability of staying inside the band is a sequence of convolutions, divided by the Poisson
probability of `n`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from scipy import special

from sbi_physics.errors import ValidationError
from sbi_physics.types import AnyArray, FloatArray, IntArray

MAX_POINTS = 100


@dataclass(frozen=True, slots=True, eq=False)
class Band:
    """A simultaneous band of an empirical distribution function of uniform numbers.

    Attributes:
        z: Positions, shape (points,).
        low: Lower edge of the fraction at or below z, shape (points,).
        high: Upper edge, shape (points,).
        coverage: Joint coverage actually reached (at least the requested one; counts are
            discrete).
    """

    z: FloatArray
    low: FloatArray
    high: FloatArray
    coverage: float


def clopper_pearson(
    successes: AnyArray, n: int, confidence: float = 0.95
) -> tuple[FloatArray, FloatArray]:
    """Return the exact central confidence interval of binomial proportions.

    Args:
        successes: Counts between 0 and n, any shape.
        n: Number of trials, at least 1.
        confidence: Confidence level.

    Returns:
        Lower and upper ends, same shape as `successes`.

    Examples:
        >>> low, high = clopper_pearson(np.array([90]), 100)
        >>> round(float(low[0]), 3), round(float(high[0]), 3)
        (0.824, 0.951)
    """
    k = np.asarray(successes, dtype=np.float64)
    if n < 1 or k.min(initial=0) < 0 or k.max(initial=0) > n:
        raise ValidationError(f"successes must lie between 0 and n = {n}, n at least 1")
    tail = (1.0 - confidence) / 2.0
    low = np.where(k > 0, special.betaincinv(np.maximum(k, 1), n - k + 1, tail), 0.0)
    high = np.where(k < n, special.betaincinv(k + 1, np.maximum(n - k, 1), 1.0 - tail), 1.0)
    return low, high


def ecdf_band(n: int, level: float = 0.95) -> Band:
    """Return a band that holds the whole distribution function of `n` uniform points.

    Args:
        n: Number of points, at least 1.
        level: Joint coverage.
    """
    critical, coverage = _critical_gamma(n, level)
    low, high = _edges(n, critical)
    points = min(n, MAX_POINTS)
    z = np.arange(1, points, dtype=np.float64) / points
    ends = np.array([0.0]), np.array([1.0])
    return Band(
        z=np.concatenate([ends[0], z, ends[1]]),
        low=np.concatenate([ends[0], low / n, ends[1]]),
        high=np.concatenate([ends[0], high / n, ends[1]]),
        coverage=coverage,
    )


def gamma_test(u: FloatArray) -> tuple[float, float]:
    """Test uniformity by the most extreme binomial tail probability of the distribution function.

    Args:
        u: Numbers in (0, 1), shape (n,).

    Returns:
        The statistic gamma (small = deviating) and its exact p-value.
    """
    n = len(u)
    points = min(n, MAX_POINTS)
    if points < 2:
        return 1.0, 1.0
    z = np.arange(1, points) / points
    counts = np.searchsorted(np.sort(u), z, side="right")
    lower = special.bdtr(counts, n, z)
    upper = np.where(counts > 0, special.bdtrc(np.maximum(counts - 1, 0), n, z), 1.0)
    gamma = float(min(1.0, 2.0 * np.minimum(lower, upper).min()))
    # The observed gamma itself counts as "at least as extreme": just above it lies the band
    # that excludes it.
    low, high = _edges(n, gamma * (1.0 + 1e-9))
    return gamma, float(np.clip(1.0 - _stay_probability(n, low, high), 0.0, 1.0))


@functools.lru_cache(maxsize=64)
def _critical_gamma(n: int, level: float) -> tuple[float, float]:
    if n < 1 or not 0.0 < level < 1.0:
        raise ValidationError(f"a band needs n >= 1 and 0 < level < 1, got n={n}, level={level:g}")
    if n < 2:
        return 1.0, 1.0
    # Bisection in log gamma for the widest pointwise tail probability that still reaches the
    # joint level.
    inside, outside = np.log(1e-12), 0.0
    coverage = _stay_probability(n, *_edges(n, float(np.exp(inside))))
    for _ in range(40):
        middle = 0.5 * (inside + outside)
        probability = _stay_probability(n, *_edges(n, float(np.exp(middle))))
        if probability >= level:
            inside, coverage = middle, probability
        else:
            outside = middle
    return float(np.exp(inside)), coverage


@functools.lru_cache(maxsize=4)
def _tails(n: int) -> tuple[FloatArray, FloatArray]:
    """P(X <= j) and P(X >= j) of Binomial(n, k/K) for j = 0..n, shape (K - 1, n + 1) each."""
    points = min(n, MAX_POINTS)
    z = (np.arange(1, points) / points)[:, None]
    j = np.arange(n + 1)[None, :]
    at_least = np.ones((points - 1, n + 1))
    at_least[:, 1:] = special.bdtrc(j[:, 1:] - 1, n, z)
    return special.bdtr(j, n, z), at_least


def _edges(n: int, gamma: float) -> tuple[IntArray, IntArray]:
    """Smallest and largest count at each z whose two tails both exceed gamma / 2."""
    at_most, at_least = _tails(n)
    low = (at_most <= gamma / 2.0).sum(axis=1)
    high = (at_least > gamma / 2.0).sum(axis=1) - 1
    return low.astype(np.int64), high.astype(np.int64)


def _stay_probability(n: int, low: IntArray, high: IntArray) -> float:
    """Probability that the counts of n uniform points at or below k/K stay in [low, high]."""
    if np.any(low > high):
        return 0.0
    rate = n / (len(low) + 1)
    counts = np.arange(n + 1)
    log_pmf = special.xlogy(counts, rate) - rate - special.gammaln(counts + 1)
    pmf = np.exp(log_pmf)
    mass, first = np.ones(1), 0
    for lo, hi in zip(low.tolist(), high.tolist(), strict=True):
        step = np.convolve(mass, pmf[: hi - first + 1])
        mass, first = (
            step[lo - first : hi - first + 1] if lo >= first else _pad(step, first - lo, hi - lo),
            lo,
        )
    remaining = n - (first + np.arange(len(mass)))
    total = float(np.sum(mass * pmf[remaining]))
    return float(total / np.exp(n * np.log(n) - n - special.gammaln(n + 1)))


def _pad(step: FloatArray, missing: int, width: int) -> FloatArray:
    return np.concatenate([np.zeros(missing), step])[: width + 1]
