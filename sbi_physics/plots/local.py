"""Figures of local diagnostics: calibration in bins, class probabilities, fixed points."""

from __future__ import annotations

from typing import Final

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from sbi_physics.diagnostics.local import LEVEL, LocalMap
from sbi_physics.errors import unknown_name
from sbi_physics.plots.style import LIGHT, Theme, new_figure, panels, style_axes

ALPHA: Final = 0.01
"""Cells below this adjusted p-value stand out."""

_REFERENCE = {"location": 0.0, "width": 1.0, "coverage": LEVEL}
_LABEL = {
    "location": "bias [posterior sd]",
    "width": "true / claimed width",
    "coverage": "coverage of 68.3 % regions",
}


def local_map_figure(
    local: LocalMap, quantity: str, *, effect: str = "width", theme: Theme = LIGHT
) -> Figure:
    """Draw one effect of one quantity against every binned feature.

    Bars are the map's joint intervals. Cells that deviate at a joint false-alarm rate of 1 % stand
    out; hollow ones are bins of a true parameter, which are not tested.

    Args:
        local: The map.
        quantity: A quantity of the map, such as `hpd` or `sbc:m_a`.
        effect: `location`, `width` or `coverage`.
        theme: Light or dark.

    Raises:
        UnknownNameError: If quantity or effect is unknown.
    """
    if quantity not in local.quantities:
        raise unknown_name("quantity", quantity, local.quantities)
    if effect not in _REFERENCE:
        raise unknown_name("effect", effect, _REFERENCE)
    figure, axes = panels(len(local.features), theme)
    for k, (axis, feature) in enumerate(zip(axes, local.features, strict=True)):
        for cell in local.select(quantity, feature):
            value, low, high = getattr(cell, effect)
            flagged = cell.p_holm < ALPHA
            colour = theme.truth if flagged else theme.series[0]
            middle = 0.5 * (cell.low + cell.high)
            axis.hlines(value, cell.low, cell.high, color=colour, linewidth=1.6)
            axis.vlines(middle, low, high, color=colour, linewidth=1.0)
            face = colour if cell.tested else theme.background
            axis.plot([middle], [value], "o", color=colour, markersize=4, markerfacecolor=face)
        axis.axhline(_REFERENCE[effect], color=theme.muted, linewidth=0.9)
        axis.set_xlabel(feature, fontsize=9)
        if k % 3 == 0:
            axis.set_ylabel(_LABEL[effect], fontsize=9)
    return figure


def local_overview_figure(local: LocalMap, *, theme: Theme = LIGHT) -> Figure:
    """Draw the coverage of 68.3 % regions of every quantity in every tested bin.

    One row a quantity, one group of columns a feature, its bins from low to high. Blue: the region
    holds the truth too often; orange: too rarely. Crosses mark the cells that deviate at a joint
    false-alarm rate of 1 %.

    Args:
        local: The map.
        theme: Light or dark.
    """
    features = tuple(dict.fromkeys(c.feature for c in local.cells if c.tested))
    groups = [max(len(local.select(q, f)) for q in local.quantities) for f in features]
    first = np.concatenate([[0], np.cumsum(np.add(groups, 1))])
    values = np.full((len(local.quantities), int(first[-1]) - 1), np.nan)
    flagged = []
    for row, quantity in enumerate(local.quantities):
        for feature, start in zip(features, first, strict=False):
            for k, cell in enumerate(local.select(quantity, feature)):
                values[row, start + k] = cell.coverage[0] - LEVEL
                if cell.p_holm < ALPHA:
                    flagged.append((start + k, row))
    columns = values.shape[1]
    figure = new_figure(max(3.4, 1.9 + 0.24 * columns), 1.5 + 0.27 * len(values), theme)
    axes = style_axes(figure.add_subplot(), theme, grid=False)
    largest = max(0.1, float(np.nanmax(np.abs(values))))
    colours = LinearSegmentedColormap.from_list(
        "coverage", [theme.truth, theme.background, theme.series[0]]
    )
    image = axes.imshow(values, cmap=colours, vmin=-largest, vmax=largest, aspect="auto")
    if flagged:
        x, y = zip(*flagged, strict=True)
        axes.plot(x, y, "x", color=theme.text, markersize=5, markeredgewidth=1.3)
    axes.set_yticks(range(len(values)), local.quantities, fontsize=8)
    middles = [start + 0.5 * (n - 1) for start, n in zip(first, groups, strict=False)]
    axes.set_xticks(middles, features, fontsize=8)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlabel("bins of the data, from low to high", fontsize=9)
    bar = figure.colorbar(image, ax=axes, shrink=0.9, pad=0.02)
    bar.set_label(f"coverage $-$ {LEVEL}", fontsize=8.5, color=theme.text)
    bar.ax.tick_params(labelsize=8, labelcolor=theme.text, color=theme.muted)
    bar.outline.set_edgecolor(theme.muted)
    return figure
