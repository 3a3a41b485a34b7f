"""What is printed, and where: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import sys
from typing import Any

_NOT_GOOD_ENOUGH = ("FAIL", "UNINFORMATIVE", "INCONCLUSIVE")
_CYAN, _PLAIN = "\x1b[36m", "\x1b[0m"


def say(text: str) -> None:
    """Print a line of the result."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def say_json(data: Any) -> None:
    """Print the result as JSON."""
    say(json.dumps(data, indent=2, allow_nan=False))


def remark(text: str) -> None:
    """Print a line that is not part of the result."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def tell(stage: str, line: str) -> None:
    """Print one line about a stage."""
    name = f"{_CYAN}[{stage}]{_PLAIN}" if sys.stderr.isatty() else f"[{stage}]"
    remark(f"{name} {line}")


def exit_code(verdict: str, strict: bool) -> int:
    """Return the exit code of a command that ends in a verdict."""
    return 1 if strict and verdict in _NOT_GOOD_ENOUGH else 0
