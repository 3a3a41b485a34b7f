r"""Tests of uniformity of probability integral transforms, and effect sizes.

Anderson-Darling weighs the tails, where over- and under-confidence show. Its p-value is that of
the limit law
:math:`A^2_\infty = \sum_j Z_j^2 / (j (j + 1))`, evaluated to about 1e-12 by Smirnov's formula for
quadratic forms,

.. math:: P(A^2 > z) = \frac1\pi \sum_{k \ge 1} (-1)^{k+1} \int_{\alpha_{2k-1}}^{\alpha_{2k}}
          \frac{e^{-t z / 2}}{t \sqrt{|D(t)|}} \, dt, \qquad
          D(t) = -\frac{\cos(\tfrac{\pi}{2} \sqrt{1 + 4 t})}{\pi t}, \quad \alpha_j = j (j + 1).

The statistic approaches its limit fast: see `anderson_darling` for the measured error at finite n.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from sbi_physics.errors import ValidationError
from sbi_physics.types import FloatArray

Z95 = float(special.ndtri(0.975))


@dataclass(frozen=True, slots=True)
class LocationScale:
    """Normal scores g = Phi^-1(u), summarised.

    Attributes:
        location: Mean of g: bias in posterior standard deviations; positive when the truth lies
            above the draws.
        location_interval: Its 95 % interval.
        width: Standard deviation of g: true over claimed width; above 1 = over-confident.
        width_interval: Its 95 % interval.
        statistic: n mean^2 + (sum g^2 - n)^2 / (2 n), chi-squared with two degrees of freedom when
            u is uniform.
        p_value: Upper tail probability of the statistic.
    """

    location: float
    location_interval: tuple[float, float]
    width: float
    width_interval: tuple[float, float]
    statistic: float
    p_value: float


def anderson_darling(u: FloatArray) -> tuple[float, float]:
    """Test uniformity by the Anderson-Darling statistic.

    Args:
        u: Numbers in (0, 1), shape (n,).

    Returns:
        The statistic and its p-value. The p-value uses the limit law; measured on 2 to 4 million
        samples, its error at p = 0.05 and 0.01 is below 0.0003 for n = 100 and below 0.0013 and
        0.0006 for n = 10.

    Examples:
        >>> statistic, p = anderson_darling((np.arange(100) + 0.5) / 100)
        >>> p > 0.999
        True
    """
    ordered = np.sort(_checked(u))
    n = len(ordered)
    odd = 2.0 * np.arange(1, n + 1) - 1.0
    statistic = -n - float(np.mean(odd * (np.log(ordered) + np.log1p(-ordered[::-1]))))
    return statistic, anderson_darling_tail(statistic)


def anderson_darling_tail(statistic: float) -> float:
    """Return P(A^2 > statistic) of the limit law, with relative precision in the tail."""
    if math.isnan(statistic):
        raise ValidationError("the Anderson-Darling statistic is not a number")
    # Below this the alternating series would need many terms, and the tail probability is 1
    # to 1e-12.
    if statistic < 0.04:
        return 1.0
    t, weight = _smirnov_nodes()
    return float(np.clip(np.sum(weight * np.exp(-0.5 * t * statistic)), 0.0, 1.0))


@functools.lru_cache(maxsize=1)
def _smirnov_nodes(intervals: int = 40, order: int = 64) -> tuple[FloatArray, FloatArray]:
    # Gauss-Chebyshev quadrature takes care of the inverse square roots at both ends of each
    # interval.
    k = np.arange(1, intervals + 1)[:, None]
    low, high = (2 * k - 1) * (2 * k), (2 * k) * (2 * k + 1)
    cosine = np.cos((np.arange(order) + 0.5) * np.pi / order)[None, :]
    half = 0.5 * (high - low)
    t = 0.5 * (high + low) + half * cosine
    regular = (
        half
        * np.sqrt(1.0 - cosine**2)
        * np.sqrt(np.pi / (t * np.abs(np.cos(0.5 * np.pi * np.sqrt(1.0 + 4.0 * t)))))
    )
    sign = np.where(k % 2 == 1, 1.0, -1.0)
    return t.ravel(), (sign * regular / order).ravel()


def under_coverage(credibility: FloatArray) -> tuple[float, float]:
    r"""Test whether regions hold the truth less often than they claim (Fisher's method).

    Under exactness :math:`-2 \sum \ln(1 - c)` is chi-squared with 2n degrees of freedom; a
    conservative posterior makes it stochastically smaller, so the level holds for all of them. It
    weighs regions of high credibility most, of which limits are made.

    Args:
        credibility: Credibility of the region that just contains the truth, in (0, 1), shape (n,).

    Returns:
        The statistic divided by 2 n (1 for an exact posterior) and its upper-tail p-value.
    """
    c = _checked(credibility)
    total = -float(np.sum(np.log1p(-c)))
    return total / len(c), float(special.gammaincc(len(c), total))


def kolmogorov_smirnov(u: FloatArray) -> tuple[float, float]:
    """Return the largest distance from the diagonal and its exact p-value."""
    from scipy.stats import kstwo

    distance = max_distance(u)[0]
    return distance, float(kstwo.sf(distance, len(u)))


def max_distance(u: FloatArray) -> tuple[float, float]:
    """Return the largest |F(z) - z| of the distribution function of `u`, and where it is."""
    ordered = np.sort(_checked(u))
    n = len(ordered)
    above = np.arange(1, n + 1) / n - ordered
    below = ordered - np.arange(n) / n
    largest = np.maximum(above, below)
    at = int(np.argmax(largest))
    return float(largest[at]), float(ordered[at])


def location_scale(u: FloatArray) -> LocationScale:
    """Return bias and width effects of `u` with 95 % intervals, and the chi-squared test of both.

    Intervals use the sample's own second and fourth moments, so that they also hold away from
    uniformity.

    Args:
        u: Numbers in (0, 1), shape (n,), n at least 2.
    """
    g = special.ndtri(_checked(u))
    n = len(g)
    if n < 2:
        raise ValidationError("effect sizes need at least 2 values")
    mean, centred = float(g.mean()), g - g.mean()
    width = float(np.sqrt(np.sum(centred**2) / (n - 1)))
    if width > 0.0:
        kurtosis = float(np.mean(centred**4) / np.mean(centred**2) ** 2)
        spread = Z95 * math.sqrt(max(kurtosis - 1.0, 0.0) / (4.0 * n))
    else:
        spread = 0.0
    error = Z95 * width / math.sqrt(n)
    statistic = n * mean**2 + (float(np.sum(g**2)) - n) ** 2 / (2.0 * n)
    return LocationScale(
        location=mean,
        location_interval=(mean - error, mean + error),
        width=width,
        width_interval=(width * math.exp(-spread), width * math.exp(spread)),
        statistic=statistic,
        p_value=float(special.chdtrc(2.0, statistic)),
    )


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return Holm-adjusted p-values; the smallest is the Bonferroni p-value of all.

    Examples:
        >>> holm([0.01, 0.04, 0.03])
        (0.03, 0.06, 0.06)
    """
    order = np.argsort(np.asarray(p_values), kind="stable")
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for position, index in enumerate(order.tolist()):
        running = max(running, min(1.0, (len(p_values) - position) * p_values[index]))
        adjusted[index] = running
    return tuple(adjusted)


def _checked(u: FloatArray) -> FloatArray:
    if u.ndim != 1 or len(u) == 0:
        raise ValidationError(
            f"uniformity needs a non-empty one-dimensional array, got shape {u.shape}"
        )
    if not (np.all(u > 0.0) and np.all(u < 1.0)):
        raise ValidationError("uniformity needs finite numbers strictly between 0 and 1")
    return u
