"""`scan`: the same study under other simulator options."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from sbi_physics.cli import options as opt
from sbi_physics.cli.terminal import exit_code, say, tell


def scan_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of `scan`."""
    parser.add_argument(
        "study", metavar="NAME|RUN.YAML", help="name of a simulator, or a run file"
    )
    parser.add_argument(
        "--vary",
        metavar="OPTION=A,B,...",
        action="append",
        default=[],
        required=True,
        help="simulator option and its values; repeatable, all combinations are run",
    )
    parser.add_argument(
        "--engine", metavar="NAME", help="name of the engine (default: sbi-npe), or ENGINE:PRESET"
    )
    opt.add_set(parser)
    opt.add_settings(parser)
    opt.add_infer(parser)
    opt.add_free(parser)
    opt.add_fix(parser)
    opt.add_study_size(parser, each="each point")
    opt.add_seed(parser)
    parser.add_argument(
        "--workers",
        type=opt.integer(1),
        default=1,
        metavar="W",
        help="points that are worked on at once (default: 1); results don't depend on it",
    )
    opt.add_strict(parser)
    opt.add_json(parser)
    opt.add_output(
        parser,
        "DIR",
        "folder of the scan; resumed if it exists (default: runs/<simulator>-<engine>-scan)",
        required=False,
    )


def scan(
    *,
    study: str,
    vary: Sequence[str],
    engine: str | None,
    options: Sequence[str],
    settings: Sequence[str],
    infer: list[str] | None,
    free: list[str] | None,
    fix: Sequence[str],
    budget: str | None,
    simulations: int | None,
    pairs: int | None,
    draws: int | None,
    seed: int | None,
    workers: int,
    strict: bool,
    as_json: bool,
    out: Path | None,
) -> int:
    """Compare posterior widths over a grid of simulator options.

    Every point is a study of its own, validated, in a run directory below the scan's. The same
    command resumes an interrupted scan.
    """
    from sbi_physics.cli import render
    from sbi_physics.config import parse_assignments, parse_numbers
    from sbi_physics.errors import TrainingError
    from sbi_physics.progress import rich_progress
    from sbi_physics.scan import default_scan_directory
    from sbi_physics.scan.grid import parse_vary
    from sbi_physics.scan.work import FIGURE, carry_out_scan
    from sbi_physics.study import config_of

    config = config_of(study)
    chosen = opt.with_free(parse_assignments(options, "--set"), config.simulator, free)
    config = config.updated(
        {
            "engine": engine,
            "options": chosen,
            "settings": parse_assignments(settings, "--setting"),
            "infer": infer,
            "fix": parse_numbers(fix, "--fix"),
            "budget": budget,
            "simulations": simulations,
            "pairs": pairs,
            "draws": draws,
            "seed": seed,
        }
    )
    found = carry_out_scan(
        config,
        parse_vary(vary),
        default_scan_directory(config) if out is None else out,
        simulator=None,
        workers=workers,
        tell=tell,
        progress=rich_progress(),
    )
    if as_json:
        say(found.to_json())
    else:
        render.show_scan(found)
        say(f"Figure: {found.directory / FIGURE}")
    if found.failed:
        reasons = "; ".join(f"{p.title}: {p.error}" for p in found.failed)
        raise TrainingError(f"{len(found.failed)} points did not finish. {reasons}")
    return max(exit_code(point.verdict, strict) for point in found.points)
