"""Arguments that several commands share, spelled and explained the same everywhere."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable
from pathlib import Path
from typing import Any


def integer(at_least: int) -> Callable[[str], int]:
    """Return a converter to integers that are not too small."""

    def convert(text: str) -> int:
        try:
            value = int(text.replace("_", ""))
        except ValueError:
            value = at_least - 1
        if value < at_least:
            raise ArgumentTypeError(f"must be an integer of at least {at_least}, got {text!r}")
        return value

    return convert


def names(text: str) -> list[str]:
    """Split names at commas."""
    found = [part.strip() for part in text.split(",") if part.strip()]
    if not found:
        raise ArgumentTypeError(f"must name at least one parameter, got {text!r}")
    return found


def add_set(parser: ArgumentParser) -> None:
    """Add `--set`."""
    parser.add_argument(
        "--set",
        dest="options",
        metavar="OPTION=VALUE",
        action="append",
        default=[],
        help="simulator option; repeatable",
    )


def add_settings(parser: ArgumentParser) -> None:
    """Add `--setting`."""
    parser.add_argument(
        "--setting",
        dest="settings",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="engine setting; repeatable",
    )


def add_infer(parser: ArgumentParser) -> None:
    """Add `--infer`."""
    parser.add_argument(
        "--infer",
        type=names,
        metavar="NAMES",
        help="parameters to infer, separated by commas (default: those of interest)",
    )


def add_fix(parser: ArgumentParser) -> None:
    """Add `--fix`."""
    parser.add_argument(
        "--fix",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="hold a parameter at a value, in its unit; repeatable",
    )


def add_free(parser: ArgumentParser) -> None:
    """Add `--free`."""
    parser.add_argument(
        "--free",
        type=names,
        metavar="NAMES",
        help="parameters that the simulator holds fixed unless asked, to be varied under their "
        "prior; separated by commas",
    )


def with_free(options: dict[str, Any], simulator: str, free: list[str] | None) -> dict[str, Any]:
    """Return simulator options with the names of `--free` in the option `free`.

    Raises:
        ConfigError: If the simulator has no such option.
    """
    if not free:
        return options
    from sbi_physics import registry
    from sbi_physics.errors import ConfigError

    if "free" not in registry.simulator_class(simulator).Options.model_fields:
        raise ConfigError(
            f"--free {','.join(free)}: {simulator!r} holds no parameter fixed that could be freed"
        )
    return {**options, "free": free}


def add_seed(parser: ArgumentParser) -> None:
    """Add `--seed`."""
    parser.add_argument(
        "--seed",
        type=integer(0),
        metavar="S",
        help="seed of all randomness (default: a new one, which is printed)",
    )


def add_workers(parser: ArgumentParser, default: int | None = 1) -> None:
    """Add `--workers`; None as default leaves the choice to a run file."""
    parser.add_argument(
        "--workers",
        type=integer(1),
        default=default,
        metavar="W",
        help="processes that simulate, or train the members of an ensemble (default: 1); results "
        "don't depend on it",
    )


def add_observation(parser: ArgumentParser) -> None:
    """Add `--observation` and `--fiducial`, which exclude each other."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--observation", metavar="FILE", help="observation to infer from, read by the simulator"
    )
    group.add_argument(
        "--fiducial", metavar="NAME", help="named point to simulate as the observation"
    )


def add_samples(parser: ArgumentParser, default: int | None = 10_000) -> None:
    """Add `--samples`; None as default leaves the choice to a run file."""
    parser.add_argument(
        "--samples",
        type=integer(100),
        default=default,
        metavar="N",
        help="posterior samples for the observation (default: 10000)",
    )


def add_strict(parser: ArgumentParser) -> None:
    """Add `--strict`."""
    parser.add_argument(
        "--strict",
        action="store_true",
        help="exit with 1 when the verdict is FAIL, UNINFORMATIVE or INCONCLUSIVE",
    )


def add_json(parser: ArgumentParser) -> None:
    """Add `--json`."""
    parser.add_argument(
        "--json", dest="as_json", action="store_true", help="print JSON on standard output"
    )


def add_output(parser: ArgumentParser, metavar: str, text: str, *, required: bool = True) -> None:
    """Add `-o`."""
    parser.add_argument("-o", dest="out", metavar=metavar, type=Path, required=required, help=text)


def add_posterior_folder(parser: ArgumentParser) -> None:
    """Add the folder of a posterior."""
    parser.add_argument(
        "folder", metavar="DIR", type=Path, help="folder of a posterior, or a run directory"
    )


def add_study_size(parser: ArgumentParser, *, each: str = "") -> None:
    """Add `--budget` and the numbers it stands for; `each` names one of several studies."""
    of = f" of {each}" if each else ""
    work = f" for {each}" if each else ""
    parser.add_argument(
        "--budget",
        metavar="NAME",
        help=f"amount of work{work}: quick, standard, thorough (default: standard)",
    )
    for flag, least, text in (
        ("--simulations", 10, f"training simulations{of}"),
        ("--pairs", 20, f"fresh pairs to validate on{work}"),
        ("--draws", 10, "posterior draws for each pair"),
    ):
        parser.add_argument(
            flag, type=integer(least), metavar="N", help=f"{text} (default: by budget)"
        )
