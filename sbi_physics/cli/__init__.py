"""`sbi-physics`: the command line. Commands translate arguments and print; the work is elsewhere.

Exit codes: 0 done; 1 the verdict is FAIL, UNINFORMATIVE or INCONCLUSIVE under `--strict`; 2 bad
usage or input; 3 the work failed; 130 interrupted. Errors are one paragraph on standard error.

Nothing but the standard library is imported before a command needs it: `--help` answers at once.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

from sbi_physics.cli import judging, listing, pipeline, scanning
from sbi_physics.cli.terminal import remark
from sbi_physics.errors import (
    ConfigError,
    DataFileError,
    ObservationError,
    OptionError,
    SbiPhysicsError,
    StoreMismatchError,
    UnknownNameError,
    ValidationError,
    nearest_name,
)

BAD_INPUT: Final = 2
WORK_FAILED: Final = 3
INTERRUPTED: Final = 130

_INPUT_ERRORS: Final = (
    ConfigError,
    DataFileError,
    ObservationError,
    OptionError,
    StoreMismatchError,
    UnknownNameError,
    ValidationError,
)

Declare = Callable[[argparse.ArgumentParser], None]
Command = Callable[..., int | None]

COMMANDS: Final[dict[str, tuple[Declare, Command]]] = {
    "list": (listing.list_arguments, listing.list_),
    "show": (listing.show_arguments, listing.show),
    "simulate": (pipeline.simulate_arguments, pipeline.simulate),
    "train": (pipeline.train_arguments, pipeline.train),
    "infer": (pipeline.infer_arguments, pipeline.infer),
    "validate": (judging.validate_arguments, judging.validate),
    "run": (pipeline.run_arguments, pipeline.run),
    "scan": (scanning.scan_arguments, scanning.scan),
    "compare": (judging.compare_arguments, judging.compare),
    "report": (pipeline.report_arguments, pipeline.report),
    "doctor": (listing.doctor_arguments, listing.doctor),
}

_EPILOG: Final = """\
exit codes: 0 done; 1 verdict not good enough (--strict); 2 bad usage or input; 3 the work failed;
130 interrupted

start with: sbi-physics run toy-gaussian --engine exact"""


class _Parser(argparse.ArgumentParser):
    """Complains in one paragraph, with the nearest name."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(
            allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **settings
        )

    def error(self, message: str) -> NoReturn:
        chosen = re.match(r"argument \S+: invalid choice: '([^']*)' \(choose from (.*)\)", message)
        if chosen:
            known = re.findall(r"'([^']*)'", chosen[2])
            message = f"unknown command or choice {chosen[1]!r}.{_guess(chosen[1], known)}"
            message += f" Known: {', '.join(known)}."
        remark(f"Error: {message} (help: {self.prog} --help)")
        raise SystemExit(BAD_INPUT)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = _Parser(
        prog="sbi-physics",
        description="From a physics simulator to a validated posterior.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "--debug", action="store_true", help="show full tracebacks and all warnings"
    )
    parser.add_argument("--version", action="store_true", help="show the version")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, (declare, command) in COMMANDS.items():
        text = (command.__doc__ or "").strip()
        first = text.partition("\n")[0]
        # The rest of the docstring, if any, is indented like the code.
        about = re.sub(r"\n +", "\n", text)
        declare(commands.add_parser(name, help=first.rstrip("."), description=about))
    return parser


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and leave the program with its exit code.

    Args:
        argv: Arguments; default those of the process. `--debug` may stand anywhere.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if "--debug" in arguments:
        arguments = ["--debug", *(a for a in arguments if a != "--debug")]
    raise SystemExit(_dispatch(arguments))


def _dispatch(arguments: list[str]) -> int:
    parser = build_parser()
    parsed, unknown = parser.parse_known_args(arguments)
    values = vars(parsed)
    debug, name = values.pop("debug"), values.pop("command")
    if values.pop("version"):
        from sbi_physics import __version__
        from sbi_physics.cli.terminal import say

        say(__version__)
        return 0
    if unknown:
        known = option_names(name) if name else []
        guess = _guess(unknown[0].partition("=")[0], known)
        where = f"{parser.prog} {name}" if name else parser.prog
        remark(f"Error: unknown argument {unknown[0]!r}.{guess} (help: {where} --help)")
        return BAD_INPUT
    if name is None:
        parser.print_help()
        return 0
    _show_warnings_as_lines(debug)
    return _guarded(COMMANDS[name][1], values, debug)


def option_names(command: str) -> list[str]:
    """Return the options of a command as they are typed."""
    parser = argparse.ArgumentParser(add_help=False)
    COMMANDS[command][0](parser)
    return [text for action in parser._actions for text in action.option_strings]


def _guarded(command: Command, values: dict[str, Any], debug: bool) -> int:
    """Run a command; turn exceptions into one paragraph and an exit code."""
    try:
        return command(**values) or 0
    except KeyboardInterrupt as error:
        remark(f"\n{error}" if str(error) else "\ninterrupted; the same command continues")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has seen enough; keep Python from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug:
            import traceback

            remark("".join(traceback.format_exception(error)))
        remark(f"Error: {_paragraph(error)}")
        return BAD_INPUT if isinstance(error, _INPUT_ERRORS) else WORK_FAILED


def _paragraph(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, SbiPhysicsError | OSError):
        return text
    if isinstance(error, MemoryError):
        return "out of memory; use fewer workers or a smaller batch_size"
    return (
        f"unexpected {type(error).__name__}: {text}. This is a bug in sbi-physics or a plugin; "
        "repeat the command with --debug and report what it prints"
    )


def _guess(name: str, known: Sequence[str]) -> str:
    nearest = nearest_name(name, known)
    return f" Did you mean {nearest!r}?" if nearest else ""


def _show_warnings_as_lines(debug: bool) -> None:
    """Say warnings meant for users in one line each; leave those for developers to --debug."""
    import warnings

    if debug:
        warnings.simplefilter("default")
        return
    for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
        warnings.simplefilter("ignore", category)

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        remark(f"Warning: {' '.join(str(message).split())}")

    warnings.showwarning = show
