"""The figures of a report: what they show, in words too, and how to read them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sbi_physics.coverage import Coverage
from sbi_physics.diagnostics.bands import ecdf_band
from sbi_physics.diagnostics.local import LocalMap
from sbi_physics.plots import (
    corner_figure,
    coverage_figure,
    local_map_figure,
    local_overview_figure,
    loss_figure,
    observation_figure,
    pp_figure,
    rank_figure,
    recovery_figure,
)
from sbi_physics.quantities import family, is_region, region_credibility, region_name
from sbi_physics.report.embed import FigurePlan
from sbi_physics.report.record import ReportInput
from sbi_physics.types import FloatArray

_MOST_LOCAL = 3


def report_figures(record: ReportInput) -> Iterator[FigurePlan]:
    """Plan all figures of a study's report."""
    names = ", ".join(record.prior.names)
    truth = {r.name: r.truth for r in record.table if r.truth is not None}
    yield FigurePlan(
        "corner",
        "posterior",
        "Posterior",
        f"Corner plot of the posterior of {names}. "
        + "; ".join(
            f"{r.name}: median {r.median:.4g}, 68 % interval {r.interval_68[0]:.4g} to "
            f"{r.interval_68[1]:.4g}"
            for r in record.table
        ),
        "Diagonal: one parameter each, with the central 68 and 95 % intervals shaded, the median "
        "dashed and the prior dotted. Below: the smallest regions holding 68 and 95 % of the "
        "posterior." + (" Orange: the true values." if truth else ""),
        lambda theme: corner_figure(
            record.samples,
            record.prior.parameters,
            pairs=record.pair_samples,
            truth=truth or None,
            theme=theme,
        ),
    )
    yield FigurePlan(
        "observation",
        "observation",
        "Observation",
        f"The observed data: {record.observable.kind} of shape {record.observable.shape}, "
        f"{record.observation_source}.",
        "The data the posterior above was computed for."
        + (
            " Bands: data simulated from posterior draws; the observation should look like one "
            "of them."
            if record.predictive is not None
            else ""
        ),
        lambda theme: observation_figure(
            record.observable, record.observation, predictive=record.predictive, theme=theme
        ),
    )
    yield from coverage_figures(record.coverage)
    history = record.history
    if history is not None and any(h.validation_loss for h in history.members or (history,)):
        yield FigurePlan(
            "loss",
            "training",
            "Training",
            "Training and validation loss against epoch.",
            "The network of the marked epoch, where the validation loss is lowest, was kept. A "
            "training curve far below the validation curve means too few simulations.",
            lambda theme: loss_figure(history, theme=theme),
        )


def coverage_figures(coverage: Coverage) -> Iterator[FigurePlan]:
    """Plan the figures of a coverage record."""
    regions = [q for q in coverage.quantities if is_region(q)]
    if regions:
        yield FigurePlan(
            "coverage",
            "coverage",
            "Expected coverage of credible regions",
            "Expected coverage against credibility. At 90 % credibility the coverage is "
            + "; ".join(
                f"{100 * coverage.ecp(0.90, q)[0]:.1f} % for {region_name(q, coverage.names)}"
                for q in regions
            )
            + ".",
            "A 90 % region should hold the truth in 90 % of simulated experiments: the diagonal. "
            "Above it the regions are larger than needed (conservative), below it too small "
            "(over-confident). An exact posterior stays inside the grey area in 95 % of studies.",
            lambda theme: coverage_figure(coverage, theme=theme),
        )
    p_values = "; ".join(
        f"{t.name.removeprefix('sbc:')}: p = {t.p_value:.2g}"
        for t in coverage.tests
        if t.name in coverage.pit and t.name not in regions and t.family == family(t.name)
    )
    yield FigurePlan(
        "pp",
        "coverage",
        "Probability-probability plot",
        f"Fraction of pairs against posterior probability below the truth. {p_values}.",
        "One curve for each parameter, all of which should follow the diagonal. Flat in the "
        "middle, steep at the ends: intervals too narrow; steep in the middle: too wide; all "
        "above: the posterior lies too high; all below: too low.",
        lambda theme: pp_figure(coverage, theme=theme),
    )
    for quantity in coverage.quantities:
        yield _rank_plan(coverage, quantity)
    if len(coverage.recovery.truth):
        yield FigurePlan(
            "recovery",
            "recovery",
            "Recovery of known parameters",
            "Posterior medians with 68 and 95 % intervals against true values, for "
            + ", ".join(coverage.names)
            + ".",
            "Each point is one simulated experiment. Points follow the line as far as the data "
            "determine the parameter; medians that stay flat mean that the prior decides.",
            lambda theme: recovery_figure(coverage, theme=theme),
        )
    if coverage.local is not None:
        yield from _local_plans(coverage.local)


def _local_plans(local: LocalMap) -> Iterator[FigurePlan]:
    """The map of all bins, and the widths of the quantities that deviate most."""
    worst = local.deviating()
    found = f"smallest adjusted p = {local.p_global:.2g}"
    if worst:
        cell = worst[0]
        found = (
            f"the worst is {cell.quantity} for {cell.feature} between {cell.low:.3g} and "
            f"{cell.high:.3g}, where the coverage is {cell.coverage[0]:.3f}"
        )
    yield FigurePlan(
        "local",
        "local",
        "Calibration in bins of the data",
        f"Map of {local.n_tests} cells: coverage of 68.3 % regions of "
        f"{', '.join(local.quantities)} in bins of {', '.join(local.features)}. "
        f"{len(worst)} cells deviate; {found}.",
        "One row for each quantity, one group of columns for each principal component of the "
        "data, its bins from low to high values. Orange: the regions hold the truth too rarely "
        "there (over-confident or biased); blue: too often (conservative). Crosses: cells that "
        "deviate; for an exact posterior there is none in 99 % of studies. Without a cross, "
        "colours are noise.",
        lambda theme: local_overview_figure(local, theme=theme),
    )
    for quantity in list(dict.fromkeys(c.quantity for c in worst))[:_MOST_LOCAL]:
        yield _local_plan(local, quantity)


def _local_plan(local: LocalMap, quantity: str) -> FigurePlan:
    effect = "width" if family(quantity) == "sbc" else "coverage"
    cells = [c for c in local.deviating() if c.quantity == quantity]
    how = {
        "width": "True over claimed width; above the line the posterior is over-confident there, "
        "below it is conservative.",
        "coverage": "Coverage of 68.3 % regions; below the line they are too small there, above "
        "it too large.",
    }[effect]
    return FigurePlan(
        f"local-{quantity}",
        "local",
        f"{quantity} in bins of the data",
        f"{quantity} in bins of {', '.join(local.features)}; {len(cells)} bins deviate: "
        + "; ".join(
            f"{effect} {getattr(c, effect)[0]:.2f} for {c.feature} {c.low:.3g} to {c.high:.3g}"
            for c in cells[:6]
        )
        + ".",
        f"{how} Bars hold together with {100 * local.confidence:g} % confidence; orange bins "
        "deviate.",
        lambda theme: local_map_figure(local, quantity, effect=effect, theme=theme),
    )


def _rank_plan(coverage: Coverage, quantity: str) -> FigurePlan:
    u = coverage.u(quantity)
    if is_region(quantity):
        values = region_credibility(quantity, u)
        shown = f"Expected coverage minus credibility, {region_name(quantity, coverage.names)}"
        how = "Above the grey area: regions too large (conservative). Below: over-confident."
        if family(quantity) != "hpd":
            # Balls may be too large far from the posterior where they are too small near it.
            how += " On both sides: widths or centres are wrong."
    else:
        values = u
        shown = f"Distribution of ranks minus uniform, {quantity}"
        how = (
            "Above the grey area: posterior too high. Below: too low. Up, then down: too narrow. "
            "Down, then up: too wide."
        )
    test = next(
        (t for t in coverage.tests if (t.name, t.family) == (quantity, family(quantity))), None
    )
    p_text = "" if test is None else f"; p = {test.p_value:.2g}"
    return FigurePlan(
        f"ranks-{quantity}",
        "ranks",
        quantity,
        f"{shown}: {_course(values)}{p_text}.",
        how,
        lambda theme: rank_figure(coverage, [quantity], theme=theme),
    )


def _course(values: FloatArray) -> str:
    """Say where a distribution function leaves the band of uniform ones, and how far it goes."""
    band = ecdf_band(len(values))
    counts = np.searchsorted(np.sort(values), band.z, side="right") / len(values)
    counts[-1] = 1.0
    outside = (counts < band.low) | (counts > band.high)
    difference = counts - band.z
    worst = int(np.argmax(np.abs(difference)))
    extreme = f"largest difference {difference[worst]:+.3f} at {band.z[worst]:.2f}"
    if not outside.any():
        return f"stays inside the 95 % band, {extreme}"
    sides = [
        side
        for side, there in (
            ("above", (counts > band.high).any()),
            ("below", (counts < band.low).any()),
        )
        if there
    ]
    return f"leaves the 95 % band {' and '.join(sides)}, {extreme}"
