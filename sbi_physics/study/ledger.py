"""The record of a run directory: which stage was done with which inputs, when and how fast.

`run.json` holds one entry for every finished stage with the content hash of its inputs. A stage
whose hash is unchanged and whose files are there is skipped; an entry is written only after the
files are in place, so a killed run repeats at most the stage it was in.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from sbi_physics.doctor import describe_machine
from sbi_physics.errors import ConfigError
from sbi_physics.types import AnyArray

SCHEMA: Final = 1
STAGES: Final = ("simulate", "train", "infer", "pairs", "validate", "report")
"""In the order in which they are done."""

ROUNDS: Final = "rounds"
"""Folder with the posterior of every truncated round."""

_WORK: Final = ".writing"


class Ledger:
    """The stages of one run directory.

    Args:
        directory: The run directory; it must exist.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._path = directory / "run.json"
        self._data = self._read()

    @property
    def seconds(self) -> dict[str, float]:
        """Wall-clock time of each finished stage, in order."""
        done = self._data["stages"]
        return {name: done[name]["seconds"] for name in STAGES if name in done}

    def is_done(self, stage: str, key: str, output: Path) -> bool:
        """Whether a stage was finished with these inputs and its output is there, unchanged.

        Folders (posteriors, stores) hold checksums of their own, verified when they are read.
        """
        entry = self._data["stages"].get(stage)
        if entry is None or entry["inputs"] != key or not output.exists():
            return False
        return output.is_dir() or entry["sha256"] == file_digest(output)

    def begin(self, stage: str) -> None:
        """Forget a stage that is about to be redone: its former output will be replaced."""
        if self._data["stages"].pop(stage, None) is not None:
            self.write()

    def finish(self, stage: str, key: str, output: Path, seconds: float) -> None:
        """Record a finished stage."""
        self._data["stages"][stage] = {
            "inputs": key,
            "sha256": None if output.is_dir() else file_digest(output),
            "seconds": round(seconds, 3),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        self.write()

    def note(self, **facts: Any) -> None:
        """Record facts about the whole run."""
        self._data.update(facts)
        self.write()

    def write(self) -> None:
        """Write the record atomically."""
        self._data["machine"] = asdict(describe_machine(self.directory))
        write_text(self._path, json.dumps(self._data, indent=1) + "\n")

    def _read(self) -> dict[str, Any]:
        if not self._path.is_file():
            return {"schema": SCHEMA, "stages": {}}
        try:
            data: dict[str, Any] = json.loads(self._path.read_text(encoding="utf-8"))
            schema = data["schema"]
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{self._path} is damaged ({error}); delete it, and every stage but the "
                "simulations is done again"
            ) from error
        if schema != SCHEMA:
            raise ConfigError(
                f"{self._path} has schema {schema!r}; this version of sbi-physics reads schema "
                f"{SCHEMA}. Choose another run directory"
            )
        return data


def write_text(path: Path, text: str) -> None:
    """Write a text file so that it is either the old or the new one, never a part."""
    partial = path.with_name(f".{path.name}{_WORK}")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def partial_path(path: Path) -> Path:
    """Return a place beside a file or folder to write it before renaming; emptied."""
    partial = path.with_name(f".{path.name}{_WORK}{path.suffix}")
    remove(partial)
    return partial


def put_in_place(partial: Path, path: Path) -> None:
    """Rename a finished file or folder to its final name, replacing what was there."""
    if path.is_dir():
        shutil.rmtree(path)
    partial.replace(path)


def remove(path: Path) -> None:
    """Delete a file or a folder, if it exists."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_leftovers(directory: Path) -> None:
    """Delete what an interrupted run left half-written."""
    for pattern in (f".*{_WORK}*", ".posterior.writing-*", ".posterior.old-*"):
        for path in directory.glob(pattern):
            remove(path)
    for path in (directory / ROUNDS).glob(".[0-9]*"):
        remove(path)


def digest(inputs: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a mapping's canonical JSON form."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def array_digest(values: AnyArray) -> str:
    """Return the SHA-256 of an array's type, shape and content."""
    array = np.ascontiguousarray(values)
    header = f"{array.dtype.str}{array.shape}".encode()
    return hashlib.sha256(header + array.tobytes()).hexdigest()
