"""Figures of training histories and of observations."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from sbi_physics.observables import Observable
from sbi_physics.plots.style import (
    LIGHT,
    Theme,
    add_legend,
    legend_below,
    new_figure,
    panels,
    style_axes,
    unit_text,
)
from sbi_physics.training import TrainingHistory
from sbi_physics.types import DataArray, FloatArray

_LEVELS = (0.025, 0.16, 0.5, 0.84, 0.975)
_MAX_CHANNELS = 4
_MAX_NAMED = 24


def loss_figure(history: TrainingHistory, *, theme: Theme = LIGHT) -> Figure:
    """Draw training and validation loss of every network; a dot marks the epoch that was kept."""
    figure = new_figure(5.6, 3.3, theme)
    axes = style_axes(figure.add_subplot(), theme)
    members = history.members or (history,)
    several = len(members) > 1
    for k, member in enumerate(members):
        train, validation = np.array(member.training_loss), np.array(member.validation_loss)
        epochs = np.arange(1, len(validation) + 1)
        width, alpha = (0.9, 0.7) if several else (1.5, 1.0)
        names = ("training", "validation", "kept") if k == 0 else (None, None, None)
        axes.plot(
            epochs[: len(train)],
            train,
            color=theme.series[1],
            label=names[0],
            lw=width,
            alpha=alpha,
        )
        axes.plot(epochs, validation, color=theme.series[0], label=names[1], lw=width, alpha=alpha)
        kept = [member.best_epoch]
        if len(validation):
            axes.plot(
                epochs[kept], validation[kept], "o", color=theme.truth, ms=5, label=names[2],
                zorder=5,
            )  # fmt: skip
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss" + (f" ({len(members)} networks)" if several else ""))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _focus(axes, members)
    add_legend(axes, theme, "upper right")
    return figure


def observation_figure(
    observable: Observable,
    x: ArrayLike,
    *,
    predictive: ArrayLike | None = None,
    theme: Theme = LIGHT,
) -> Figure:
    """Draw one observation, with bands of posterior-predictive data where given.

    Args:
        observable: What the data are.
        x: The observation, shape observable.shape.
        predictive: Data simulated from posterior draws, shape (n, *observable.shape).
        theme: Colours.
    """
    data = observable.check(x)[0]
    bands = None if predictive is None else observable.check(predictive, "predictive data")
    if observable.kind == "image":
        return _image(observable, data, bands, theme)
    if observable.kind == "set":
        return _set(observable, data, bands, theme)
    rows = data.reshape(-1, data.shape[-1])[:_MAX_CHANNELS]
    figure, axes = panels(
        len(rows), theme, width=5.6 if len(rows) == 1 else 4.2, height=3.3, columns=2
    )
    for k, axis in enumerate(axes):
        quantiles = None
        if bands is not None:
            flat = bands.reshape(len(bands), -1, data.shape[-1])
            quantiles = np.quantile(flat[:, k].astype(np.float64), _LEVELS, axis=0)
        _steps(axis, observable, rows[k].astype(np.float64), quantiles, theme)
        if len(rows) > 1:
            name = observable.names[k] if k < len(observable.names) else f"channel {k + 1}"
            axis.set_title(name, fontsize=9.5, color=theme.text)
    if bands is not None:
        legend_below(figure, axes[0], theme)
    return figure


def _steps(
    axes: Axes,
    observable: Observable,
    values: FloatArray,
    quantiles: FloatArray | None,
    theme: Theme,
) -> None:
    """Bins or entries of one channel."""
    is_spectrum = observable.kind == "spectrum"
    edges: FloatArray = np.arange(len(values) + 1, dtype=np.float64) - 0.5
    if observable.edges is not None:
        edges = np.asarray(observable.edges, dtype=np.float64)
    colour = theme.series[0]
    if quantiles is not None:
        outer, inner = (quantiles[0], quantiles[4]), (quantiles[1], quantiles[3])
        for (low, high), alpha, name in ((outer, 0.18, "95 %"), (inner, 0.32, "68 %")):
            axes.stairs(
                high, edges, baseline=low, fill=True, color=colour, alpha=alpha, linewidth=0,
                label=f"posterior predictive {name}",
            )  # fmt: skip
    centres = np.sqrt(edges[1:] * edges[:-1]) if _is_log(edges) else 0.5 * (edges[1:] + edges[:-1])
    if is_spectrum:
        axes.stairs(values, edges, baseline=None, color=theme.text, linewidth=1.1, label="data")
    else:
        axes.plot(centres, values, "o", color=theme.text, markersize=4, label="data")
    if is_spectrum and _is_log(edges):
        axes.set_xscale("log")
    positive = values[values > 0]
    if (
        is_spectrum
        and len(positive)
        and positive.max() > 100 * positive.min()
        and values.min() >= 0
    ):
        axes.set_yscale("symlog" if (values == 0).any() else "log")
    axes.set_xlim(edges[0], edges[-1])
    if not is_spectrum and len(observable.names) == len(values) <= _MAX_NAMED:
        axes.set_xticks(range(len(values)), observable.names, rotation=35, ha="right")
    axes.set_xlabel(
        _with_unit(observable.edge_label or ("bin" if is_spectrum else ""), observable.edge_unit)
    )
    axes.set_ylabel(_with_unit(observable.label or "value", observable.unit))


def _is_log(edges: FloatArray) -> bool:
    """Whether bins are closer to logarithmic than to linear."""
    if edges[0] <= 0:
        return False
    widths, ratios = np.diff(edges), np.diff(np.log(edges))
    return bool(ratios.std() / ratios.mean() < widths.std() / widths.mean())


def _set(observable: Observable, data: DataArray, bands: DataArray | None, theme: Theme) -> Figure:
    """Histogram of every event feature."""
    events = data[data[:, -1] > 0, :-1].astype(np.float64)
    n_features = min(events.shape[1], 6)
    figure, axes = panels(n_features, theme)
    for k, axis in enumerate(axes):
        name = observable.names[k] if k < len(observable.names) else f"feature {k + 1}"
        own = events[:, k]
        pooled = own
        if bands is not None:
            pooled = np.concatenate([own, bands[..., k][bands[..., -1] > 0].astype(np.float64)])
        if len(pooled):
            edges = np.histogram_bin_edges(
                pooled, bins=min(30, max(5, int(np.sqrt(len(own) + 1))))
            )
            if bands is not None:
                counts = np.stack([np.histogram(b[b[:, -1] > 0, k], edges)[0] for b in bands])
                q = np.quantile(counts, _LEVELS, axis=0)
                axis.stairs(
                    q[3], edges, baseline=q[1], fill=True, color=theme.series[0], alpha=0.3,
                    linewidth=0, label="posterior predictive 68 %",
                )  # fmt: skip
            axis.stairs(np.histogram(own, edges)[0], edges, color=theme.text, label="data")
        axis.set_xlabel(name, fontsize=9)
        axis.set_ylabel("events" if k % 3 == 0 else "", fontsize=9)
    if bands is not None:
        legend_below(figure, axes[0], theme)
    return figure


def _image(
    observable: Observable, data: DataArray, bands: DataArray | None, theme: Theme
) -> Figure:
    """The image (first channel) and, where given, the median of predictive images."""
    first = data[0] if data.ndim == 3 else data
    pictures: list[tuple[str, Any]] = [("data", first)]
    if bands is not None:
        channel = bands[:, 0] if bands.ndim == 4 else bands
        pictures.append(("posterior predictive median", np.median(channel, axis=0)))
    figure, axes = panels(len(pictures), theme, width=3.9, height=3.4)
    for axis, (name, picture) in zip(axes, pictures, strict=True):
        shown = axis.imshow(picture, origin="lower", cmap="cividis")
        axis.grid(visible=False)
        axis.set_title(name, fontsize=9.5, color=theme.text)
        bar = figure.colorbar(shown, ax=axis, shrink=0.85)
        bar.set_label(_with_unit(observable.label, observable.unit), color=theme.text, fontsize=9)
        bar.ax.tick_params(colors=theme.text, labelsize=8)
    return figure


def _with_unit(label: str, unit: str) -> str:
    return f"{label} [{unit_text(unit)}]".strip() if unit and unit != label else label


def _focus(axes: Axes, members: tuple[TrainingHistory, ...]) -> None:
    """Keep a bad first epoch from flattening the rest of the curves."""
    curves = [np.array(c) for m in members for c in (m.training_loss, m.validation_loss) if c]
    if not curves:
        return
    values = np.concatenate(curves)
    values = values[np.isfinite(values)]
    if len(values) < 10:
        return
    low, typical = float(values.min()), float(np.quantile(values, 0.97))
    if values.max() - low > 3 * (typical - low) > 0:
        axes.set_ylim(low - 0.08 * (typical - low), typical + 0.25 * (typical - low))
