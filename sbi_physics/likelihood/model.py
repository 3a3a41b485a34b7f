r"""What the likelihood layer asks of a model of events.

A model gives the expected number of events :math:`\nu(\theta)` and, for each event, the ratio
:math:`\lambda(x|\theta)/\lambda_0(x)` of its intensity to a reference intensity that no parameter
changes. Nuisance parameters are parameters like any other: they are profiled wherever they are not
scanned, and `penalty` holds the constraints on them. Sums over processes, interpolated systematics
and learned ratios all fit behind these four methods; what they need to know about an event travels
as the columns of `events`, so that toys only pick rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property

import numpy as np

from sbi_physics.errors import ContractError
from sbi_physics.priors import Prior
from sbi_physics.seeding import generator
from sbi_physics.types import FloatArray

_SPREAD = 64
_STEP = 1e-5
_ENTRIES = 4_000_000
"""Largest number of (point, event) pairs evaluated at once."""


class EventModel(ABC):
    """The intensity of events as a function of parameters.

    Args:
        prior: The parameters; ends of their distributions bound every fit, and starting points are
            spread over them. No prior enters the likelihood.
        reference_expected: Expected events of the reference intensity, usually those at zero.
    """

    def __init__(self, prior: Prior, reference_expected: float | None) -> None:
        if reference_expected is not None and not 0 < reference_expected < np.inf:
            raise ContractError(
                f"the reference needs a positive number of events, got {reference_expected!r}"
            )
        self.prior = prior
        self.reference_expected = reference_expected

    @cached_property
    def spread(self) -> FloatArray:
        """Points that fill the box, where a fit looks first; the middle first, shape (65, d)."""
        points = self.prior.quasi_sample(_SPREAD, generator(0, "pool", 2))
        return np.concatenate([self.prior.from_unit(np.full((1, self.prior.d), 0.5)), points])

    @property
    def has_rate(self) -> bool:
        """Whether the expected number of events is known."""
        return self.reference_expected is not None

    @abstractmethod
    def log_ratio(self, theta: FloatArray, events: FloatArray) -> FloatArray:
        """Log of the intensity over the reference's, shape (k, n).

        Without a rate it is the log ratio of normalised densities.

        Args:
            theta: Points, shape (k, d).
            events: Events, shape (n, columns).
        """

    def expected(self, theta: FloatArray) -> FloatArray:
        """Return expected numbers of events, shape (k,), at points (k, d)."""
        raise ContractError(f"{type(self).__name__} does not know the expected number of events")

    @property
    def constrained(self) -> bool:
        """Whether there are constraints on nuisance parameters."""
        return type(self).penalty is not EventModel.penalty

    def penalty(self, theta: FloatArray) -> FloatArray:
        """Minus two log of the constraints on nuisance parameters, shape (k,)."""
        return np.zeros(len(theta))

    def below_floor(self, theta: FloatArray, events: FloatArray) -> float:
        """Return the fraction of events whose ratio was raised to a floor at theta (d,)."""
        return 0.0

    def summed(
        self, theta: FloatArray, events: FloatArray, weights: FloatArray | None
    ) -> FloatArray:
        """Sum of weighted log ratios over events, shape (k,)."""
        total = np.zeros(len(theta))
        step = max(1, _ENTRIES // max(len(theta), 1))
        for start in range(0, len(events), step):
            part = self.log_ratio(theta, events[start : start + step])
            w = None if weights is None else weights[start : start + step]
            total += part.sum(axis=1) if w is None else part @ w
        return total

    def summed_slopes(
        self, theta: FloatArray, events: FloatArray, weights: FloatArray | None
    ) -> tuple[float, FloatArray]:
        """Sum of weighted log ratios at one point (d,) and its gradient, shape (d,).

        By central differences unless a subclass knows better.
        """
        points, steps = self._around(theta)
        values = self.summed(points, events, weights)
        return float(values[0]), _differences(values, steps)

    def expected_slopes(self, theta: FloatArray) -> tuple[float, FloatArray]:
        """Expected number of events at one point (d,) and its gradient, shape (d,)."""
        points, steps = self._around(theta)
        values = self.expected(points)
        return float(values[0]), _differences(values, steps)

    def penalty_slopes(self, theta: FloatArray) -> tuple[float, FloatArray]:
        """Penalty at one point (d,) and its gradient, shape (d,)."""
        if not self.constrained:
            return 0.0, np.zeros(len(theta))
        points, steps = self._around(theta)
        values = self.penalty(points)
        return float(values[0]), _differences(values, steps)

    def _around(self, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The point, then pairs of neighbours along each parameter inside the bounds."""
        low, high = self.prior.bounds.T
        scale = np.where(np.isfinite(high - low), high - low, np.maximum(np.abs(theta), 1.0))
        right = np.minimum(theta + _STEP * scale, high)
        left = np.maximum(theta - _STEP * scale, low)
        points = np.repeat(theta[None], 1 + 2 * len(theta), axis=0)
        index = np.arange(len(theta))
        points[1 + 2 * index, index] = right
        points[2 + 2 * index, index] = left
        return points, right - left


class FunctionModel(EventModel):
    """A model from functions, such as the `log_ratio` of a trained ratio or a closed form.

    Args:
        prior: The parameters.
        log_ratio: Function (theta (k, d), events (n, columns)) -> (k, n).
        expected: Function theta (k, d) -> expected events (k,). None where only the shape is
            modelled: `log_ratio` is then that of normalised densities.
        reference_expected: Expected events of the reference; default those at zero parameters.
        penalty: Minus two log of the constraints on nuisance parameters, theta (k, d) -> (k,).
    """

    def __init__(
        self,
        prior: Prior,
        log_ratio: Callable[[FloatArray, FloatArray], FloatArray],
        expected: Callable[[FloatArray], FloatArray] | None = None,
        *,
        reference_expected: float | None = None,
        penalty: Callable[[FloatArray], FloatArray] | None = None,
    ) -> None:
        if expected is not None and reference_expected is None:
            reference_expected = float(expected(np.zeros((1, prior.d)))[0])
        super().__init__(prior, reference_expected)
        self._log_ratio, self._expected, self._penalty = log_ratio, expected, penalty

    @property
    def constrained(self) -> bool:
        return self._penalty is not None

    def log_ratio(self, theta: FloatArray, events: FloatArray) -> FloatArray:
        values = np.asarray(self._log_ratio(theta, events), dtype=np.float64)
        if values.shape != (len(theta), len(events)):
            raise ContractError(
                f"log ratios of {len(theta)} points and {len(events)} events have shape "
                f"{values.shape}, expected (points, events)"
            )
        return values

    def expected(self, theta: FloatArray) -> FloatArray:
        if self._expected is None:
            return super().expected(theta)
        return np.asarray(self._expected(theta), dtype=np.float64)

    def penalty(self, theta: FloatArray) -> FloatArray:
        if self._penalty is None:
            return super().penalty(theta)
        return np.asarray(self._penalty(theta), dtype=np.float64)


def _differences(values: FloatArray, steps: FloatArray) -> FloatArray:
    rise = values[1::2] - values[2::2]
    return np.divide(rise, steps, out=np.zeros_like(rise), where=steps > 0)
