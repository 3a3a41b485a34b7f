r"""Scans of the likelihood, and the intervals and regions they give.

Along some parameters the others are either profiled (refitted at every point) or held fixed (a
slice); every result says which. The asymptotic threshold on t is the quantile of a :math:`\chi^2`
with as many degrees of freedom as scanned parameters (Wilks); where that fails, pass critical
values from toys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from sbi_physics.errors import ContractError
from sbi_physics.likelihood.fit import Fit, minimise
from sbi_physics.likelihood.ratio import EventSet, LikelihoodRatio
from sbi_physics.types import BoolArray, FloatArray

Threshold = float | Callable[[FloatArray], FloatArray]
"""A critical value of t, or a function of points (k, scanned parameters) -> (k,)."""

_GRID = 81
_LEVEL = 0.95
_ZOOM = 6


def chi2_threshold(level: float, dimension: int) -> float:
    """Return the asymptotic critical value of t: 3.841 for 95 % and one parameter.

    Raises:
        ContractError: If the level is not between 0 and 1 or the dimension below 1.
    """
    if not 0 < level < 1 or dimension < 1:
        raise ContractError(
            f"a threshold needs a level in (0, 1) and a dimension of at least 1, got {level!r} "
            f"and {dimension!r}"
        )
    return float(2 * special.gammaincinv(0.5 * dimension, level))


@dataclass(frozen=True, slots=True, eq=False)
class Scan:
    """The statistic on a grid of one or two parameters.

    Attributes:
        names: The scanned parameters.
        axes: Grid points of each.
        statistic: t on the grid, shape (len(axes[0]),) or (len(axes[0]), len(axes[1])).
        best: Best values of the scanned parameters.
        others: `profiled`, or the values at which the others were held.
    """

    names: tuple[str, ...]
    axes: tuple[FloatArray, ...]
    statistic: FloatArray
    best: FloatArray
    others: str | Mapping[str, float]

    def points(self) -> FloatArray:
        """Return the grid points, shape (*statistic.shape, scanned parameters)."""
        return np.stack(np.meshgrid(*self.axes, indexing="ij"), axis=-1)

    def region(self, level: float = _LEVEL, *, threshold: Threshold | None = None) -> BoolArray:
        """Return which grid points are inside the region of a level, shape of `statistic`."""
        limit = chi2_threshold(level, len(self.names)) if threshold is None else threshold
        if not callable(limit):
            return np.asarray(self.statistic <= limit)
        values = limit(self.points().reshape(-1, len(self.names)))
        return np.asarray(self.statistic <= values.reshape(self.statistic.shape))


@dataclass(frozen=True, slots=True, eq=False)
class Interval:
    """A confidence interval, possibly of several pieces.

    Attributes:
        name: The parameter.
        level: Confidence level.
        best: Best value.
        pieces: Lower and upper ends, shape (pieces, 2).
        open_low: Whether the lowest piece reaches the lower end of the box.
        open_high: Whether the highest one reaches the upper end.
        others: `profiled`, or the values at which the other parameters were held.
    """

    name: str
    level: float
    best: float
    pieces: FloatArray
    open_low: bool
    open_high: bool
    others: str | Mapping[str, float]

    @property
    def low(self) -> float:
        """Lower end of the lowest piece."""
        return float(self.pieces[0, 0])

    @property
    def high(self) -> float:
        """Upper end of the highest piece."""
        return float(self.pieces[-1, 1])

    def __str__(self) -> str:
        ends = " or ".join(f"[{a:.4g}, {b:.4g}]" for a, b in self.pieces)
        how = "others profiled" if isinstance(self.others, str) else "others fixed"
        sides = {"lower": self.open_low, "upper": self.open_high}
        reached = " and the ".join(side for side, is_open in sides.items() if is_open)
        note = f"; no limit: reaches the {reached} end of the box" if reached else ""
        return f"{self.name} in {ends} at {self.level:.4g} ({how}, best {self.best:.4g}){note}"


def scan(
    likelihood: LikelihoodRatio,
    data: EventSet | ArrayLike,
    axes: Mapping[str, ArrayLike],
    *,
    others: Mapping[str, float] | None = None,
) -> Scan:
    """Scan t over a grid of one or two parameters.

    Args:
        likelihood: The likelihood.
        data: The events.
        axes: Increasing grid points of one or two parameters, by name.
        others: Values at which all other parameters are held (a slice); None profiles them.

    Raises:
        ContractError: If there are not one or two axes, or some other parameters have no value.
        UnknownNameError: If a parameter is unknown.
    """
    names = tuple(axes)
    grids = tuple(np.asarray(g, dtype=np.float64) for g in axes.values())
    if len(names) not in (1, 2) or any(g.ndim != 1 or (np.diff(g) <= 0).any() for g in grids):
        raise ContractError("a scan needs one or two increasing one-dimensional grids")
    curve = _Curve(likelihood, likelihood.data(data), names, others)
    points = np.stack(np.meshgrid(*grids, indexing="ij"), axis=-1)
    if curve.is_slice:
        statistic = curve(points.reshape(-1, len(names))).reshape(points.shape[:-1])
    else:
        statistic = _swept(curve, points)
    return Scan(names, grids, statistic, curve.best_values, curve.others)


def interval(
    likelihood: LikelihoodRatio,
    data: EventSet | ArrayLike,
    name: str,
    *,
    level: float = _LEVEL,
    others: Mapping[str, float] | None = None,
    threshold: Threshold | None = None,
    grid: int = _GRID,
) -> Interval:
    """Find where t stays below the threshold along one parameter.

    The box is scanned on a grid, finer around the best value, and each crossing is then found to
    1e-6 of the box.

    Args:
        likelihood: The likelihood.
        data: The events.
        name: The parameter.
        level: Confidence level; with `threshold` it is only recorded.
        others: Values at which all other parameters are held (a slice); None profiles them.
        threshold: Critical value of t, a number or a function of points (k, 1); default Wilks'.
        grid: Points of the scan.

    Raises:
        UnknownNameError: If a parameter is unknown.
        ContractError: If the parameter has no finite bounds.
    """
    from scipy.optimize import brentq

    low, high = likelihood.model.prior.parameters[name].bounds
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ContractError(f"an interval of {name} needs a finite box, got [{low:g}, {high:g}]")
    limit = chi2_threshold(level, 1) if threshold is None else threshold
    curve = _Curve(likelihood, likelihood.data(data), (name,), others)

    def above(values: FloatArray) -> FloatArray:
        points = values[:, None]
        return curve(points) - (limit(points) if callable(limit) else limit)

    best = float(curve.best_values[0])
    values = np.linspace(low, high, grid)
    # Around the minimum the scale may be far below that of the box.
    near = (high - low) * 2.0 ** -np.arange(1, 4 * _ZOOM, 1.0)
    values = np.unique(
        np.clip(np.concatenate([values, [best], best + near, best - near]), low, high)
    )
    outside = above(values) > 0
    outside[values == best] = False
    ends = [low] if not outside[0] else []
    for i in np.flatnonzero(outside[1:] != outside[:-1]):
        ends.append(
            brentq(lambda v: float(above(np.array([v]))[0]), values[i], values[i + 1],
                   xtol=1e-6 * (values[i + 1] - values[i]) + 1e-12 * (high - low))
        )  # fmt: skip
    if not outside[-1]:
        ends.append(high)
    return Interval(
        name,
        level,
        best,
        np.array(ends).reshape(-1, 2),
        open_low=not outside[0],
        open_high=not outside[-1],
        others=curve.others,
    )


class _Curve:
    """t as a function of the scanned parameters; keeps profiled points to start from."""

    def __init__(
        self,
        likelihood: LikelihoodRatio,
        data: EventSet,
        names: Sequence[str],
        others: Mapping[str, float] | None,
    ) -> None:
        self.likelihood, self.data = likelihood, data
        self.columns = likelihood.model.prior.parameters.indices(names)
        left = [n for n in likelihood.names if n not in names]
        self.is_slice = others is not None or not left
        self.held: dict[str, float] = {}
        if others is not None:
            likelihood.model.prior.parameters.indices(others)
            missing = [n for n in left if n not in others]
            if missing:
                raise ContractError(
                    f"a slice needs values of all other parameters; {', '.join(missing)} missing"
                )
            self.held = {n: float(others[n]) for n in left}
        self.others: str | Mapping[str, float] = self.held if self.is_slice else "profiled"
        self.best: Fit = minimise(likelihood, data, self.held)
        self.best_values: FloatArray = self.best.theta[self.columns]
        self._lowest = self.best.minus2_log_ratio
        self._starts = np.concatenate([self.best.theta[None], self.best.minima])

    def __call__(self, values: FloatArray) -> FloatArray:
        """Return t at values (k, scanned), shape (k,)."""
        if self.is_slice:
            points = np.repeat(self.best.theta[None], len(values), axis=0)
            points[:, self.columns] = values
            found = self.likelihood.minus2_log_ratio(points, self.data) - self._lowest
            statistic: FloatArray = np.maximum(found, 0.0)
            return statistic
        near: FloatArray | None = None
        out = np.empty(len(values))
        for i in range(len(values)):
            out[i], near = self.profiled(values[i], near)
        return out

    def profiled(self, value: FloatArray, near: FloatArray | None) -> tuple[float, FloatArray]:
        """Return t at one point with the others refitted, and the whole point."""
        starts = self._starts if near is None else np.concatenate([near[None], self._starts])
        fixed = {
            self.likelihood.names[c]: float(v) for c, v in zip(self.columns, value, strict=True)
        }
        found = minimise(self.likelihood, self.data, fixed, starts, search=False)
        return max(found.minus2_log_ratio - self._lowest, 0.0), found.theta


def _swept(curve: _Curve, points: FloatArray) -> FloatArray:
    """Profile a grid forwards and backwards from each point's neighbour, keeping the lower."""
    shape = points.shape[:-1]
    flat = points.reshape(-1, points.shape[-1])
    statistic = np.full(len(flat), np.inf)
    order = np.arange(len(flat)).reshape(shape)
    if order.ndim == 2:
        order[1::2] = order[1::2, ::-1].copy()  # a path whose steps are neighbours
    path = order.ravel()
    for way in (path, path[::-1]):
        near: FloatArray | None = None
        for i in way:
            value, near = curve.profiled(flat[i], near)
            statistic[i] = min(statistic[i], value)
    return statistic.reshape(shape)
