"""What checks work on: the subject, its randomness, and results that several checks share."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from sbi_physics.engine import Engine
from sbi_physics.errors import ConformanceError
from sbi_physics.posterior import Posterior
from sbi_physics.priors import Prior
from sbi_physics.progress import SILENT
from sbi_physics.simulate import simulate
from sbi_physics.simulator import Simulator
from sbi_physics.store import Simulations
from sbi_physics.testing.toys import ToyBimodal, ToyGaussian, ToySimulator, ToyTwoStage
from sbi_physics.types import DataArray, FloatArray


class NotApplicable(Exception):
    """A check that cannot be asked of this subject, with the reason."""


@dataclass(frozen=True, slots=True)
class ReferencePoint:
    """Stored summary numbers of simulated data at one point; `reference_point` makes one.

    Attributes:
        theta: Fiducial name, or values by name.
        mean: Mean of each summary number.
        sd: Standard deviation of each summary number.
        draws: Number of simulations behind them.
    """

    theta: str | Mapping[str, float]
    mean: tuple[float, ...]
    sd: tuple[float, ...]
    draws: int = 1000


@dataclass
class SimulatorCase:
    """A simulator under test.

    Args:
        make: Builds a fresh simulator.
        seed: Seed of everything random; results are the same at every run.
        n_draws: Simulations in each sample of a statistical check.
        reference_points: Stored summaries that must be reproduced.
    """

    make: Callable[[], Simulator]
    seed: int = 1
    n_draws: int = 400
    reference_points: Sequence[ReferencePoint] = ()

    @cached_property
    def simulator(self) -> Simulator:
        """The simulator, built once."""
        made: object = self.make()
        if not isinstance(made, Simulator):
            raise ConformanceError(f"{self.make!r} made {made!r}, not a Simulator")
        return made

    @property
    def subject(self) -> type:
        """The class under test."""
        return type(self.simulator)

    @property
    def name(self) -> str:
        """Registered name."""
        return str(getattr(self.simulator, "name", type(self.simulator).__name__))

    def rng(self, *key: int) -> np.random.Generator:
        """A generator that depends on the seed and on nothing else."""
        return np.random.default_rng([self.seed, *key])

    def theta(self, n: int, *key: int) -> FloatArray:
        """Draws from the prior, shape (n, d)."""
        return self.simulator.prior.sample(n, self.rng(99, *key))

    def at(self, point: FloatArray, n: int) -> FloatArray:
        """One point n times, shape (n, d)."""
        return np.repeat(point[None], n, axis=0)


@dataclass(frozen=True, slots=True)
class Problem:
    """A closed-form problem for engines.

    Attributes:
        simulator: Knows its exact posterior.
        infer: Parameters to infer.
        fold: Compare pulls and widths of absolute values (symmetric modes have no useful mean).
    """

    simulator: ToySimulator
    infer: tuple[str, ...]
    fold: bool = False


def problems() -> dict[str, Problem]:
    """Return the closed-form problems, by name."""

    def gaussian(kind: str) -> Problem:
        toy = ToyGaussian(dimension=2, half_width=3.0, noise=0.5, kind=kind)
        return Problem(toy, toy.parameters.names)

    return {
        "gaussian": gaussian("vector"),
        "sets": gaussian("set"),
        "spectra": gaussian("spectrum"),
        "images": gaussian("image"),
        "two modes": Problem(ToyBimodal(), ("theta",), fold=True),
        "two stages": Problem(ToyTwoStage(), ("position",)),
    }


@dataclass
class PosteriorCase:
    """A posterior under test.

    Args:
        make: Returns the posterior.
        simulator: Where fresh pairs come from; default the simulator it was trained on.
        seed: Seed of everything random.
        n_pairs: Fresh pairs for statistical checks.
        n_draws: Draws for each pair.
    """

    make: Callable[[], Posterior]
    simulator: Simulator | None = None
    seed: int = 1
    n_pairs: int = 300
    n_draws: int = 500

    @cached_property
    def posterior(self) -> Posterior:
        """The posterior, built once."""
        return self.make()

    @property
    def name(self) -> str:
        """Engine and parameters."""
        return repr(self.posterior)

    def rng(self, *key: int) -> np.random.Generator:
        """A generator that depends on the seed and on nothing else."""
        return np.random.default_rng([self.seed, *key])

    @cached_property
    def source(self) -> Simulator:
        """The simulator fresh pairs come from."""
        if self.simulator is not None:
            return self.simulator
        from sbi_physics import registry

        identity = self.posterior.context.simulator
        if identity is None:
            raise NotApplicable(
                "the posterior does not say which simulator it belongs to; pass simulator="
            )
        return registry.simulator(identity.name, **identity.options)

    @cached_property
    def pairs(self) -> Simulations:
        """Fresh pairs from the prior the posterior was trained under."""
        prior: Prior = self.posterior.context.simulation_prior or self.source.prior
        return simulate(
            self.source,
            self.n_pairs,
            prior=prior,
            seed=self.seed,
            purpose="pairs",
            progress=SILENT,
        )

    @cached_property
    def truth(self) -> FloatArray:
        """True values of the inferred parameters, shape (n_pairs, d)."""
        return self.pairs.theta[:, self.pairs.parameters.indices(self.posterior.prior.names)]

    @cached_property
    def x(self) -> DataArray:
        """Their data, shape (n_pairs, *observable.shape)."""
        return self.pairs.x


@dataclass
class EngineCase:
    """An engine under test.

    Args:
        make: Builds a fresh engine.
        settings: Engine settings for full fits.
        brief: Engine settings for checks that need a posterior but not a good one.
        seed: Seed of everything random.
        n_train: Training simulations of full fits.
        n_pairs: Fresh pairs for statistical checks.
        n_draws: Draws for each pair.
        budget_seconds: Largest processor time of one full fit.
    """

    make: Callable[[], Engine]
    settings: Mapping[str, Any] = field(default_factory=dict)
    brief: Mapping[str, Any] = field(default_factory=lambda: {"max_epochs": 3})
    seed: int = 1
    n_train: int = 4096
    n_pairs: int = 300
    n_draws: int = 500
    budget_seconds: float = 120.0

    @cached_property
    def engine(self) -> Engine:
        """The engine, built once."""
        return self.make()

    @property
    def subject(self) -> type:
        """The class under test."""
        return type(self.engine)

    @property
    def name(self) -> str:
        """Registered name."""
        return str(getattr(self.engine, "name", type(self.engine).__name__))

    @cached_property
    def problems(self) -> dict[str, Problem]:
        """Closed-form problems."""
        return problems()

    def simulations(self, problem: str, n: int) -> Simulations:
        """Training simulations of a problem; `NotApplicable` if such data are unsupported."""
        toy = self.problems[problem].simulator
        reason = self.engine.supports(toy.observable)
        if reason is not None:
            raise NotApplicable(
                f"the engine does not support {toy.observable.kind} data: {reason}"
            )
        return simulate(toy, n, seed=self.seed, progress=SILENT)

    def fit(self, problem: str) -> PosteriorCase:
        """Train with the full budget, once for each problem."""
        if problem not in self._fits:
            simulations = self.simulations(problem, self.n_train)
            start = time.process_time()
            posterior = self.engine.train(
                simulations, self.settings, infer=self.problems[problem].infer, seed=self.seed
            )
            self.seconds[problem] = time.process_time() - start
            self._fits[problem] = self._case(problem, posterior)
        return self._fits[problem]

    def brief_fit(self, problem: str = "gaussian") -> PosteriorCase:
        """Train on a few simulations for a few epochs; a new fit at every call."""
        simulations = self.simulations(problem, 512)
        posterior = self.make().train(
            simulations, self.brief, infer=self.problems[problem].infer, seed=self.seed
        )
        return self._case(problem, posterior)

    def _case(self, problem: str, posterior: Any) -> PosteriorCase:
        if not isinstance(posterior, Posterior):
            raise ConformanceError(f"engine {self.name!r} returned {posterior!r}, not a Posterior")
        return PosteriorCase(
            lambda: posterior,
            self.problems[problem].simulator,
            self.seed,
            self.n_pairs,
            self.n_draws,
        )

    @cached_property
    def _fits(self) -> dict[str, PosteriorCase]:
        return {}

    @cached_property
    def seconds(self) -> dict[str, float]:
        """Processor time of the full fits, by problem."""
        return {}
