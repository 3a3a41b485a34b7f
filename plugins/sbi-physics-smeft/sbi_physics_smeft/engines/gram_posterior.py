r"""A learned likelihood ratio :math:`R(x|\theta) = v^T G(x) v`, as posterior and as likelihood.

Networks give the matrix of each event; the integrated matrix of the simulator gives
:math:`\sigma(\theta)/\sigma(0)`, so that

.. math:: \ln r(x|\theta) = \ln v^T G(x) v - \ln v^T \bar G v

is normalised. A set of events has the sum, or, extended by its number of events n with expectation
:math:`\nu`, :math:`\sum_e \ln v^T G(x_e) v - \nu(\theta) + \nu(0)`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from sbi_physics import Observable, Prior
from sbi_physics.errors import ContractError
from sbi_physics.likelihood import QuadraticModel
from sbi_physics.likelihood.gram import monomials
from sbi_physics.nn.weights import to_arrays
from sbi_physics.posterior import PosteriorContext
from sbi_physics.ratio import RatioPosterior
from sbi_physics.transforms import Transform
from sbi_physics.types import AnyArray, DataArray, FloatArray
from sbi_physics_smeft.conventions import pack
from sbi_physics_smeft.eft_simulator import EftOptions, EftSimulator

_ROWS = 32_768
_ENTRIES = 8_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Rates:
    """What the simulator knows about numbers of events.

    Attributes:
        gram: Integrated packed matrix, first entry one.
        sm_events: Expected events at zero parameters.
        held: Values of parameters that are not inferred, by column of the simulator's theta.
        free: Columns of the inferred ones.
    """

    gram: FloatArray
    sm_events: float
    held: Mapping[int, float]
    free: tuple[int, ...]

    def full(self, theta: FloatArray) -> FloatArray:
        """Return all parameters, shape (..., d), of inferred ones."""
        if not self.held:
            return theta
        points = np.empty((*theta.shape[:-1], len(self.free) + len(self.held)))
        points[..., list(self.free)] = theta
        for column, value in self.held.items():
            points[..., column] = value
        return points

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready description."""
        return {
            "gram": self.gram.tolist(),
            "sm_events": self.sm_events,
            "held": [[k, v] for k, v in self.held.items()],
            "free": list(self.free),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Rates:
        """Rebuild from `to_dict`."""
        held = {int(k): float(v) for k, v in data["held"]}
        return cls(np.array(data["gram"]), data["sm_events"], held, tuple(data["free"]))


class GramPosterior(RatioPosterior, ABC):
    """A trained ratio; subclasses turn network outputs into matrices.

    Args:
        context: What it was made from.
        network: The trained network.
        config: The settings that shaped it, JSON-ready.
        rates: Integrated quantities of the simulator.
    """

    def __init__(
        self,
        context: PosteriorContext,
        network: nn.Module,
        config: Mapping[str, Any],
        rates: Rates,
    ) -> None:
        super().__init__(context, pool_size=int(config["pool_size"]))
        self.network, self.rates = network, rates
        self._settings = dict(config)

    @abstractmethod
    def _grams(self, x: Tensor) -> Tensor:
        """Packed matrices, float64, shape (members, batch, entries), of network inputs."""

    @property
    def is_for_sets(self) -> bool:
        """Whether an observation is a set of events."""
        return self.observable.kind == "set"

    def member_coefficients(self, events: ArrayLike) -> FloatArray:
        """Return the packed matrices of single events by each member.

        Args:
            events: Shape (n, features).

        Returns:
            Shape (members, n, entries), first entries one.
        """
        return self._of_inputs(event_inputs(self._transform, np.asarray(events, np.float32)))

    def coefficients(self, events: ArrayLike) -> FloatArray:
        """Return the packed matrices of single events, the mean over members, (n, entries)."""
        mean: FloatArray = self.member_coefficients(events).mean(axis=0)
        return mean

    def event_model(
        self, *, sm_events: float | None = None, sample: FloatArray | None = None
    ) -> QuadraticModel:
        """Return the likelihood of `coefficients` of events.

        Args:
            sm_events: Expected events at zero parameters; default those of the simulator.
            sample: Coefficients of events from zero parameters, shape (n, entries), on which
                ratios are then normalised, see `QuadraticModel`.

        Raises:
            ContractError: If some parameters are held.
        """
        if self.rates.held:
            raise ContractError("the likelihood layer needs all coefficients free")
        return QuadraticModel(
            self.prior,
            self.rates.gram,
            self.rates.sm_events if sm_events is None else sm_events,
            event_gram=None if sample is None else sample.mean(axis=0),
            floor=float(self._settings["floor"]),
        )

    def log_ratio(
        self,
        theta: ArrayLike,
        x: ArrayLike,
        *,
        any_observation: bool = False,
        per_event: bool = False,
    ) -> FloatArray:
        """Return the learned log ratio to zero parameters.

        Args:
            theta: Points, shape (batch, k, d), or (k, d) for the same points at every observation.
            x: Observations, shape (batch, *observable.shape).
            any_observation: As in `log_prob`.
            per_event: Return normalised ratios of single events instead of their sum, shape
                (batch, k, max_events), zero where there is no event.

        Returns:
            Shape (batch, k), with the term of the number of events where the posterior is
            extended.

        Raises:
            ObservationError: As in `sample`.
        """
        if not any_observation:
            self.require_valid_for(x, "pass any_observation=True")
        data = self.observable.check(x)
        points = self._points(theta, len(data))
        return self._evaluate(points, self._transform(data), per_event=per_event)

    def _log_ratio(self, u: FloatArray, xt: DataArray) -> FloatArray:
        return self._evaluate(self.prior.from_unconstrained(u), xt, per_event=False)

    def _evaluate(self, theta: FloatArray, xt: DataArray, *, per_event: bool) -> FloatArray:
        points = self.rates.full(theta)
        m = monomials(points)
        log_rate = np.log(m @ self.rates.gram)  # (k,) or (batch, k)
        sets = xt if self.is_for_sets else _as_set(xt)
        n_batch, n_events = sets.shape[:2]
        k = m.shape[-2]
        out = np.empty((n_batch, k, n_events) if per_event else (n_batch, k))
        step = max(1, _ENTRIES // max(n_events * k, 1))
        for start in range(0, n_batch, step):
            some = slice(start, min(start + step, n_batch))
            mask = sets[some, :, -1] > 0
            grams = np.zeros((*mask.shape, m.shape[-1]))
            grams[mask] = self._of_inputs(sets[some, :, :-1][mask]).mean(axis=0)
            rows = m if m.ndim == 2 else m[some]
            ratio = rows @ grams.transpose(0, 2, 1)  # (some, k, events)
            rate = log_rate if m.ndim == 2 else log_rate[some]
            log = np.log(np.maximum(ratio, self._settings["floor"])) - rate[..., None]
            log *= mask[:, None, :]
            if per_event:
                out[some] = log
                continue
            out[some] = log.sum(axis=2)
            if self.is_for_sets and self._settings["terms"] == "extended":
                count = mask.sum(axis=1)[:, None]
                out[some] += count * rate - self.rates.sm_events * np.expm1(rate)
        return out

    def _of_inputs(self, inputs: DataArray) -> FloatArray:
        with torch.no_grad():
            parts = [
                self._grams(torch.from_numpy(np.ascontiguousarray(inputs[i : i + _ROWS]))).numpy()
                for i in range(0, max(len(inputs), 1), _ROWS)
            ]
        grams: FloatArray = np.concatenate(parts, axis=1)
        return grams

    def _config(self) -> dict[str, Any]:
        return {**self._settings, "rates": self.rates.to_dict()}

    def _weights(self) -> dict[str, AnyArray]:
        return to_arrays(self.network)


def of_any_proposal(context: PosteriorContext) -> PosteriorContext:
    """Return a context that belongs to ordinary simulations.

    A ratio does not depend on what its training events were drawn from; fresh pairs for the
    validator come from p(x|theta), with the default proposal.
    """
    identity = context.simulator
    if identity is None:
        return context
    defaults = {n: EftOptions.model_fields[n].default for n in EftOptions.model_fields}
    plain = EftOptions(**defaults).model_dump(mode="json")
    return replace(context, simulator=replace(identity, options={**identity.options, **plain}))


def event_inputs(transform: Transform, events: DataArray) -> DataArray:
    """Return network inputs, shape (n, features), of single events (n, features)."""
    if transform.observable.kind != "set":
        return transform(events)
    return transform(_as_set(events))[:, 0, :-1]


def for_sets(context: PosteriorContext, events: DataArray, max_events: int) -> PosteriorContext:
    """Return a context whose observations are sets of the events of the given one.

    Args:
        context: Context of single events.
        events: Training events, shape (n, features).
        max_events: Largest number of events of a set.
    """
    one = context.observable
    steps = tuple(dict.fromkeys("standardize" if s == "whiten" else s for s in one.transform))
    observable = Observable(
        "set",
        (max_events, one.shape[0] + 1),
        unit=one.unit,
        transform=steps,
        label=one.label,
        names=one.names,
    )
    n = max(2, len(events) // max_events)
    padded = np.zeros((n, *observable.shape), np.float32)
    for i in range(n):
        some = events[i * max_events : (i + 1) * max_events]
        padded[i, : len(some), :-1], padded[i, : len(some), -1] = some, 1.0
    return replace(context, observable=observable, transform=Transform.fit(observable, padded))


def _as_set(events: DataArray) -> DataArray:
    """Single events (n, features) as sets of one, shape (n, 1, features + 1)."""
    ones = np.ones((len(events), 1), np.float32)
    return np.concatenate([events, ones], axis=1)[:, None, :]


def rates_of(simulations: Any, prior: Prior) -> Rates:
    """Read integrated quantities from the simulator behind simulations.

    Raises:
        ContractError: If some free parameters are not inferred: a ratio depends on all of them.
    """
    simulator = simulations.simulator
    if not isinstance(simulator, EftSimulator):
        raise ContractError(
            f"label learning needs a simulator of this package, not {type(simulator).__name__}"
        )
    parameters = simulations.parameters
    free = tuple(parameters.index(n) for n in prior.names)
    left = [p for p in parameters if p.name not in prior.names]
    moving = [p.name for p in left if not p.is_fixed]
    if moving:
        raise ContractError(
            f"the ratio depends on {', '.join(moving)} too: infer all free coefficients, or fix "
            "them in the prior"
        )
    held = {parameters.index(p.name): float(p.bounds[0]) for p in left}
    gram = pack(simulator.fiducial_gram())
    return Rates(gram / gram[0], float(simulator.expected_sm_events()), held, free)
