"""The stages of a study, each skipped when its inputs are unchanged."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from sbi_physics.config import expand_path
from sbi_physics.coverage import Coverage
from sbi_physics.errors import StoreMismatchError
from sbi_physics.interop import write_netcdf
from sbi_physics.posterior import Posterior
from sbi_physics.posterior_files import load_posterior
from sbi_physics.priors import Prior
from sbi_physics.progress import Progress
from sbi_physics.seeding import generator
from sbi_physics.simulate import simulate
from sbi_physics.store import Simulations, SimulationStore
from sbi_physics.study.ledger import (
    ROUNDS,
    Ledger,
    array_digest,
    digest,
    file_digest,
    partial_path,
    put_in_place,
    remove,
)
from sbi_physics.study.plan import Plan
from sbi_physics.study.samples import read_samples
from sbi_physics.truncate import training_simulations, truncate
from sbi_physics.truncation import TruncationRound
from sbi_physics.types import FloatArray
from sbi_physics.validate import validate

Tell = Callable[[str, str], None]
"""Receives the name of a stage and one line about it."""

TRAINING_STORE: Final = "simulations.zarr"
PAIRS_STORE: Final = "pairs.zarr"

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Workplace:
    """What every stage needs.

    Attributes:
        plan: What is to be done.
        ledger: What was done.
        tell: Receives one line when a stage starts, ends or is skipped.
        progress: Shows progress within a stage.
    """

    plan: Plan
    ledger: Ledger
    tell: Tell
    progress: Progress

    @property
    def directory(self) -> Path:
        """The run directory."""
        return self.ledger.directory

    def stage(
        self,
        name: str,
        inputs: Mapping[str, Any],
        output: Path,
        *,
        announce: str,
        work: Callable[[], T],
        load: Callable[[], T],
    ) -> T:
        """Do a stage, or load its result when its inputs are those of last time.

        Args:
            name: Name in the ledger and in messages.
            inputs: JSON-ready description of everything the result depends on.
            output: The file or folder it makes.
            announce: What is about to happen.
            work: Makes the output, atomically, and returns the result.
            load: Reads the result back.
        """
        key = digest(inputs)
        if self.ledger.is_done(name, key, output):
            self.tell(name, "unchanged, skipped")
            return load()
        self.tell(name, announce)
        self.ledger.begin(name)
        start = time.perf_counter()
        result = work()
        seconds = time.perf_counter() - start
        self.ledger.finish(name, key, output, seconds)
        self.tell(name, f"done in {duration(seconds)}")
        return result


def simulate_training(work: Workplace) -> Simulations:
    """Fill the training store: the run's own, or one shared between runs."""
    plan = work.plan
    return _simulate(work, "simulate", "train", plan.n_simulations, plan.prior)


def simulate_pairs(work: Workplace, posterior: Posterior) -> Simulations:
    """Simulate the fresh pairs that the posterior is validated on, from its own prior."""
    plan = work.plan
    prior = plan.prior if plan.config.rounds == 1 else posterior.context.simulation_prior
    assert prior is not None
    return _simulate(work, "pairs", "pairs", plan.n_pairs, prior)


def store_path(plan: Plan, directory: Path, purpose: str) -> tuple[Path, bool]:
    """Return where the training simulations or pairs are, and whether runs share them."""
    config = plan.config
    shared = config.simulations_store if purpose == "train" else config.pairs_store
    if shared is not None:
        return expand_path(shared, "shared store"), True
    return directory / (TRAINING_STORE if purpose == "train" else PAIRS_STORE), False


def train_in_rounds(work: Workplace, first: Simulations) -> tuple[Posterior, Simulations]:
    """Train in truncated rounds; returns the last posterior and what it was trained on.

    Args:
        work: Plan and record.
        first: The simulations of the first round.
    """
    plan, folder = work.plan, work.directory / "posterior"
    inputs = {
        "simulations": first.digest(),
        "engine": plan.engine.name,
        "settings": plan.settings.model_dump(mode="json"),
        "infer": plan.infer,
        "seed": plan.seed,
        "observation": array_digest(plan.observed.x),
        "rounds": plan.config.rounds,
        "epsilon": plan.config.epsilon,
    }
    if plan.config.final_simulations is not None:
        inputs["final_simulations"] = plan.config.final_simulations

    def close_in(announce: bool) -> Posterior:
        posterior = truncate(
            plan.simulator,
            plan.observed.x,
            plan.engine,
            rounds=plan.config.rounds,
            simulations=plan.n_simulations,
            final_simulations=plan.config.final_simulations,
            epsilon=plan.config.epsilon,
            settings=plan.settings,
            infer=plan.infer,
            prior=plan.prior,
            seed=plan.seed,
            workers=plan.config.workers,
            store=work.directory / TRAINING_STORE,
            folder=work.directory / ROUNDS,
            replace_rounds=True,
            on_round=(lambda r: work.tell("train", _about(r))) if announce else None,
            progress=work.progress,
        )
        if announce:
            posterior.save(folder)
        return posterior

    def load() -> Posterior:
        # Every round is finished: this loads them, and makes again what was deleted of the store.
        close_in(False)
        return load_posterior(folder)

    posterior = work.stage(
        "train",
        inputs,
        folder,
        announce=f"{plan.engine.name} in at most {plan.config.rounds} rounds of "
        f"{plan.n_simulations:,} simulations ({', '.join(plan.infer)})",
        work=lambda: close_in(True),
        load=load,
    )
    with SimulationStore.open(work.directory / TRAINING_STORE, "r") as store:
        return posterior, training_simulations(posterior, store, simulator=plan.simulator)


def _about(done: TruncationRound) -> str:
    return (
        f"{done.volume:.3g} of the prior: {done.simulated:,} simulations, {done.reused:,} reused; "
        f"{done.next_volume:.3g} is left"
    )


def train_posterior(work: Workplace, simulations: Simulations) -> Posterior:
    """Train the engine."""
    plan, folder = work.plan, work.directory / "posterior"
    inputs = {
        "simulations": simulations.digest(),
        "engine": plan.engine.name,
        "settings": plan.settings.model_dump(mode="json"),
        "infer": plan.infer,
        "seed": plan.seed,
    }

    def make() -> Posterior:
        unfinished = work.directory / ".training"
        posterior = plan.engine.train(
            simulations,
            plan.settings,
            infer=plan.infer,
            seed=plan.seed,
            progress=work.progress,
            checkpoint=unfinished,
            workers=plan.config.workers,
        )
        posterior.save(folder)
        remove(unfinished)
        return posterior

    return work.stage(
        "train",
        inputs,
        folder,
        announce=f"{plan.engine.name} on {len(simulations):,} simulations "
        f"({', '.join(plan.infer)})",
        work=make,
        load=lambda: load_posterior(folder),
    )


def infer(work: Workplace, posterior: Posterior) -> FloatArray:
    """Draw from the posterior of the observation; returns samples with shape (n, param)."""
    plan, path = work.plan, work.directory / "samples.nc"
    n = plan.config.samples
    inputs = {
        "posterior": posterior_digest(work),
        "observation": array_digest(plan.observed.x),
        "samples": n,
        "seed": plan.seed,
    }

    def make() -> FloatArray:
        draws = posterior.draw(
            plan.observed.x[None], n, generator(plan.seed, "posterior"), progress=work.progress
        )
        partial = partial_path(path)
        samples: FloatArray = draws.theta[0]
        write_netcdf(partial, samples, posterior, x=plan.observed.x)
        put_in_place(partial, path)
        return samples

    return work.stage(
        "infer",
        inputs,
        path,
        announce=f"{n:,} samples for the observation {plan.observed.source}",
        work=make,
        load=lambda: read_samples(path, posterior.prior.names),
    )


def validate_posterior(
    work: Workplace, posterior: Posterior, simulations: Simulations, pairs: Simulations
) -> Coverage:
    """Validate on fresh pairs."""
    plan, path = work.plan, work.directory / "coverage.json"
    inputs = {
        "posterior": posterior_digest(work),
        "pairs": pairs.digest(),
        "draws": plan.n_draws,
        "seed": plan.seed,
    }

    def make() -> Coverage:
        coverage = validate(
            posterior,
            pairs,
            n_draws=plan.n_draws,
            seed=plan.seed,
            training=simulations,
            progress=work.progress,
        )
        partial = partial_path(path)
        coverage.to_json(partial)
        put_in_place(partial, path)
        return coverage

    return work.stage(
        "validate",
        inputs,
        path,
        announce=f"{plan.n_draws} draws for each of {len(pairs):,} fresh pairs",
        work=make,
        load=lambda: Coverage.from_json(path),
    )


def _simulate(
    work: Workplace,
    stage: str,
    purpose: str,
    n: int,
    prior: Prior,
) -> Simulations:
    plan = work.plan
    path, shared = store_path(plan, work.directory, purpose)

    def fill() -> Simulations:
        return simulate(
            plan.simulator,
            n,
            store=path,
            prior=prior,
            seed=plan.seed,
            workers=plan.config.workers,
            purpose=purpose,
            progress=work.progress,
        )

    def make() -> Simulations:
        try:
            return fill()
        except StoreMismatchError:
            if shared:
                raise
        _set_aside(work, stage, path)
        return fill()

    inputs = {
        "simulator": plan.simulator.identity.to_dict(),
        "prior": prior.digest(),
        "seed": plan.seed,
        "n": n,
        "store": str(path.resolve()) if shared else path.name,
    }
    simulations = work.stage(
        stage,
        inputs,
        path,
        announce=f"{n:,} simulations of {plan.simulator.name} into {path}",
        work=make,
        # Filling a full store simulates nothing, but checks that it is the right one, and whole.
        load=fill,
    )
    if simulations.n_invalid:
        work.tell(
            stage,
            f"{simulations.n_invalid:,} of {simulations.n_simulated:,} simulations were not "
            "finite and are left out",
        )
    return simulations


def _set_aside(work: Workplace, stage: str, path: Path) -> None:
    """Keep the latest store made with other options: simulations may be expensive."""
    kept = work.directory / "superseded" / path.name
    kept.parent.mkdir(exist_ok=True)
    remove(kept)
    path.rename(kept)
    work.tell(stage, f"the run has changed; its former simulations are kept in {kept}")


def posterior_digest(work: Workplace) -> str:
    """Return a hash of the saved posterior."""
    # The header holds the hashes of all weights (of members: their headers do).
    headers = sorted((work.directory / "posterior").rglob("posterior.json"))
    return digest({str(h.relative_to(work.directory)): file_digest(h) for h in headers})


def duration(seconds: float) -> str:
    """Return a duration for people: `0.4 s`, `12 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
