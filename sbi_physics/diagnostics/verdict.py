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

With the requirement `conservative` the p-value that decides is that of one-sided tests: only
regions that hold the truth *less* often than they claim can fail.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

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
CORRELATION_TOLERANCE = (-0.1, 0.1)
SLOPE_TOLERANCE = (-0.1, 0.1)
X_WIDTH_TOLERANCE = (-0.05, 0.05)

REQUIREMENTS = ("exact", "conservative")
ONE_SIDED = "one-sided"
"""Family of the tests that decide when `conservative` is required."""

_RESOLVED_GAIN = 1e-6
"""Gains below this are rounding errors: a posterior identical to the prior has exactly zero."""


@dataclass(frozen=True, slots=True)
class TestResult:
    """One test that enters the verdict.

    Attributes:
        name: Quantity tested, such as `sbc:m_a`, `hpd`, `tarp_x` or `moment`.
        family: Kind of test: `sbc`, `hpd`, `tarp_u`, `tarp_x`, `moment`, `width_x`, ...
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
            (largest |ECP - level|), `area` (signed area between the coverage curve of
            highest-density regions and the diagonal), `correlation` (true minus claimed),
            `x-slope` (slope of the bias on the data, in posterior sd) or `x-width` (relative
            change of true over claimed width with the data).
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


def region_effects(name: str, summary: CurveEffects) -> tuple[Effect, ...]:
    """Return the deviation of one expected-coverage curve, and its area where that has a meaning.

    Balls around random points (TARP) are too large in some places where they are too small in
    others, so the sign of their area says nothing.
    """
    deviation = Effect(
        "deviation",
        name,
        summary.max_deviation,
        *summary.max_deviation_interval,
        DEVIATION_TOLERANCE,
    )
    if not name.startswith("hpd"):
        return (deviation,)
    return deviation, Effect("area", name, summary.area, *summary.area_interval)


def decide(
    tests: Sequence[TestResult],
    effects: Sequence[Effect],
    gain: Score | None,
    obstacles: Sequence[str],
    p_global: float,
    require: str = "exact",
) -> Verdict:
    """Return the verdict.

    Args:
        tests: All tests, Holm-adjusted within two-sided and one-sided ones.
        effects: All effects.
        gain: Information gain over the prior, where it can be computed.
        obstacles: Reasons why the pairs cannot decide; any makes the verdict INCONCLUSIVE.
        p_global: Combined p-value of the tests that decide.
        require: `exact`, or `conservative` when only over-confidence may fail.
    """
    deciding = [t for t in tests if (t.family == ONE_SIDED) == (require == "conservative")]
    noticed = p_global
    if require == "conservative":
        noticed = min(t.p_holm for t in tests)
    labels = _labels(effects) if noticed < ALPHA_WARNING else ()
    if obstacles:
        return Verdict("INCONCLUSIVE", labels, "; ".join(obstacles))
    worst = min(deciding, key=lambda t: t.p_value)
    what = "deviates from calibration" if require == "exact" else "is over-confident"
    finding = (
        f"{worst.name} {what} (adjusted p = {worst.p_holm:.2g}, {len(deciding)} tests, "
        f"global p = {p_global:.2g})"
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
    passed = "deviation from calibration" if require == "exact" else "over-confidence"
    return Verdict(
        "PASS",
        labels,
        f"no {passed} in {len(deciding)} tests (global p = {p_global:.2g})",
    )


def _labels(effects: Sequence[Effect]) -> tuple[str, ...]:
    """Name the effects that are significant at 1 % within their kind."""
    kinds = ("location", "correlation", "x-slope", "x-width")
    number = {k: sum(e.kind == k for e in effects) for k in kinds}
    directions: dict[str, None] = {}
    biases: dict[str, None] = {}
    others: dict[str, None] = {}
    for e in effects:
        if e.kind == "location" and _is_significant(e, number["location"]):
            biases[f"biased:{e.name.removeprefix('sbc:')}"] = None
        if e.kind == "width" and e.tolerance is not None and e.low > 0.0:
            in_logs = replace(
                e, value=math.log(e.value), low=math.log(e.low), high=math.log(e.high)
            )
            significant = _is_significant(in_logs, number["location"])
            if significant and e.value > e.tolerance[1]:
                directions["overconfident"] = None
            if significant and e.value < e.tolerance[0]:
                directions["conservative"] = None
        if e.kind == "area" and _is_significant(e, 1):
            directions["overconfident" if e.value < 0 else "conservative"] = None
        if e.kind == "correlation" and _is_significant(e, number["correlation"]):
            others["correlation"] = None
        if e.kind in ("x-slope", "x-width") and _is_significant(e, number[e.kind]):
            others["x-dependent"] = None
    return (*sorted(directions, reverse=True), *biases, *sorted(others))


def _is_significant(effect: Effect, n_alike: int) -> bool:
    critical = float(special.ndtri(1.0 - 0.5 * ALPHA / n_alike))
    return abs(effect.value) > critical * _error(effect.low, effect.high)


def _error(low: float, high: float) -> float:
    return (high - low) / (2.0 * Z95)


def _describe(name: str, effects: Sequence[Effect]) -> str:
    own = {e.kind: e for e in effects if e.name == name.removeprefix(f"{ONE_SIDED}:")}
    if "location" in own:
        side = "below" if own["location"].value > 0 else "above"
        return (
            f"it lies {abs(own['location'].value):.2f} posterior sd {side} the truth on average, "
            f"and the true width is {own['width'].value:.2f} times the claimed one"
        )
    if name.startswith(("moment", "width_x")):
        kinds = ("correlation", "x-slope") if name.startswith("moment") else ("x-width",)
        return _describe_moments([e for e in effects if e.kind in kinds])
    if "deviation" in own and "area" not in own:
        return f"the coverage of its regions is off by up to {own['deviation'].value:.3f}"
    if "deviation" in own:
        direction = "over-confident" if own["area"].value < 0 else "conservative"
        return (
            f"the expected coverage is off by up to {own['deviation'].value:.3f}, "
            f"{direction} on average"
        )
    return "see the table of tests"


def _describe_moments(effects: Sequence[Effect]) -> str:
    """Name the effect that stands out most among those that moments see."""
    seen = [e for e in effects if e.high > e.low]
    if not seen:
        return "see the table of effects"
    e = max(seen, key=lambda e: abs(e.value) / (e.high - e.low))
    if e.kind == "x-slope":
        return (
            f"the bias of {e.name} changes by {e.value:+.2f} posterior sd for each standard "
            "deviation of a feature of the data"
        )
    if e.kind == "x-width":
        return (
            f"the true over the claimed width of {e.name} changes by {100 * e.value:+.0f} % for "
            "each standard deviation of a feature of the data"
        )
    first, second = e.name.split(",")
    return (
        f"the true correlation of {first} and {second} exceeds the claimed one by {e.value:+.2f}"
    )
