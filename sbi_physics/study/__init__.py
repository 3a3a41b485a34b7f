"""The whole pipeline over one run directory, every stage resumable.

    runs/<name>/
      run.yaml            the resolved configuration: enough to repeat the study
      simulations.zarr    training simulations
      pairs.zarr          fresh simulations for validation
      posterior/          the trained posterior
      rounds/             the posterior of every truncated round, if there are any
      samples.nc          posterior samples for the observation (ArviZ netCDF)
      coverage.json       the verdict, with every test
      figures/*.png       figures
      report.html         one self-contained page
      run.json            versions, seeds, time per stage, machine

A stage is skipped when the content hash of its inputs is unchanged and redone when it changed.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Final

from sbi_physics.config import RunConfig, make_config, read_config
from sbi_physics.progress import Progress, rich_progress
from sbi_physics.simulator import Simulator
from sbi_physics.study.engines import EngineStudies, run_engines
from sbi_physics.study.record import Study
from sbi_physics.study.stages import Tell
from sbi_physics.study.table import ParameterRow
from sbi_physics.study.work import carry_out, load_study

__all__ = [
    "EngineStudies",
    "ParameterRow",
    "Study",
    "Tell",
    "config_of",
    "default_directory",
    "load_study",
    "log_line",
    "run",
    "run_engines",
]

_LOGGER: Final = logging.getLogger(__name__)


def run(
    study: RunConfig | Simulator | str | Path,
    engine: str | None = None,
    *,
    directory: str | Path | None = None,
    progress: Progress | None = None,
    tell: Tell | None = None,
    **fields: Any,
) -> Study:
    """Run a study from simulations to report, or finish one that was interrupted.

    Args:
        study: A configuration, a run file (a path that ends in `.yaml`), a simulator or the name
            of one.
        engine: Name of the engine, or `ENGINE:PRESET`.
        directory: Run directory; default `runs/<simulator>-<engine>`.
        progress: Where to show progress; default bars on a terminal.
        tell: Receives (stage, line); default the logger `sbi_physics.study`.
        **fields: Fields of the run file: `budget`, `infer`, `fix`, `settings`, `seed`, ...

    Raises:
        ConfigError: If the configuration contradicts itself.
        UnknownNameError: If a name in it does not exist.
        SbiPhysicsError: If a stage fails; what is finished stays and is used next time.

    Example:
        >>> import sbi_physics as sp
        >>> study = sp.run("toy-gaussian", "exact", budget="quick", seed=1)  # doctest: +SKIP
        >>> study.coverage.verdict  # doctest: +SKIP
        'PASS'
    """
    simulator = study if isinstance(study, Simulator) else None
    config = config_of(study).updated({"engine": engine, **fields}, "run()")
    folder = default_directory(config) if directory is None else Path(directory)
    return carry_out(
        config,
        folder,
        simulator=simulator,
        tell=log_line if tell is None else tell,
        progress=rich_progress() if progress is None else progress,
    )


def default_directory(config: RunConfig) -> Path:
    """Return where a study is written unless told otherwise."""
    # A colon (of a preset) is no part of a folder's name on every system.
    return Path("runs") / f"{config.simulator}-{config.engine.replace(':', '-')}"


def config_of(study: RunConfig | Simulator | str | Path) -> RunConfig:
    """Return what a configuration, run file, simulator or name of one asks for."""
    if isinstance(study, RunConfig):
        return study
    if isinstance(study, Simulator):
        identity = study.identity
        values = {"simulator": identity.name, "options": dict(identity.options)}
        return make_config(values, f"simulator {identity.name!r}")
    if isinstance(study, Path) or study.endswith((".yaml", ".yml")):
        return read_config(study)
    return make_config({"simulator": study}, "run()")


def log_line(stage: str, line: str) -> None:
    """Say a line about a stage to the logger."""
    _LOGGER.info("%s: %s", stage, line)
