r"""The likelihood ratio of a set of events.

With :math:`S(\theta) = \sum_e w_e \ln \lambda(x_e|\theta)/\lambda_0(x_e)` and
:math:`n = \sum_e w_e`, relative to the reference,

- rate and shape: :math:`-2\ln L = 2[\nu(\theta) - \nu_0] - 2S(\theta)`;
- shape only: :math:`-2\ln L = 2n\ln[\nu(\theta)/\nu_0] - 2S(\theta)`, that is, S with normalised
  densities;
- rate only: :math:`-2\ln L = 2[\nu(\theta) - \nu_0] - 2n\ln[\nu(\theta)/\nu_0]`.

An uncertain normalisation multiplies the intensity by :math:`\kappa`, measured elsewhere to be
:math:`a \pm \sigma` (a = 1 in data). It is profiled in closed form,

.. math:: \hat\kappa = \tfrac12\left[b + \sqrt{b^2 + 4n\sigma^2}\right], \quad
          b = a - \nu(\theta)\,\sigma^2,

which tends to the shape-only likelihood as :math:`\sigma \to \infty`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from sbi_physics.errors import ContractError, ObservationError, unknown_name
from sbi_physics.likelihood.fit import Fit, minimise
from sbi_physics.likelihood.model import EventModel
from sbi_physics.types import FloatArray

TERMS: Final = ("extended", "shape", "rate")


@dataclass(frozen=True, slots=True, eq=False)
class EventSet:
    """Observed, simulated or Asimov events.

    Attributes:
        events: Events as the model sees them, shape (n, columns).
        weights: Weights of Asimov events, shape (n,); None where each counts once.
        normalisation: Auxiliary measurement of the common factor of the intensity.
    """

    events: FloatArray
    weights: FloatArray | None = None
    normalisation: float = 1.0

    def __post_init__(self) -> None:
        if self.events.ndim != 2 or not np.isfinite(self.events).all():
            raise ObservationError(
                f"events must be finite numbers of shape (n, columns), got {self.events.shape}"
            )
        w = self.weights
        if w is not None and (
            w.shape != self.events.shape[:1] or not np.isfinite(w).all() or (w < 0).any()
        ):
            raise ObservationError(
                f"{len(self.events)} events need as many weights, finite and not negative"
            )

    @property
    def total(self) -> float:
        """Number of events, or sum of their weights."""
        return float(len(self.events)) if self.weights is None else float(self.weights.sum())


class LikelihoodRatio:
    """The likelihood of event sets, relative to the model's reference.

    Args:
        model: The intensity.
        terms: `extended` (rate and shape), `shape` or `rate`.
        normalisation_sd: Relative uncertainty of a common factor of the expected events; 0 where
            the rate is known exactly, `inf` where it is free.

    Raises:
        UnknownNameError: If `terms` is none of these.
        ContractError: If the rate is needed and the model does not know it.
    """

    def __init__(
        self, model: EventModel, *, terms: str = "extended", normalisation_sd: float = 0.0
    ) -> None:
        if terms not in TERMS:
            raise unknown_name("likelihood term", terms, TERMS)
        if not normalisation_sd >= 0:
            raise ContractError(
                f"normalisation_sd must be 0 or positive, got {normalisation_sd:g}"
            )
        if terms != "shape" and not model.has_rate:
            raise ContractError(
                f"terms={terms!r} needs the expected number of events, which the model does not "
                "know; give it, or use terms='shape'"
            )
        if terms == "rate" and np.isinf(normalisation_sd):
            raise ContractError("a rate with free normalisation says nothing about parameters")
        if terms == "shape" and normalisation_sd > 0:
            raise ContractError("the shape alone does not depend on the normalisation")
        self.model, self.terms = model, terms
        self.normalisation_sd = float(normalisation_sd)

    def __repr__(self) -> str:
        uncertain = f", ±{self.normalisation_sd:.2%}" if self.normalisation_sd else ""
        return f"LikelihoodRatio({', '.join(self.names)}; {self.terms}{uncertain})"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters."""
        return self.model.prior.names

    @property
    def d(self) -> int:
        """Number of parameters."""
        return self.model.prior.d

    def data(self, events: EventSet | ArrayLike) -> EventSet:
        """Return events as an `EventSet`."""
        if isinstance(events, EventSet):
            return events
        return EventSet(np.asarray(events, dtype=np.float64))

    def points(self, theta: ArrayLike | Mapping[str, float]) -> FloatArray:
        """Return parameter points as an array of shape (k, d).

        Raises:
            ContractError: If the shape is another one.
            UnknownNameError: If a mapping names an unknown parameter.
        """
        if isinstance(theta, Mapping):
            return self.model.prior.parameters.vector(theta)[None]
        points = np.asarray(theta, dtype=np.float64)
        if points.ndim == 1:
            points = points[None]
        if points.ndim != 2 or points.shape[1] != self.d or not np.isfinite(points).all():
            raise ContractError(
                f"theta must be finite with shape (k, {self.d}) for {', '.join(self.names)}, got "
                f"{np.shape(theta)}"
            )
        return points

    def minus2_log_ratio(
        self, theta: ArrayLike | Mapping[str, float], data: EventSet | ArrayLike
    ) -> FloatArray:
        """Return -2 ln L(theta)/L(reference), the normalisation profiled, shape (k,).

        Args:
            theta: Points, shape (k, d) or (d,), or one point as a mapping.
            data: The events.
        """
        points, seen = self.points(theta), self.data(data)
        value = self.model.penalty(points)
        if self.terms != "rate":
            value = value - 2 * self.model.summed(points, seen.events, seen.weights)
        if not self.model.has_rate:
            return value
        nu = self.model.expected(points)
        if not (nu > 0).all():
            raise ContractError(
                f"the expected number of events is not positive at {points[nu <= 0][0].tolist()}"
            )
        rate, _ = self._rate(nu, seen)
        total: FloatArray = value + rate
        return total

    def with_gradient(self, theta: FloatArray, data: EventSet) -> tuple[float, FloatArray]:
        """Return `minus2_log_ratio` at one point (d,) and its gradient, shape (d,)."""
        value, gradient = self.model.penalty_slopes(theta)
        if self.terms != "rate":
            summed, slopes = self.model.summed_slopes(theta, data.events, data.weights)
            value, gradient = value - 2 * summed, gradient - 2 * slopes
        if self.model.has_rate:
            nu, nu_slopes = self.model.expected_slopes(theta)
            rate, slope = self._rate(np.array([nu]), data)
            value, gradient = value + float(rate[0]), gradient + float(slope[0]) * nu_slopes
        return value, gradient

    def fit(
        self,
        data: EventSet | ArrayLike,
        *,
        fixed: Mapping[str, float] | None = None,
        starts: ArrayLike | None = None,
    ) -> Fit:
        """Minimise over the box, from several starting points.

        Args:
            data: The events.
            fixed: Values of parameters that are held; all others float.
            starts: More starting points, shape (k, d).

        Raises:
            UnknownNameError: If a fixed parameter is unknown.
        """
        more = None if starts is None else self.points(starts)
        return minimise(self, self.data(data), fixed or {}, more)

    def statistic(
        self,
        theta: ArrayLike | Mapping[str, float],
        data: EventSet | ArrayLike,
        *,
        best: Fit | None = None,
    ) -> FloatArray:
        """Return t(theta) = -2 ln L(theta)/L(best), not negative, shape (k,).

        Args:
            theta: Points, shape (k, d) or (d,), or one point as a mapping.
            data: The events.
            best: The fit, where it was made already.
        """
        points, seen = self.points(theta), self.data(data)
        found = self.fit(seen, starts=points) if best is None else best
        value = self.minus2_log_ratio(points, seen) - found.minus2_log_ratio
        statistic: FloatArray = np.maximum(value, 0.0)
        return statistic

    def normalisation(self, theta: ArrayLike, data: EventSet | ArrayLike) -> FloatArray:
        """Return the profiled common factor at points (k, d), shape (k,)."""
        return self._factor(self.model.expected(self.points(theta)), self.data(data))

    def _factor(self, nu: FloatArray, data: EventSet) -> FloatArray:
        if self.normalisation_sd == 0:
            return np.ones(len(nu))
        if np.isinf(self.normalisation_sd):
            return data.total / nu
        variance = self.normalisation_sd**2
        b = data.normalisation - nu * variance
        root = np.sqrt(b**2 + 4 * data.total * variance)
        # The form without cancellation; kappa is not negative.
        factor: FloatArray = np.where(
            b >= 0, 0.5 * (b + root), 2 * data.total * variance / np.maximum(root - b, 1e-300)
        )
        return factor

    def _rate(self, nu: FloatArray, data: EventSet) -> tuple[FloatArray, FloatArray]:
        """Terms of the rate and their derivatives by nu, shapes (k,)."""
        n, reference = data.total, self.model.reference_expected
        if reference is None:  # pragma: no cover - callers ask has_rate first
            raise ContractError("the model has no rate")
        if self.terms == "shape" or (self.terms == "extended" and np.isinf(self.normalisation_sd)):
            return 2 * n * np.log(nu / reference), 2 * n / nu
        kappa = self._factor(nu, data)
        value, slope = 2 * (kappa * nu - reference), 2 * kappa
        if self.normalisation_sd > 0:
            value = value + ((kappa - data.normalisation) / self.normalisation_sd) ** 2
            if n > 0:
                value = value - 2 * n * np.log(kappa)
        if self.terms == "rate":
            value, slope = value - 2 * n * np.log(nu / reference), slope - 2 * n / nu
        return value, slope
