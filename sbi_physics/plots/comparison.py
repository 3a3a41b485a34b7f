"""Figures of several runs side by side: coverage, score differences, effects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sbi_physics.comparison import Comparison
from sbi_physics.coverage import Coverage
from sbi_physics.plots.calibration import draw_curve, draw_diagonal, name_sides, square
from sbi_physics.plots.style import (
    LIGHT,
    Theme,
    legend_below,
    new_figure,
    series_style,
    style_axes,
)

_MARKERS = "osD^vPX"


def compared_coverage_figure(
    coverages: Mapping[str, Coverage], quantity: str = "hpd", *, theme: Theme = LIGHT
) -> Figure:
    """Draw the expected coverage of one kind of region for every run that has it.

    Args:
        coverages: Records by name of the run.
        quantity: The kind of region.
        theme: Colours.
    """
    figure, axes = square(theme)
    shown = {name: c for name, c in coverages.items() if quantity in c.pit}
    draw_diagonal(axes, [len(c.u(quantity)) for c in shown.values()], theme)
    for k, (name, coverage) in enumerate(coverages.items()):
        if name in shown:
            draw_curve(axes, coverage, quantity, name, series_style(theme, k))
    name_sides(axes, theme)
    legend_below(figure, axes, theme)
    return figure


def score_figure(comparison: Comparison, reference: str, *, theme: Theme = LIGHT) -> Figure:
    """Draw the NLL of every run minus that of a reference on the same pairs, with 95 % intervals.

    Args:
        comparison: The record.
        reference: Name of the run to compare with.
        theme: Colours.
    """
    names = [r.name for r in comparison.table]
    figure = new_figure(4.9, 1.1 + 0.34 * len(names), theme)
    axes = _rows(figure.add_subplot(), names, theme)
    for k, name in enumerate(names):
        if name == reference:
            axes.plot(0.0, k, "|", color=theme.text, markersize=10)
            continue
        score = comparison.difference(name, reference).difference
        if score is None:
            axes.text(0.0, k, "  not paired", fontsize=8, va="center", color=theme.muted)
            continue
        colour, _ = series_style(theme, k)
        axes.plot(score.interval, (k, k), color=colour, linewidth=1.6)
        axes.plot(score.mean, k, _MARKERS[k % len(_MARKERS)], color=colour, markersize=5)
    axes.axvline(0.0, color=theme.muted, linewidth=0.8)
    axes.set_xlabel(f"NLL minus NLL of {reference} [nats]: left is better", fontsize=9)
    return figure


def effect_figure(coverages: Mapping[str, Coverage], kind: str, *, theme: Theme = LIGHT) -> Figure:
    """Draw the effects of one kind with 95 % intervals, every quantity and run, and the tolerance.

    Args:
        coverages: Records by name of the run.
        kind: Kind of effect, such as `width`.
        theme: Colours.
    """
    effects = [e for c in coverages.values() for e in c.effects if e.kind == kind]
    names = list(dict.fromkeys(e.name for e in effects))
    figure = new_figure(4.9, 1.2 + (0.25 + 0.17 * len(coverages)) * len(names), theme)
    axes = _rows(figure.add_subplot(), [n.removeprefix("sbc:") for n in names], theme)
    tolerance = next((e.tolerance for e in effects if e.tolerance is not None), None)
    if tolerance is not None:
        axes.axvspan(
            *tolerance, color=theme.band, alpha=0.3, linewidth=0, label="inside the tolerance"
        )
    offsets = np.linspace(-0.3, 0.3, len(coverages)) if len(coverages) > 1 else np.zeros(1)
    for k, (run, coverage) in enumerate(coverages.items()):
        own = [e for e in coverage.effects if e.kind == kind]
        colour, _ = series_style(theme, k)
        y = np.array([names.index(e.name) for e in own]) + offsets[k]
        axes.hlines(y, [e.low for e in own], [e.high for e in own], color=colour, linewidth=1.6)
        marker = _MARKERS[k % len(_MARKERS)]
        axes.plot(
            [e.value for e in own], y, marker, color=colour, markersize=5, label=run, linestyle=""
        )
    axes.set_xlabel(kind, fontsize=9)
    legend_below(figure, axes, theme)
    return figure


def _rows(axes: Axes, names: Sequence[str], theme: Theme) -> Axes:
    """Axes with one row for each name, the first on top."""
    style_axes(axes, theme)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    return axes
