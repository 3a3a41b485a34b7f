"""How much do data tell under other options: one study for every point of a grid.

    runs/<simulator>-<engine>-scan/
      scan.yaml                the study and what is varied: the same call resumes
      truth/                   latents that points share, where only the observation differs
      <option>=<value>.../     the run directory of every point, see `sbi_physics.study`
      scan.json                the table as data
      widths.png               the figure

Every posterior is validated. A two-stage simulator whose varied options enter only the
observation (`Simulator.observe_options`) has its latents simulated once; points then differ by
their observation alone, which compares them on the same truths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sbi_physics.config import RunConfig
from sbi_physics.progress import Progress, rich_progress
from sbi_physics.scan.record import Scan, ScanPoint
from sbi_physics.scan.work import carry_out_scan
from sbi_physics.simulator import Simulator
from sbi_physics.study import Tell, config_of, log_line

__all__ = ["Scan", "ScanPoint", "default_scan_directory", "scan"]


def scan(
    study: RunConfig | Simulator | str | Path,
    vary: Mapping[str, Sequence[Any]],
    engine: str | None = None,
    *,
    directory: str | Path | None = None,
    workers: int = 1,
    progress: Progress | None = None,
    tell: Tell | None = None,
    **fields: Any,
) -> Scan:
    """Run a study for every combination of some simulator options, or finish such a scan.

    Args:
        study: A configuration, a run file (a path that ends in `.yaml`), a simulator or the name
            of one.
        vary: Simulator options and the values that each takes; all combinations are run.
        engine: Name of the engine, or `ENGINE:PRESET`.
        directory: Where to put run directories and results; default
            `runs/<simulator>-<engine>-scan`.
        workers: Points that are worked on at once, each in a process of its own.
        progress: Where to show progress; default bars on a terminal.
        tell: Receives (stage, line); default the logger `sbi_physics.study`.
        **fields: Fields of the run file: `budget`, `infer`, `fix`, `settings`, `seed`, ...

    Returns:
        The record of all points: verdicts, scores and posterior widths.

    Raises:
        ConfigError: If the configuration contradicts itself, or two values are the same.
        OptionError: If a value is unacceptable to the simulator; nothing is run then.
        UnknownNameError: If a name does not exist.

    Example:
        >>> import sbi_physics as sp
        >>> found = sp.scan(
        ...     "toy-two-stage", {"resolution": [0.1, 0.5]}, "exact", budget="quick", seed=1
        ... )  # doctest: +SKIP
        >>> print(found.summary())  # doctest: +SKIP
    """
    simulator = study if isinstance(study, Simulator) else None
    config = config_of(study).updated({"engine": engine, **fields}, "scan()")
    return carry_out_scan(
        config,
        vary,
        default_scan_directory(config) if directory is None else Path(directory),
        simulator=simulator,
        workers=workers,
        tell=log_line if tell is None else tell,
        progress=rich_progress() if progress is None else progress,
    )


def default_scan_directory(config: RunConfig) -> Path:
    """Return where a scan is written unless told otherwise."""
    from sbi_physics.study import default_directory

    found = default_directory(config)
    return found.with_name(f"{found.name}-scan")
