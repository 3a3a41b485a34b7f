"""`simulate`, `train`, `infer`, `run` and `report`: the steps of a study."""

from __future__ import annotations

import contextlib
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sbi_physics.cli import options as opt
from sbi_physics.cli.loading import open_store, read_posterior, simulator_of
from sbi_physics.cli.terminal import exit_code, say, tell

if TYPE_CHECKING:
    from sbi_physics.config import RunConfig
    from sbi_physics.store import Simulations


def simulate_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of `simulate`."""
    parser.add_argument("name", metavar="NAME", help="name of the simulator")
    parser.add_argument(
        "-n", type=opt.integer(1), metavar="N", required=True, help="number of simulations"
    )
    opt.add_output(parser, "STORE", "folder of the store; resumed if it exists")
    opt.add_set(parser)
    opt.add_free(parser)
    opt.add_fix(parser)
    parser.add_argument(
        "--purpose",
        choices=("train", "pairs", "test"),
        default="train",
        help="train, or pairs and test to validate with; their simulations never overlap "
        "(default: train)",
    )
    opt.add_seed(parser)
    opt.add_workers(parser)


def simulate(
    *,
    name: str,
    n: int,
    out: Path,
    options: Sequence[str],
    free: list[str] | None,
    fix: Sequence[str],
    purpose: str,
    seed: int | None,
    workers: int,
) -> None:
    """Fill a store with simulations, or go on filling it.

    The same command resumes an interrupted store, a larger -n enlarges it.
    """
    from sbi_physics.config import parse_assignments, parse_numbers
    from sbi_physics.priors import Prior
    from sbi_physics.progress import rich_progress
    from sbi_physics.simulate import simulate as fill
    from sbi_physics.study.plan import build_simulator, refuse_options

    values = opt.with_free(parse_assignments(options, "--set"), name, free)
    simulator = build_simulator(name, values)
    fixed = parse_numbers(fix, "--fix")
    refuse_options(simulator, fixed)
    with _bad_input():
        parameters = simulator.parameters.fix(fixed)
    made = fill(
        simulator,
        n,
        store=out,
        prior=Prior(parameters, simulator.constraints),
        seed=seed,
        workers=workers,
        purpose=purpose,
        progress=rich_progress(),
    )
    invalid = f", {made.n_invalid:,} not finite and left out" if made.n_invalid else ""
    say(f"{out}: {len(made):,} simulations of {name}{invalid}, seed {made.seed}")


def train_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of `train`."""
    parser.add_argument("store", metavar="STORE", type=Path, help="simulation store")
    parser.add_argument(
        "--engine", metavar="NAME", required=True, help="name of the engine, or ENGINE:PRESET"
    )
    opt.add_output(parser, "DIR", "folder of the posterior")
    opt.add_settings(parser)
    opt.add_infer(parser)
    parser.add_argument(
        "--simulations",
        dest="n",
        type=opt.integer(10),
        metavar="N",
        help="use only the first so many (default: all)",
    )
    opt.add_workers(parser)
    opt.add_seed(parser)


def train(
    *,
    store: Path,
    engine: str,
    out: Path,
    settings: Sequence[str],
    infer: Sequence[str] | None,
    n: int | None,
    workers: int,
    seed: int | None,
) -> None:
    """Train an engine on a store.

    With the same --seed, the same command continues a training that was killed.
    """
    import shutil

    from sbi_physics import registry
    from sbi_physics.config import parse_assignments
    from sbi_physics.progress import rich_progress
    from sbi_physics.seeding import fresh_seed

    chosen = registry.engine(engine)
    resolved = chosen.settings(**parse_assignments(settings, "--setting"))
    simulations = open_store(store, n)
    names = tuple(infer or simulations.parameters.interest)
    _refuse_stored_options(names, simulations)
    with _bad_input():
        simulations.parameters.with_interest(names)
    unfinished = out.parent / f".{out.name}.training"
    posterior = chosen.train(
        simulations,
        resolved,
        infer=names,
        seed=fresh_seed() if seed is None else seed,
        progress=rich_progress(),
        checkpoint=unfinished,
        workers=workers,
    )
    posterior.save(out)
    shutil.rmtree(unfinished)
    say(
        f"{out}: posterior of {', '.join(posterior.prior.names)} by {engine}, trained on "
        f"{len(simulations):,} simulations, seed {posterior.context.seed}"
    )


def _refuse_stored_options(names: Sequence[str], simulations: Simulations) -> None:
    """Refuse options of the simulator behind a store where parameters are meant."""
    from sbi_physics.errors import unknown_name

    identity = simulations.identity
    for name in names:
        if identity and name not in simulations.parameters.names and name in identity.options:
            raise unknown_name(
                "parameter",
                name,
                simulations.parameters.names,
                f"{name!r} is an option of {identity.name!r}, held at "
                f"{identity.options[name]!r} in these simulations: simulate again to change it.",
            )


def infer_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of `infer`."""
    opt.add_posterior_folder(parser)
    opt.add_output(parser, "FILE.nc", "netCDF file to write; ArviZ reads it")
    opt.add_observation(parser)
    parser.add_argument(
        "--any-observation",
        action="store_true",
        help="accept other observations than the one truncated rounds closed in on: the answer is "
        "the posterior under the truncated prior",
    )
    opt.add_samples(parser)
    opt.add_seed(parser)


def infer(
    *,
    folder: Path,
    out: Path,
    observation: str | None,
    fiducial: str | None,
    any_observation: bool,
    samples: int,
    seed: int | None,
) -> None:
    """Sample the posterior of one observation."""
    from sbi_physics.cli import render
    from sbi_physics.errors import ConfigError
    from sbi_physics.interop import write_netcdf
    from sbi_physics.progress import rich_progress
    from sbi_physics.seeding import fresh_seed, generator
    from sbi_physics.study.plan import inferred_truth, observe
    from sbi_physics.study.table import summarize

    if observation is None and fiducial is None:
        raise ConfigError("give either --observation FILE or --fiducial NAME")
    posterior = read_posterior(folder)
    simulator = simulator_of(posterior)
    outer = posterior.context.simulation_prior
    fixed = {} if outer is None else {p.name: p.bounds[0] for p in outer.parameters if p.is_fixed}
    chosen = fresh_seed() if seed is None else seed
    observed = observe(simulator, chosen, observation=observation, fiducial=fiducial, fix=fixed)
    if not any_observation:
        posterior.require_valid_for(observed.x, "give --any-observation")
    rng = generator(chosen, "posterior")
    theta = posterior.draw(
        observed.x[None], samples, rng, any_observation=True, progress=rich_progress()
    ).theta[0]
    write_netcdf(out, theta, posterior, x=observed.x)
    truth = inferred_truth(observed, posterior.prior.names)
    render.show_table(summarize(theta, posterior.prior, truth), observed.source)
    say(f"{out}: {samples:,} samples, seed {chosen}")


def run_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of `run`."""
    parser.add_argument(
        "study", metavar="NAME|RUN.YAML", help="name of a simulator, or a run file"
    )
    parser.add_argument(
        "--engine",
        metavar="NAME",
        help="name of the engine (default: sbi-npe), or ENGINE:PRESET, or all: every one that can "
        "be trained on these data, on the same simulations and pairs",
    )
    opt.add_set(parser)
    opt.add_settings(parser)
    opt.add_infer(parser)
    opt.add_free(parser)
    opt.add_fix(parser)
    opt.add_study_size(parser)
    opt.add_observation(parser)
    parser.add_argument(
        "--rounds",
        type=opt.integer(1),
        metavar="R",
        help="truncated rounds that close in on the observation (default: 1, none)",
    )
    parser.add_argument(
        "--final-simulations",
        type=opt.integer(10),
        metavar="N",
        help="with --rounds: one more round, which trains on N simulations inside the last box",
    )
    opt.add_samples(parser, default=None)
    opt.add_seed(parser)
    opt.add_workers(parser, default=None)
    parser.add_argument(
        "--share-simulations",
        dest="simulations_store",
        metavar="STORE",
        help="store of training simulations to share between runs",
    )
    opt.add_output(
        parser, "RUNDIR", "run directory (default: runs/<simulator>-<engine>)", required=False
    )
    opt.add_strict(parser)


def run(
    *,
    study: str,
    out: Path | None,
    strict: bool,
    options: Sequence[str],
    settings: Sequence[str],
    free: list[str] | None,
    fix: Sequence[str],
    **values: int | str | list[str] | None,
) -> int:
    """Go from a simulator to a validated posterior and a report.

    Stages whose inputs are unchanged are skipped, so the same command resumes an interrupted run.
    """
    from sbi_physics.cli import render
    from sbi_physics.config import make_config, parse_assignments, parse_numbers, read_config
    from sbi_physics.progress import rich_progress
    from sbi_physics.study import run as carry_out
    from sbi_physics.study.engines import ALL

    is_file = study.endswith((".yaml", ".yml"))
    base = read_config(study) if is_file else make_config({"simulator": study}, "command line")
    config = base.updated(
        {
            "options": opt.with_free(parse_assignments(options, "--set"), base.simulator, free),
            "settings": parse_assignments(settings, "--setting") or None,
            "fix": parse_numbers(fix, "--fix") or None,
            **values,
        }
    )
    if base.settings and config.engine != base.engine:
        tell("run", f"the settings in {study} are for {base.engine}; {config.engine} starts anew")
    if config.engine == ALL:
        return _run_all(config, out, strict)
    done = carry_out(config, directory=out, tell=tell, progress=rich_progress())
    render.show_study(done)
    return exit_code(done.coverage.verdict, strict)


def _run_all(config: RunConfig, out: Path | None, strict: bool) -> int:
    """Run every engine; a failure of one is the exit code, but does not hide the others."""
    from sbi_physics.cli.judging import show_compared
    from sbi_physics.compare import gather
    from sbi_physics.errors import TrainingError
    from sbi_physics.progress import rich_progress
    from sbi_physics.study import default_directory, run_engines

    directory = default_directory(config) if out is None else out
    done = run_engines(config, directory, tell=tell, progress=rich_progress())
    if len(done.studies) > 1:
        show_compared(gather(done.studies), directory)
    for study in done.studies.values():
        say(f"Report of {study.config.engine}: {study.report_path}")
    if done.failed:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in done.failed.items())
        raise TrainingError(f"{len(done.failed)} engines did not finish. {reasons}")
    return max(exit_code(study.coverage.verdict, strict) for study in done.studies.values())


def report_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of `report`."""
    parser.add_argument("directory", metavar="RUNDIR", type=Path, help="a run directory")


def report(*, directory: Path) -> None:
    """Write the report of a finished run again."""
    from sbi_physics.cli import render
    from sbi_physics.progress import rich_progress
    from sbi_physics.study.work import rewrite_report

    render.show_study(rewrite_report(directory, tell, rich_progress()))


@contextlib.contextmanager
def _bad_input() -> Iterator[None]:
    """Call a broken contract what it is when the values come from the command line."""
    from sbi_physics.errors import ConfigError, ContractError

    try:
        yield
    except ContractError as error:
        raise ConfigError(str(error)) from error
