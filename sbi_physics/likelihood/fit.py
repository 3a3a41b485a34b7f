"""The minimum of a likelihood, from several starting points.

Quadratic intensities make surfaces of fourth order with up to 2^d minima, and square roots of
parameters make flat ones. A coarse evaluation on points that fill the box finds where to start;
bounded quasi-Newton descents (L-BFGS-B) with the model's own gradient do the rest. The box is
handled as bounds, not by a transformation of parameters, so that a minimum on its edge is exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from sbi_physics.errors import ContractError
from sbi_physics.types import BoolArray, FloatArray

if TYPE_CHECKING:
    from sbi_physics.likelihood.model import EventModel
    from sbi_physics.likelihood.ratio import EventSet

_APART = 0.25  # of the box, in one parameter at least: starts closer than this share a minimum
_TOLERANCE = 1e-13  # relative change of the function that ends a descent
_GRADIENT = 1e-6
_MAX_STEPS = 300
_CURVATURE_STEP = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """The best point found.

    Attributes:
        names: Names of the parameters.
        theta: Best values, shape (d,).
        minus2_log_ratio: -2 ln L(theta)/L(reference) there.
        free: Which parameters floated, shape (d,).
        at_bound: Which of them ended on the edge of the box, shape (d,).
        below_floor: Fraction of events whose ratio was raised to the model's floor there.
        minima: Other minima found, best first, shape (k, d).
        minima_above: How much higher they are, shape (k,).
        converged: Whether the descent to the best minimum ended by itself.
    """

    names: tuple[str, ...]
    theta: FloatArray
    minus2_log_ratio: float
    free: BoolArray
    at_bound: BoolArray
    below_floor: float
    minima: FloatArray
    minima_above: FloatArray
    converged: bool

    def __getitem__(self, name: str) -> float:
        """Return the best value of a parameter."""
        return float(self.theta[self.names.index(name)])


class _Likelihood(Protocol):
    """What a fit asks of a likelihood."""

    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def model(self) -> EventModel: ...
    def minus2_log_ratio(self, theta: FloatArray, data: EventSet) -> FloatArray: ...
    def with_gradient(self, theta: FloatArray, data: EventSet) -> tuple[float, FloatArray]: ...


def minimise(
    likelihood: _Likelihood,
    data: EventSet,
    fixed: Mapping[str, float],
    starts: FloatArray | None = None,
    *,
    search: bool = True,
) -> Fit:
    """Minimise over the box; see `LikelihoodRatio.fit`.

    Args:
        likelihood: What is minimised.
        data: The events.
        fixed: Values of held parameters.
        starts: Starting points of descents, shape (k, d).
        search: Whether to look over the whole box for more of them; not needed where `starts` are
            known to be near the minimum, as in a scan.
    """
    prior = likelihood.model.prior
    free = np.ones(prior.d, dtype=np.bool_)
    base = np.zeros(prior.d)
    for name, value in fixed.items():
        i = prior.parameters.index(name)
        free[i], base[i] = False, float(value)
    low, high = prior.bounds.T
    pinned = free & (low == high)
    free[pinned], base[pinned] = False, low[pinned]
    if not free.any():
        return _held(likelihood, data, base, free)
    begin = np.empty((0, prior.d))
    if starts is not None:
        begin = np.repeat(base[None], len(starts), axis=0)
        begin[:, free] = np.clip(starts[:, free], low[free], high[free])
    if search:
        points = likelihood.model.spread.copy()
        points[:, ~free] = base[~free]
        values = likelihood.minus2_log_ratio(points, data)
        chosen = _spread(prior.to_unit(points)[:, free], values, 2 ** int(free.sum()))
        begin = np.concatenate([begin, points[chosen]])
    found = [_descend(likelihood, data, point, free) for point in begin]
    found.sort(key=lambda item: item[1])
    return _collected(likelihood, data, found, free)


def _descend(
    likelihood: _Likelihood, data: EventSet, start: FloatArray, free: BoolArray
) -> tuple[FloatArray, float, bool]:
    """One descent: the point (d,), its value and whether it converged."""
    from scipy.optimize import minimize

    low, high = likelihood.model.prior.bounds.T
    scale = _curvature_scale(likelihood, data, start, free)
    theta = start.copy()

    def value_and_slopes(z: FloatArray) -> tuple[float, FloatArray]:
        theta[free] = np.clip(z * scale, low[free], high[free])
        value, slopes = likelihood.with_gradient(theta, data)
        return value, slopes[free] * scale

    result = minimize(
        value_and_slopes,
        start[free] / scale,
        jac=True,
        method="L-BFGS-B",
        bounds=list(zip(low[free] / scale, high[free] / scale, strict=True)),
        options={"ftol": _TOLERANCE, "gtol": _GRADIENT, "maxiter": _MAX_STEPS, "maxls": 40},
    )
    end = start.copy()
    end[free] = np.clip(result.x * scale, low[free], high[free])
    # A line search that cannot improve further at rounding level is an end like any other.
    ended = bool(result.success) or "ABNORMAL" in str(result.message).upper()
    return end, float(result.fun), ended


def _curvature_scale(
    likelihood: _Likelihood, data: EventSet, theta: FloatArray, free: BoolArray
) -> FloatArray:
    """Unit of each free parameter in which the surface bends by about one."""
    low, high = likelihood.model.prior.bounds.T
    width = np.where(np.isfinite(high - low), high - low, np.maximum(np.abs(theta), 1.0))
    index = np.flatnonzero(free)
    scale = np.empty(len(index))
    for k, i in enumerate(index):
        step = _CURVATURE_STEP * width[i]
        points = np.repeat(theta[None], 2, axis=0)
        points[0, i] = min(theta[i] + step, high[i])
        points[1, i] = max(theta[i] - step, low[i])
        up = likelihood.with_gradient(points[0], data)[1][i]
        down = likelihood.with_gradient(points[1], data)[1][i]
        bend = abs(up - down) / (points[0, i] - points[1, i])
        scale[k] = np.clip(np.sqrt(2.0 / max(bend, 1e-300)), 1e-6 * width[i], width[i])
    return scale


def _spread(units: FloatArray, values: FloatArray, most: int) -> list[int]:
    """Numbers of the lowest points that are no neighbours, at most `most`."""
    chosen: list[int] = []
    for i in np.argsort(values):
        near = [np.abs(units[i] - units[j]).max() < _APART for j in chosen]
        if np.isfinite(values[i]) and not any(near):
            chosen.append(int(i))
        if len(chosen) == most:
            break
    if not chosen:
        raise ContractError("the likelihood is not finite at any starting point")
    return chosen


def _collected(
    likelihood: _Likelihood,
    data: EventSet,
    found: list[tuple[FloatArray, float, bool]],
    free: BoolArray,
) -> Fit:
    model = likelihood.model
    low, high = model.prior.bounds.T
    theta, value, converged = found[0]
    others: list[tuple[FloatArray, float]] = []
    kept = [theta]
    unit = model.prior.to_unit
    for point, level, _ in found[1:]:
        if all(np.abs(unit(point) - unit(k)).max() > 1e-3 for k in kept):
            kept.append(point)
            others.append((point, level - value))
    return Fit(
        names=likelihood.names,
        theta=theta,
        minus2_log_ratio=value,
        free=free,
        at_bound=free & ((theta <= low) | (theta >= high)),
        below_floor=model.below_floor(theta, data.events),
        minima=np.array([p for p, _ in others]).reshape(-1, model.prior.d),
        minima_above=np.array([v for _, v in others]),
        converged=converged,
    )


def _held(likelihood: _Likelihood, data: EventSet, theta: FloatArray, free: BoolArray) -> Fit:
    value = float(likelihood.minus2_log_ratio(theta[None], data)[0])
    return _collected(likelihood, data, [(theta, value, True)], free)
