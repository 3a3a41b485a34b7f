r"""The Comparison record: several posteriors side by side, on the same pairs where possible.

The negative log likelihood :math:`-\langle \log q(\theta^*|x) \rangle` is a proper score: on the
same pairs the posterior with the lower one is closer to the exact posterior. Differences are taken
pair by pair, which removes the variation between pairs. Over several runs the false-discovery rate
of "not calibrated" is controlled by the step-up rule of Benjamini and Hochberg (1995, JRSS B 57,
289), which holds for independent and positively dependent p-values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from sbi_physics.coverage import Coverage
from sbi_physics.diagnostics.information import Score, paired_difference
from sbi_physics.diagnostics.json_numbers import from_record, to_record
from sbi_physics.diagnostics.json_record import JsonRecord, check_schema, read_json
from sbi_physics.errors import ValidationError, unknown_name

SCHEMA: Final = 1
FALSE_DISCOVERY_RATE: Final = 0.05

_CLIPPED: Final = "\N{DAGGER}"


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run of a comparison.

    Attributes:
        name: What it is called here.
        engine: What made the draws.
        simulator: Name of the simulator, if known.
        parameters: Inferred parameters.
        verdict: Its own verdict.
        labels: What is wrong.
        p_global: Its global p-value.
        p_adjusted: The same, adjusted for the number of runs (Benjamini-Hochberg).
        pairs: Usable pairs.
        n_draws: Draws for each.
        nll: Mean negative log density of the truth in scaled coordinates, if normalised.
        gain: Gain over the prior in nats, if known.
        gain_kind: `information` or `moments`; empty without gain.
        coverage_90: Expected coverage of the joint 90 % highest-density region with its 95 %
            interval, if densities are known.
        seconds: Wall-clock time of each stage, where known: `simulate`, `train`, `infer`,
            `validate`, ...
    """

    name: str
    engine: str
    simulator: str
    parameters: tuple[str, ...]
    verdict: str
    labels: tuple[str, ...]
    p_global: float
    p_adjusted: float
    pairs: int
    n_draws: int
    nll: Score | None = None
    gain: Score | None = None
    gain_kind: str = ""
    coverage_90: tuple[float, float, float] | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def training_seconds(self) -> float | None:
        """Wall-clock time of the training; None where it is not known."""
        return self.seconds.get("train")

    @property
    def sampling_seconds(self) -> float | None:
        """Wall-clock time of drawing for the observation; None where it is not known."""
        return self.seconds.get("infer")


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """NLL of one run minus that of another, pair by pair.

    Attributes:
        first: Name of the one.
        second: Name of the other.
        difference: NLL of the first minus NLL of the second in nats, over the pairs that both can
            score: negative when the first is better. None when they can't be paired.
        reason: Why not, or how it is known that the pairs are the same.
    """

    first: str
    second: str
    difference: Score | None
    reason: str

    @property
    def better(self) -> str:
        """Name of the better run; empty when the 95 % interval of the difference holds 0."""
        if self.difference is None:
            return ""
        low, high = self.difference.interval
        return self.first if high < 0 else self.second if low > 0 else ""


@dataclass(frozen=True, slots=True)
class Comparison(JsonRecord):
    """Several runs side by side.

    Attributes:
        table: One row for each run, in the order given.
        differences: Every two runs, paired where their pairs are the same.
        false_discovery_rate: Level of the Benjamini-Hochberg rule.
    """

    table: tuple[RunRow, ...]
    differences: tuple[PairedDifference, ...]
    false_discovery_rate: float = FALSE_DISCOVERY_RATE

    @property
    def not_calibrated(self) -> tuple[str, ...]:
        """Names of the runs that deviate from calibration at the false-discovery rate."""
        return tuple(r.name for r in self.table if r.p_adjusted <= self.false_discovery_rate)

    def row(self, name: str) -> RunRow:
        """Return the row of one run.

        Raises:
            UnknownNameError: If there is no such run.
        """
        for row in self.table:
            if row.name == name:
                return row
        raise unknown_name("run", name, [r.name for r in self.table])

    def difference(self, first: str, second: str) -> PairedDifference:
        """Return NLL of `first` minus NLL of `second`.

        Raises:
            UnknownNameError: If there is no such run.
            ValidationError: If both are the same run.
        """
        self.row(first), self.row(second)
        for d in self.differences:
            if (d.first, d.second) == (first, second):
                return d
            if (d.first, d.second) == (second, first):
                turned = None if d.difference is None else _negated(d.difference)
                return PairedDifference(first, second, turned, d.reason)
        raise ValidationError(f"a difference needs two runs, got {first!r} twice")

    def summary(self) -> str:
        """Return tables as plain text."""
        width = max(10, *(len(r.name) for r in self.table)) + 2
        lines = [
            f"{'run':<{width}}{'verdict':>14}{'NLL':>18}{'gain':>18}{'training':>11}"
            f"{'sampling':>11}{'adjusted p':>12}"
        ]
        lines += [
            f"{r.name:<{width}}{r.verdict:>14}{score_text(r.nll):>18}{score_text(r.gain):>18}"
            f"{_seconds_text(r.training_seconds):>11}{_seconds_text(r.sampling_seconds):>11}"
            f"{r.p_adjusted:>12.2g}"
            for r in self.table
        ]
        lines += ["", f"{'run':<{width}}{'global p':>14}{'coverage at 90 %':>26}{'pairs':>8}"]
        lines += [
            f"{r.name:<{width}}{r.p_global:>14.2g}{_coverage_text(r):>26}{r.pairs:>8}"
            for r in self.table
        ]
        rejected = ", ".join(self.not_calibrated) or "none"
        lines += [
            "",
            f"not calibrated at a false-discovery rate of {self.false_discovery_rate:.0%} over "
            f"{len(self.table)} runs (Benjamini-Hochberg): {rejected}",
        ]
        if self.differences:
            lines += ["", "NLL differences on the same pairs, in nats (negative: first is better)"]
        lines += [
            f"  {d.first} - {d.second}: {d.reason}"
            if d.difference is None
            else f"  {d.first} - {d.second}: {score_text(d.difference)}"
            + (f", {d.better} is better" if d.better else ", no difference shown")
            for d in self.differences
        ]
        stages = other_stages(self.table)
        if stages:
            lines += ["", f"{'other stages':<{width}}" + "".join(f"{s:>12}" for s in stages)]
            lines += [
                f"{r.name:<{width}}"
                + "".join(f"{_seconds_text(r.seconds.get(s)):>12}" for s in stages)
                for r in self.table
            ]
        if any(_CLIPPED in line for line in lines):
            lines += ["", f"{_CLIPPED} log densities below -50 nats were counted as -50"]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready description."""
        return {
            "schema": SCHEMA,
            "false_discovery_rate": self.false_discovery_rate,
            "not_calibrated": list(self.not_calibrated),
            "table": [
                {
                    **asdict(r),
                    "parameters": list(r.parameters),
                    "labels": list(r.labels),
                    "nll": _score_dict(r.nll),
                    "gain": _score_dict(r.gain),
                    "coverage_90": None if r.coverage_90 is None else list(r.coverage_90),
                    "seconds": dict(r.seconds),
                }
                for r in self.table
            ],
            "differences": [
                {
                    "first": d.first,
                    "second": d.second,
                    "difference": _score_dict(d.difference),
                    "better": d.better,
                    "reason": d.reason,
                }
                for d in self.differences
            ],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild from `to_dict`.

        Raises:
            ValidationError: If the schema is another one or entries are missing.
        """
        check_schema(data, "comparison", SCHEMA)
        try:
            return cls(
                table=tuple(_row(r) for r in data["table"]),
                differences=tuple(
                    PairedDifference(d["first"], d["second"], _score(d["difference"]), d["reason"])
                    for d in data["differences"]
                ),
                false_discovery_rate=data["false_discovery_rate"],
            )
        except KeyError as error:
            raise ValidationError(f"comparison lacks the entry {error}: it is damaged") from error

    @classmethod
    def from_json(cls, path: str | Path) -> Self:
        """Rebuild from a file written by `to_json`.

        Raises:
            ValidationError: If it is not a comparison of this schema.
        """
        return cls.from_dict(read_json(path, "a comparison"))


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for the false-discovery rate; reject those at most the rate.

    Args:
        p_values: One for each hypothesis, in [0, 1].

    Examples:
        >>> [round(p, 3) for p in benjamini_hochberg([0.01, 0.04, 0.03, 0.5])]
        [0.04, 0.053, 0.053, 0.5]
    """
    n, smallest = len(p_values), 1.0
    adjusted = [1.0] * n
    # From the largest p-value down, so that the adjusted ones stay in order.
    for rank, k in reversed(list(enumerate(sorted(range(n), key=p_values.__getitem__), 1))):
        smallest = min(smallest, p_values[k] * n / rank)
        adjusted[k] = smallest
    return adjusted


def paired(first: str, a: Coverage, second: str, b: Coverage) -> PairedDifference:
    """Compare the scores of two records, if they are about the same pairs.

    Args:
        first: Name of the one.
        a: Its record.
        second: Name of the other.
        b: Its record.
    """
    obstacle = _unpaired(a, b)
    if obstacle or a.log_q is None or b.log_q is None:
        return PairedDifference(first, second, None, f"not paired: {obstacle}")
    # Runs on the same pairs may have used only the first of them.
    n = min(len(a.log_q), len(b.log_q))
    try:
        score = paired_difference(b.log_q[:n], a.log_q[:n])
    except ValidationError as error:
        return PairedDifference(first, second, None, f"not comparable: {error}")
    known = _digest(a) is not None
    how = "same pairs" if known else "same true parameters; nothing is recorded about the data"
    return PairedDifference(first, second, score, how)


def other_stages(rows: Sequence[RunRow]) -> list[str]:
    """Return the stages whose time is known, besides training and sampling."""
    known = dict.fromkeys(stage for row in rows for stage in row.seconds)
    return [stage for stage in known if stage not in ("train", "infer")]


def score_text(score: Score | None) -> str:
    """Return mean and standard error, with a dagger if densities were clipped; a dash for None."""
    if score is None:
        return "-"
    mark = _CLIPPED if score.n_clipped else ""
    return f"{score.mean:.3f} +- {score.standard_error:.3f}{mark}"


def _seconds_text(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.1f} s"


def _unpaired(a: Coverage, b: Coverage) -> str:
    """Say why two records can't be paired; empty when they can."""
    if a.log_q is None or b.log_q is None:
        return "no normalised density"
    if _scored(a) != _scored(b):
        return f"densities of {', '.join(_scored(a))} and of {', '.join(_scored(b))}"
    priors = [c.prior.digest() if c.prior is not None else None for c in (a, b)]
    if priors[0] != priors[1]:
        return "the priors differ, and with them the coordinates of the densities"
    if _digest(a) != _digest(b):
        return "the pairs differ"
    if _digest(a) is None and not _same_truths(a, b):
        return "the true parameters differ"
    return ""


def _digest(coverage: Coverage) -> str | None:
    pairs = coverage.provenance.get("pairs") or {}
    digest: str | None = pairs.get("digest")
    return digest


def _scored(coverage: Coverage) -> tuple[str, ...]:
    """Parameters whose joint density is scored: of several blocks the largest."""
    blocks = [tuple(q.partition(":")[2].split(",")) for q in coverage.pit if q.startswith("hpd:")]
    if "hpd" in coverage.pit or not blocks:
        return coverage.names
    return max(blocks, key=len)


def _same_truths(a: Coverage, b: Coverage) -> bool:
    if a.log_prior is not None and b.log_prior is not None:
        return a.log_prior.tobytes() == b.log_prior.tobytes()
    return a.counts.pairs == b.counts.pairs and (
        a.recovery.truth.tobytes() == b.recovery.truth.tobytes()
    )


def _negated(score: Score) -> Score:
    turned = -score.mean
    return Score(
        mean=turned,
        standard_error=score.standard_error,
        # The bound lies as far below the mean as before.
        lower_99=turned - (score.mean - score.lower_99),
        n=score.n,
        n_clipped=score.n_clipped,
    )


def _coverage_text(row: RunRow) -> str:
    return "-" if row.coverage_90 is None else f"{row.coverage_90[0]:.3f}"


def _score_dict(score: Score | None) -> dict[str, Any] | None:
    return None if score is None else to_record(asdict(score))


def _score(data: Mapping[str, Any] | None) -> Score | None:
    return None if data is None else Score(**from_record(data))


def _row(data: Mapping[str, Any]) -> RunRow:
    coverage = data["coverage_90"]
    return RunRow(
        **{
            **data,
            "parameters": tuple(data["parameters"]),
            "labels": tuple(data["labels"]),
            "nll": _score(data["nll"]),
            "gain": _score(data["gain"]),
            "coverage_90": None if coverage is None else tuple(coverage),
        }
    )
