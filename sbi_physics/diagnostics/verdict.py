"""From tests and effect sizes to exactly one verdict.

In order of precedence:

INCONCLUSIVE
    The pairs cannot decide: fewer than 200, neither data nor densities, many non-finite values, or
    too few effective draws.
FAIL
    Global p < 0.01, unless every effect is shown to be negligible.
UNINFORMATIVE
    Calibrated, but the 99 % lower bound of the information gain is not above 0.
MARGINAL
    0.01 <= global p < 0.05; or p < 0.01 with the 95 % interval of every effect inside its
    tolerance.
PASS
    Otherwise.

The false-alarm rate is stated: an exact posterior is called FAIL in 1 % of the runs and MARGINAL
in another 4 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import special

from sbi_physics.diagnostics.expected_coverage import CurveEffects
from sbi_physics.diagnostics.information import Score
from sbi_physics.diagnostics.uniformity import Z95, LocationScale

VERDICTS = ("PASS", "MARGINAL", "FAIL", "UNINFORMATIVE", "INCONCLUSIVE")
ALPHA = 0.01
ALPHA_WARNING = 0.05

LOCATION_TOLERANCE = (-0.1, 0.1)
WIDTH_TOLERANCE = (0.95, 1.05)
DEVIATION_TOLERANCE = (0.0, 0.03)

_RESOLVED_GAIN = 1e-6
"""Gains below this are rounding errors: a posterior identical to the prior has exactly zero."""


@dataclass(frozen=True, slots=True)
class TestResult:
    """One test that enters the verdict.

    Attributes:
        name: Quantity tested, such as `sbc:m_a` or `hpd`.
        family: Kind of test: `sbc`, `hpd`, ...
        statistic_name: Which statistic.
        statistic: Its value.
        p_value: Probability of a value at least as extreme for an exact posterior.
        p_holm: The same, adjusted for the number of tests (Holm).
        n: Number of pairs used.
        detail: How the quantity was computed, where that is not obvious.
    """

    __test__ = False

    name: str
    family: str
    statistic_name: str
    statistic: float
    p_value: float
    p_holm: float
    n: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Effect:
    """How large a deviation is, whatever its significance.

    Attributes:
        kind: `location` (bias in posterior sd), `width` (true over claimed width), `deviation`
            (largest |ECP - level|) or `area` (signed area between the coverage curve and the
            diagonal).
        name: Quantity it belongs to.
        value: Best estimate.
        low: Lower end of the 95 % interval.
        high: Upper end.
        tolerance: Interval regarded as negligible, or None for a descriptive number.
    """

    kind: str
    name: str
    value: float
    low: float
    high: float
    tolerance: tuple[float, float] | None = None

    @property
    def is_negligible(self) -> bool:
        """Whether the whole 95 % interval lies inside the tolerance (true where there is none)."""
        return self.tolerance is None or (
            self.tolerance[0] <= self.low and self.high <= self.tolerance[1]
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """The one verdict.

    Attributes:
        verdict: One of `VERDICTS`.
        labels: What is wrong, such as `overconfident`, `conservative`, `biased:m_a`.
        reason: One sentence.
    """

    verdict: str
    labels: tuple[str, ...]
    reason: str


def marginal_effects(name: str, summary: LocationScale) -> tuple[Effect, Effect]:
    """Return the bias and width effects of one parameter."""
    return (
        Effect("location", name, summary.location, *summary.location_interval, LOCATION_TOLERANCE),
        Effect("width", name, summary.width, *summary.width_interval, WIDTH_TOLERANCE),
    )


def region_effects(name: str, summary: CurveEffects) -> tuple[Effect, Effect]:
    """Return the deviation and area effects of one expected-coverage curve."""
    return (
        Effect(
            "deviation",
            name,
            summary.max_deviation,
            *summary.max_deviation_interval,
            DEVIATION_TOLERANCE,
        ),
        Effect("area", name, summary.area, *summary.area_interval),
    )


def decide(
    tests: Sequence[TestResult],
    effects: Sequence[Effect],
    gain: Score | None,
    obstacles: Sequence[str],
) -> Verdict:
    """Return the verdict.

    Args:
        tests: All tests, Holm-adjusted.
        effects: All effects.
        gain: Information gain over the prior, where it can be computed.
        obstacles: Reasons why the pairs cannot decide; any makes the verdict INCONCLUSIVE.
    """
    p_global = min((t.p_holm for t in tests), default=1.0)
    labels = _labels(effects) if p_global < ALPHA_WARNING else ()
    if obstacles:
        return Verdict("INCONCLUSIVE", labels, "; ".join(obstacles))
    worst = min(tests, key=lambda t: t.p_value)
    finding = (
        f"{worst.name} deviates from calibration "
        f"(adjusted p = {worst.p_holm:.2g}, {len(tests)} tests)"
    )
    negligible = all(e.is_negligible for e in effects)
    if p_global < ALPHA and not negligible:
        return Verdict("FAIL", labels, f"{finding}; {_describe(worst.name, effects)}")
    if gain is not None and not gain.lower_99 > _RESOLVED_GAIN:
        return Verdict(
            "UNINFORMATIVE",
            labels,
            "the posterior is not shown to know more than the prior: information gain "
            f"{gain.mean:.3f} nats, "
            f"99 % lower bound {gain.lower_99:.3f}",
        )
    if p_global < ALPHA:
        return Verdict("MARGINAL", labels, f"{finding}, but every effect is inside its tolerance")
    if p_global < ALPHA_WARNING:
        return Verdict("MARGINAL", labels, f"{finding}; an exact posterior does so in 5 % of runs")
    return Verdict(
        "PASS",
        (),
        f"no deviation from calibration in {len(tests)} tests (smallest adjusted p = "
        f"{p_global:.2g})",
    )


def _labels(effects: Sequence[Effect]) -> tuple[str, ...]:
    n_marginals = max(1, sum(e.kind == "location" for e in effects))
    critical = float(special.ndtri(1.0 - 0.5 * ALPHA / n_marginals))
    directions: dict[str, None] = {}
    biases: dict[str, None] = {}
    for e in effects:
        if e.kind == "location" and abs(e.value) > critical * _error(e.low, e.high):
            biases[f"biased:{e.name.removeprefix('sbc:')}"] = None
        if e.kind == "width" and e.tolerance is not None and e.low > 0.0:
            significant = abs(math.log(e.value)) > critical * _error(
                math.log(e.low), math.log(e.high)
            )
            if significant and e.value > e.tolerance[1]:
                directions["overconfident"] = None
            if significant and e.value < e.tolerance[0]:
                directions["conservative"] = None
        if e.kind == "area" and abs(e.value) > float(special.ndtri(1.0 - 0.5 * ALPHA)) * _error(
            e.low, e.high
        ):
            directions["overconfident" if e.value < 0 else "conservative"] = None
    return (*sorted(directions, reverse=True), *biases)


def _error(low: float, high: float) -> float:
    return (high - low) / (2.0 * Z95)


def _describe(name: str, effects: Sequence[Effect]) -> str:
    own = {e.kind: e for e in effects if e.name == name}
    if "location" in own:
        side = "below" if own["location"].value > 0 else "above"
        return (
            f"it lies {abs(own['location'].value):.2f} posterior sd {side} the truth on average, "
            f"and the true width is {own['width'].value:.2f} times the claimed one"
        )
    if "deviation" in own:
        direction = "over-confident" if own["area"].value < 0 else "conservative"
        return (
            f"the expected coverage is off by up to {own['deviation'].value:.3f}, "
            f"{direction} on average"
        )
    return "see the table of tests"
