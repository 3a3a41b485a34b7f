"""One study in one directory: begin or resume it, or load a finished one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from sbi_physics import __version__, registry
from sbi_physics.config import RunConfig, dump_config, expand_path, read_config
from sbi_physics.coverage import Coverage
from sbi_physics.engine import package_versions
from sbi_physics.errors import ConfigError
from sbi_physics.posterior import Posterior
from sbi_physics.posterior_files import load_posterior
from sbi_physics.progress import SILENT, Progress
from sbi_physics.seeding import fresh_seed
from sbi_physics.simulator import Simulator
from sbi_physics.store import Simulations, SimulationStore
from sbi_physics.store_lock import WriterLock
from sbi_physics.study import stages
from sbi_physics.study.ledger import STAGES, Ledger, remove_leftovers, write_text
from sbi_physics.study.page import write_page
from sbi_physics.study.plan import Plan, inferred_truth, make_plan
from sbi_physics.study.record import Study
from sbi_physics.study.samples import read_samples
from sbi_physics.truncate import training_simulations

RUN_FILE: Final = "run.yaml"
_LOCK: Final = ".lock"


def carry_out(
    config: RunConfig,
    directory: Path,
    *,
    simulator: Simulator | None,
    tell: stages.Tell,
    progress: Progress,
) -> Study:
    """Do what is missing of a study.

    Args:
        config: What was asked for.
        directory: The run directory, made if needed.
        simulator: Use this one instead of asking the registry.
        tell: Receives (stage, line).
        progress: Shows progress within stages.
    """
    _refuse_foreign(directory)
    seed, origin = _choose_seed(config, directory)
    plan = make_plan(config, seed, simulator)
    directory.mkdir(parents=True, exist_ok=True)
    with _alone_in(directory):
        remove_leftovers(directory)
        header = (
            f"Written by sbi-physics {__version__}. To repeat this study elsewhere:\n"
            "sbi-physics run run.yaml -o DIRECTORY"
        )
        write_text(directory / RUN_FILE, dump_config(plan.config, header))
        work = stages.Workplace(plan, Ledger(directory), tell, progress)
        work.ledger.note(
            simulator=plan.simulator.identity.to_dict(),
            engine=plan.engine.name,
            seed=plan.seed,
            versions=_versions(plan),
        )
        tell("run", f"{plan.simulator.name} with {plan.engine.name} in {directory}")
        tell("run", f"seed {plan.seed} ({origin})")
        simulations = stages.simulate_training(work)
        if plan.config.rounds > 1:
            posterior, simulations = stages.train_in_rounds(work, simulations)
        else:
            posterior = stages.train_posterior(work, simulations)
        record = posterior.context.truncation
        work.ledger.note(truncation=None if record is None else record.to_dict())
        samples = stages.infer(work, posterior)
        pairs = stages.simulate_pairs(work, posterior)
        coverage = stages.validate_posterior(work, posterior, simulations, pairs)
        work.ledger.note(verdict=coverage.verdict, labels=list(coverage.labels))
        study = Study(
            directory=directory,
            config=plan.config,
            simulations=simulations,
            pairs=pairs,
            posterior=posterior,
            observation=plan.observed.x,
            observation_source=plan.observed.source,
            truth=inferred_truth(plan.observed, plan.infer),
            samples=samples,
            coverage=coverage,
            seconds=work.ledger.seconds,
            report_path=directory / "report.html",
        )
        write_page(work, study)
    return replace(study, seconds=work.ledger.seconds)


def load_study(directory: str | Path) -> Study:
    """Load a finished study without simulating or training anything.

    Raises:
        ConfigError: If the directory is no run directory or a stage is missing.
    """
    return _load(Path(directory))[1]


def rewrite_report(directory: str | Path, tell: stages.Tell, progress: Progress = SILENT) -> Study:
    """Write figures and report of a finished study again.

    Raises:
        ConfigError: If the directory is no run directory or a stage is missing.
    """
    folder = Path(directory)
    plan, study = _load(folder)
    with _alone_in(folder):
        work = stages.Workplace(plan, Ledger(folder), tell, progress)
        work.ledger.begin("report")
        write_page(work, study)
    return replace(study, seconds=work.ledger.seconds)


def _load(directory: Path) -> tuple[Plan, Study]:
    if not (directory / RUN_FILE).is_file():
        raise ConfigError(f"{directory} is no run directory: it has no {RUN_FILE}")
    config = read_config(directory / RUN_FILE)
    ledger = Ledger(directory)
    missing = [s for s in STAGES if s not in ledger.seconds and s != "report"]
    if missing:
        raise ConfigError(
            f"the study in {directory} is not finished ({', '.join(missing)} missing); finish it "
            f"with: sbi-physics run {directory / RUN_FILE} -o {directory}"
        )
    plan = make_plan(config, fresh_seed())
    posterior = load_posterior(directory / "posterior")
    training, pairs = (stages.store_path(plan, directory, p)[0] for p in ("train", "pairs"))
    study = Study(
        directory=directory,
        config=plan.config,
        simulations=_training(training, plan, posterior),
        pairs=_first_round(pairs, plan.n_pairs, plan),
        posterior=posterior,
        observation=plan.observed.x,
        observation_source=plan.observed.source,
        truth=inferred_truth(plan.observed, plan.infer),
        samples=read_samples(directory / "samples.nc", posterior.prior.names),
        coverage=Coverage.from_json(directory / "coverage.json"),
        seconds=ledger.seconds,
        report_path=directory / "report.html",
    )
    return plan, study


def _training(path: Path, plan: Plan, posterior: Posterior) -> Simulations:
    if posterior.context.truncation is None:
        return _first_round(path, plan.n_simulations, plan)
    with SimulationStore.open(path, "r") as store:
        return training_simulations(posterior, store, simulator=plan.simulator)


def _first_round(path: Path, n: int, plan: Plan) -> Simulations:
    # Rounds of a former run of the same directory may follow it.
    with SimulationStore.open(path, "r") as store:
        return store.simulations((0,), n=n, simulator=plan.simulator)


def _choose_seed(config: RunConfig, directory: Path) -> tuple[int, str]:
    """An unset seed is that of the run being resumed, or of a shared store, or a new one."""
    if config.seed is not None:
        return config.seed, "given"
    if (directory / RUN_FILE).is_file():
        earlier = read_config(directory / RUN_FILE).seed
        if earlier is not None:
            return earlier, f"from {directory / RUN_FILE}"
    if config.simulations_store is not None:
        store = expand_path(config.simulations_store, "shared store")
        if store.exists():
            with SimulationStore.open(store, "r") as shared:
                if shared.header.seed is not None:
                    return shared.header.seed, f"from the shared store {store}"
    return fresh_seed(), "drawn; recorded in run.yaml"


def _refuse_foreign(directory: Path) -> None:
    if directory.is_file():
        raise ConfigError(f"{directory} is a file; choose another run directory")
    if not directory.is_dir() or (directory / RUN_FILE).is_file():
        return
    # A run killed at its very beginning leaves only hidden files.
    strangers = [p.name for p in directory.iterdir() if not p.name.startswith(".")]
    if strangers:
        raise ConfigError(
            f"{directory} exists and is no run directory (it holds {', '.join(strangers[:3])} but "
            f"no {RUN_FILE}); choose another"
        )


@contextlib.contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    lock = WriterLock(directory / _LOCK, f"the run directory {directory}")
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _versions(plan: Plan) -> dict[str, str]:
    loaded = registry.current()
    providers = [
        entry.source.distribution
        for entry in (
            loaded.simulators.get(plan.simulator.name),
            loaded.engines.get(plan.engine.name),
        )
        if entry is not None and entry.source.distribution
    ]
    packages = dict.fromkeys(["sbi-physics", "numpy", "scipy", *providers, *plan.engine.packages])
    return package_versions(tuple(packages))
