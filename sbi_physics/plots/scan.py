"""The figure of a scan: posterior widths against the varied options."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from sbi_physics.plots.style import LIGHT, Theme, new_figure, series_style, style_axes

if TYPE_CHECKING:
    from sbi_physics.scan import Scan

_GOOD = ("PASS", "MARGINAL")
_MARKERS = "osD^vP"


def widths_figure(scan: Scan, place: str = "prior", *, theme: Theme = LIGHT) -> Figure:
    """Draw median posterior widths, a panel for each parameter.

    The last varied option runs along the axis, the others make the curves. Open symbols are
    posteriors that failed validation or were not judged: their widths mean little.

    Args:
        scan: The record.
        place: `prior` or the name of a fiducial point.
        theme: Colours.
    """
    names = list(scan.varied)
    along, others = names[-1], names[:-1]
    positions = np.arange(len(scan.varied[along]))
    panels = len(scan.parameters)
    figure = new_figure(3.4 * panels + 0.6, 3.6, theme)
    good = np.array([p.verdict in _GOOD for p in scan.points]).reshape(
        [len(v) for v in scan.varied.values()]
    )
    for j, parameter in enumerate(scan.parameters):
        axes = style_axes(figure.add_subplot(1, panels, j + 1), theme)
        widths = scan.widths(parameter.name, place)
        curves = itertools.product(*(range(len(scan.varied[n])) for n in others))
        for k, index in enumerate(curves):
            label = ", ".join(
                f"{n} = {scan.varied[n][i]}" for n, i in zip(others, index, strict=True)
            )
            colour, style = series_style(theme, k)
            y, passed = widths[index], good[index]
            axes.plot(
                positions, y, style, color=colour, linewidth=1.4, label=label if j == 0 else ""
            )
            marker = _MARKERS[k % len(_MARKERS)]
            axes.plot(positions[passed], y[passed], marker, color=colour, markersize=5)
            axes.plot(
                positions[~passed],
                y[~passed],
                marker,
                markerfacecolor=theme.background,
                markeredgecolor=colour,
                markersize=5.5,
            )
        axes.set_xticks(positions, scan.varied[along])
        axes.set_xlabel(along, fontsize=9)
        axes.set_ylabel(f"{scan.width_names[j]}, {place}", fontsize=9)
        if np.isfinite(widths).any():
            axes.set_ylim(0.0, 1.08 * float(np.nanmax(widths)))
    if others:
        figure.legend(
            loc="outside lower center",
            ncols=2,
            fontsize=8,
            frameon=False,
            labelcolor=theme.text,
        )
    return figure
