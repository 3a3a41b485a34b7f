"""From records to pages."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from sbi_physics.coverage import Coverage
from sbi_physics.diagnostics.expected_coverage import TABLE_LEVELS
from sbi_physics.diagnostics.verdict import Effect
from sbi_physics.progress import SILENT, Progress
from sbi_physics.quantities import (
    EFFECT_MEANINGS,
    EXPLANATIONS,
    family,
    is_region,
    region_name,
)
from sbi_physics.report import text
from sbi_physics.report.record import ReportInput


def write_report(record: ReportInput, folder: str | Path, *, progress: Progress = SILENT) -> Path:
    """Write `report.html` and `figures/*.png` into a folder and return the path of the page.

    Args:
        record: What to show.
        folder: Existing or new folder.
        progress: Where to show progress.
    """
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    page = render_report(record, figures=root / "figures", progress=progress)
    target = root / "report.html"
    target.write_text(page, encoding="utf-8")
    return target


def write_coverage(
    coverage: Coverage, path: str | Path, *, title: str = "Coverage", progress: Progress = SILENT
) -> Path:
    """Write a page about a coverage record alone and return its path.

    Args:
        coverage: What to show.
        path: HTML file to write.
        title: Heading of the page.
        progress: Where to show progress.
    """
    target = Path(path)
    target.write_text(render_coverage(coverage, title=title, progress=progress), encoding="utf-8")
    return target


def render_report(
    record: ReportInput, *, figures: Path | None = None, progress: Progress = SILENT
) -> str:
    """Return the page of a study as HTML; figures are also written to a folder if one is given."""
    # matplotlib takes most of a second to import: only when figures are drawn
    from sbi_physics.report.embed import draw_all
    from sbi_physics.report.figures import report_figures

    return render(
        "report.html.j2",
        r=record,
        sections=draw_all(report_figures(record), figures, progress),
        parameters=record.prior.parameters,
        marginalised=_marginalised(record),
        options=_flat({} if record.simulator is None else record.simulator.options),
        settings=_flat(record.settings),
        draws=len(record.samples),
        total=sum(record.seconds.values()),
        **_calibration_values(record.coverage),
    )


def render_coverage(
    coverage: Coverage,
    *,
    title: str = "Coverage",
    figures: Path | None = None,
    progress: Progress = SILENT,
) -> str:
    """Return the page of a coverage record as HTML.

    Args:
        coverage: What to show.
        title: Heading of the page.
        figures: Folder for the figures as PNG files; None writes none.
        progress: Where to show progress.
    """
    from sbi_physics.report.embed import draw_all
    from sbi_physics.report.figures import coverage_figures

    facts, versions, hashes = _what_was_run(coverage)
    return render(
        "coverage.html.j2",
        title=title,
        sections=draw_all(coverage_figures(coverage), figures, progress),
        facts=facts,
        versions=versions,
        hashes=hashes,
        **_calibration_values(coverage),
    )


def render(template: str, **values: Any) -> str:
    """Fill one of the package's templates."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

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
    written = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return environment.get_template(template).render(written=written, **values)


def _calibration_values(coverage: Coverage) -> dict[str, Any]:
    """What `calibration.html.j2` and the verdict need besides the figures."""
    regions = [q for q in coverage.quantities if is_region(q)]
    ranked = {family(q) for q in coverage.quantities} | {t.family for t in coverage.tests}
    rows = [(region_name(q, coverage.names), q) for q in regions]
    rows += [(f"{n}: central interval", n) for n in coverage.names if f"sbc:{n}" in coverage.pit]
    return {
        "c": coverage,
        "levels": TABLE_LEVELS,
        "ecp_rows": [(n, [coverage.ecp(v, q) for v in TABLE_LEVELS]) for n, q in rows],
        "explanations": [(f, t) for f, t in EXPLANATIONS.items() if f in ranked],
        "meanings": [
            (k, t) for k, t in EFFECT_MEANINGS.items() if k in {e.kind for e in coverage.effects}
        ],
        "local_cells": () if coverage.local is None else coverage.local.deviating()[:_LOCAL_ROWS],
        "verdict_words": _VERDICT_WORDS[coverage.verdict],
        "how_to_read_ranks": _HOW_TO_READ_RANKS,
        "is_outside": _is_outside,
        "finite": lambda v: bool(np.isfinite(v)),
    }


_LOCAL_ROWS = 10

_VERDICT_WORDS = {
    "PASS": "The posterior is calibrated, as far as these pairs can tell.",
    "MARGINAL": "Calibrated up to a deviation that an exact posterior shows in a few percent of "
    "runs, or one too small to matter.",
    "FAIL": "The posterior is not calibrated: do not trust its intervals as they are.",
    "UNINFORMATIVE": "The posterior does not demonstrably know more than the prior.",
    "INCONCLUSIVE": "The validation could not decide.",
}

_HOW_TO_READ_RANKS = (
    "Each curve is a distribution function minus that of uniform ranks. The curve of an exact "
    "posterior stays inside the grey area, as a whole, in 95 % of studies. With many panels one "
    "may leave it by chance; the verdict takes that into account."
)


def _is_outside(effect: Effect) -> bool:
    tolerance = effect.tolerance
    return tolerance is not None and (effect.high < tolerance[0] or effect.low > tolerance[1])


def _what_was_run(
    coverage: Coverage,
) -> tuple[list[tuple[str, str]], list[tuple[str, str]], list[tuple[str, str]]]:
    """Facts, versions and hashes of a record's provenance, of which any may be missing."""
    origin = coverage.provenance
    pairs = origin.get("pairs") or {}
    simulator = origin.get("simulator") or {}
    training = origin.get("training") or {}
    facts = {
        "source of the draws": origin.get("engine"),
        "simulator": " ".join(str(simulator[k]) for k in ("name", "version") if k in simulator),
        "pairs": coverage.counts.pairs,
        "draws for each pair": coverage.n_draws,
        "seed": coverage.seed,
        "seed of the pairs": pairs.get("seed"),
        "seed of the training": origin.get("training_seed"),
        "time": text.duration(origin["seconds"]) if "seconds" in origin else None,
    }
    hashes = {
        "pairs": pairs.get("digest"),
        "training simulations": training.get("digest"),
        "prior": origin.get("prior"),
    }
    versions = origin.get("versions") or {}
    return _given(facts), _given(versions), _given(hashes)


def _given(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(k, str(v)) for k, v in values.items() if v not in (None, "")]


def _marginalised(record: ReportInput) -> list[Any]:
    if record.simulation_prior is None:
        return []
    return [p for p in record.simulation_prior.parameters if p.name not in record.prior.names]


def _flat(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(k, "default" if v is None else str(v)) for k, v in values.items()]
