r"""The posterior contract: sample, evaluate, save and load, for many observations at once.

`Posterior` owns checks, chunking and state protection. `NeuralPosterior` owns the coordinates: its
kernels work in the unconstrained space of the prior and on transformed data, and densities gain
the Jacobian

.. math:: \log q(\theta|x) = \log q(z|x) + \log\left|\frac{dz}{d\theta}\right| .
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike

from sbi_physics.constrained_draws import redraw_forbidden
from sbi_physics.errors import ContractError
from sbi_physics.guard import preserve_state
from sbi_physics.observables import Observable
from sbi_physics.parameters import ParameterSpace
from sbi_physics.priors import Prior
from sbi_physics.progress import SILENT, Progress
from sbi_physics.simulator import SimulatorIdentity
from sbi_physics.training import TrainingHistory
from sbi_physics.transforms import Transform
from sbi_physics.truncation import Truncation, refusal
from sbi_physics.types import AnyArray, BoolArray, DataArray, FloatArray

if TYPE_CHECKING:
    from pathlib import Path

_CHUNK_ROWS = 100_000
"""Observations are handled in groups of at most this many (observation, draw) rows."""


@dataclass(frozen=True, slots=True)
class PosteriorContext:
    """Everything that travels with a posterior besides its weights.

    Attributes:
        engine: Registered name of the engine.
        prior: Prior of the inferred parameters.
        observable: What observations look like.
        simulator: Which simulator it was trained on, if known.
        simulation_prior: Prior of all parameters that the simulations were drawn from (nuisances
            included).
        simulations: Seed, purpose, rounds, number and digest of the training store.
        settings: Resolved engine settings.
        seed: Seed of the training.
        versions: Versions of the packages involved.
        history: Loss curves.
        transform: Fitted data transform; None for engines that need none.
        truncation: The truncated rounds behind it; None for amortised posteriors.
    """

    engine: str
    prior: Prior
    observable: Observable
    simulator: SimulatorIdentity | None = None
    simulation_prior: Prior | None = None
    simulations: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)
    history: TrainingHistory | None = None
    transform: Transform | None = None
    truncation: Truncation | None = None


@dataclass(frozen=True, slots=True)
class Draws:
    """Posterior draws for a batch of observations.

    Attributes:
        theta: Independent draws in physical units, shape (batch, draw, param).
        log_prob: Their log densities, shape (batch, draw), or None when not asked for.
        log_prob_at: Log densities at the points asked for, shape (batch, k), or None.
        ess: Effective number of independent draws behind each observation's draws, shape (batch,);
            None when the draws are independent by construction.
    """

    theta: FloatArray
    log_prob: FloatArray | None = None
    log_prob_at: FloatArray | None = None
    ess: FloatArray | None = None


class Posterior(ABC):
    """A posterior q(theta|x) for any observation of one observable.

    Attributes:
        context: What it was made from.
        normalized: Whether `log_prob` includes the right normalising constant.
    """

    normalized: bool = True

    def __init__(self, context: PosteriorContext) -> None:
        self.context = context

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.context.engine}: {', '.join(self.prior.names)})"

    @property
    def prior(self) -> Prior:
        """Prior of the inferred parameters (truncated where rounds truncated it)."""
        return self.context.prior

    @property
    def parameters(self) -> ParameterSpace:
        """The inferred parameters."""
        return self.prior.parameters

    @property
    def observable(self) -> Observable:
        """What observations look like."""
        return self.context.observable

    @property
    def blocks(self) -> tuple[tuple[str, ...], ...]:
        """Groups of parameters with a joint answer: one block for a joint posterior."""
        return (self.prior.names,)

    @property
    def is_amortised(self) -> bool:
        """Whether it answers for any observation: no truncated rounds are behind it."""
        return not self._truncations()

    def valid_for(self, x: ArrayLike) -> BoolArray:
        """Whether draws for these observations answer under the whole prior, shape (batch,).

        True for amortised posteriors. Truncated rounds cut off what one observation excludes:
        for others it is the posterior under the truncated prior. What is made of several
        posteriors is valid where all of them are.
        """
        data = self.observable.check(x)
        valid = np.ones(len(data), dtype=np.bool_)
        for truncation in self._truncations():
            valid &= truncation.is_for(data)
        return valid

    def require_valid_for(self, x: ArrayLike, remedy: str) -> None:
        """Refuse observations that `valid_for` does not hold for.

        Args:
            x: Observations, shape (batch, *observable.shape).
            remedy: What to do to have them all the same, for the message.

        Raises:
            ObservationError: Saying how many, and what the posterior is restricted to.
        """
        valid = self.valid_for(x)
        if not valid.all():
            raise refusal(valid, self._truncations()[0].box, remedy)

    def draw(
        self,
        x: ArrayLike,
        n: int,
        rng: np.random.Generator,
        *,
        log_prob: bool = False,
        at: ArrayLike | None = None,
        any_observation: bool = False,
        progress: Progress = SILENT,
    ) -> Draws:
        """Draw from the posterior of every observation, with what is known of the draws.

        Args:
            x: Observations, shape (batch, *observable.shape) or one of shape observable.shape.
            n: Draws for each.
            rng: Source of randomness.
            log_prob: Also return the log density of the draws.
            at: Points whose log density is wanted too, shape (batch, k, d), evaluated in the same
                pass.
            any_observation: As in `sample`; validation on other observations needs it.
            progress: Where to show progress.

        Raises:
            ObservationError: As in `sample`.
            ContractError: If `n` is not positive.
        """
        if n < 1:
            raise ContractError(f"the number of draws must be at least 1, got {n}")
        self._require(x, any_observation)
        data = self.observable.check(x)
        points = None if at is None else self._points(at, len(data))
        step = max(1, _CHUNK_ROWS // self._rows_each(n))
        starts = range(0, len(data), step)
        parts: list[Draws] = []
        with preserve_state(), progress.task("posterior draws", len(data), "obs") as task:
            for start, child in zip(starts, rng.spawn(len(starts)), strict=True):
                rows = slice(start, min(start + step, len(data)))
                chunk_at = None if points is None else points[rows]
                parts.append(self._draw(data[rows], n, child, log_prob, chunk_at))
                task.advance(rows.stop - rows.start)
        if not parts:
            return Draws(
                np.empty((0, n, self.prior.d)),
                np.empty((0, n)) if log_prob else None,
                None if points is None else np.empty(points.shape[:2]),
            )
        return _join(parts)

    def sample(
        self,
        x: ArrayLike,
        n: int,
        rng: np.random.Generator,
        *,
        return_log_prob: bool = False,
        any_observation: bool = False,
    ) -> FloatArray | tuple[FloatArray, FloatArray]:
        """Draw from the posterior of every observation.

        Args:
            x: Observations, shape (batch, *observable.shape) or one of shape observable.shape.
            n: Draws for each.
            rng: Source of randomness.
            return_log_prob: Also return log densities.
            any_observation: Draw under the truncated prior where the posterior is not `valid_for`
                an observation, instead of refusing.

        Returns:
            Draws, shape (batch, n, d); with `return_log_prob` also their log densities, shape
            (batch, n).

        Raises:
            ObservationError: If an observation is not finite, has another shape, or is not the
                one that truncated rounds closed in on.
        """
        draws = self.draw(x, n, rng, log_prob=return_log_prob, any_observation=any_observation)
        return draws.theta if draws.log_prob is None else (draws.theta, draws.log_prob)

    def log_prob(
        self, theta: ArrayLike, x: ArrayLike, *, any_observation: bool = False
    ) -> FloatArray:
        """Evaluate the log density in physical units.

        Args:
            theta: Points, shape (batch, k, d), or (k, d) for the same points at every observation.
            x: Observations, shape (batch, *observable.shape).
            any_observation: Evaluate under the truncated prior, as in `sample`.

        Returns:
            Log densities, shape (batch, k); `-inf` outside the prior.

        Raises:
            ObservationError: As in `sample`.
            ContractError: If points have another shape.
        """
        self._require(x, any_observation)
        data = self.observable.check(x)
        points = self._points(theta, len(data))
        step = max(1, _CHUNK_ROWS // self._rows_each(max(points.shape[1], 1)))
        with preserve_state():
            parts = [
                self._log_prob_at(points[i : i + step], data[i : i + step])
                for i in range(0, len(data), step)
            ]
        return np.concatenate(parts) if parts else np.empty((0, points.shape[1]))

    def to(self, device: str) -> Self:
        """Move the networks behind this posterior to a device of their library, in place.

        Posteriors are trained and loaded onto the processor; ones without a network stay there.

        Args:
            device: `cpu`, `cuda`, `mps` or `auto`.

        Raises:
            OptionError: If there is no such device here.
        """
        for inner in self._inner():
            inner.to(device)
        return self

    def save(self, folder: str | Path) -> Path:
        """Write the posterior to a folder (JSON and safetensors), replacing it atomically."""
        from sbi_physics.posterior_files import save_posterior

        return save_posterior(self, folder)

    def _require(self, x: ArrayLike, any_observation: bool) -> None:
        if not any_observation:
            self.require_valid_for(x, "pass any_observation=True")

    def _truncations(self) -> list[Truncation]:
        """Truncated rounds behind this posterior and those it is made of."""
        own = [] if self.context.truncation is None else [self.context.truncation]
        return own + [t for inner in self._inner() for t in inner._truncations()]

    def _points(self, theta: ArrayLike, batch: int) -> FloatArray:
        points = np.asarray(theta, dtype=np.float64)
        if points.ndim == 2:
            points = np.broadcast_to(points, (batch, *points.shape))
        if points.ndim != 3 or points.shape[0] != batch or points.shape[2] != self.prior.d:
            raise ContractError(
                f"points have shape {np.shape(theta)}, expected ({batch}, k, {self.prior.d}) "
                f"or (k, {self.prior.d}) for {', '.join(self.prior.names)}"
            )
        return points

    def _inner(self) -> Sequence[Posterior]:
        """Posteriors that this one is made of."""
        return ()

    def _rows_each(self, n: int) -> int:
        """Rows that one observation with n draws or points costs; sizes the chunks."""
        return n

    @abstractmethod
    def _draw(
        self, x: DataArray, n: int, rng: np.random.Generator, log_prob: bool, at: FloatArray | None
    ) -> Draws:
        """Kernel of `draw` for one chunk of checked observations."""

    @abstractmethod
    def _log_prob_at(self, theta: FloatArray, x: DataArray) -> FloatArray:
        """Kernel of `log_prob`: theta (batch, k, d), x (batch, *shape) -> (batch, k)."""

    # What storage asks for; see posterior_files.

    def _config(self) -> dict[str, Any]:
        """JSON-ready description from which the engine rebuilds the network."""
        return {}

    def _weights(self) -> dict[str, AnyArray]:
        """Named weight arrays."""
        return {}


class NeuralPosterior(Posterior):
    """A density network in unconstrained coordinates; write `_sample_u` and `_log_prob_u`.

    Under constraints between parameters the network may leak: such draws are rejected, and
    `log_prob` lacks the constant that makes up for them (`normalized` is False).
    """

    def __init__(self, context: PosteriorContext) -> None:
        super().__init__(context)
        self.normalized = not context.prior.constraints

    @property
    def transform(self) -> Transform:
        """The fitted data transform."""
        if self.context.transform is None:
            raise ContractError(f"{self!r} has no fitted transform")
        return self.context.transform

    @abstractmethod
    def _sample_u(
        self, xt: DataArray, n: int, rng: np.random.Generator, log_prob: bool
    ) -> tuple[FloatArray, FloatArray | None]:
        """Draw points, shape (batch, n, d), and their log densities (batch, n) when asked."""

    @abstractmethod
    def _log_prob_u(self, u: FloatArray, xt: DataArray) -> FloatArray:
        """Log density of unconstrained points u (batch, k, d), shape (batch, k)."""

    def _draw(
        self, x: DataArray, n: int, rng: np.random.Generator, log_prob: bool, at: FloatArray | None
    ) -> Draws:
        xt = self.transform(x)
        theta, density = self._physical(xt, n, rng, log_prob)
        theta, density = redraw_forbidden(
            theta, density, self.prior, lambda rows, k: self._physical(xt[rows], k, rng, log_prob)
        )
        return Draws(theta, density, None if at is None else self._density(at, xt))

    def _log_prob_at(self, theta: FloatArray, x: DataArray) -> FloatArray:
        return self._density(theta, self.transform(x))

    def _density(self, theta: FloatArray, xt: DataArray) -> FloatArray:
        inside = self.prior.contains(theta)
        safe = np.where(inside[..., None], theta, self.prior.from_unit(np.full(self.prior.d, 0.5)))
        density = self._log_prob_u(self.prior.to_unconstrained(safe), xt)
        return np.where(inside, density + self.prior.log_abs_det_unconstrained(safe), -np.inf)

    def _physical(
        self, xt: DataArray, n: int, rng: np.random.Generator, log_prob: bool
    ) -> tuple[FloatArray, FloatArray | None]:
        u, density = self._sample_u(xt, n, rng, log_prob)
        theta = self.prior.from_unconstrained(u)
        if density is not None:
            density = density + self.prior.log_abs_det_unconstrained(theta)
        return theta, density


def _join(parts: list[Draws]) -> Draws:
    def stack(name: str) -> FloatArray | None:
        values = [getattr(p, name) for p in parts]
        return None if values[0] is None else np.concatenate(values)

    theta = np.concatenate([p.theta for p in parts])
    return Draws(theta, *map(stack, ("log_prob", "log_prob_at", "ess")))
