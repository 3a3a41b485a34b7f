"""One study for every engine that can handle the data, on the same simulations and pairs.

runs/<simulator>-all/
  simulations.zarr    training simulations of all
  pairs.zarr          validation pairs of all
  all.yaml            what was asked for; running it finishes what is missing
  <engine>/           the run directory of each, see `sbi_physics.study`
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sbi_physics import registry
from sbi_physics.config import RunConfig, dump_config
from sbi_physics.errors import (
    ConfigError,
    OptionError,
    PluginError,
    SbiPhysicsError,
    nearest_name,
)
from sbi_physics.progress import Progress
from sbi_physics.simulator import Simulator
from sbi_physics.study.ledger import write_text
from sbi_physics.study.plan import absolute_paths, make_plan, make_simulator
from sbi_physics.study.record import Study
from sbi_physics.study.stages import PAIRS_STORE, TRAINING_STORE, Tell
from sbi_physics.study.work import carry_out

ALL = "all"
"""What the command line calls every engine."""

ALL_FILE = "all.yaml"
"""The run file of all engines, beside their run directories."""


@dataclass(frozen=True, slots=True, eq=False)
class EngineStudies:
    """Studies of several engines on the same simulations and pairs.

    Attributes:
        studies: The finished study of each engine, by name.
        skipped: Why an engine was left out, by name.
        failed: Why an engine did not finish, by name.
    """

    studies: Mapping[str, Study]
    skipped: Mapping[str, str]
    failed: Mapping[str, str]


def run_engines(
    config: RunConfig,
    directory: Path,
    *,
    simulator: Simulator | None = None,
    tell: Tell,
    progress: Progress,
) -> EngineStudies:
    """Run a study with every installed engine that trains and supports the data, or resume it.

    An engine that fails leaves the others alone.

    Args:
        config: What is asked for; its engine is not looked at, its settings are given to all.
        directory: Where to put the stores and a run directory for each engine.
        simulator: Use this one instead of asking the registry.
        tell: Receives (stage, line).
        progress: Where to show progress.

    Raises:
        ConfigError: If no engine can be used, or truncated rounds are asked for.
        SbiPhysicsError: If the configuration is unacceptable to an engine; nothing is made then.
    """
    if config.rounds > 1:
        raise ConfigError(
            f"truncated rounds ({config.rounds}) make other simulations for every engine, which "
            "cannot be compared pair by pair; run the engines one by one, or without rounds"
        )
    chosen = simulator or make_simulator(config)
    names, skipped = _usable(chosen)
    for name, reason in skipped.items():
        tell("run", f"{name} is left out: {reason}")
    if not names:
        listed = "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
        raise ConfigError(
            f"no installed engine can be trained on the data of {chosen.name!r}"
            + (f" ({listed})" if listed else "; install a plugin with one, such as sbi")
        )
    stores = {
        "simulations_store": config.simulations_store or str(directory / TRAINING_STORE),
        "pairs_store": config.pairs_store or str(directory / PAIRS_STORE),
    }
    _refuse_settings(config.settings, names)
    configs = {n: config.model_copy(update={"engine": n, **stores}) for n in names}
    for each in configs.values():
        make_plan(each, config.seed or 0, chosen)  # refuses bad input before anything is made
    directory.mkdir(parents=True, exist_ok=True)
    kept = config.model_copy(update=absolute_paths(config))
    header = f"The engines of this folder. To finish or repeat:\n{resume_command(directory)}"
    write_text(directory / ALL_FILE, dump_config(kept, header))
    studies: dict[str, Study] = {}
    failed: dict[str, str] = {}
    for name, each in configs.items():
        try:
            studies[name] = carry_out(
                each, directory / name, simulator=simulator, tell=tell, progress=progress
            )
        except SbiPhysicsError as error:
            failed[name] = str(error)
            tell("run", f"{name} failed: {error}")
    return EngineStudies(studies, skipped, failed)


def resume_command(directory: Path) -> str:
    """Return the command that finishes the studies of all engines in a folder."""
    return f"sbi-physics run {directory / ALL_FILE} -o {directory}"


def _refuse_settings(settings: Mapping[str, object], names: Sequence[str]) -> None:
    """Refuse settings that some of the engines do not know."""
    fields = {name: registry.engine(name).Settings.model_fields for name in names}
    for setting in settings:
        knowing = [name for name in names if setting in fields[name]]
        others = [name for name in names if setting not in fields[name]]
        if not others:
            continue
        common = [f for f in fields[names[0]] if all(f in fields[n] for n in names)]
        nearest = None if knowing else nearest_name(setting, common)
        guess = f" Did you mean {nearest!r}?" if nearest else ""
        found = f"a setting of {', '.join(knowing)}, not" if knowing else "not one"
        raise OptionError(
            f"with engine {ALL!r} every engine must know a setting; {setting!r} is {found} of "
            f"{', '.join(others)}.{guess} Common to all: {', '.join(common)}. An engine with "
            "settings of its own is run by its name"
        )


def _usable(simulator: Simulator) -> tuple[list[str], dict[str, str]]:
    """Names of the engines to run, and reasons against the others."""
    names, skipped = [], {}
    for spec in registry.engines():
        if not spec.trains:
            skipped[spec.name] = "it trains nothing"
            continue
        if spec.needs_labels and not simulator.can("labels"):
            skipped[spec.name] = "it learns from labels, which this simulator does not give"
            continue
        try:
            reason = registry.engine(spec.name).supports(simulator.observable)
        except PluginError as error:
            reason = str(error)
        if reason:
            skipped[spec.name] = reason
        else:
            names.append(spec.name)
    return names, skipped
