"""Results that survive an interruption: one JSON line for each finished piece of a benchmark."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any


def read(path: Path) -> list[dict[str, Any]]:
    """Return the finished pieces; a line cut off by a crash is left out."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


def run(
    path: Path,
    pieces: Iterable[Mapping[str, Any]],
    measure: Callable[..., Mapping[str, Any]],
    max_seconds: float | None = None,
) -> list[dict[str, Any]]:
    """Measure the pieces that the file lacks and return all that belong to these pieces.

    Args:
        path: The file of results.
        pieces: What identifies each piece, in the order of work; JSON-ready.
        measure: Called with a piece's items as keywords; returns what was measured.
        max_seconds: Start no further piece after so many seconds.
    """
    start = time.monotonic()
    wanted = [dict(piece) for piece in pieces]
    path.parent.mkdir(parents=True, exist_ok=True)
    for piece in wanted:
        if any(_is(row, piece) for row in read(path)):
            continue
        if max_seconds is not None and time.monotonic() - start > max_seconds:
            break
        row = {**piece, **measure(**piece)}
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)
    return [row for row in read(path) if any(_is(row, piece) for piece in wanted)]


def options(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options that every resumable benchmark has."""
    parser.add_argument(
        "--output", type=Path, default=Path("runs") / f"{name}.jsonl", help="results, resumed"
    )
    parser.add_argument("--max-seconds", type=float, help="start no further piece after this")


def _is(row: Mapping[str, Any], piece: Mapping[str, Any]) -> bool:
    return all(row.get(key) == value for key, value in piece.items())
