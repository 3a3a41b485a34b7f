"""The plane of mass and coupling as the field draws it: log m_a in eV, log g in GeV^-1."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sbi_physics_alp.limits import Array, ExpectedLimits, MassCouplingMap
from sbi_physics_alp.published import PublishedLimit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = ("#e69f00", "#009e73", "#cc79a7", "#7a5c00", "#8a94a3", "#a3b18a", "#6d597a")
_POSTERIOR = "#0072b2"


def exclusion_figure(
    posterior: MassCouplingMap | None = None,
    *,
    published: Iterable[PublishedLimit] = (),
    expected: ExpectedLimits | None = None,
    levels: Sequence[float] = (0.68, 0.95),
    limit_level: float | None = None,
    truth: tuple[float, float] | None = None,
) -> Figure:
    """Draw posterior contours, limits and published exclusions.

    Args:
        posterior: Highest-density regions of it are drawn.
        published: Curves and regions to overlay.
        expected: Median and bands of expected limits.
        levels: Credibilities of the regions.
        limit_level: Also draw the one-sided limits of ``posterior`` at this credibility.
        truth: True mass in neV and coupling in 1e-11 GeV^-1, where known.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 4.8), layout="constrained")
    axes = figure.subplots()
    if posterior is not None:
        x_range, y_range = (
            10 ** edges[[0, -1]] for edges in (posterior.log10_m_ev, posterior.log10_g)
        )
        axes.set(xlim=x_range, ylim=y_range)
        published = [limit for limit in published if _is_inside(limit, x_range, y_range)]
    for limit, colour in zip(published, _cycle(), strict=False):
        _draw_published(axes, limit, colour)
    if expected is not None:
        bands = expected.bands()
        for low, high, alpha in (("low95", "high95", 0.15), ("low68", "high68", 0.3)):
            axes.fill_between(
                expected.m_ev, bands[low], bands[high], color="#9aa5b4", alpha=alpha, lw=0
            )
        label = f"expected {expected.level:.0%} limit"
        axes.plot(expected.m_ev, bands["median"], color="#1b2430", ls="--", label=label)
    if posterior is not None:
        _draw_regions(axes, posterior, levels)
        if limit_level is not None:
            limits = posterior.upper_limits(limit_level)
            label = f"{limit_level:.0%} limit given the mass"
            axes.plot(posterior.m_ev, limits, color="#1b2430", label=label)
    if truth is not None:
        axes.plot(truth[0] * 1e-9, truth[1] * 1e-11, "*", ms=11, color="#d55e00", label="truth")
    axes.set(xscale="log", yscale="log")
    axes.set_xlabel(r"$m_a$ [eV]")
    axes.set_ylabel(r"$g_{a\gamma}$ [GeV$^{-1}$]")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small", frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _is_inside(limit: PublishedLimit, x_range: Array, y_range: Array) -> bool:
    """Whether anything of a limit shows in the plane; a curve excludes all above it."""
    x, y = limit.m_ev, limit.g
    beside = x.max() < x_range[0] or x.min() > x_range[1] or y.min() > y_range[1]
    return not beside


def _draw_regions(axes: Any, posterior: MassCouplingMap, levels: Sequence[float]) -> None:
    area = np.outer(np.diff(posterior.log10_m_ev), np.diff(posterior.log10_g))
    density = posterior.mass / area
    # From edge to edge of the plane, not from middle to middle of its outermost bins.
    grid = [
        10 ** np.concatenate([edges[:1], 0.5 * (edges[1:] + edges[:-1]), edges[-1:]])
        for edges in (posterior.log10_m_ev, posterior.log10_g)
    ]
    shown = np.pad(density, 1, mode="edge").T
    top = float(density.max())
    for k, level in enumerate(sorted(levels, reverse=True)):
        low = posterior.threshold(level)
        if low >= top:
            continue
        alpha = 0.2 + 0.1 * k
        axes.contourf(*grid, shown, levels=[low, top], colors=[_POSTERIOR], alpha=alpha)
        axes.contour(*grid, shown, levels=[low], colors=[_POSTERIOR], linewidths=1.0)
    labels = ", ".join(f"{level:.0%}" for level in sorted(levels))
    axes.fill([], [], color=_POSTERIOR, alpha=0.5, lw=0, label=f"posterior, {labels}")


def _draw_published(axes: Any, limit: PublishedLimit, colour: str) -> None:
    label = limit.name.replace("_", " ")
    if limit.is_region:
        axes.fill(limit.m_ev, limit.g, color=colour, alpha=0.25, lw=0, label=label)
        axes.plot(limit.m_ev, limit.g, color=colour, lw=0.8)
        return
    order = np.argsort(limit.m_ev, kind="stable")
    m, g = limit.m_ev[order], limit.g[order]
    axes.fill_between(m, g, 1.0, color=colour, alpha=0.15, lw=0, label=label)
    axes.plot(m, g, color=colour, lw=0.8)


def _cycle() -> Iterable[str]:
    while True:
        yield from _COLOURS
