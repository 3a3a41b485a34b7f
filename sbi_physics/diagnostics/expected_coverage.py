r"""Expected coverage of highest-posterior-density regions (arXiv:2110.06581).

The credibility of the smallest highest-density region that contains the truth is :math:`c = 1 -
u(\log q)`, the fraction of draws with a larger density than the truth. The expected coverage at
level :math:`\gamma` is
:math:`\mathrm{ECP}(\gamma) = \mathrm{mean}(c \le \gamma)`; an exact posterior has ECP = gamma.
ECP above gamma means conservative, below means over-confident.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import special

from sbi_physics.diagnostics.bands import clopper_pearson
from sbi_physics.diagnostics.uniformity import Z95, max_distance
from sbi_physics.types import FloatArray

LEVELS: FloatArray = np.linspace(0.0, 1.0, 201)
"""Grid of credibilities on which curves are stored."""

TABLE_LEVELS = (0.383, 0.683, 0.90, 0.954)
"""Levels quoted in tables: 0.5, 1, 1.645 and 2 sigma of a normal distribution, by convention."""


@dataclass(frozen=True, slots=True, eq=False)
class CoverageCurve:
    """Expected coverage against credibility.

    Attributes:
        levels: Credibilities, shape (levels,).
        ecp: Expected coverage, shape (levels,).
        low: Lower end of the pointwise 95 % Clopper-Pearson interval, shape (levels,).
        high: Upper end, shape (levels,).
    """

    levels: FloatArray
    ecp: FloatArray
    low: FloatArray
    high: FloatArray


@dataclass(frozen=True, slots=True)
class CurveEffects:
    """How far an expected-coverage curve is from the diagonal.

    Attributes:
        max_deviation: Largest |ECP - level| over all levels (exact, not on a grid), with 95 %
            interval.
        max_deviation_interval: From the simultaneous (Kolmogorov) band around the curve.
        at_level: Level where it is reached.
        area: Signed area between curve and diagonal, 1/2 - mean(c); negative = over-confident.
        area_interval: Its 95 % interval.
    """

    max_deviation: float
    max_deviation_interval: tuple[float, float]
    at_level: float
    area: float
    area_interval: tuple[float, float]


def coverage_curve(credibility: FloatArray, levels: FloatArray = LEVELS) -> CoverageCurve:
    """Return the expected coverage with Clopper-Pearson intervals.

    Args:
        credibility: Credibility of the region that just contains the truth, shape (batch,),
            finite.
        levels: Levels in [0, 1].
    """
    n = len(credibility)
    # At 0 and 1 the answer is known; roundoff in stored credibilities must not blur it.
    counts = np.searchsorted(np.sort(credibility), levels, side="right")
    counts = np.where(levels >= 1.0, n, np.where(levels <= 0.0, 0, counts))
    low, high = clopper_pearson(counts, n)
    return CoverageCurve(levels=levels, ecp=counts / n, low=low, high=high)


def curve_effects(credibility: FloatArray) -> CurveEffects:
    """Return effect sizes of an expected-coverage curve from credibilities with shape (batch,)."""
    n = len(credibility)
    deviation, level = max_distance(credibility)
    half_width = float(special.kolmogi(0.05)) / math.sqrt(n)
    area = 0.5 - float(np.mean(credibility))
    error = Z95 * float(np.std(credibility)) / math.sqrt(n)
    return CurveEffects(
        max_deviation=deviation,
        max_deviation_interval=(
            max(0.0, deviation - half_width),
            min(1.0, deviation + half_width),
        ),
        at_level=level,
        area=area,
        area_interval=(area - error, area + error),
    )


def central_credibility(u: FloatArray) -> FloatArray:
    """Return the credibility of the central interval that just contains the truth, |2 u - 1|."""
    return np.abs(2.0 * u - 1.0)
