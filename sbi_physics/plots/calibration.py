"""Figures of a Coverage record: ranks, expected coverage, pp-plot, recovery."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sbi_physics.coverage import Coverage
from sbi_physics.diagnostics.bands import Band, ecdf_band
from sbi_physics.plots.style import (
    LIGHT,
    Theme,
    legend_below,
    new_figure,
    panels,
    safe_label,
    save,
    series_style,
    set_scale,
    style_axes,
)
from sbi_physics.types import FloatArray

COVERAGE_FIGURES: Final = ("ranks", "coverage", "pp", "recovery")
"""File names, without `.png`, that `save_coverage_figures` writes."""

_MAX_POINTS = 150


def rank_figure(coverage: Coverage, *, theme: Theme = LIGHT) -> Figure:
    """Draw the distribution function of each parameter's ranks minus the diagonal.

    Grey: the region that an exact posterior's whole curve stays in with 95 % probability.
    """
    quantities = [q for q in coverage.quantities if q.startswith("sbc")]
    figure, axes = panels(len(quantities), theme)
    for k, (axis, quantity) in enumerate(zip(axes, quantities, strict=True)):
        u = coverage.u(quantity)
        band = ecdf_band(len(u))
        x, difference = _difference(u)
        _draw_band(axis, band, theme)
        axis.plot(x, difference, color=theme.series[0], linewidth=1.4)
        axis.axhline(0.0, color=theme.muted, linewidth=0.8)
        largest = max(np.abs(difference).max(), (band.high - band.z).max()) * 1.15
        axis.set(xlim=(0, 1), ylim=(-largest, largest))
        result = next((t for t in coverage.tests if t.name == quantity), None)
        suffix = "" if result is None else f"   p = {result.p_value:.2g}"
        axis.set_title(
            _quantity_label(coverage, quantity) + suffix, fontsize=9.5, color=theme.text
        )
        if k % 3 == 0:
            axis.set_ylabel("ECDF $-$ uniform", fontsize=9)
        axis.set_xlabel("rank of the truth / draws", fontsize=9)
    return figure


def coverage_figure(coverage: Coverage, *, theme: Theme = LIGHT) -> Figure:
    """Draw expected coverage against credibility for every highest-density region.

    Grey: the region that an exact posterior's whole curve stays in with 95 % probability. Coloured
    band: pointwise 95 % intervals of the coverage.
    """
    figure = new_figure(4.9, 5.3, theme)
    axes = style_axes(figure.add_subplot(), theme)
    regions = coverage.regions
    sizes = [len(coverage.u(q)) for q in regions]
    if sizes:
        band = ecdf_band(min(sizes))
        axes.fill_between(
            band.z, band.low, band.high, color=theme.band, alpha=0.3, linewidth=0,
            label="95 % of exact posteriors",
        )  # fmt: skip
    axes.plot([0, 1], [0, 1], color=theme.muted, linewidth=1.0)
    for k, quantity in enumerate(regions):
        colour, line = series_style(theme, k)
        curve = coverage.curve(quantity)
        axes.fill_between(
            curve.levels, curve.low, curve.high, color=colour, alpha=0.18, linewidth=0
        )
        label = _quantity_label(coverage, quantity)
        axes.plot(curve.levels, curve.ecp, color=colour, linestyle=line, label=label)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set_xlabel("credibility of the region")
    axes.set_ylabel("expected coverage")
    note = {"fontsize": 9, "color": theme.text, "style": "italic"}
    axes.text(0.03, 0.97, "conservative\n(regions too large)", ha="left", va="top", fontdict=note)
    axes.text(
        0.97, 0.03, "over-confident\n(regions too small)", ha="right", va="bottom", fontdict=note
    )
    legend_below(figure, axes, theme)
    return figure


def pp_figure(coverage: Coverage, *, theme: Theme = LIGHT) -> Figure:
    """Draw the distribution function of each parameter's ranks against the diagonal."""
    quantities = [q for q in coverage.quantities if q.startswith("sbc")]
    figure = new_figure(4.9, 5.3, theme)
    axes = style_axes(figure.add_subplot(), theme)
    band = ecdf_band(min(len(coverage.u(q)) for q in quantities))
    axes.fill_between(
        band.z, band.low, band.high, color=theme.band, alpha=0.3, linewidth=0,
        label="95 % of exact posteriors",
    )  # fmt: skip
    axes.plot([0, 1], [0, 1], color=theme.muted, linewidth=1.0)
    for k, quantity in enumerate(quantities):
        u = np.sort(coverage.u(quantity))
        colour, line = series_style(theme, k)
        result = next((t for t in coverage.tests if t.name == quantity), None)
        suffix = "" if result is None else f"  ($p$ = {result.p_value:.2g})"
        steps = np.concatenate([[0.0], np.arange(1, len(u) + 1) / len(u), [1.0]])
        label = _quantity_label(coverage, quantity) + suffix
        ends = np.concatenate([[0.0], u, [1.0]])
        axes.step(ends, steps, where="post", color=colour, linestyle=line, label=label, lw=1.4)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set_xlabel("posterior probability below the truth")
    axes.set_ylabel("fraction of pairs")
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
        "coverage": coverage_figure(coverage) if coverage.regions else None,
        "pp": pp_figure(coverage),
        "recovery": recovery_figure(coverage) if len(coverage.recovery.truth) else None,
    }
    return tuple(save(f, root / f"{name}.png") for name, f in figures.items() if f is not None)


def _difference(u: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Both sides of every jump of ECDF(u) - u."""
    ordered = np.sort(u)
    n = len(ordered)
    x = np.concatenate([[0.0], np.repeat(ordered, 2), [1.0]])
    heights = np.repeat(np.arange(n + 1) / n, 2)
    return x, heights - x


def _draw_band(axes: Axes, band: Band, theme: Theme) -> None:
    axes.fill_between(
        band.z, band.low - band.z, band.high - band.z, color=theme.band, alpha=0.3, linewidth=0
    )


def _padded(low: float, high: float, scale: str) -> tuple[float, float]:
    if scale == "log10":
        factor = (high / low) ** 0.03 if high > low else 1.1
        return low / factor, high * factor
    margin = 0.03 * (high - low) if high > low else max(abs(low), 1.0) * 0.1
    return low - margin, high + margin


def _quantity_label(coverage: Coverage, quantity: str) -> str:
    family, _, names = quantity.partition(":")
    chosen = [n for n in names.split(",") if n]
    if family == "hpd" and not chosen:
        chosen = list(coverage.names)
        if len(chosen) > 4:
            return f"joint, all {len(chosen)} parameters"
    if family in ("tarp_u", "tarp_x") and not chosen:
        return "TARP, random points" if family == "tarp_u" else "TARP, points near the data"
    if coverage.prior is not None:
        chosen = [safe_label(coverage.prior.parameters[n], unit=False) for n in chosen]
    return ("joint " if len(chosen) > 1 else "") + ", ".join(chosen)
