"""From a record to a page."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from sbi_physics.diagnostics.expected_coverage import TABLE_LEVELS
from sbi_physics.report import text
from sbi_physics.report.record import ReportInput

TEMPLATE = "report.html.j2"


def write_report(record: ReportInput, folder: str | Path) -> Path:
    """Write `report.html` and `figures/*.png` into a folder and return the path of the page.

    Args:
        record: What to show.
        folder: Existing or new folder.
    """
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    page = render_report(record, figures=root / "figures")
    target = root / "report.html"
    target.write_text(page, encoding="utf-8")
    return target


def render_report(record: ReportInput, *, figures: Path | None = None) -> str:
    """Return the page as HTML; figures are also written to a folder if one is given."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # matplotlib takes most of a second to import: only when figures are drawn
    from sbi_physics.report.figures import make_figures

    environment = Environment(
        loader=PackageLoader("sbi_physics.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "symbol": text.symbol,
        "unit": text.unit,
        "number": text.number,
        "p_value": text.p_value,
        "duration": text.duration,
    }
    drawn = make_figures(record, figures)
    coverage = record.coverage
    return environment.get_template(TEMPLATE).render(
        r=record,
        c=coverage,
        sections={s: [f for f in drawn if f.section == s] for s in {f.section for f in drawn}},
        parameters=record.prior.parameters,
        marginalised=_marginalised(record),
        levels=TABLE_LEVELS,
        ecp_rows=[
            (_region_name(q), [coverage.ecp(level, q) for level in TABLE_LEVELS])
            for q in (*coverage.regions, *coverage.names)
        ],
        options=_flat({} if record.simulator is None else record.simulator.options),
        settings=_flat(record.settings),
        verdict_words=_VERDICT_WORDS[coverage.verdict],
        draws=len(record.samples),
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        finite=lambda v: bool(np.isfinite(v)),
        total=sum(record.seconds.values()),
    )


_VERDICT_WORDS = {
    "PASS": "The posterior is calibrated, as far as these pairs can tell.",
    "MARGINAL": "Calibrated up to a deviation that an exact posterior shows in a few percent of "
    "runs, or one too small to matter.",
    "FAIL": "The posterior is not calibrated: do not trust its intervals as they are.",
    "UNINFORMATIVE": "The posterior does not demonstrably know more than the prior.",
    "INCONCLUSIVE": "The validation could not decide.",
}


def _region_name(quantity: str) -> str:
    if quantity == "hpd":
        return "joint region of all parameters"
    if quantity.startswith("hpd:"):
        return "joint region of " + quantity.removeprefix("hpd:").replace(",", ", ")
    if quantity.startswith(("tarp_u", "tarp_x")):
        kind, _, block = quantity.partition(":")
        place = "anywhere" if kind == "tarp_u" else "near the data"
        about = f" of {block.replace(',', ', ')}" if block else ""
        return f"ball{about} around a random point {place} (TARP)"
    return f"central interval of {quantity}"


def _marginalised(record: ReportInput) -> list[Any]:
    if record.simulation_prior is None:
        return []
    return [p for p in record.simulation_prior.parameters if p.name not in record.prior.names]


def _flat(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(k, "default" if v is None else str(v)) for k, v in values.items()]
