r"""Where is a posterior calibrated? Ranks of the truth in bins of the data.

Given an exact posterior, the probability integral transform :math:`u` of the truth is uniform not
only on average but *given the data*: in every bin of any function of :math:`x`. Errors that
cancel in the average (too narrow here, too wide there) show in the bins. Each cell of the map is
tested by Anderson-Darling; Holm's adjustment over all cells keeps the chance that an exact
posterior is flagged anywhere at the stated level, however the cells depend on one another.

Bins of a true parameter are shown but never tested: at fixed :math:`\theta` the ranks of an exact
Bayesian posterior are not uniform (see `frequentist`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from sbi_physics.diagnostics.bands import clopper_pearson
from sbi_physics.diagnostics.json_numbers import from_record, to_record
from sbi_physics.diagnostics.json_record import JsonRecord, check_schema
from sbi_physics.diagnostics.uniformity import Z95, anderson_darling, holm, location_scale
from sbi_physics.errors import ValidationError
from sbi_physics.quantities import quantity_credibility
from sbi_physics.types import FloatArray, IntArray

SCHEMA: Final = 1
MIN_CELL: Final = 20
"""Cells with fewer pairs are left out: the limit law of the test needs about this many."""

N_BINS: Final = 5
LEVEL: Final = 0.683
CONFIDENCE: Final = 0.95
_TEXT = ("quantity", "feature")


class HasRanks(Protocol):
    """Anything that carries ranks of the truth, such as a `Coverage`."""

    @property
    def pit(self) -> Mapping[str, FloatArray]:
        """Quantity name -> u of every pair, NaN where there is none."""


@dataclass(frozen=True, slots=True)
class LocalCell:
    """One quantity in one bin.

    All intervals hold for every cell of the map together, at the map's confidence.

    Attributes:
        quantity: What was ranked, such as `sbc:m_a` or `hpd`.
        feature: What was binned.
        tested: Whether the bin is one of the data, where an exact posterior is uniform.
        low: Lower edge of the bin.
        high: Upper edge.
        n: Pairs in it.
        statistic: Anderson-Darling statistic.
        p_value: Its p-value; NaN where not tested.
        p_holm: Adjusted for all tested cells of the map; NaN where not tested.
        location: Mean of the normal scores of u and its interval. For a parameter: bias in
            posterior standard deviations, positive when the truth lies above the draws.
        width: Standard deviation of the normal scores and its interval. For a parameter: true
            over claimed width, above 1 = over-confident.
        coverage: Fraction of truths inside the 68.3 % region (highest density for `hpd`, a ball
            for `tarp`, central for a parameter), and its Clopper-Pearson interval.
    """

    quantity: str
    feature: str
    tested: bool
    low: float
    high: float
    n: int
    statistic: float
    p_value: float
    p_holm: float
    location: tuple[float, float, float]
    width: tuple[float, float, float]
    coverage: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class LocalMap(JsonRecord):
    """Calibration as a function of features of the data.

    Attributes:
        cells: All cells, quantity by quantity, feature by feature, bins in order.
        p_global: Smallest adjusted p-value: the chance that an exact posterior deviates at least
            as much in its worst cell.
        n_tests: Number of tested cells.
        confidence: Joint confidence of all intervals.
        constant: Features left out because they do not vary.
    """

    cells: tuple[LocalCell, ...]
    p_global: float
    n_tests: int
    confidence: float
    constant: tuple[str, ...] = ()

    @property
    def quantities(self) -> tuple[str, ...]:
        """Names of the quantities, in order."""
        return tuple(dict.fromkeys(c.quantity for c in self.cells))

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the binned features, in order."""
        return tuple(dict.fromkeys(c.feature for c in self.cells))

    def select(self, quantity: str, feature: str) -> tuple[LocalCell, ...]:
        """Return the cells of one quantity along one feature, in the order of the bins."""
        return tuple(c for c in self.cells if (c.quantity, c.feature) == (quantity, feature))

    def deviating(self, alpha: float = 0.01) -> tuple[LocalCell, ...]:
        """Return the cells that deviate at a family-wise false-alarm rate, worst first."""
        found = [c for c in self.cells if c.p_holm < alpha]
        return tuple(sorted(found, key=lambda c: c.p_value))

    def summary(self, alpha: float = 0.01) -> str:
        """Return the worst cells as plain text."""
        worst = self.deviating(alpha)
        lines = [
            f"{len(worst)} of {self.n_tests} cells deviate at a joint false-alarm rate of "
            f"{alpha:g} (smallest adjusted p = {self.p_global:.2g})"
        ]
        for c in worst:
            lines.append(
                f"{c.quantity:<20}{c.feature:<14}[{c.low:>9.3g}, {c.high:>9.3g}]  n {c.n:>5}  "
                f"adjusted p {c.p_holm:<8.2g} location {c.location[0]:+.2f}  width "
                f"{c.width[0]:.2f}  68.3 % region covers {c.coverage[0]:.3f}"
            )
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready description."""
        return {
            "schema": SCHEMA,
            "p_global": self.p_global,
            "n_tests": self.n_tests,
            "confidence": self.confidence,
            "constant": list(self.constant),
            "cells": [to_record(asdict(c)) for c in self.cells],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild from `to_dict`.

        Raises:
            ValidationError: If the schema is another one.
        """
        check_schema(data, "local map", SCHEMA)
        return cls(
            cells=tuple(LocalCell(**from_record(c, text=_TEXT)) for c in data["cells"]),
            p_global=data["p_global"],
            n_tests=data["n_tests"],
            confidence=data["confidence"],
            constant=tuple(data["constant"]),
        )


def local_map(
    ranks: HasRanks | Mapping[str, ArrayLike],
    features: ArrayLike | Mapping[str, ArrayLike],
    *,
    names: Sequence[str] = (),
    parameters: Mapping[str, ArrayLike] | None = None,
    bins: int = N_BINS,
    confidence: float = CONFIDENCE,
) -> LocalMap:
    """Map calibration against features of the data.

    Args:
        ranks: A `Coverage`, or quantity name -> u in (0, 1) of each pair, shape (pairs,), NaN
            where there is none.
        features: Functions of the data *alone*, shape (pairs, feature), or name -> values with
            shape (pairs,); for example `pairs.observable.fit_transform(x).features(x)`.
        names: Names of the columns of `features`.
        parameters: True parameters, name -> values with shape (pairs,): shown, never tested.
        bins: Bins for each feature, with equal numbers of pairs where values do not repeat.
        confidence: Joint confidence of all intervals of the map.

    Raises:
        ValidationError: If lengths differ, a feature is not finite, u leaves (0, 1), or no bin
            has 20 pairs.

    Examples:
        >>> rng = np.random.default_rng(1)
        >>> x = rng.normal(size=1000)
        >>> u = np.where(x > 0, rng.beta(3, 3, 1000), rng.uniform(size=1000))
        >>> worst = local_map({"sbc:theta": u}, {"x": x}).deviating()[0]
        >>> worst.low > 0, worst.width[0] < 1
        (True, True)
    """
    if bins < 1 or not 0.0 < confidence < 1.0:
        raise ValidationError(
            f"a local map needs bins >= 1 and 0 < confidence < 1, got {bins} and {confidence:g}"
        )
    u = _ranks(ranks)
    n = len(next(iter(u.values())))
    columns = _columns(features, names, n)
    found = _map(u, columns, _columns(parameters or {}, (), n), bins, confidence)
    if found is None:
        raise ValidationError(
            f"no bin of the data has {MIN_CELL} pairs: {n} pairs in {bins} bins; simulate more "
            "pairs or ask for fewer bins"
        )
    return found


def map_if_possible(ranks: Mapping[str, FloatArray], features: FloatArray) -> LocalMap | None:
    """Return the default map, or None where no feature varies or no bin has 20 pairs.

    Args:
        ranks: As for `local_map`.
        features: Functions of the data, shape (pairs, feature), finite.
    """
    return _map(_ranks(ranks), _columns(features, (), len(features)), {}, N_BINS, CONFIDENCE)


def _map(
    u: Mapping[str, FloatArray],
    columns: Mapping[str, FloatArray],
    truths: Mapping[str, FloatArray],
    bins: int,
    confidence: float,
) -> LocalMap | None:
    constant = tuple(k for k, v in {**columns, **truths}.items() if np.ptp(v) == 0.0)
    found = [
        (quantity, name, name in columns, *cell)
        for quantity, values in u.items()
        for name, feature in {**columns, **truths}.items()
        if name not in constant
        for cell in _binned(values, feature, bins)
    ]
    if not any(tested for _, _, tested, *_ in found):
        return None
    # Bonferroni over all intervals shown: three for each cell.
    each = 1.0 - (1.0 - confidence) / (3 * len(found))
    cells = [_cell(*entry, each) for entry in found]
    adjusted = iter(holm([c.p_value for c in cells if c.tested]))
    cells = [replace(c, p_holm=next(adjusted)) if c.tested else c for c in cells]
    tested = [c.p_holm for c in cells if c.tested]
    return LocalMap(tuple(cells), min(tested), len(tested), confidence, constant)


def _cell(
    quantity: str,
    feature: str,
    tested: bool,
    low: float,
    high: float,
    u: FloatArray,
    confidence: float,
) -> LocalCell:
    statistic, p_value = anderson_darling(u)
    scores = location_scale(u)
    stretch = float(special.ndtri(0.5 + 0.5 * confidence)) / Z95
    shift = stretch * (scores.location_interval[1] - scores.location)
    # The width's interval is symmetric in its logarithm.
    ratio = (scores.width_interval[1] / scores.width) ** stretch if scores.width > 0 else 1.0
    credibility = quantity_credibility(quantity, u)
    hits = np.array([np.count_nonzero(credibility <= LEVEL)])
    ends = clopper_pearson(hits, len(u), confidence)
    return LocalCell(
        quantity=quantity,
        feature=feature,
        tested=tested,
        low=low,
        high=high,
        n=len(u),
        statistic=statistic,
        p_value=p_value if tested else np.nan,
        p_holm=np.nan,
        location=(scores.location, scores.location - shift, scores.location + shift),
        width=(scores.width, scores.width / ratio, scores.width * ratio),
        coverage=(float(hits[0]) / len(u), float(ends[0][0]), float(ends[1][0])),
    )


def _binned(
    u: FloatArray, feature: FloatArray, bins: int
) -> list[tuple[float, float, FloatArray]]:
    """Lower edge, upper edge and ranks of every bin with enough pairs."""
    kept = ~np.isnan(u)
    edges = np.unique(np.quantile(feature, np.linspace(0.0, 1.0, bins + 1)))
    index: IntArray = np.searchsorted(edges[1:-1], feature, side="right")
    cells = [(float(edges[k]), float(edges[k + 1]), u[kept & (index == k)]) for k in range(bins)
             if k + 1 < len(edges)]  # fmt: skip
    return [cell for cell in cells if len(cell[2]) >= MIN_CELL]


def _ranks(ranks: HasRanks | Mapping[str, ArrayLike]) -> dict[str, FloatArray]:
    given = ranks if isinstance(ranks, Mapping) else ranks.pit
    u = {name: np.asarray(values, dtype=np.float64) for name, values in given.items()}
    if not u:
        raise ValidationError("a local map needs at least one ranked quantity")
    lengths = {name: values.shape for name, values in u.items()}
    if len(set(lengths.values())) > 1 or len(next(iter(lengths.values()))) != 1:
        raise ValidationError(f"ranks must have one shape (pairs,), got {lengths}")
    for name, values in u.items():
        inside = np.isnan(values) | ((values > 0.0) & (values < 1.0))
        if not inside.all():
            raise ValidationError(
                f"ranks must lie strictly between 0 and 1; {name} has "
                f"{float(values[~inside][0]):g} at pair {int(np.argmin(inside))}"
            )
    return u


def _columns(
    features: ArrayLike | Mapping[str, ArrayLike], names: Sequence[str], n: int
) -> dict[str, FloatArray]:
    if isinstance(features, Mapping):
        columns = {k: np.asarray(v, dtype=np.float64) for k, v in features.items()}
    else:
        table = np.asarray(features, dtype=np.float64)
        if table.ndim != 2 or (names and len(names) != table.shape[1]):
            raise ValidationError(
                f"features must have shape (pairs, {len(names) or 'feature'}), got {table.shape}"
            )
        labels = names or [f"feature_{k + 1}" for k in range(table.shape[1])]
        columns = dict(zip(labels, table.T, strict=True))
    for name, values in columns.items():
        if values.shape != (n,):
            raise ValidationError(
                f"{name} has shape {values.shape}, the ranks are those of {n} pairs"
            )
        if not np.isfinite(values).all():
            raise ValidationError(
                f"{name} is not finite at pair {int(np.argmin(np.isfinite(values)))}"
            )
    return columns
