"""The index of a store: which chunks exist. It is the only judge of that.

The index is a journal, one checksummed line a record, written by a single `write` and an `fsync`.
A line cut short by a crash fails its checksum and counts as never written, so every commit is
atomic and costs the same however large the store has grown. A later record about a chunk replaces
an earlier one.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

from sbi_physics.errors import StoreError


@dataclass(frozen=True, slots=True)
class ChunkEntry:
    """One committed chunk.

    Attributes:
        round: Round of sequential inference, from 0.
        chunk: Number within the round, from 0.
        rows: Rows it holds, at most the store's chunk size.
        invalid: How many of them are not usable.
        weighted: Whether rows carry weights other than 1.
        sums: Checksum of each array's rows.
    """

    round: int
    chunk: int
    rows: int
    invalid: int
    weighted: bool
    sums: Mapping[str, str]


class StoreIndex:
    """Committed chunks, their slots in the arrays, and the priors of later rounds.

    A slot is a block of chunk_size rows. Slots are given out when a round is planned, in the order
    of chunks, so the place of a chunk does not depend on which worker finished first.
    """

    def __init__(self) -> None:
        self.entries: dict[tuple[int, int], ChunkEntry] = {}
        self.slots: dict[tuple[int, int], int] = {}
        self.priors: dict[int, dict[str, Any]] = {}
        self._file: BinaryIO | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}  # other processes read

    @classmethod
    def load(cls, path: Path, *, writable: bool) -> Self:
        """Read the journal; a writer also cuts off a last line that a crash left unfinished.

        Raises:
            StoreError: If the file is missing or a line other than the last is damaged.
        """
        index = cls()
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise StoreError(f"cannot read the store's index {path}: {error.strerror}") from error
        whole = 0
        for number, line in enumerate(raw.splitlines(keepends=True), start=1):
            record = _decode(line)
            if record is None:
                if whole + len(line) < len(raw):
                    raise StoreError(
                        f"the store's index {path} is damaged in line {number}. Restore the file "
                        "from a backup, or delete the store and simulate again"
                    )
                break
            index._apply(record)
            whole += len(line)
        if writable:
            if whole < len(raw):
                os.truncate(path, whole)
            index._file = path.open("ab", buffering=0)
        return index

    def close(self) -> None:
        """Close the journal."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def begin_round(self, round: int, prior: Mapping[str, Any]) -> None:
        """Record the prior of a round that differs from the store's."""
        self._write({"op": "round", "round": round, "prior": dict(prior)})

    def reserve(self, round: int, n_chunks: int) -> None:
        """Give slots to chunks 0 to n_chunks - 1 of a round, where they have none yet."""
        have = sum(1 for r, _ in self.slots if r == round)
        if n_chunks > have:
            self._write(
                {
                    "op": "reserve",
                    "round": round,
                    "chunks": [have, n_chunks],
                    "slot": len(self.slots),
                }
            )

    def commit(self, entry: ChunkEntry) -> None:
        """Declare a chunk whole; its data must be on disk already."""
        self._write({"op": "commit", **asdict(entry)})

    def drop(self, round: int, chunk: int) -> None:
        """Forget a chunk; its slot stays its own."""
        self._write({"op": "drop", "round": round, "chunk": chunk})

    def discard(self, round: int) -> None:
        """Forget a round and its prior; its slots stay its own."""
        self._write({"op": "discard", "round": round})

    def _write(self, record: dict[str, Any]) -> None:
        if self._file is not None:
            _append_line(self._file, _encode(record))
        self._apply(record)

    def _apply(self, record: Mapping[str, Any]) -> None:
        match record["op"]:
            case "round":
                self.priors[record["round"]] = record["prior"]
            case "reserve":
                first, last = record["chunks"]
                for offset, chunk in enumerate(range(first, last)):
                    self.slots[record["round"], chunk] = record["slot"] + offset
            case "commit":
                entry = ChunkEntry(**{k: v for k, v in record.items() if k != "op"})
                self.entries[entry.round, entry.chunk] = entry
            case "drop":
                self.entries.pop((record["round"], record["chunk"]), None)
            case "discard":
                self.priors.pop(record["round"], None)
                for key in [key for key in self.entries if key[0] == record["round"]]:
                    del self.entries[key]
            case other:
                raise StoreError(
                    f"the store's index has a record {other!r} that this version does not know; "
                    "update sbi-physics"
                )


def _append_line(file: BinaryIO, line: bytes) -> None:
    end = os.fstat(file.fileno()).st_size
    try:
        written = file.write(line)
        os.fsync(file.fileno())
    except OSError as error:
        os.ftruncate(file.fileno(), end)
        raise StoreError(
            f"cannot write the store's index {file.name}: {error.strerror}"
        ) from error
    if written != len(line):
        # A full disk may take part of a line; take it back so that the next line does not follow a
        # torn one.
        os.ftruncate(file.fileno(), end)
        raise StoreError(f"cannot write the store's index {file.name}: the disk is full")


def _encode(record: Mapping[str, Any]) -> bytes:
    text = json.dumps(record, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _decode(line: bytes) -> dict[str, Any] | None:
    checksum, _, text = line.removesuffix(b"\n").partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(text):
        return None
    record: dict[str, Any] = json.loads(text)
    return record
