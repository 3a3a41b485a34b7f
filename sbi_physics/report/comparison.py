"""The page of a comparison: several runs side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from sbi_physics.comparison import Comparison, other_stages
from sbi_physics.coverage import Coverage
from sbi_physics.diagnostics.expected_coverage import TABLE_LEVELS
from sbi_physics.plots import compared_coverage_figure, effect_figure, score_figure
from sbi_physics.progress import SILENT, Progress
from sbi_physics.quantities import EFFECT_MEANINGS, is_region, region_name
from sbi_physics.report.embed import FigurePlan, draw_all
from sbi_physics.report.page import render


def write_comparison(
    comparison: Comparison,
    coverages: Mapping[str, Coverage],
    folder: str | Path,
    *,
    progress: Progress = SILENT,
) -> Path:
    """Write `compare.html`, `compare.json` and `figures/*.png`; return the path of the page.

    Args:
        comparison: The record.
        coverages: The compared records, by name of the run, in the same order.
        folder: Existing or new folder.
        progress: Where to show progress.
    """
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    page = render_comparison(comparison, coverages, figures=root / "figures", progress=progress)
    comparison.to_json(root / "compare.json")
    target = root / "compare.html"
    target.write_text(page, encoding="utf-8")
    return target


def render_comparison(
    comparison: Comparison,
    coverages: Mapping[str, Coverage],
    *,
    figures: Path | None = None,
    progress: Progress = SILENT,
) -> str:
    """Return the page as HTML; figures are also written to a folder if one is given."""
    regions = dict.fromkeys(q for c in coverages.values() for q in c.quantities if is_region(q))
    kinds = {e.kind for c in coverages.values() for e in c.effects}
    return render(
        "compare.html.j2",
        c=comparison,
        coverages=coverages,
        stages=other_stages(comparison.table),
        levels=TABLE_LEVELS,
        region_name=region_name,
        regions=list(regions),
        meanings=[(k, t) for k, t in EFFECT_MEANINGS.items() if k in kinds],
        sections=draw_all(_figures(comparison, coverages), figures, progress),
        conclusion=_conclusion(comparison),
    )


def _conclusion(comparison: Comparison) -> str:
    """One line: which runs may be trusted, and which of those is the sharpest."""
    bad = comparison.not_calibrated
    rate = f"{100 * comparison.false_discovery_rate:g} %"
    if len(bad) == len(comparison.table):
        return f"No run is calibrated (false-discovery rate {rate})."
    start = (
        f"Not calibrated: {', '.join(bad)} (false-discovery rate {rate})."
        if bad
        else f"No run deviates from calibration (false-discovery rate {rate})."
    )
    calibrated = [r.name for r in comparison.table if r.name not in bad]
    best = [
        a
        for a in calibrated
        if len(calibrated) > 1
        and all(comparison.difference(a, b).better == a for b in calibrated if b != a)
    ]
    others = "the other calibrated runs" if bad else "all others"
    return start + (f" {best[0]} has a lower NLL than {others} on the same pairs." if best else "")


def _figures(comparison: Comparison, coverages: Mapping[str, Coverage]) -> Iterator[FigurePlan]:
    regions = dict.fromkeys(q for c in coverages.values() for q in c.quantities if is_region(q))
    for quantity in regions:
        having = {name: c for name, c in coverages.items() if quantity in c.pit}
        name = region_name(quantity)
        yield FigurePlan(
            f"coverage-{quantity}",
            "coverage",
            f"Expected coverage, {name}",
            f"Expected coverage against credibility, {name}. At 90 % credibility: "
            + "; ".join(f"{n} {100 * c.ecp(0.9, quantity)[0]:.1f} %" for n, c in having.items())
            + ".",
            "Above the diagonal: conservative; below: over-confident. An exact posterior stays "
            "inside the grey area in 95 % of studies.",
            lambda theme, q=quantity: compared_coverage_figure(coverages, q, theme=theme),  # type: ignore[misc]
        )
    reference = _reference(comparison)
    if reference is not None:
        yield FigurePlan(
            "scores",
            "scores",
            "Score on the same pairs",
            f"NLL minus that of {reference}: "
            + "; ".join(
                f"{r.name} {d.mean:+.3f} +- {d.standard_error:.3f}"
                for r in comparison.table
                if r.name != reference
                and (d := comparison.difference(r.name, reference).difference) is not None
            )
            + ".",
            "Points with 95 % intervals. Left of zero: closer to the exact posterior than the "
            "reference; an interval that holds zero shows no difference.",
            lambda theme: score_figure(comparison, reference, theme=theme),
        )
    toleranced = (e.kind for c in coverages.values() for e in c.effects if e.tolerance)
    for kind in dict.fromkeys(toleranced):
        yield FigurePlan(
            f"effect-{kind}",
            "effects",
            kind.capitalize(),
            f"{kind.capitalize()}: "
            + "; ".join(
                f"{n} {e.name} {e.value:.3f} [{e.low:.3f}, {e.high:.3f}]"
                for n, c in coverages.items()
                for e in c.effects
                if e.kind == kind
            )
            + ".",
            f"{EFFECT_MEANINGS.get(kind, kind).capitalize()}, with 95 % intervals. Inside the "
            "grey area the deviation is negligible.",
            lambda theme, k=kind: effect_figure(coverages, k, theme=theme),  # type: ignore[misc]
        )


def _reference(comparison: Comparison) -> str | None:
    """Of the runs paired with most others, the one with the lowest NLL."""
    partners: dict[str, int] = {}
    for d in comparison.differences:
        if d.difference is not None:
            for name in (d.first, d.second):
                partners[name] = partners.get(name, 0) + 1
    if not partners:
        return None
    scores = {r.name: r.nll.mean for r in comparison.table if r.nll is not None}
    return min(partners, key=lambda n: (-partners[n], scores.get(n, 0.0)))
