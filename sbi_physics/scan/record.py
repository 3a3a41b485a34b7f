"""The record of a scan: what every point of the grid came to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from sbi_physics.comparison import score_text
from sbi_physics.diagnostics.information import Score
from sbi_physics.diagnostics.json_numbers import from_record, to_record
from sbi_physics.diagnostics.json_record import JsonRecord, check_schema
from sbi_physics.parameters import Parameter
from sbi_physics.types import FloatArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCHEMA: Final = 1

PRIOR: Final = "prior"
"""Name of the widths averaged over the prior, beside those at fiducial points."""


@dataclass(frozen=True, slots=True)
class ScanPoint:
    """One point of the grid.

    Attributes:
        values: Option -> value as it was asked for, as text.
        directory: Its run directory, relative to that of the scan.
        verdict: Verdict on its posterior; empty where the study failed.
        labels: What is wrong with it.
        p_global: Probability that an exact posterior looks as bad.
        nll: Mean negative log density of true parameters (scaled coordinates), if normalised.
        gain: Information gain over the prior, nats, if it could be computed.
        widths: Where -> parameter -> median posterior standard deviation, in the parameter's scale
            (of log10 where that is its scale). Where is `prior` or the name of a fiducial point.
        error: Why the study failed; empty where it did not.
    """

    values: Mapping[str, str]
    directory: str
    verdict: str = ""
    labels: tuple[str, ...] = ()
    p_global: float = math.nan
    nll: Score | None = None
    gain: Score | None = None
    widths: Mapping[str, Mapping[str, float]] | None = None
    error: str = ""

    @property
    def title(self) -> str:
        """The values as text."""
        return ", ".join(f"{name} = {value}" for name, value in self.values.items())

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready description."""
        data = asdict(self)
        data["labels"] = list(self.labels)
        data["p_global"] = None if math.isnan(self.p_global) else self.p_global
        for name in ("nll", "gain"):
            score = getattr(self, name)
            data[name] = None if score is None else to_record(asdict(score))
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild from `to_dict`."""
        values = dict(data)
        values["labels"] = tuple(values["labels"])
        values["p_global"] = math.nan if values["p_global"] is None else values["p_global"]
        for name in ("nll", "gain"):
            found = values[name]
            values[name] = None if found is None else Score(**from_record(found))
        return cls(**values)


@dataclass(frozen=True, slots=True, eq=False)
class Scan(JsonRecord):
    """A finished scan.

    Attributes:
        simulator: Name of the simulator.
        engine: Name of the engine, with its preset.
        seed: Seed of everything.
        varied: Varied option -> its values, as text.
        parameters: The inferred parameters.
        points: The points, the last option varying fastest.
        shared_truth: Whether points were observed from shared latents.
        directory: Where it was written.
    """

    simulator: str
    engine: str
    seed: int
    varied: Mapping[str, tuple[str, ...]]
    parameters: tuple[Parameter, ...]
    points: tuple[ScanPoint, ...]
    shared_truth: bool
    directory: Path

    @property
    def places(self) -> tuple[str, ...]:
        """Where widths are known: `prior`, then fiducial points."""
        found = [w for p in self.points for w in (p.widths or {})]
        return tuple(dict.fromkeys(found))

    @property
    def width_names(self) -> tuple[str, ...]:
        """What the width of each parameter is of: `sd log10 m_a`, or `sd offset [mm]`."""
        return tuple(
            f"sd log10 {p.name}"
            if p.scale == "log10"
            else f"sd {p.name}" + (f" [{p.unit}]" if p.unit else "")
            for p in self.parameters
        )

    @property
    def failed(self) -> tuple[ScanPoint, ...]:
        """Points whose study did not finish."""
        return tuple(p for p in self.points if p.error)

    def widths(self, parameter: str, place: str = PRIOR) -> FloatArray:
        """Posterior widths of one parameter on the grid, NaN where a study failed.

        Args:
            parameter: Its name.
            place: `prior` or the name of a fiducial point.

        Returns:
            Shape (number of values of each varied option...).
        """
        shape = [len(values) for values in self.varied.values()]
        found = [(p.widths or {}).get(place, {}).get(parameter, math.nan) for p in self.points]
        return np.array(found, dtype=np.float64).reshape(shape)

    def rows(
        self, places: Sequence[str] | None = None
    ) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """The table as text: headings, and one row for each point.

        Args:
            places: Where widths are shown; default everywhere.
        """
        shown = self.places if places is None else places
        headings = [*self.varied, "verdict", "global p", "NLL", "gain"]
        columns = [(place, p) for place in shown for p in self.parameters]
        headings += [f"{name} ({place})" for place in shown for name in self.width_names]
        rows = []
        for point in self.points:
            labels = f" ({', '.join(point.labels)})" if point.labels else ""
            row = [*point.values.values(), (point.verdict or "failed") + labels]
            row += [_number(point.p_global), score_text(point.nll), score_text(point.gain)]
            widths = point.widths or {}
            row += [_number(widths.get(place, {}).get(p.name, math.nan)) for place, p in columns]
            rows.append(tuple(row))
        return tuple(headings), rows

    def summary(self) -> str:
        """The table in Markdown."""
        headings, rows = self.rows()
        lines = [headings, tuple("---" for _ in headings), *rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def plot(self, place: str = PRIOR) -> Figure:
        """Draw the posterior widths, see `plots.widths_figure`."""
        from sbi_physics.plots import widths_figure

        return widths_figure(self, place)

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "simulator": self.simulator,
            "engine": self.engine,
            "seed": self.seed,
            "varied": {name: list(values) for name, values in self.varied.items()},
            "parameters": [p.to_dict() for p in self.parameters],
            "points": [p.to_dict() for p in self.points],
            "shared_truth": self.shared_truth,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], directory: Path) -> Self:
        """Rebuild from `to_dict`.

        Raises:
            ValidationError: If it is of another schema.
        """
        check_schema(data, "the scan", SCHEMA)
        return cls(
            simulator=data["simulator"],
            engine=data["engine"],
            seed=data["seed"],
            varied={name: tuple(values) for name, values in data["varied"].items()},
            parameters=tuple(Parameter.from_dict(p) for p in data["parameters"]),
            points=tuple(ScanPoint.from_dict(p) for p in data["points"]),
            shared_truth=data["shared_truth"],
            directory=directory,
        )


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3g}"
