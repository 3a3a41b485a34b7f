"""The corner plot: one- and two-dimensional marginals of a posterior."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from scipy import ndimage

from sbi_physics.errors import ContractError
from sbi_physics.parameters import Parameter, ParameterSpace
from sbi_physics.plots.style import LIGHT, Theme, new_figure, safe_label, set_scale, style_axes
from sbi_physics.types import FloatArray

MASSES: Final = (0.68, 0.95)
"""Posterior mass of intervals and contours."""

_BINS_1D = 40
_BINS_2D = 60
_SMOOTHING = 0.8
_ZOOM = 0.2
_MARGIN = 0.25


def corner_figure(
    draws: ArrayLike,
    parameters: ParameterSpace | Sequence[Parameter],
    *,
    pairs: Mapping[tuple[str, ...], ArrayLike] | None = None,
    truth: Mapping[str, float] | None = None,
    truth_label: str = "true value",
    theme: Theme = LIGHT,
) -> Figure:
    """Draw the marginals of a posterior.

    On the diagonal: histograms with the central 68 and 95 % intervals shaded, the median, and the
    prior as a dotted line. Below it: the smallest regions with 68 and 95 % of the draws. Axes span
    the prior, or, where the posterior fills less than a fifth of it, the posterior's
    neighbourhood.

    Args:
        draws: Posterior draws in physical units, shape (n, d).
        parameters: The d parameters, for labels, units, scales and bounds.
        pairs: Draws of pairs of parameters by their names, each of shape (n, 2), where `draws` do
            not know how parameters are correlated (marginal posteriors).
        truth: Values to mark, by parameter name; others are ignored.
        truth_label: What these values are.
        theme: Colours.
    """
    space = parameters if isinstance(parameters, ParameterSpace) else ParameterSpace(parameters)
    points = np.asarray(draws, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != len(space) or len(points) < 2:
        raise ContractError(
            f"draws have shape {points.shape}, expected (at least 2, {len(space)}) for "
            f"{', '.join(space.names)}"
        )
    if not np.isfinite(points).all():
        raise ContractError(f"{int((~np.isfinite(points)).sum())} posterior draws are not finite")
    d = len(space)
    size = 2.2 * d + 0.7 if d > 1 else 4.2
    figure = new_figure(size, size if d > 1 else 3.2, theme)
    ranges = [_view(p, points[:, j]) for j, p in enumerate(space)]
    marks = {} if truth is None else {k: float(v) for k, v in truth.items() if k in space.names}
    grid = figure.add_gridspec(d, d)
    for i, row in enumerate(space):
        for j in range(i + 1):
            axes = style_axes(figure.add_subplot(grid[i, j]), theme, grid=False)
            if i == j:
                _histogram(axes, row, points[:, i], ranges[i], marks.get(row.name), theme)
            else:
                column = space[j]
                spot = (marks.get(column.name), marks.get(row.name))
                together = _together(pairs, (column.name, row.name), points[:, [j, i]])
                _contours(axes, (column, row), together, (ranges[j], ranges[i]), theme)
                _mark(axes, spot, theme)
                set_scale(axes, "y", row.scale, *ranges[i])
            set_scale(axes, "x", space[j].scale, *ranges[j])
            _label(axes, space, i, j)
    if marks:
        figure.legend(
            handles=[_truth_handle(theme)],
            labels=[truth_label],
            loc="upper right",
            frameon=False,
            fontsize=9,
            labelcolor=theme.text,
        )
    return figure


def interval_text(median: float, low: float, high: float) -> str:
    """Return `median +up -down` with as many digits as the smaller error justifies (mathtext).

    Examples:
        >>> interval_text(1.2345, 1.1345, 1.4345)
        '$1.23^{+0.20}_{-0.10}$'
    """
    up, down = high - median, median - low
    error = min(e for e in (up, down, np.inf) if e > 0)
    if not np.isfinite(error):
        return f"${median:.4g}$"
    digits = 1 - int(np.floor(np.log10(error) + 1e-9))
    largest = max(abs(median), up, down)
    if not 1e-3 <= largest < 1e5:
        power = int(np.floor(np.log10(largest)))
        scale = 10.0**-power
        places = max(0, digits + power)
        body = f"{median * scale:.{places}f}^{{+{up * scale:.{places}f}}}"
        return rf"${body}_{{-{down * scale:.{places}f}}}\times10^{{{power}}}$"
    places = max(0, digits)
    return f"${median:.{places}f}^{{+{up:.{places}f}}}_{{-{down:.{places}f}}}$"


def _coordinate(parameter: Parameter, values: FloatArray) -> FloatArray:
    return np.log10(values) if parameter.scale == "log10" else values


def _physical(parameter: Parameter, values: FloatArray) -> FloatArray:
    return 10.0**values if parameter.scale == "log10" else values


def _together(
    pairs: Mapping[tuple[str, ...], ArrayLike] | None, names: tuple[str, str], points: FloatArray
) -> FloatArray:
    """Draws of two parameters, shape (n, 2): their own if there are any."""
    for key, values in (pairs or {}).items():
        if set(key) == set(names) and len(key) == 2:
            drawn = np.asarray(values, dtype=np.float64)
            if drawn.ndim != 2 or drawn.shape[1] != 2 or not np.isfinite(drawn).all():
                raise ContractError(
                    f"draws of {', '.join(key)} have shape {drawn.shape}, expected (n, 2), finite"
                )
            return drawn[:, [key.index(name) for name in names]]
    return points


def _edges(parameter: Parameter, view: tuple[float, float], n: int) -> FloatArray:
    """Bin edges in the coordinate of the parameter's scale."""
    low, high = _coordinate(parameter, np.array(view, dtype=np.float64)).tolist()
    return np.linspace(low, high, n + 1)


def _view(parameter: Parameter, values: FloatArray) -> tuple[float, float]:
    """Axis limits in physical units."""
    inner = _coordinate(parameter, values)
    low, high = np.quantile(inner, (0.0005, 0.9995))
    width = float(high - low)
    if width == 0.0:
        width = max(abs(float(low)), 1.0) * 1e-3
    with np.errstate(divide="ignore"):
        ends = _coordinate(parameter, np.array(parameter.bounds, dtype=np.float64))
    if np.isfinite(ends).all() and width > _ZOOM * (ends[1] - ends[0]):
        return parameter.bounds
    view = np.array([low - _MARGIN * width, high + _MARGIN * width])
    view = np.clip(view, *ends)
    left, right = _physical(parameter, view).tolist()
    return left, right


def _histogram(
    axes: Axes,
    parameter: Parameter,
    values: FloatArray,
    view: tuple[float, float],
    truth: float | None,
    theme: Theme,
) -> None:
    edges = _edges(parameter, view, _BINS_1D)
    heights, _ = np.histogram(_coordinate(parameter, values), edges)
    density = heights / heights.max() if heights.max() else heights.astype(np.float64)
    colour = theme.series[0]
    q = np.quantile(values, (0.025, 0.16, 0.5, 0.84, 0.975))
    axes.axvspan(q[0], q[4], color=colour, alpha=0.13, linewidth=0)
    axes.axvspan(q[1], q[3], color=colour, alpha=0.22, linewidth=0)
    axes.stairs(density, _physical(parameter, edges), color=colour, linewidth=1.4)
    axes.axvline(q[2], color=colour, linewidth=1.0, linestyle="--")
    _prior_line(axes, parameter, edges, heights.max() / max(len(values), 1), theme)
    if truth is not None:
        axes.axvline(truth, color=theme.truth, linewidth=1.4)
    axes.set_ylim(0, 1.12)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    symbol = safe_label(parameter, unit=False)
    axes.set_title(f"{symbol} = {interval_text(q[2], q[1], q[3])}", fontsize=9, color=theme.text)


def _prior_line(
    axes: Axes, parameter: Parameter, edges: FloatArray, peak: float, theme: Theme
) -> None:
    """Prior mass of each bin on the scale of the histogram."""
    if peak > 0 and not parameter.is_fixed:
        mass = np.diff(parameter.distribution.cdf(_physical(parameter, edges)))
        axes.stairs(
            np.minimum(mass / peak, 1.1),
            _physical(parameter, edges),
            color=theme.muted,
            linestyle=":",
            linewidth=1.2,
        )


def _contours(
    axes: Axes,
    pair: tuple[Parameter, Parameter],
    points: FloatArray,
    views: tuple[tuple[float, float], tuple[float, float]],
    theme: Theme,
) -> None:
    edges = [_edges(p, v, _BINS_2D) for p, v in zip(pair, views, strict=True)]
    inner = [_coordinate(p, points[:, k]) for k, p in enumerate(pair)]
    counts, _, _ = np.histogram2d(inner[0], inner[1], bins=edges)
    # Scott's rule for two dimensions, in bins, a little narrower so that edges stay sharp.
    widths = [
        max(1.0, _SMOOTHING * len(points) ** (-1 / 6) * float(np.std(v)) / (e[1] - e[0]))
        for v, e in zip(inner, edges, strict=True)
    ]
    density = ndimage.gaussian_filter(counts.T, widths[::-1], mode="reflect")
    levels = mass_levels(density, MASSES)
    # The outermost bins reach to the edge of the panel, so that contours do too.
    density = np.pad(density, 1, mode="edge")
    centres = [
        _physical(p, np.concatenate([e[:1], 0.5 * (e[1:] + e[:-1]), e[-1:]]))
        for p, e in zip(pair, edges, strict=True)
    ]
    colour = theme.series[0]
    if not levels:
        axes.plot(points[:, 0], points[:, 1], ".", color=colour, markersize=2)
        return
    top = float(density.max()) * 1.001
    for k, level in enumerate(levels):
        axes.contourf(
            *centres, density, levels=[level, top], colors=[colour], alpha=0.2 + 0.12 * k
        )
    axes.contour(*centres, density, levels=levels, colors=[colour], linewidths=1.1)


def mass_levels(density: FloatArray, masses: Sequence[float]) -> list[float]:
    """Return increasing density levels whose upper sets hold the given masses; distinct ones only.

    Args:
        density: Non-negative values on an even grid.
        masses: Masses in (0, 1).
    """
    ordered = np.sort(density.ravel())[::-1]
    cumulative = np.cumsum(ordered)
    if cumulative[-1] <= 0:
        return []
    picks = np.searchsorted(cumulative, np.sort(masses)[::-1] * cumulative[-1])
    levels = sorted({float(ordered[min(k, len(ordered) - 1)]) for k in picks.tolist()})
    return [v for v in levels if 0.0 < v < ordered[0]]


def _mark(axes: Axes, spot: tuple[float | None, float | None], theme: Theme) -> None:
    x, y = spot
    if x is not None:
        axes.axvline(x, color=theme.truth, linewidth=0.9, alpha=0.8)
    if y is not None:
        axes.axhline(y, color=theme.truth, linewidth=0.9, alpha=0.8)
    if x is not None and y is not None:
        axes.plot([x], [y], "s", color=theme.truth, markersize=4.5)


def _truth_handle(theme: Theme) -> object:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=theme.truth, marker="s", markersize=4.5, linewidth=1.2)


def _label(axes: Axes, space: ParameterSpace, i: int, j: int) -> None:
    last = len(space) - 1
    if i == last:
        axes.set_xlabel(safe_label(space[j]), fontsize=10)
        for tick in axes.get_xticklabels(which="both"):
            tick.set_rotation(35)
            tick.set_horizontalalignment("right")
    else:
        axes.tick_params(which="both", labelbottom=False)
    if j == 0 and i > 0:
        axes.set_ylabel(safe_label(space[i]), fontsize=10)
    elif i != j:
        axes.tick_params(which="both", labelleft=False)
