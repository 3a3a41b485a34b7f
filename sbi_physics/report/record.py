"""What a report is made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from sbi_physics.coverage import Coverage
from sbi_physics.observables import Observable
from sbi_physics.priors import Prior
from sbi_physics.simulator import SimulatorIdentity
from sbi_physics.training import TrainingHistory
from sbi_physics.truncation import Truncation
from sbi_physics.types import DataArray, FloatArray


class PosteriorRow(Protocol):
    """One parameter of the posterior table, in physical units."""

    @property
    def name(self) -> str:
        """Parameter name."""

    @property
    def median(self) -> float:
        """Posterior median."""

    @property
    def interval_68(self) -> tuple[float, float]:
        """Equal-tailed 68 % interval."""

    @property
    def interval_95(self) -> tuple[float, float]:
        """Equal-tailed 95 % interval."""

    @property
    def truth(self) -> float | None:
        """True value, if known."""

    @property
    def edges(self) -> tuple[str, ...]:
        """Ends of the prior (`lower`, `upper`) that the posterior reaches."""


@dataclass(frozen=True, slots=True, eq=False)
class ReportInput:
    """Everything a report shows.

    Attributes:
        title: Name of the run.
        simulator: Which simulator, with resolved options.
        simulator_summary: One line about it.
        engine: Name of the engine.
        settings: Resolved engine settings.
        prior: Prior of the inferred parameters.
        table: The posterior table, one row for each of them.
        samples: Posterior draws for the observation, shape (n, param).
        observable: What the data are.
        observation: The observation, shape observable.shape.
        observation_source: Where it comes from, in words.
        coverage: Result of the validation.
        simulation_prior: Prior of all simulated parameters; marginalised ones are listed.
        pair_samples: Draws of pairs of parameters, each of shape (n, 2), by their names, where
            `samples` do not know correlations (marginal posteriors).
        predictive: Data simulated from posterior draws, shape (n, *observable.shape).
        history: Loss curves, if anything was trained.
        truncation: Truncated rounds, if there were any.
        n_simulations: Number of valid training simulations.
        n_invalid: Number of training simulations that failed.
        seconds: Wall-clock time of each stage, by name.
        seeds: Every seed, by purpose.
        versions: Package versions.
        hashes: Content hashes, by name.
        citations: What to cite.
        config: The resolved run file, as text.
        machine: What it ran on.
    """

    title: str
    simulator: SimulatorIdentity | None
    simulator_summary: str
    engine: str
    settings: Mapping[str, Any]
    prior: Prior
    table: Sequence[PosteriorRow]
    samples: FloatArray
    observable: Observable
    observation: DataArray
    observation_source: str
    coverage: Coverage
    simulation_prior: Prior | None = None
    pair_samples: Mapping[tuple[str, ...], FloatArray] = field(default_factory=dict)
    predictive: DataArray | None = None
    history: TrainingHistory | None = None
    truncation: Truncation | None = None
    n_simulations: int = 0
    n_invalid: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    seeds: Mapping[str, int | None] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)
    citations: Sequence[str] = ()
    config: str = ""
    machine: str = ""
