"""Figures of a Coverage record: ranks, expected coverage, pp-plot, recovery."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sbi_physics.coverage import Coverage
from sbi_physics.diagnostics.bands import ecdf_band
from sbi_physics.plots.local import local_overview_figure
from sbi_physics.plots.style import (
    LIGHT,
    Theme,
    grid_shape,
    legend_below,
    new_figure,
    panels,
    safe_label,
    save,
    series_style,
    set_scale,
    style_axes,
)
from sbi_physics.quantities import (
    family,
    is_region,
    parameters_of,
    region_credibility,
    region_name,
)
from sbi_physics.types import FloatArray

COVERAGE_FIGURES: Final = ("ranks", "coverage", "pp", "recovery")
"""File names, without `.png`, that `save_coverage_figures` writes."""

_MAX_POINTS = 150


def rank_figure(
    coverage: Coverage, quantities: Sequence[str] = (), *, theme: Theme = LIGHT
) -> Figure:
    """Draw the distribution function of each quantity minus the diagonal, one panel for each.

    Grey: the region that an exact posterior's whole curve stays in with 95 % probability. Panels
    of regions show the expected coverage minus the credibility: above zero is conservative.

    Args:
        coverage: The record.
        quantities: Which quantities; default all tested ones.
        theme: Colours.
    """
    chosen = tuple(quantities) or coverage.quantities
    figure, axes = panels(len(chosen), theme, width=3.3 if len(chosen) == 1 else 3.0)
    for k, (axis, quantity) in enumerate(zip(axes, chosen, strict=True)):
        _draw_difference(
            axis, coverage, quantity, theme, labelled=k % grid_shape(len(chosen))[1] == 0
        )
    return figure


def coverage_figure(coverage: Coverage, *, theme: Theme = LIGHT) -> Figure:
    """Draw expected coverage against credibility for every kind of joint region.

    Grey: the region that an exact posterior's whole curve stays in with 95 % probability. Coloured
    band: pointwise 95 % intervals of the coverage.
    """
    figure, axes = square(theme)
    regions = [q for q in coverage.quantities if is_region(q)]
    draw_diagonal(axes, [len(coverage.u(q)) for q in regions], theme)
    for k, quantity in enumerate(regions):
        label = region_name(quantity, parameters_of(quantity), _writer(coverage))
        draw_curve(axes, coverage, quantity, label, series_style(theme, k))
    name_sides(axes, theme)
    legend_below(figure, axes, theme)
    return figure


def draw_curve(
    axes: Axes, coverage: Coverage, quantity: str, label: str, style: tuple[str, str]
) -> None:
    """Draw one expected-coverage curve with its pointwise 95 % intervals."""
    colour, line = style
    curve = coverage.curve(quantity)
    axes.fill_between(curve.levels, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
    axes.plot(curve.levels, curve.ecp, color=colour, linestyle=line, label=label, linewidth=1.5)


def name_sides(axes: Axes, theme: Theme) -> None:
    """Write on both sides of the diagonal what they mean, and name the axes."""
    axes.set_xlabel("credibility of the region", fontsize=9)
    axes.set_ylabel("expected coverage", fontsize=9)
    note = {"fontsize": 8.5, "color": theme.text, "style": "italic"}
    axes.text(0.03, 0.97, "conservative\n(regions too large)", ha="left", va="top", fontdict=note)
    axes.text(
        0.97, 0.03, "over-confident\n(regions too small)", ha="right", va="bottom", fontdict=note
    )


def pp_figure(coverage: Coverage, *, theme: Theme = LIGHT) -> Figure:
    """Draw the distribution function of each parameter's ranks against the diagonal."""
    quantities = [q for q in coverage.quantities if not is_region(q)]
    figure, axes = square(theme)
    draw_diagonal(axes, [len(coverage.u(q)) for q in quantities], theme)
    for k, quantity in enumerate(quantities):
        u = np.sort(coverage.u(quantity))
        colour, line = series_style(theme, k)
        steps = np.concatenate([[0.0], np.arange(1, len(u) + 1) / len(u), [1.0]])
        p_text = _p_text(coverage, quantity)
        label = _marginal_label(coverage, quantity) + (f"  ({p_text})" if p_text else "")
        ends = np.concatenate([[0.0], u, [1.0]])
        axes.step(ends, steps, where="post", color=colour, linestyle=line, label=label, lw=1.4)
    axes.set_xlabel("posterior probability below the truth", fontsize=9)
    axes.set_ylabel("fraction of pairs", fontsize=9)
    legend_below(figure, axes, theme)
    return figure


def recovery_figure(coverage: Coverage, *, theme: Theme = LIGHT) -> Figure:
    """Draw posterior medians with 68 and 95 % intervals against the true values."""
    truth, quantiles = coverage.recovery.truth, coverage.recovery.quantiles
    shown = np.unique(np.linspace(0, len(truth) - 1, min(_MAX_POINTS, len(truth))).astype(int))
    figure, axes = panels(len(coverage.names), theme, height=2.9)
    for j, (axis, name) in enumerate(zip(axes, coverage.names, strict=True)):
        x, q = truth[shown, j], quantiles[shown, :, j]
        colour = theme.series[0]
        axis.vlines(x, q[:, 0], q[:, 4], color=colour, alpha=0.22, linewidth=0.8)
        axis.vlines(x, q[:, 1], q[:, 3], color=colour, alpha=0.55, linewidth=1.3)
        axis.plot(x, q[:, 2], ".", color=colour, markersize=3.5)
        low, high = float(min(x.min(), q.min())), float(max(x.max(), q.max()))
        parameter = None if coverage.prior is None else coverage.prior.parameters[name]
        scale = "linear" if parameter is None or low <= 0 else parameter.scale
        low, high = _padded(low, high, scale)
        axis.plot([low, high], [low, high], color=theme.truth, linewidth=1.0)
        set_scale(axis, "x", scale, low, high)
        set_scale(axis, "y", scale, low, high)
        label = name if parameter is None else safe_label(parameter)
        axis.set_xlabel(f"true {label}", fontsize=9)
        axis.set_ylabel("posterior median" if j % 3 == 0 else "", fontsize=9)
    return figure


def save_coverage_figures(coverage: Coverage, folder: str | Path) -> tuple[Path, ...]:
    """Write all figures of a record as PNG files and return their paths."""
    root = Path(folder)
    figures = {
        "ranks": rank_figure(coverage),
        "coverage": coverage_figure(coverage) if any(map(is_region, coverage.pit)) else None,
        "pp": pp_figure(coverage),
        "recovery": recovery_figure(coverage) if len(coverage.recovery.truth) else None,
        "local": local_overview_figure(coverage.local) if coverage.local is not None else None,
    }
    return tuple(save(f, root / f"{name}.png") for name, f in figures.items() if f is not None)


def _draw_difference(
    axes: Axes, coverage: Coverage, quantity: str, theme: Theme, *, labelled: bool
) -> None:
    """One panel: ECDF minus uniform inside its band, with what either side means."""
    if is_region(quantity):
        values = region_credibility(quantity, coverage.u(quantity))
        title = region_name(quantity, parameters_of(quantity), _writer(coverage), most=2)
        labels = ("credibility", "coverage $-$ credibility")
        sides = ("conservative", "over-confident")
    else:
        values = coverage.u(quantity)
        title = _marginal_label(coverage, quantity)
        labels = ("rank of the truth / draws", "ECDF $-$ uniform")
        sides = ("posterior too high", "posterior too low")
    band = ecdf_band(len(values))
    x, difference = _difference(values)
    axes.fill_between(
        band.z, band.low - band.z, band.high - band.z, color=theme.band, alpha=0.3, linewidth=0
    )
    axes.plot(x, difference, color=theme.series[0], linewidth=1.4)
    axes.axhline(0.0, color=theme.muted, linewidth=0.8)
    largest = max(np.abs(difference).max(), (band.high - band.z).max()) * 1.45
    axes.set(xlim=(0, 1), ylim=(-largest, largest))
    p_text = _p_text(coverage, quantity)
    axes.set_title(f"{title}\n{p_text}" if p_text else title, fontsize=9, color=theme.text)
    axes.set_xlabel(labels[0], fontsize=9)
    axes.set_ylabel(labels[1] if labelled else "", fontsize=9)
    note = {"fontsize": 7.5, "style": "italic", "color": theme.text}
    for y, text, side in (
        (0.97, f"\u2191 {sides[0]}", "top"),
        (0.03, f"\u2193 {sides[1]}", "bottom"),
    ):
        axes.text(0.5, y, text, note, ha="center", va=side, transform=axes.transAxes)


def _difference(u: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Both sides of every jump of ECDF(u) - u."""
    ordered = np.sort(u)
    n = len(ordered)
    x = np.concatenate([[0.0], np.repeat(ordered, 2), [1.0]])
    heights = np.repeat(np.arange(n + 1) / n, 2)
    return x, heights - x


def square(theme: Theme) -> tuple[Figure, Axes]:
    """Return a figure with square axes from 0 to 1."""
    figure = new_figure(4.3, 4.8, theme)
    axes = style_axes(figure.add_subplot(), theme)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    return figure, axes


def draw_diagonal(axes: Axes, sizes: Sequence[int], theme: Theme) -> None:
    """Draw the diagonal, and the simultaneous band of the smallest sample."""
    if sizes:
        band = ecdf_band(min(sizes))
        axes.fill_between(
            band.z, band.low, band.high, color=theme.band, alpha=0.3, linewidth=0,
            label="95 % of exact posteriors",
        )  # fmt: skip
    axes.plot([0, 1], [0, 1], color=theme.muted, linewidth=1.0)


def _padded(low: float, high: float, scale: str) -> tuple[float, float]:
    if scale == "log10":
        factor = (high / low) ** 0.03 if high > low else 1.1
        return low / factor, high * factor
    margin = 0.03 * (high - low) if high > low else max(abs(low), 1.0) * 0.1
    return low - margin, high + margin


def _p_text(coverage: Coverage, quantity: str) -> str:
    """The p-value of the quantity's own test, where it has one."""
    result = next(
        (t for t in coverage.tests if (t.name, t.family) == (quantity, family(quantity))), None
    )
    return "" if result is None else f"$p$ = {result.p_value:.2g}"


def _marginal_label(coverage: Coverage, quantity: str) -> str:
    written = ", ".join(map(_writer(coverage), parameters_of(quantity)))
    kind = "" if family(quantity) == "sbc" else f"{family(quantity)} "
    return f"{kind}{written}".strip()


def _writer(coverage: Coverage) -> Callable[[str], str]:
    """How to write a parameter's name: with its label, where there is one."""
    if coverage.prior is None:
        return str
    parameters = coverage.prior.parameters
    return lambda name: safe_label(parameters[name], unit=False)
