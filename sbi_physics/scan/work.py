"""One scan in one directory: begin or resume it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import yaml

from sbi_physics import __version__
from sbi_physics.config import RunConfig
from sbi_physics.errors import ConfigError, SbiPhysicsError
from sbi_physics.executors import executor_from
from sbi_physics.progress import SILENT, Progress
from sbi_physics.scan.grid import GridPoint, group_by_truth, make_grid
from sbi_physics.scan.record import Scan, ScanPoint
from sbi_physics.scan.truth import check_same_latents, observe_again
from sbi_physics.scan.widths import study_widths
from sbi_physics.seeding import fresh_seed
from sbi_physics.simulate import simulate
from sbi_physics.simulator import Simulator
from sbi_physics.store_lock import WriterLock
from sbi_physics.study import Tell
from sbi_physics.study.ledger import write_text
from sbi_physics.study.plan import Plan, make_plan
from sbi_physics.study.work import carry_out

SCAN_FILE: Final = "scan.yaml"
RECORD: Final = "scan.json"
TABLE: Final = "scan.md"
FIGURE: Final = "widths.png"
_STORES: Final = {"simulations_store": "train", "pairs_store": "pairs"}


def carry_out_scan(
    config: RunConfig,
    vary: Mapping[str, Sequence[Any]],
    directory: Path,
    *,
    simulator: Simulator | None,
    workers: int,
    tell: Tell,
    progress: Progress,
) -> Scan:
    """Do what is missing of a scan; see `scan`."""
    _refuse_what_points_cannot_share(config)
    _refuse_foreign(directory)
    executor = executor_from(None, workers)
    seed, origin = _choose_seed(config, directory)
    config = config.model_copy(update={"seed": seed})
    points = make_grid(config, vary, simulator)
    # Refuses bad input before anything is made.
    plans = [make_plan(point.config, seed, point.simulator) for point in points]
    directory.mkdir(parents=True, exist_ok=True)
    lock = WriterLock(directory / ".lock", f"the scan {directory}")
    lock.acquire()
    try:
        _write_file(config, vary, directory)
        tell("scan", f"{len(points)} points of {points[0].simulator.name} in {directory}")
        tell("scan", f"seed {seed} ({origin})")
        truths = _simulate_truths(points, plans, directory, workers, tell, progress)
        alone = workers == 1
        work = _PointWork(
            directory, seed, truths, tell if alone else _mute, progress if alone else SILENT
        )
        found: dict[int, ScanPoint] = {}
        for index, point in executor.map_unordered(work, points):
            found[index] = point
            outcome = f"failed: {point.error}" if point.error else point.verdict
            tell("scan", f"{len(found)} of {len(points)} done: {point.title}: {outcome}")
        record = Scan(
            simulator=points[0].simulator.name,
            engine=config.engine,
            seed=seed,
            varied={name: tuple(map(str, values)) for name, values in vary.items()},
            parameters=tuple(plans[0].prior.select(plans[0].infer).parameters),
            points=tuple(found[k] for k in range(len(points))),
            shared_truth=bool(truths),
            directory=directory,
        )
        _write_results(record)
    finally:
        lock.release()
    return record


@dataclass(frozen=True, slots=True)
class _PointWork:
    """Carries out the study of one point, here or in another process."""

    directory: Path
    seed: int
    truths: Mapping[str, Path]
    tell: Tell
    progress: Progress

    def __call__(self, point: GridPoint) -> ScanPoint:
        empty = ScanPoint({k: str(v) for k, v in point.values.items()}, point.folder)
        try:
            return self._study(point, empty)
        except SbiPhysicsError as error:
            return replace(empty, error=str(error))

    def _study(self, point: GridPoint, empty: ScanPoint) -> ScanPoint:
        config = point.config
        if point.folder in self.truths:
            plan = make_plan(config, self.seed, point.simulator)
            stores = {}
            for field, purpose in _STORES.items():
                store = self.directory / "observed" / point.folder / f"{purpose}.zarr"
                observe_again(
                    self.truths[point.folder] / f"{purpose}.zarr",
                    point.simulator,
                    store,
                    n=_sizes(plan)[purpose],
                    prior=plan.prior,
                    seed=self.seed,
                )
                stores[field] = str(store.resolve())
            config = config.model_copy(update=stores)
        study = carry_out(
            config,
            self.directory / point.folder,
            simulator=point.simulator,
            tell=self.tell,
            progress=self.progress,
        )
        coverage = study.coverage
        return replace(
            empty,
            verdict=coverage.verdict,
            labels=tuple(coverage.labels),
            p_global=coverage.p_global,
            nll=coverage.nll,
            gain=coverage.gain,
            widths=study_widths(study, point.simulator, self.seed, self.progress),
        )


def _simulate_truths(
    points: Sequence[GridPoint],
    plans: Sequence[Plan],
    directory: Path,
    workers: int,
    tell: Tell,
    progress: Progress,
) -> dict[str, Path]:
    """Simulate latents that points share; returns the folder of their stores for each point."""
    plan_of = {point.folder: plan for point, plan in zip(points, plans, strict=True)}
    truths: dict[str, Path] = {}
    for group in group_by_truth(points):
        if len(group) == 1:
            continue
        base = _with_default_observation(group[0].simulator)
        for point in group:
            check_same_latents(base, point.simulator, plans[0].seed)
        name = hashlib.sha256(repr(sorted(base.identity.options.items())).encode()).hexdigest()
        folder = directory / "truth" / name[:12]
        folder.mkdir(parents=True, exist_ok=True)
        plan = plan_of[group[0].folder]
        for purpose, n in _sizes(plan).items():
            tell("scan", f"{n:,} latents ({purpose}) that {len(group)} points share")
            simulate(
                base,
                n,
                store=folder / f"{purpose}.zarr",
                prior=plan.prior,
                seed=plan.seed,
                workers=workers,
                purpose=purpose,
                progress=progress,
            )
        truths |= {point.folder: folder for point in group}
    return truths


def _with_default_observation(simulator: Simulator) -> Simulator:
    """The simulator with default observe-options: the same base whatever the grid begins with."""
    kept = {
        name: value
        for name, value in simulator.options.model_dump().items()
        if name not in simulator.observe_options
    }
    return type(simulator)(**kept)


def _sizes(plan: Plan) -> dict[str, int]:
    return {"train": plan.n_simulations, "pairs": plan.n_pairs}


def _choose_seed(config: RunConfig, directory: Path) -> tuple[int, str]:
    if config.seed is not None:
        return config.seed, "given"
    file = directory / SCAN_FILE
    if file.is_file():
        return int(yaml.safe_load(file.read_text(encoding="utf-8"))["seed"]), f"from {file}"
    return fresh_seed(), f"drawn; recorded in {SCAN_FILE}"


def _write_file(config: RunConfig, vary: Mapping[str, Sequence[Any]], directory: Path) -> None:
    values = {k: v for k, v in config.model_dump(mode="json").items() if v is not None}
    values["vary"] = {name: list(chosen) for name, chosen in vary.items()}
    header = f"# Written by sbi-physics {__version__}: what a scan varies, and its study.\n"
    write_text(
        directory / SCAN_FILE,
        header + yaml.safe_dump(values, sort_keys=False, allow_unicode=True),
    )


def _write_results(record: Scan) -> None:
    from sbi_physics.plots import save

    write_text(record.directory / TABLE, record.summary() + "\n")
    record.to_json(record.directory / RECORD)
    if any(p.widths for p in record.points):
        save(record.plot(), record.directory / FIGURE)


def _refuse_what_points_cannot_share(config: RunConfig) -> None:
    if config.rounds > 1:
        raise ConfigError(
            f"truncated rounds ({config.rounds}) answer for one observation only; a scan compares "
            "widths over the prior. Run the points one by one, or without rounds"
        )
    for name in _STORES:
        if (store := getattr(config, name)) is not None:
            raise ConfigError(
                f"{name}: {store!r} holds data of one simulator, the points of a scan are many"
            )


def _refuse_foreign(directory: Path) -> None:
    if directory.is_file():
        raise ConfigError(f"{directory} is a file; choose another folder")
    if not directory.is_dir() or (directory / SCAN_FILE).is_file():
        return
    strangers = [p.name for p in directory.iterdir() if not p.name.startswith(".")]
    if strangers:
        raise ConfigError(
            f"{directory} exists and is no scan (it holds {', '.join(strangers[:3])} but no "
            f"{SCAN_FILE}); choose another"
        )


def _mute(stage: str, line: str) -> None:
    """Points in other processes do their work in silence."""
