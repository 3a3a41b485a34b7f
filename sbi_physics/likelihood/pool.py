r"""Simulated events from which toys and Asimov sets of any parameter point are drawn.

Events sampled from one density q stand for those of another by the weights

.. math:: w_e(\theta) \propto \frac{\lambda(x_e|\theta)}{q(x_e)} ,

with *exact* ratios, while the statistic under test may use learned ones for the same events. Far
from where q was made a few events carry all the weight, and toys repeat them; a pool refuses
parameter points where that happens. Sample q as a mixture over the region of interest.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from sbi_physics.errors import ValidationError
from sbi_physics.likelihood.model import EventModel
from sbi_physics.likelihood.ratio import EventSet
from sbi_physics.types import FloatArray

MIN_ESS_RATIO = 50.0
"""Effective pool events for each event of a toy."""


class EventPool:
    """A weighted sample of events with exact and, optionally, learned descriptions.

    Args:
        truth: Model whose ratios are exact.
        labels: Events as `truth` sees them, shape (n, columns).
        weight: Reference intensity over sampling density, up to a constant, shape (n,); None where
            events were sampled from the reference.
        events: The same events as the analysis sees them, shape (n, columns); default `labels`.
        min_ess_ratio: Refuse points where the effective sample size is below this many times the
            events asked for.

    Raises:
        ValidationError: If lengths disagree, weights are negative or values are not finite.
    """

    def __init__(
        self,
        truth: EventModel,
        labels: ArrayLike,
        *,
        weight: ArrayLike | None = None,
        events: ArrayLike | None = None,
        min_ess_ratio: float = MIN_ESS_RATIO,
    ) -> None:
        self.truth = truth
        self.labels = np.asarray(labels, dtype=np.float64)
        self.events = self.labels if events is None else np.asarray(events, dtype=np.float64)
        n = len(self.labels)
        base = np.ones(n) if weight is None else np.asarray(weight, dtype=np.float64)
        if base.shape != (n,) or len(self.events) != n or n == 0:
            raise ValidationError(
                f"a pool needs as many labels, events and weights, got {n}, {len(self.events)} "
                f"and {base.shape}"
            )
        if not np.isfinite(base).all() or (base < 0).any() or not np.isfinite(self.labels).all():
            raise ValidationError(
                "labels and weights of a pool must be finite and weights not negative"
            )
        self.weight, self.min_ess_ratio = base, float(min_ess_ratio)

    def __len__(self) -> int:
        return len(self.labels)

    def weights(self, theta: ArrayLike) -> FloatArray:
        """Return weights at one point (d,) that sum to its expected number of events.

        Raises:
            ValidationError: If the truth knows no rate.
        """
        point = np.asarray(theta, dtype=np.float64).reshape(1, -1)
        if not self.truth.has_rate:
            raise ValidationError("toys need the expected number of events: give the truth a rate")
        w = self.weight * np.exp(self.truth.log_ratio(point, self.labels)[0])
        scaled: FloatArray = w * (float(self.truth.expected(point)[0]) / w.sum())
        return scaled

    def effective_size(self, theta: ArrayLike) -> float:
        """Return (sum w)^2 / sum w^2 at one point (d,)."""
        w = self.weights(theta)
        return float(w.sum() ** 2 / (w**2).sum())

    def asimov(self, theta: ArrayLike) -> EventSet:
        """Return the set that stands for the expectation at one point (d,)."""
        return EventSet(self.events, self.weights(theta))

    def toys(
        self,
        theta: ArrayLike,
        n: int,
        rng: np.random.Generator,
        *,
        normalisation_sd: float = 0.0,
    ) -> Iterator[EventSet]:
        """Yield `n` toys at one point (d,), their sizes Poisson.

        Args:
            theta: True parameters.
            n: Number of toys.
            rng: Source of randomness.
            normalisation_sd: Relative uncertainty of the common factor; its auxiliary measurement
                then fluctuates, and the factor itself is one.

        Raises:
            ValidationError: If the pool is too small for this point.
        """
        w = self.weights(theta)
        expected = float(w.sum())
        effective = expected**2 / float((w**2).sum())
        if effective < self.min_ess_ratio * expected:
            raise ValidationError(
                f"toys of {expected:.4g} events at {np.ravel(theta).tolist()} need an effective "
                f"pool of {self.min_ess_ratio:g} times as many, this one has {effective:.4g} of "
                f"{len(w)} events: simulate more, from a mixture that covers this point, or lower "
                "min_ess_ratio and accept repeated events"
            )
        cumulative = np.cumsum(w)
        cumulative /= cumulative[-1]
        free = np.isfinite(normalisation_sd)
        for _ in range(n):
            size = int(rng.poisson(expected))
            rows = np.searchsorted(cumulative, rng.random(size), side="right")
            aux = 1.0 + (normalisation_sd * float(rng.standard_normal()) if free else 0.0)
            yield EventSet(self.events[np.minimum(rows, len(w) - 1)], None, aux)
