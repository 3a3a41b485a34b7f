"""Figures of local diagnostics: calibration in bins, class probabilities, fixed points."""

from __future__ import annotations

from matplotlib.figure import Figure

from sbi_physics.diagnostics.local import LocalMap
from sbi_physics.errors import unknown_name
from sbi_physics.plots.style import LIGHT, Theme, panels

_REFERENCE = {"location": 0.0, "width": 1.0, "coverage": 0.683}
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
            flagged = cell.p_holm < 0.01
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
