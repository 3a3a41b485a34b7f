"""The look of all figures: two themes, colours for colour-blind readers, PNG output.

Colours are those of Okabe and Ito (2008), lightened for the dark theme.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.mathtext import MathTextParser
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from sbi_physics.parameters import Parameter

DPI: Final = 144

Location: TypeAlias = Literal["best", "upper left", "upper right", "lower right"]


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours of one theme.

    Attributes:
        background: Behind the axes.
        text: Labels and spines.
        muted: Grid, ticks, reference lines.
        band: Confidence bands.
        series: Colours of curves, in order.
        truth: True values and other marks that must stand out.
    """

    background: str
    text: str
    muted: str
    band: str
    series: tuple[str, ...]
    truth: str


LIGHT: Final = Theme(
    background="#ffffff",
    text="#1b2430",
    muted="#8a94a3",
    band="#9aa5b4",
    series=("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#7a5c00"),
    truth="#d55e00",
)
DARK: Final = Theme(
    background="#161b22",
    text="#e6ebf2",
    muted="#7d8899",
    band="#68748a",
    series=("#56b4e9", "#f0b429", "#2fc99a", "#e2a0c6", "#a7d8f5", "#d8c46a"),
    truth="#ff8c4a",
)

_LINE_STYLES = ("-", "--", "-.", ":")


def new_figure(width: float, height: float, theme: Theme) -> Figure:
    """Return an empty figure, in inches, with an Agg canvas and automatic layout."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor=theme.background)
    FigureCanvasAgg(figure)
    return figure


def style_axes(axes: Axes, theme: Theme, *, grid: bool = True) -> Axes:
    """Apply a theme to axes and return them."""
    axes.set_facecolor(theme.background)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(theme.muted)
        spine.set_linewidth(0.8)
    axes.tick_params(which="both", color=theme.muted, labelcolor=theme.text, labelsize=8.5)
    axes.tick_params(which="minor", length=2)
    axes.xaxis.label.set_color(theme.text)
    axes.yaxis.label.set_color(theme.text)
    axes.title.set_color(theme.text)
    if grid:
        axes.grid(visible=True, color=theme.muted, alpha=0.22, linewidth=0.6)
        axes.set_axisbelow(True)
    return axes


def add_legend(axes: Axes, theme: Theme, location: Location = "best") -> None:
    """Add a legend in the colours of the theme."""
    legend = axes.legend(loc=location, fontsize=8, frameon=True, handlelength=2.2, borderpad=0.5)
    legend.get_frame().set(facecolor=theme.background, edgecolor="none", alpha=0.85)
    for text in legend.get_texts():
        text.set_color(theme.text)


def legend_below(figure: Figure, axes: Axes, theme: Theme) -> None:
    """Add a legend under the axes, where no curve can run through it."""
    handles, labels = axes.get_legend_handles_labels()
    columns = 2 if max(map(len, labels), default=0) < 32 else 1
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=columns,
        fontsize=8,
        frameon=False,
        labelcolor=theme.text,
        handlelength=2.2,
    )


def series_style(theme: Theme, k: int) -> tuple[str, str]:
    """Return colour and line style of curve `k`: never two alike among the first 24."""
    return theme.series[k % len(theme.series)], _LINE_STYLES[
        k // len(theme.series) % len(_LINE_STYLES)
    ]


def safe_label(parameter: Parameter, *, unit: bool = True) -> str:
    """Return the axis label; a LaTeX label that cannot be drawn falls back to the name."""
    symbol = f"${parameter.label}$" if parameter.label else parameter.name
    if not can_draw(symbol):
        symbol = parameter.name
    return f"{symbol} [{unit_text(parameter.unit)}]" if unit and parameter.unit else symbol


def unit_text(unit: str) -> str:
    """Return a unit with powers and the micro sign written out, as mathtext.

    Examples:
        >>> unit_text("1e-11 GeV-1")
        '$10^{-11}$ GeV$^{-1}$'
        >>> unit_text("uG")
        'µG'
    """
    text = unit.replace("$", r"\$")
    text = re.sub(r"\b1e([+-]?\d+)", lambda m: f"$10^{{{int(m[1])}}}$", text)
    text = re.sub(r"(?<=[A-Za-z)])(?:\^|\*\*)?(-?\d+)", r"$^{\1}$", text)
    return re.sub(r"\bu(?=[A-Za-z])", "µ", text)


def can_draw(text: str) -> bool:
    """Whether matplotlib's mathtext understands a text."""
    try:
        MathTextParser("path").parse(text)
    except ValueError:
        return False
    return True


def set_scale(axes: Axes, which: str, scale: str, low: float, high: float) -> None:
    """Set limits and ticks of one axis, `x` or `y`, for a `linear` or `log10` parameter."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    limits = axes.set_xlim if which == "x" else axes.set_ylim
    if scale != "log10":
        limits(low, high)
        axis.set_major_locator(MaxNLocator(4, min_n_ticks=3))
        return
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    limits(low, high)
    decades = np.log10(high / low)
    if decades > 1.2:
        axis.set_major_locator(LogLocator(numticks=5))
        axis.set_minor_formatter(NullFormatter())
    else:
        # Less than about a decade: powers of ten alone would leave the axis without numbers.
        axis.set_major_locator(MaxNLocator(3))
        axis.set_minor_formatter(NullFormatter())
        axis.set_major_formatter(_plain)


def _plain(value: float, _position: float | None = None) -> str:
    return f"{value:.3g}"


def png(figure: Figure, dpi: int = DPI) -> bytes:
    """Return a figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor=figure.get_facecolor())
    return buffer.getvalue()


def save(figure: Figure, path: str | Path, dpi: int = DPI) -> Path:
    """Write a figure as PNG, making the folder if needed, and return the path."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(png(figure, dpi))
    return target


def grid_shape(n: int, columns: int = 3) -> tuple[int, int]:
    """Rows and columns for `n` panels."""
    wide = min(n, columns) if n != 4 else 2
    return -(-n // wide), wide


def panels(
    n: int, theme: Theme, *, width: float = 3.0, height: float = 2.6, columns: int = 3
) -> tuple[Figure, Sequence[Axes]]:
    """Return a figure with `n` styled panels."""
    rows, wide = grid_shape(n, columns)
    figure = new_figure(max(width * wide, 3.4), height * rows + 0.35, theme)
    return figure, [style_axes(figure.add_subplot(rows, wide, k + 1), theme) for k in range(n)]
