"""The plane of mass and coupling as the field draws it: log m_a in eV, log g in GeV^-1."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sbi_physics_alp.limits import ExpectedLimits, MassCouplingMap
from sbi_physics_alp.published import PublishedLimit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#7a5c00", "#8a94a3")


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

    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    axes = figure.subplots()
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
        axes.set_xlim(*10 ** posterior.log10_m_ev[[0, -1]])
        axes.set_ylim(*10 ** posterior.log10_g[[0, -1]])
    if truth is not None:
        axes.plot(truth[0] * 1e-9, truth[1] * 1e-11, "*", ms=11, color="#d55e00", label="truth")
    axes.set(xscale="log", yscale="log")
    axes.set_xlabel(r"$m_a$ [eV]")
    axes.set_ylabel(r"$g_{a\gamma}$ [GeV$^{-1}$]")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small", frameon=False)
    return figure


def _draw_regions(axes: Any, posterior: MassCouplingMap, levels: Sequence[float]) -> None:
    area = np.outer(np.diff(posterior.log10_m_ev), np.diff(posterior.log10_g))
    density = posterior.mass / area
    thresholds = sorted({posterior.threshold(level) for level in levels})
    centres = [
        10 ** (0.5 * (edges[1:] + edges[:-1]))
        for edges in (posterior.log10_m_ev, posterior.log10_g)
    ]
    top = float(density.max())
    for k, low in enumerate(t for t in thresholds if t < top):
        axes.contourf(
            *centres, density.T, levels=[low, top], colors=["#0072b2"], alpha=0.2 + 0.1 * k
        )
        axes.contour(*centres, density.T, levels=[low], colors=["#0072b2"], linewidths=1.0)


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
