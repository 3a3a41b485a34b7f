"""A figure on a page: drawn for light and dark screens, with words for those who cannot see it."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from sbi_physics.plots import DARK, LIGHT, Theme, png
from sbi_physics.progress import SILENT, Progress


@dataclass(frozen=True, slots=True)
class FigurePlan:
    """One figure before it is drawn.

    Attributes:
        name: File name without suffix; other characters than letters, digits, `.` and `_` are
            replaced.
        section: Where on the page it belongs.
        title: Heading.
        alt: What it shows, for those who cannot see it.
        how_to_read: One or two sentences.
        draw: Draws it in a theme.
    """

    name: str
    section: str
    title: str
    alt: str
    how_to_read: str
    draw: Callable[[Theme], Figure]


@dataclass(frozen=True, slots=True)
class ReportFigure:
    """One figure, embedded.

    Attributes:
        name: File name without suffix.
        section: Where on the page it belongs.
        title: Heading.
        alt: What it shows, for those who cannot see it.
        how_to_read: One or two sentences.
        light: Data URI for light screens.
        dark: Data URI for dark screens.
        width: Natural width in CSS pixels.
        height: Natural height in CSS pixels.
    """

    name: str
    section: str
    title: str
    alt: str
    how_to_read: str
    light: str
    dark: str
    width: int
    height: int


def draw_all(
    plans: Iterable[FigurePlan], folder: Path | None, progress: Progress = SILENT
) -> dict[str, list[ReportFigure]]:
    """Draw figures and return them by section; light ones are also written to `folder` as PNG."""
    listed = list(plans)
    sections: dict[str, list[ReportFigure]] = {}
    with progress.task("drawing", len(listed), "figures") as task:
        for plan in listed:
            sections.setdefault(plan.section, []).append(_embed(plan, folder))
            task.advance()
    return sections


def _embed(plan: FigurePlan, folder: Path | None) -> ReportFigure:
    figure = plan.draw(LIGHT)
    light, dark = png(figure), png(plan.draw(DARK))
    name = re.sub(r"[^\w.]+", "-", plan.name)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.png").write_bytes(light)
    width, height = (round(v) for v in figure.get_size_inches() * 96)
    return ReportFigure(
        name,
        plan.section,
        plan.title,
        plan.alt,
        plan.how_to_read,
        _data_uri(light),
        _data_uri(dark),
        width,
        height,
    )


def _data_uri(picture: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(picture).decode("ascii")
