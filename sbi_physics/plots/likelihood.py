"""Figures of likelihood scans: curves of one parameter, contours of two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sbi_physics.errors import ContractError
from sbi_physics.likelihood.scans import Scan, chi2_threshold
from sbi_physics.parameters import ParameterSpace
from sbi_physics.plots.style import (
    LIGHT,
    Theme,
    add_legend,
    new_figure,
    safe_label,
    series_style,
    style_axes,
)

_LEVELS = (0.6827, 0.95)
_LEVEL_STYLES: Final[tuple[Literal["-", "--", ":", "-."], ...]] = ("-", "--", ":", "-.")


def likelihood_curve_figure(
    scans: Mapping[str, Scan],
    parameters: ParameterSpace,
    *,
    levels: Sequence[float] = _LEVELS,
    truth: float | None = None,
    theme: Theme = LIGHT,
) -> Figure:
    """Draw t along one parameter, with asymptotic thresholds.

    Args:
        scans: Scans of the same parameter, by label.
        parameters: Where its label and unit come from.
        levels: Confidence levels to mark.
        truth: True value to mark.
        theme: Light or dark.

    Raises:
        ContractError: If the scans are not all of one and the same parameter.
    """
    name = _common(scans, 1, "one parameter")[0]
    figure = new_figure(5.0, 3.6, theme)
    axes = style_axes(figure.add_subplot(), theme)
    for k, (label, found) in enumerate(scans.items()):
        colour, style = series_style(theme, k)
        axes.plot(found.axes[0], found.statistic, color=colour, linestyle=style, label=label)
    top = max(chi2_threshold(level, 1) for level in levels)
    for level in levels:
        limit = chi2_threshold(level, 1)
        axes.axhline(limit, color=theme.muted, linewidth=0.8, linestyle=":")
        axes.annotate(
            f"{100 * level:.3g} %", (1, limit), xycoords=("axes fraction", "data"),
            ha="right", va="bottom", fontsize=8, color=theme.text,
        )  # fmt: skip
    if truth is not None:
        axes.axvline(truth, color=theme.truth, linewidth=1.0, label="truth")
    axes.set_ylim(0, 2.2 * top)
    axes.set_xlabel(safe_label(parameters[name]))
    axes.set_ylabel(r"$t = -2\,\ln\,L/L_{\max}$")
    add_legend(axes, theme)
    return figure


def likelihood_contour_figure(
    scans: Mapping[str, Scan],
    parameters: ParameterSpace,
    *,
    levels: Sequence[float] = _LEVELS,
    truth: tuple[float, float] | None = None,
    theme: Theme = LIGHT,
) -> Figure:
    """Draw confidence regions of two parameters, with asymptotic thresholds.

    Args:
        scans: Scans of the same two parameters, by label.
        parameters: Where their labels and units come from.
        levels: Confidence levels, at most four: solid, dashed, dotted, dash-dotted.
        truth: True values to mark.
        theme: Light or dark.

    Raises:
        ContractError: If the scans are not all of the same two parameters.
    """
    first, second = _common(scans, 2, "two parameters")
    figure = new_figure(4.6, 4.2, theme)
    axes = style_axes(figure.add_subplot(), theme)
    ordered = sorted(levels)
    limits = [chi2_threshold(level, 2) for level in ordered]
    handles = []
    for k, (label, found) in enumerate(scans.items()):
        colour = series_style(theme, k)[0]
        axes.contour(
            *found.axes,
            found.statistic.T,
            levels=limits,
            colors=colour,
            linestyles=list(_LEVEL_STYLES[: len(limits)]),
        )
        axes.plot(*found.best, marker="+", color=colour, markersize=8)
        handles.append(Line2D([], [], color=colour, label=label))
    for level, style in zip(ordered, _LEVEL_STYLES, strict=False):
        text = f"{100 * level:.3g} %"
        handles.append(Line2D([], [], color=theme.muted, linestyle=style, label=text))
    if truth is not None:
        axes.plot(*truth, marker="x", color=theme.truth, linestyle="none")
        handles.append(
            Line2D([], [], color=theme.truth, marker="x", linestyle="none", label="truth")
        )
    axes.set_xlabel(safe_label(parameters[first]))
    axes.set_ylabel(safe_label(parameters[second]))
    legend = axes.legend(handles=handles, fontsize=8, frameon=False)
    for text_object in legend.get_texts():
        text_object.set_color(theme.text)
    return figure


def _common(scans: Mapping[str, Scan], dimension: int, wanted: str) -> tuple[str, ...]:
    names = {found.names for found in scans.values()}
    if len(names) != 1 or len(next(iter(names))) != dimension:
        raise ContractError(
            f"this figure needs scans of the same {wanted}, got {sorted(names) or 'none'}"
        )
    if any(not np.isfinite(found.statistic).all() for found in scans.values()):
        raise ContractError("a scan holds values that are not finite")
    return next(iter(names))
