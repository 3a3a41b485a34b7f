"""Compare posteriors: by record, by study, or by the folder a study left behind.

    comparison = compare(["runs/toy-sbi-npe", "runs/toy-sbi-nre"])
    print(comparison.summary())

Folders are read without loading any posterior, so no deep-learning package is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import TypeAlias

from sbi_physics.comparison import Comparison, RunRow, benjamini_hochberg, paired
from sbi_physics.coverage import Coverage
from sbi_physics.errors import ConfigError, ValidationError
from sbi_physics.study import Study
from sbi_physics.study.engines import ALL_FILE, resume_command
from sbi_physics.study.ledger import Ledger
from sbi_physics.study.work import RUN_FILE

_LEVEL = 0.90


@dataclass(frozen=True, slots=True, eq=False)
class ComparedRun:
    """One run to compare.

    Attributes:
        name: What to call it.
        coverage: Its record.
        seconds: Wall-clock time of each stage, where known.
    """

    name: str
    coverage: Coverage
    seconds: Mapping[str, float] = field(default_factory=dict)


Run: TypeAlias = Coverage | Study | str | Path
"""A record, a study, a run directory, or a record's JSON file."""


def compare(runs: Mapping[str, Run] | Iterable[Run]) -> Comparison:
    """Compare two or more validated posteriors.

    Scores are compared pair by pair where the records are about the same pairs (equal content
    hashes), parameters and prior; otherwise the difference is left out and the reason given.

    Args:
        runs: Records, studies, run directories or JSON files of records; as a mapping with their
            names. Without names, folders are called by their path and records by their engine.

    Returns:
        The table, with p-values adjusted for the number of runs, and the differences.

    Raises:
        ConfigError: If a folder holds no finished validation.
        ValidationError: If there are fewer than two runs, or a record is damaged.

    Example:
        >>> import sbi_physics as sp
        >>> sp.compare(["runs/npe", "runs/nre"]).summary()  # doctest: +SKIP
    """
    return compare_runs(gather(runs))


def gather(runs: Mapping[str, Run] | Iterable[Run]) -> tuple[ComparedRun, ...]:
    """Read what `compare` accepts; names are made unique.

    Raises:
        ConfigError: If a folder holds no finished validation.
        ValidationError: If there are fewer than two runs, or a record is damaged.
    """
    if isinstance(runs, str | Path | Coverage | Study):
        raise ValidationError("compare takes a list or a mapping of at least two runs")
    if isinstance(runs, Mapping):
        found = tuple(_read(run, name) for name, run in runs.items())
    else:
        listed = list(runs)
        names = _names(listed)
        found = tuple(_read(run, name) for run, name in zip(listed, names, strict=True))
    if len(found) < 2:
        raise ValidationError(f"a comparison needs at least two runs, got {len(found)}")
    return found


def compare_runs(runs: Iterable[ComparedRun]) -> Comparison:
    """Compare runs that were read by `gather`."""
    listed = list(runs)
    adjusted = benjamini_hochberg([r.coverage.p_global for r in listed])
    return Comparison(
        table=tuple(_row(run, p) for run, p in zip(listed, adjusted, strict=True)),
        differences=tuple(
            paired(a.name, a.coverage, b.name, b.coverage) for a, b in combinations(listed, 2)
        ),
    )


def _row(run: ComparedRun, p_adjusted: float) -> RunRow:
    coverage = run.coverage
    return RunRow(
        name=run.name,
        engine=str(coverage.provenance.get("engine", "")),
        simulator=str((coverage.provenance.get("simulator") or {}).get("name", "")),
        parameters=coverage.names,
        verdict=coverage.verdict,
        labels=coverage.labels,
        p_global=coverage.p_global,
        p_adjusted=p_adjusted,
        pairs=coverage.counts.usable,
        n_draws=coverage.n_draws,
        nll=coverage.nll,
        gain=coverage.gain,
        gain_kind=coverage.gain_kind,
        coverage_90=coverage.ecp(_LEVEL) if "hpd" in coverage.pit else None,
        seconds=run.seconds,
    )


def _read(run: Run, name: str) -> ComparedRun:
    if isinstance(run, Coverage):
        return ComparedRun(name, run, _validation_time(run))
    if isinstance(run, Study):
        return ComparedRun(name, run.coverage, run.seconds)
    path = Path(run)
    if path.is_file():
        coverage = Coverage.from_json(path)
        return ComparedRun(name, coverage, _validation_time(coverage))
    if not path.is_dir():
        raise ConfigError(f"there is no run directory or file {str(path)!r} (in {Path.cwd()})")
    record = path / "coverage.json"
    if not record.is_file():
        raise _unfinished(path)
    return ComparedRun(name, Coverage.from_json(record), Ledger(path).seconds)


def _unfinished(path: Path) -> ConfigError:
    """Say why a folder holds no validation, with a command only where it would help."""
    if (path / RUN_FILE).is_file():
        return ConfigError(
            f"the study in {path} is not finished (it has no coverage.json). Finish it with: "
            f"sbi-physics run {path / RUN_FILE} -o {path}"
        )
    runs = sorted(p.parent for p in path.glob(f"*/{RUN_FILE}"))
    done = [run for run in runs if (run / "coverage.json").is_file()]
    if not runs and not (path / ALL_FILE).is_file():
        return ConfigError(
            f"{path} is no run directory: it holds no coverage.json and no {RUN_FILE}"
        )
    open_ = [run for run in runs if run not in done]
    advice = f"Compare the runs in it: sbi-physics compare {' '.join(map(str, done or runs))}"
    if len(done) < 2 or open_:
        listed = f" ({', '.join(run.name for run in open_)} not finished)" if open_ else ""
        each = (
            resume_command(path)
            if (path / ALL_FILE).is_file()
            else "; ".join(f"sbi-physics run {run / RUN_FILE} -o {run}" for run in open_)
        )
        if each:
            advice = f"Finish them{listed} with: {each}"
    return ConfigError(f"{path} holds the runs of several engines, and is none itself. {advice}")


def _validation_time(coverage: Coverage) -> dict[str, float]:
    seconds = coverage.provenance.get("seconds")
    return {} if seconds is None else {"validate": float(seconds)}


def _names(runs: list[Run]) -> list[str]:
    """Name paths by their shortest ends that differ, records by their engine and a number."""
    paths = [
        (r.directory if isinstance(r, Study) else Path(r)).resolve()
        for r in runs
        if not isinstance(r, Coverage)
    ]
    names: list[str] = []
    for run in runs:
        if isinstance(run, Coverage):
            base = str(run.provenance.get("engine", "")) or "run"
        else:
            path = (run.directory if isinstance(run, Study) else Path(run)).resolve()
            base = _shortest_end(path, paths)
        copies = sum(n == base or n.startswith(f"{base} (") for n in names)
        names.append(f"{base} ({copies + 1})" if copies else base)
    return names


def _shortest_end(path: Path, paths: list[Path]) -> str:
    for length in range(1, len(path.parts) + 1):
        end = path.parts[-length:]
        if sum(p.parts[-length:] == end for p in set(paths)) == 1:
            break
    return "/".join(end).removesuffix(".json")
