"""`validate` and `compare`: is a posterior calibrated, and which one is better?"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sbi_physics.cli import options as opt
from sbi_physics.cli.terminal import exit_code, say, tell

if TYPE_CHECKING:
    from sbi_physics.compare import ComparedRun
    from sbi_physics.coverage import Coverage

_PAIRS, _DRAWS = 1000, 999


def validate_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of `validate`."""
    parser.add_argument(
        "target",
        metavar="DIR|FILE",
        type=Path,
        help="folder of a posterior, a run directory, or draws made elsewhere (.npz, or netCDF "
        "as ArviZ writes it)",
    )
    parser.add_argument(
        "--simulations",
        dest="store",
        metavar="STORE",
        type=Path,
        help="store of fresh pairs (default: simulate them)",
    )
    parser.add_argument(
        "--pairs",
        type=opt.integer(20),
        metavar="N",
        help=f"fresh pairs to simulate (default: {_PAIRS}), or to use of a store or file "
        "(default of a file: all)",
    )
    parser.add_argument(
        "--draws",
        type=opt.integer(10),
        metavar="L",
        help=f"posterior draws for each pair (default: {_DRAWS}; of a file: all)",
    )
    parser.add_argument(
        "-o",
        dest="out",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="file for the full record (.json) or for a page about it (.html); repeatable",
    )
    opt.add_seed(parser)
    opt.add_workers(parser)
    opt.add_strict(parser)
    opt.add_json(parser)


def validate(
    *,
    target: Path,
    store: Path | None,
    pairs: int | None,
    draws: int | None,
    out: Sequence[Path],
    seed: int | None,
    workers: int,
    strict: bool,
    as_json: bool,
) -> int:
    """Validate a posterior on fresh simulations, or draws made elsewhere."""
    from sbi_physics.errors import ConfigError
    from sbi_physics.seeding import fresh_seed

    _check_outputs(out)
    chosen = fresh_seed() if seed is None else seed
    if target.is_dir():
        coverage = _validate_folder(target, store, pairs, draws, chosen, workers)
    elif not target.suffix and not target.exists():
        raise ConfigError(f"there is no folder {str(target)!r} (current folder: {Path.cwd()})")
    elif store is not None:
        raise ConfigError(
            f"{target} holds draws and true values already: --simulations is for posteriors"
        )
    else:
        coverage = _validate_file(target, pairs, draws, chosen)
    for path in out:
        _write(coverage, path, target.name)
    if as_json:
        say(coverage.to_json())
    else:
        say(coverage.summary())
        written = f", written: {', '.join(map(str, out))}" if out else ""
        say(f"repeat with --seed {chosen}{written}")
    return exit_code(coverage.verdict, strict)


def _validate_folder(
    folder: Path,
    store: Path | None,
    pairs: int | None,
    draws: int | None,
    seed: int,
    workers: int,
) -> Coverage:
    from sbi_physics.cli.loading import open_store, read_posterior, simulator_of
    from sbi_physics.errors import ConfigError
    from sbi_physics.progress import rich_progress
    from sbi_physics.simulate import simulate
    from sbi_physics.validate import validate as check

    posterior = read_posterior(folder)
    prior = posterior.context.simulation_prior
    n_pairs = _PAIRS if pairs is None else pairs
    if store is not None:
        fresh = open_store(store, n_pairs)
    elif prior is None:
        raise ConfigError(
            f"the posterior in {folder} does not say which prior its simulations were drawn from; "
            "give fresh pairs with --simulations STORE"
        )
    else:
        fresh = simulate(
            simulator_of(posterior),
            n_pairs,
            prior=prior,
            seed=seed,
            workers=workers,
            purpose="pairs",
            progress=rich_progress(),
        )
    n_draws = _DRAWS if draws is None else draws
    return check(posterior, fresh, n_draws=n_draws, seed=seed, progress=rich_progress())


def _validate_file(path: Path, pairs: int | None, draws: int | None, seed: int) -> Coverage:
    import warnings

    import numpy as np

    from sbi_physics.draw_files import MAX_AUTOCORRELATION, autocorrelation, read_draws
    from sbi_physics.progress import rich_progress

    content = read_draws(path).first(pairs, draws)
    n, n_draws, d = content.draws.shape
    noun = "parameter" if d == 1 else "parameters"
    tell("validate", f"{n:,} pairs with {n_draws:,} draws of {d} {noun} each")
    correlation = autocorrelation(content.draws)
    if correlation > MAX_AUTOCORRELATION:
        warnings.warn(
            f"successive draws in {path} correlate by {correlation:.2f} on average: ranks of "
            "dependent draws are not uniform even for an exact posterior (arXiv:1804.06788). Thin "
            "the chains",
            UserWarning,
            stacklevel=1,
        )
    return content.validate(np.random.default_rng(seed), rich_progress())


def _check_outputs(out: Sequence[Path]) -> None:
    """Refuse what could not be written, before any work is done."""
    from sbi_physics.errors import ConfigError

    for path in out:
        if path.suffix not in (".json", ".html"):
            raise ConfigError(f"-o takes a file that ends in .json or .html, got {str(path)!r}")
        if not path.parent.is_dir():
            raise ConfigError(f"-o {path}: there is no folder {str(path.parent)!r}")


def _write(coverage: Coverage, path: Path, title: str) -> None:
    from sbi_physics.progress import rich_progress
    from sbi_physics.report import write_coverage

    if path.suffix == ".html":
        write_coverage(coverage, path, title=title, progress=rich_progress())
    else:
        coverage.to_json(path)


def compare_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of `compare`."""
    parser.add_argument(
        "runs",
        metavar="RUNDIR",
        type=Path,
        nargs="+",
        help="two or more run directories, or records written by validate -o FILE.json",
    )
    opt.add_output(
        parser, "FOLDER", "folder for compare.html, compare.json and figures", required=False
    )
    opt.add_json(parser)


def compare(*, runs: Sequence[Path], out: Path | None, as_json: bool) -> None:
    """Compare validated posteriors side by side.

    Scores are compared pair by pair where runs were validated on the same pairs: give runs the
    same --seed and number of pairs.
    """
    from sbi_physics.compare import gather
    from sbi_physics.errors import ConfigError

    if out is not None and out.exists() and not out.is_dir():
        raise ConfigError(f"-o {out}: this is a file; choose another folder")
    show_compared(gather(list(runs)), out, as_json=as_json)


def show_compared(runs: Sequence[ComparedRun], out: Path | None, *, as_json: bool = False) -> None:
    """Print runs side by side and, given a folder, write their common page there."""
    from sbi_physics.cli import render
    from sbi_physics.compare import compare_runs
    from sbi_physics.progress import rich_progress

    comparison = compare_runs(runs)
    page = None
    if out is not None:
        from sbi_physics.report.comparison import write_comparison

        coverages = {run.name: run.coverage for run in runs}
        page = write_comparison(comparison, coverages, out, progress=rich_progress())
    if as_json:
        say(comparison.to_json())
        return
    render.show_comparison(comparison)
    if page is not None:
        say(f"Page: {page}")
