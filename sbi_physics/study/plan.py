"""From a run file to what is going to be done: every name resolved, every default filled in.

Bad input is refused here, before anything is simulated.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from sbi_physics import registry
from sbi_physics.config import RunConfig, expand_path
from sbi_physics.engine import Engine
from sbi_physics.errors import (
    ConfigError,
    ContractError,
    DataFileError,
    ObservationError,
    SbiPhysicsError,
    unknown_name,
)
from sbi_physics.priors import Prior
from sbi_physics.seeding import generator
from sbi_physics.simulator import BUILD_ERRORS, Simulator
from sbi_physics.training import TrainingSettings
from sbi_physics.types import DataArray, FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Observed:
    """The data a posterior is wanted for.

    Attributes:
        x: Data, shape observable.shape.
        source: Where they come from, for reports.
        truth: Parameter values they were simulated with, by name; None for real data.
    """

    x: DataArray
    source: str
    truth: dict[str, float] | None


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A study with nothing left to decide.

    Attributes:
        config: The resolved configuration; enough to repeat the study.
        simulator: The simulator with its options.
        engine: The engine.
        settings: Its resolved settings.
        prior: Prior of all parameters, fixed ones included.
        infer: Names of the parameters to infer.
        n_simulations: Training simulations.
        n_pairs: Fresh simulations for validation.
        n_draws: Posterior draws for each of them.
        seed: Seed of everything.
        observed: The observation.
    """

    config: RunConfig
    simulator: Simulator
    engine: Engine
    settings: TrainingSettings
    prior: Prior
    infer: tuple[str, ...]
    n_simulations: int
    n_pairs: int
    n_draws: int
    seed: int
    observed: Observed


def make_plan(config: RunConfig, seed: int, simulator: Simulator | None = None) -> Plan:
    """Resolve a configuration.

    Args:
        config: What was asked for.
        seed: Used where the configuration has none.
        simulator: Use this one instead of asking the registry.

    Raises:
        UnknownNameError: If a simulator, engine, parameter, budget or point does not exist.
        OptionError: If an option or setting is unacceptable.
        ConfigError: If choices contradict each other.
        DataFileError: If the observation's file is missing.
    """
    chosen = simulator or make_simulator(config)
    _check_version(config, chosen)
    if config.budget not in chosen.budgets:
        raise unknown_name(f"budget of {chosen.name!r}", config.budget, chosen.budgets)
    budget = chosen.budgets[config.budget]
    prior, infer = _choose_parameters(config, chosen)
    engine = registry.engine(config.engine)
    reason = engine.supports(chosen.observable)
    if reason:
        raise ConfigError(
            f"engine {engine.name!r} cannot handle the {chosen.observable.kind} data of "
            f"{chosen.name!r}: {reason}"
        )
    settings: TrainingSettings = engine.settings(
        # A preset is what somebody published: it wins over what a budget says of training.
        **{**budget.training, **engine.preset_settings, **config.settings}
    )
    seed = config.seed if config.seed is not None else seed
    resolved = config.model_copy(
        update={
            "simulator": chosen.name,
            "simulator_version": chosen.version,
            "options": dict(chosen.identity.options),
            "infer": list(infer),
            "settings": settings.model_dump(mode="json"),
            "simulations": config.simulations or budget.simulations,
            "pairs": config.pairs or budget.pairs,
            "draws": config.draws or budget.draws,
            "seed": seed,
            **_observation_choice(config, chosen),
        }
    )
    observed = observe(
        chosen,
        seed,
        observation=resolved.observation,
        fiducial=resolved.fiducial,
        fix=config.fix,
        prior=prior,
    )
    return Plan(
        config=resolved,
        simulator=chosen,
        engine=engine,
        settings=settings,
        prior=prior,
        infer=infer,
        n_simulations=config.simulations or budget.simulations,
        n_pairs=config.pairs or budget.pairs,
        n_draws=config.draws or budget.draws,
        seed=seed,
        observed=observed,
    )


def observe(
    simulator: Simulator,
    seed: int,
    *,
    observation: str | None,
    fiducial: str | None,
    fix: Mapping[str, float] | None = None,
    prior: Prior | None = None,
) -> Observed:
    """Return the observation: read from a file, or simulated at a point.

    Args:
        simulator: Reads or simulates it.
        seed: Seed of the simulation.
        observation: Path of a file; `~` and environment variables are expanded.
        fiducial: Name of a point.
        fix: Parameters held at another value than the point's.
        prior: Where the point is drawn from if neither is given.

    Raises:
        ConfigError: If the simulator cannot read files, or nothing is given.
        DataFileError: If the file is missing.
        ObservationError: If the file cannot be read, or the data have a wrong shape or are not
            finite.
        UnknownNameError: If the point does not exist.
    """
    if observation is not None:
        path = expand_path(observation, "observation")
        if not simulator.can("read_observation"):
            raise ConfigError(
                f"simulator {simulator.name!r} cannot read observations from files; use a "
                f"fiducial point instead: {', '.join(simulator.fiducial) or 'it has none'}"
            )
        if not path.exists():
            raise DataFileError(
                f"the observation {str(path)!r} does not exist (current folder: {Path.cwd()})"
            )
        with _reading(simulator.name, path):
            read = simulator.read_observation(path)
        x = simulator.observable.check(read, f"{path}")
        return Observed(x[0], str(path), None)
    rng = generator(seed, "observation")
    if fiducial is not None:
        theta, where = simulator.theta(fiducial), f"the fiducial point {fiducial!r}"
        for name, value in (fix or {}).items():
            theta[simulator.parameters.index(name)] = value
    elif prior is not None:
        theta, where = prior.sample(1, rng)[0], "a point drawn from the prior"
    else:
        raise ConfigError("give either an observation (a file) or a fiducial point (a name)")
    x = simulator.simulate(theta[None], rng)
    data = simulator.observable.check(x, f"the observation simulated at {where}")
    truth = dict(zip(simulator.parameters.names, theta.tolist(), strict=True))
    return Observed(data[0], f"simulated at {where}", truth)


def inferred_truth(observed: Observed, names: tuple[str, ...]) -> FloatArray | None:
    """Return the true values of the inferred parameters, shape (param,), where they are known."""
    if observed.truth is None:
        return None
    return np.array([observed.truth[n] for n in names], dtype=np.float64)


def make_simulator(config: RunConfig) -> Simulator:
    """Return the simulator of a configuration, with what its observation implies."""
    implied: Mapping[str, object] = {}
    if config.observation is not None:
        path = expand_path(config.observation, "observation")
        if path.exists():
            with _reading(config.simulator, path):
                found = registry.simulator_class(config.simulator)
                implied = found.observation_options(path)
    return build_simulator(config.simulator, {**implied, **config.options})


def build_simulator(name: str, options: Mapping[str, Any]) -> Simulator:
    """Return a simulator whose parameters and data are known to be there.

    Raises:
        UnknownNameError: If there is none of this name.
        OptionError: If it cannot be built with these options.
    """
    with registry.building(name, options):
        made = registry.simulator(name, **options)
        _ = made.parameters, made.observable  # some simulators read their files here
    return made


@contextlib.contextmanager
def _reading(name: str, path: Path) -> Iterator[None]:
    """Say which file it was when a simulator fails on an observation unprepared."""
    try:
        yield
    except SbiPhysicsError:
        raise
    except BUILD_ERRORS as error:
        raise ObservationError(
            f"simulator {name!r} cannot read the observation {str(path)!r}: "
            f"{type(error).__name__}: {error}. If the file is right, this is a bug in the "
            "simulator: --debug shows where"
        ) from error


def refuse_options(simulator: Simulator, names: Iterable[str]) -> None:
    """Refuse options of a simulator where parameters are meant, saying how to set them.

    Raises:
        UnknownNameError: If a name is no parameter but an option.
    """
    for name in names:
        if name in simulator.parameters.names or name not in type(simulator.options).model_fields:
            continue
        hint = f"{name!r} is an option of {simulator.name!r}: set it with --set {name}=..."
        if _can_be_freed(simulator, name):
            hint += f", or vary it under its prior with --free {name}"
        raise unknown_name(
            f"parameter of {simulator.name!r}", name, simulator.parameters.names, f"{hint}."
        )


def _can_be_freed(simulator: Simulator, name: str) -> bool:
    values = simulator.options.model_dump()
    if "free" not in values:
        return False
    try:
        type(simulator.options)(**{**values, name: None, "free": [*values["free"], name]})
    except ValidationError:
        return False
    return True


def _choose_parameters(config: RunConfig, simulator: Simulator) -> tuple[Prior, tuple[str, ...]]:
    refuse_options(simulator, (*config.fix, *(config.infer or ())))
    try:
        parameters = simulator.parameters.fix(config.fix)
        infer = tuple(config.infer) if config.infer else parameters.interest
        parameters.with_interest(infer)  # refuses unknown, fixed or no parameters
        prior = Prior(parameters, simulator.constraints)
        prior.select(infer)  # refuses constraints between inferred and other parameters
    except ContractError as error:
        raise ConfigError(str(error)) from error
    return prior, infer


def _check_version(config: RunConfig, simulator: Simulator) -> None:
    if config.simulator_version not in (None, simulator.version):
        raise ConfigError(
            f"the run file was made with version {config.simulator_version} of simulator "
            f"{simulator.name!r}; version {simulator.version} is installed and gives other data. "
            "Install the older one, or remove the line 'simulator_version' to run with the new one"
        )


def absolute_paths(config: RunConfig) -> dict[str, str]:
    """Return the paths of a configuration so that its file can stand anywhere."""
    names = ("observation", "simulations_store", "pairs_store")
    return {name: _absolute(raw) for name in names if (raw := getattr(config, name)) is not None}


def _absolute(raw: str) -> str:
    # A path with a variable stays as it is, so that the file works on other machines.
    return raw if raw.startswith(("$", "~")) else str(Path(raw).resolve())


def _observation_choice(config: RunConfig, simulator: Simulator) -> dict[str, str | None]:
    if config.observation is not None:
        return {"observation": _absolute(config.observation), "fiducial": None}
    return {"fiducial": config.fiducial or next(iter(simulator.fiducial), None)}
