"""The Coverage record: the verdict on a posterior, with everything needed to redraw its plots.

It is a plain record. The probability integral transforms of every tested quantity are kept, so
curves, bands and tests can be recomputed from the JSON file with no posterior at hand.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import numpy as np

from sbi_physics.diagnostics.bands import clopper_pearson
from sbi_physics.diagnostics.expected_coverage import (
    LEVELS,
    TABLE_LEVELS,
    CoverageCurve,
    coverage_curve,
)
from sbi_physics.diagnostics.information import Score
from sbi_physics.diagnostics.json_numbers import from_list, from_record, to_list, to_record
from sbi_physics.diagnostics.json_record import JsonRecord, check_schema, read_json
from sbi_physics.diagnostics.local import LocalMap
from sbi_physics.diagnostics.verdict import ALPHA, ALPHA_WARNING, Effect, TestResult
from sbi_physics.errors import ValidationError, unknown_name
from sbi_physics.priors import Prior
from sbi_physics.quantities import quantity_credibility
from sbi_physics.types import FloatArray

SCHEMA: Final = 3
_READABLE: Final = (1, 2, 3)
"""Schema 1 knew no requirement, schema 2 no local map; records are complete otherwise."""

_N_RECOVERY: Final = 500


@dataclass(frozen=True, slots=True)
class ParameterSummary:
    """How well one parameter is recovered, in scaled coordinates.

    Attributes:
        name: Parameter.
        contraction: 16 %, 50 % and 84 % quantiles over pairs of 1 - posterior variance / prior
            variance.
        z_mean: Mean over pairs of (posterior mean - truth) / posterior sd.
        z_sd: Standard deviation over pairs of the same.
        rmse: Root mean square of posterior mean - truth, in prior standard deviations.
    """

    name: str
    contraction: tuple[float, float, float]
    z_mean: float
    z_sd: float
    rmse: float


@dataclass(frozen=True, slots=True)
class PairCounts:
    """How many pairs there were and what was wrong with some.

    Attributes:
        pairs: Pairs given.
        usable: Pairs whose truth and draws were finite.
        density_missing: Usable pairs whose log density was NaN at the truth or at a draw.
        truth_excluded: Usable pairs to whose truth the posterior gives zero density.
        low_ess: Pairs with an effective sample size below 200.
        median_ess: Median effective sample size; NaN when draws are independent by construction.
        outside: Mean fraction of the draws outside the prior.
    """

    pairs: int
    usable: int
    density_missing: int = 0
    truth_excluded: int = 0
    low_ess: int = 0
    median_ess: float = math.nan
    outside: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Recovery:
    """Truth and posterior quantiles of some pairs, in physical units, for plots.

    Attributes:
        truth: Shape (pairs, param).
        quantiles: 2.5, 16, 50, 84 and 97.5 % quantiles, shape (pairs, 5, param).
    """

    truth: FloatArray
    quantiles: FloatArray

    @classmethod
    def of(cls, truth: FloatArray, quantiles: FloatArray) -> Self:
        """Keep the first finite pairs, 500 at most."""
        finite = np.isfinite(truth).all(axis=1) & np.isfinite(quantiles).all(axis=(1, 2))
        kept = np.flatnonzero(finite)[:_N_RECOVERY]
        return cls(truth=truth[kept], quantiles=quantiles[kept])


@dataclass(frozen=True, slots=True, eq=False)
class Coverage(JsonRecord):
    """The result of a validation.

    Attributes:
        verdict: `PASS`, `MARGINAL`, `FAIL`, `UNINFORMATIVE` or `INCONCLUSIVE`.
        labels: What is wrong, such as `overconfident`, `conservative` or `biased:m_a`.
        reason: One sentence.
        p_global: Probability that an exact posterior deviates at least as much in its worst test.
        combination: How the tests were combined into `p_global`.
        names: Parameter names.
        prior: Prior of these parameters, if known: gives units, labels and scales.
        tests: Every test that entered the verdict.
        effects: Sizes of the deviations, with tolerances.
        pit: Quantity name -> probability integral transform u of the truth for each pair, shape
            (pairs,); NaN where a pair was not usable, or held out to place references. For `hpd`
            quantities 1 - u is the credibility of the region that just contains the truth, for
            `tarp_u` and `tarp_x` it is u.
        counts: Pairs and their defects.
        n_draws: Posterior draws for each pair.
        seed: Seed of draws and jitter: the same seed gives the same verdict.
        parameters: Recovery of each parameter.
        recovery: Truth and quantiles of the first pairs.
        log_q: Log posterior density of each truth in scaled coordinates, shape (pairs,), if
            normalised.
        log_prior: Log prior density of each truth in scaled coordinates, shape (pairs,), if a
            prior is known.
        nll: Mean negative log density of the truth (scaled coordinates), if normalised.
        gain: Gain over the prior in nats, if it could be computed.
        gain_kind: `information` (from densities) or `moments` (from posterior means and
            covariances); empty without gain.
        provenance: Engine, simulator, hashes, versions, timing.
        alpha: Level below which the verdict is FAIL.
        alpha_warning: Level below which it is MARGINAL.
        require: `exact`, or `conservative` when only over-confidence could fail.
        local: Calibration in bins of features of the data, if there are data that vary and enough
            pairs; it does not enter the verdict.
    """

    verdict: str
    labels: tuple[str, ...]
    reason: str
    p_global: float
    combination: str
    names: tuple[str, ...]
    prior: Prior | None
    tests: tuple[TestResult, ...]
    effects: tuple[Effect, ...]
    pit: Mapping[str, FloatArray]
    counts: PairCounts
    n_draws: int
    seed: int
    parameters: tuple[ParameterSummary, ...]
    recovery: Recovery
    log_q: FloatArray | None = None
    log_prior: FloatArray | None = None
    nll: Score | None = None
    gain: Score | None = None
    gain_kind: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    alpha: float = ALPHA
    alpha_warning: float = ALPHA_WARNING
    require: str = "exact"
    local: LocalMap | None = None

    @property
    def quantities(self) -> tuple[str, ...]:
        """Names of the tested quantities."""
        return tuple(self.pit)

    @property
    def regions(self) -> tuple[str, ...]:
        """Names of the quantities that are joint regions: of highest density, or balls (TARP)."""
        return tuple(name for name in self.pit if name.startswith(("hpd", "tarp")))

    def u(self, quantity: str) -> FloatArray:
        """Return the probability integral transforms of one quantity, unusable pairs left out.

        Raises:
            UnknownNameError: If the quantity was not tested.
        """
        if quantity not in self.pit:
            raise unknown_name("quantity", quantity, self.pit)
        values = self.pit[quantity]
        return values[~np.isnan(values)]

    def credibility(self, quantity: str = "hpd") -> FloatArray:
        """Return the credibility of the region that just contains each truth.

        Regions are of highest density for `hpd` quantities, balls about a reference point for
        `tarp` quantities, and central intervals for one parameter.

        Args:
            quantity: A tested quantity, or the name of a parameter.
        """
        name = f"sbc:{quantity}" if quantity in self.names else quantity
        return quantity_credibility(name, self.u(name))

    def curve(self, quantity: str = "hpd", levels: FloatArray = LEVELS) -> CoverageCurve:
        """Return expected coverage against credibility, with pointwise 95 % intervals."""
        return coverage_curve(self.credibility(quantity), levels)

    def ecp(self, level: float, quantity: str = "hpd") -> tuple[float, float, float]:
        """Return the expected coverage at one level and its 95 % Clopper-Pearson interval.

        Args:
            level: Credibility in (0, 1).
            quantity: A tested quantity, or the name of a parameter for its central interval.
        """
        if not 0.0 < level < 1.0:
            raise ValidationError(f"the level must lie between 0 and 1, got {level:g}")
        credibility = self.credibility(quantity)
        hits = np.array([np.count_nonzero(credibility <= level)])
        low, high = clopper_pearson(hits, len(credibility))
        return float(hits[0]) / len(credibility), float(low[0]), float(high[0])

    def effect(self, kind: str, quantity: str) -> Effect:
        """Return one effect by kind and quantity."""
        for e in self.effects:
            if e.kind == kind and e.name == quantity:
                return e
        raise unknown_name(
            "effect", f"{kind} {quantity}", [f"{e.kind} {e.name}" for e in self.effects]
        )

    def summary(self) -> str:
        """Return the verdict and the tables as plain text."""
        labels = f" ({', '.join(self.labels)})" if self.labels else ""
        lines = [f"{self.verdict}{labels}: {self.reason}", ""]
        lines += [f"{'test':<24}{'statistic':>12}{'p':>11}{'adjusted p':>12}{'pairs':>8}"]
        lines += [
            f"{t.name:<24}{t.statistic:>12.3f}{t.p_value:>11.2g}{t.p_holm:>12.2g}{t.n:>8}"
            for t in self.tests
        ]
        if self.regions:
            lines += [
                "",
                "expected coverage" + "".join(f"{level:>22.3f}" for level in TABLE_LEVELS),
            ]
        for quantity in self.regions:
            cells = "".join(
                "{:>8.3f} [{:.3f}, {:.3f}]".format(*self.ecp(v, quantity)) for v in TABLE_LEVELS
            )
            lines.append(f"{quantity:<17}{cells}")
        lines.append("")
        for e in self.effects:
            tolerance = (
                ""
                if e.tolerance is None
                else f"  tolerance [{e.tolerance[0]:g}, {e.tolerance[1]:g}]"
            )
            lines.append(
                f"{e.kind:<12}{e.name:<24}{e.value:>8.3f} [{e.low:.3f}, {e.high:.3f}]{tolerance}"
            )
        if self.nll is not None:
            lines.append(
                f"NLL {self.nll.mean:.3f} +- {self.nll.standard_error:.3f} nats in scaled "
                "coordinates"
            )
        if self.gain is not None:
            lines.append(
                f"gain over the prior ({self.gain_kind}) {self.gain.mean:.3f} +- "
                f"{self.gain.standard_error:.3f} nats"
            )
        lines.append(
            f"{self.counts.usable} of {self.counts.pairs} pairs, {self.n_draws} draws each, seed "
            f"{self.seed}; "
            f"global p = {self.p_global:.2g} by {self.combination}"
        )
        return "\n".join(lines)

    def plot(self, folder: str | Path) -> tuple[Path, ...]:
        """Write the calibration figures as PNG files into a folder and return their paths."""
        from sbi_physics.plots import save_coverage_figures

        return save_coverage_figures(self, folder)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready description."""
        return {
            "schema": SCHEMA,
            "verdict": self.verdict,
            "labels": list(self.labels),
            "reason": self.reason,
            "p_global": self.p_global,
            "combination": self.combination,
            "alpha": self.alpha,
            "alpha_warning": self.alpha_warning,
            "require": self.require,
            "names": list(self.names),
            "prior": None if self.prior is None else self.prior.to_dict(),
            "tests": [asdict(t) for t in self.tests],
            "effects": [asdict(e) for e in self.effects],
            "counts": to_record(asdict(self.counts)),
            "n_draws": self.n_draws,
            "seed": self.seed,
            "parameters": [to_record(asdict(p)) for p in self.parameters],
            "nll": None if self.nll is None else to_record(asdict(self.nll)),
            "gain": None if self.gain is None else to_record(asdict(self.gain)),
            "gain_kind": self.gain_kind,
            "provenance": dict(self.provenance),
            "pit": {name: to_list(values) for name, values in self.pit.items()},
            "log_q": None if self.log_q is None else to_list(self.log_q),
            "log_prior": None if self.log_prior is None else to_list(self.log_prior),
            "recovery": {
                "truth": to_list(self.recovery.truth),
                "quantiles": to_list(self.recovery.quantiles),
            },
            "local": None if self.local is None else self.local.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild from `to_dict`.

        Raises:
            ValidationError: If the schema is another one or entries are missing.
        """
        check_schema(data, "coverage record", *_READABLE)
        try:
            return cls(**_decoded(data))
        except KeyError as error:
            raise ValidationError(
                f"coverage record lacks the entry {error}: it is damaged"
            ) from error

    @classmethod
    def from_json(cls, path: str | Path) -> Self:
        """Rebuild from a file written by `to_json`.

        Raises:
            ValidationError: If it is not a coverage record of this schema.
        """
        return cls.from_dict(read_json(path, "a coverage record"))


def _decoded(data: Mapping[str, Any]) -> dict[str, Any]:
    values = {k: data[k] for k in _COPIED}
    values |= {
        "labels": tuple(data["labels"]),
        "names": tuple(data["names"]),
        "prior": None if data["prior"] is None else Prior.from_dict(data["prior"]),
        "tests": tuple(TestResult(**t) for t in data["tests"]),
        "effects": tuple(
            Effect(**{**e, "tolerance": None if e["tolerance"] is None else tuple(e["tolerance"])})
            for e in data["effects"]
        ),
        "counts": PairCounts(**from_record(data["counts"])),
        "parameters": tuple(
            ParameterSummary(**from_record(p, text=("name",))) for p in data["parameters"]
        ),
        "nll": None if data["nll"] is None else Score(**from_record(data["nll"])),
        "gain": None if data["gain"] is None else Score(**from_record(data["gain"])),
        "pit": {name: from_list(v) for name, v in data["pit"].items()},
        "log_q": None if data["log_q"] is None else from_list(data["log_q"]),
        "require": "exact" if data["schema"] == 1 else data["require"],
        "log_prior": None if data["log_prior"] is None else from_list(data["log_prior"]),
        "local": None
        if data["schema"] < 3 or data["local"] is None
        else LocalMap.from_dict(data["local"]),
        "recovery": Recovery(
            truth=from_list(data["recovery"]["truth"]).reshape(-1, len(data["names"])),
            quantiles=from_list(data["recovery"]["quantiles"]).reshape(-1, 5, len(data["names"])),
        ),
    }
    return values


_COPIED = (
    "verdict",
    "reason",
    "p_global",
    "combination",
    "alpha",
    "alpha_warning",
    "n_draws",
    "seed",
    "gain_kind",
    "provenance",
)
