"""The figures of a report: what they show, in words too, and how to read them."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from sbi_physics.plots import (
    DARK,
    LIGHT,
    Theme,
    corner_figure,
    coverage_figure,
    loss_figure,
    observation_figure,
    png,
    pp_figure,
    rank_figure,
    recovery_figure,
)
from sbi_physics.report.record import ReportInput


@dataclass(frozen=True, slots=True)
class ReportFigure:
    """One figure, embedded.

    Attributes:
        name: File name without suffix.
        section: Where it belongs: `posterior`, `observation`, `coverage` or `training`.
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


def make_figures(record: ReportInput, folder: Path | None) -> tuple[ReportFigure, ...]:
    """Draw all figures; light ones are also written to `folder` as PNG files."""
    return tuple(
        _embed(name, section, title, alt, how, draw, folder)
        for name, section, title, alt, how, draw in _plan(record)
    )


_Item = tuple[str, str, str, str, str, Callable[[Theme], Figure]]


def _plan(record: ReportInput) -> Iterator[_Item]:
    names = ", ".join(record.prior.names)
    truth = {r.name: r.truth for r in record.table if r.truth is not None}
    yield (
        "corner",
        "posterior",
        "Posterior",
        f"Corner plot of the posterior of {names}. "
        + "; ".join(
            f"{r.name}: median {r.median:.4g}, 68 % interval {r.interval_68[0]:.4g} to "
            f"{r.interval_68[1]:.4g}"
            for r in record.table
        ),
        "Diagonal: one parameter each, with the central 68 and 95 % intervals shaded, the median "
        "dashed and the prior dotted. Below: the smallest regions holding 68 and 95 % of the "
        "posterior." + (" Orange: the true values." if truth else ""),
        lambda theme: corner_figure(
            record.samples,
            record.prior.parameters,
            pairs=record.pair_samples,
            truth=truth or None,
            theme=theme,
        ),
    )
    yield (
        "observation",
        "observation",
        "Observation",
        f"The observed data: {record.observable.kind} of shape {record.observable.shape}, "
        f"{record.observation_source}.",
        "The data the posterior above was computed for."
        + (
            " Bands: data simulated from posterior draws; the observation should look like one "
            "of them."
            if record.predictive is not None
            else ""
        ),
        lambda theme: observation_figure(
            record.observable, record.observation, predictive=record.predictive, theme=theme
        ),
    )
    yield from _coverage_plan(record)
    history = record.history
    if history is not None and any(h.validation_loss for h in history.members or (history,)):
        yield (
            "loss",
            "training",
            "Training",
            "Training and validation loss against epoch.",
            "The network of the marked epoch, where the validation loss is lowest, was kept. A "
            "training curve far below the validation curve means too few simulations.",
            lambda theme: loss_figure(history, theme=theme),
        )


def _coverage_plan(record: ReportInput) -> Iterator[_Item]:
    coverage = record.coverage
    if coverage.regions:
        ecp = coverage.ecp(0.90, coverage.regions[0])[0]
        yield (
            "coverage",
            "coverage",
            "Expected coverage of credible regions",
            f"Expected coverage against credibility; at 90 % credibility the coverage is "
            f"{100 * ecp:.1f} %.",
            "A 90 % region should hold the truth in 90 % of simulated experiments: the diagonal. "
            "Above it the regions are larger than needed (conservative), below it too small "
            "(over-confident). An exact posterior stays inside the grey area in 95 % of studies.",
            lambda theme: coverage_figure(coverage, theme=theme),
        )
    p_values = "; ".join(
        f"{t.name.removeprefix('sbc:')}: p = {t.p_value:.2g}"
        for t in coverage.tests
        if t.family == "sbc"
    )
    yield (
        "ranks",
        "coverage",
        "Ranks of the truth among posterior draws",
        f"Distribution of ranks minus uniform, by parameter. {p_values}.",
        "The curve should stay inside the grey area. First up, then down: intervals too narrow; "
        "first down, then up: too wide; all above: the posterior lies too high; all below: too "
        "low.",
        lambda theme: rank_figure(coverage, theme=theme),
    )
    yield (
        "pp",
        "coverage",
        "Probability-probability plot",
        f"Fraction of pairs against posterior probability below the truth. {p_values}.",
        "The same ranks as a distribution function: one curve for each parameter, all of which "
        "should follow the diagonal.",
        lambda theme: pp_figure(coverage, theme=theme),
    )
    if len(coverage.recovery.truth):
        yield (
            "recovery",
            "coverage",
            "Recovery of known parameters",
            "Posterior medians with 68 and 95 % intervals against true values.",
            "Each point is one simulated experiment. Points follow the line as far as the data "
            "determine the parameter; medians that stay flat mean that the prior decides.",
            lambda theme: recovery_figure(coverage, theme=theme),
        )


def _embed(
    name: str,
    section: str,
    title: str,
    alt: str,
    how: str,
    draw: Callable[[Theme], Figure],
    folder: Path | None,
) -> ReportFigure:
    figure = draw(LIGHT)
    light, dark = png(figure), png(draw(DARK))
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.png").write_bytes(light)
    width, height = (round(v) for v in figure.get_size_inches() * 96)
    return ReportFigure(
        name, section, title, alt, how, _data_uri(light), _data_uri(dark), width, height
    )


def _data_uri(picture: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(picture).decode("ascii")
