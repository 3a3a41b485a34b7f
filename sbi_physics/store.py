"""The simulation store: append-only, crash-safe, resumable.

A store is one zarr group with the arrays `theta`, `x`, `z/*` (latents), `weight`, `valid` and
`round`. Its unit is the chunk: data first, then an index entry with a checksum of every array.
Only the entry makes a chunk exist, so whenever the process dies, a store holds whole chunks and
nothing else. Chunk k of round r is drawn from

    SeedSequence(seed, spawn_key=(purpose, r, k))

and has its own place in the arrays, so a finished store is the same, byte for byte, however often
it was interrupted and however many workers filled it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike

from sbi_physics.errors import ContractError, StoreError
from sbi_physics.priors import Prior
from sbi_physics.simulations import Rows, Simulations
from sbi_physics.simulator import Simulator
from sbi_physics.store_arrays import LATENTS, MemoryArrays, StoreArrays, described
from sbi_physics.store_chunk import checksum, chunk_arrays
from sbi_physics.store_folder import open_to_append, open_to_read, stored_header
from sbi_physics.store_header import StoreHeader, default_chunk_size, prior_essence, require_equal
from sbi_physics.store_index import ChunkEntry, StoreIndex
from sbi_physics.store_lock import WriterLock
from sbi_physics.store_reader import Part
from sbi_physics.types import AnyArray

__all__ = ["Rows", "SimulationStore", "Simulations", "StoreHeader", "default_chunk_size"]


class SimulationStore:
    """Simulations on disk, or in memory; open one with `SimulationStore.open`.

    A store opened for appending holds the writer's lock until it is closed; use it as a context
    manager. Reading needs no lock and goes on after closing.

    Attributes:
        header: What the store was made from.
        path: Its folder, or None in memory.
    """

    def __init__(
        self,
        header: StoreHeader,
        path: Path | None,
        index: StoreIndex,
        arrays: StoreArrays,
        lock: WriterLock | None,
    ) -> None:
        self.header, self.path = header, path
        self._index, self._arrays, self._lock = index, arrays, lock
        self._open = path is None or lock is not None

    @classmethod
    def open(
        cls,
        path: str | Path | None,
        mode: Literal["r", "a"] = "r",
        header: StoreHeader | None = None,
    ) -> Self:
        """Open or create a store.

        Args:
            path: Its folder; None for a new store in memory.
            mode: "r" to read, "a" to append (created when absent, if a header is given).
            header: What the store is, or must have been, made from; None accepts an existing store
                as it is.

        Raises:
            StoreError: If it does not exist, is damaged, or the folder holds something else.
            StoreLockedError: If another process is writing to it.
            StoreMismatchError: If it was made from something else.
        """
        if mode not in ("r", "a"):
            raise ContractError(f"store mode must be 'r' (read) or 'a' (append), got {mode!r}")
        if path is None:
            if header is None:
                raise ContractError("a store in memory is always new and needs a header")
            return cls(header, None, StoreIndex(), MemoryArrays(), None)
        folder = (open_to_read if mode == "r" else open_to_append)(Path(path), header)
        return cls(folder.header, Path(path), folder.index, folder.arrays, folder.lock)

    @staticmethod
    def header_of(path: str | Path) -> StoreHeader | None:
        """What the store in a folder was made from; None if there is none.

        Raises:
            StoreError: If its metadata is damaged.
        """
        return stored_header(Path(path))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None, "_open": False}  # other processes read

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        where = "memory" if self.path is None else str(self.path)
        return (
            f"SimulationStore({where}, {self.n_rows()} rows in {len(self._index.entries)} chunks)"
        )

    def close(self) -> None:
        """Give back the writer's lock; reading goes on."""
        self._index.close()
        if self._lock is not None:
            self._lock.release()
        self._open = False

    @property
    def latents(self) -> tuple[str, ...]:
        """Names of the latents."""
        return tuple(sorted(self._arrays.latents()))

    def latent_layout(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Row shape and type of a latent."""
        return self._arrays.latents()[name]

    @property
    def rounds(self) -> tuple[int, ...]:
        """Rounds with committed chunks."""
        return tuple(sorted({r for r, _ in self._index.entries}))

    def n_rows(self, round: int | None = None) -> int:
        """Number of committed rows, valid or not, of one round or of all."""
        return sum(
            e.rows for e in self._index.entries.values() if round is None or e.round == round
        )

    def committed(self, round: int = 0) -> set[int]:
        """Numbers of the committed chunks of a round."""
        return {k for r, k in self._index.entries if r == round}

    def chunk_rows(self, round: int, chunk: int) -> int:
        """Number of committed rows of a chunk; 0 when it does not exist."""
        entry = self._index.entries.get((round, chunk))
        return 0 if entry is None else entry.rows

    def prior(self, round: int = 0) -> Prior:
        """The prior a round was drawn from."""
        stored = self._index.priors.get(round)
        return self.header.prior if stored is None else Prior.from_dict(stored)

    def begin_round(self, round: int, prior: Prior | None = None) -> None:
        """Declare the prior of a round, before its first chunk.

        Raises:
            StoreMismatchError: If the round was begun with another prior.
        """
        self._check_writable()
        asked = self.header.prior if prior is None else prior
        if self.n_rows(round) or round in self._index.priors or round == 0:
            subject = f"round {round} of {self._subject}"
            require_equal(
                {"prior": prior_essence(self.prior(round))},
                {"prior": prior_essence(asked)},
                subject,
            )
        elif prior_essence(asked) != prior_essence(self.header.prior):
            self._index.begin_round(round, asked.to_dict())

    def discard_round(self, round: int) -> None:
        """Forget a round after the first, its prior and simulations: it can be begun anew."""
        self._check_writable()
        if round == 0:
            raise ContractError("round 0 cannot be discarded: the store was made for it")
        self._index.discard(round)

    def reserve(self, round: int, n: int) -> None:
        """Give the first `n` rows of a round their places, whatever is committed first."""
        self._check_writable()
        n_chunks = -(-n // self.header.chunk_size)
        if n_chunks:
            self._index.reserve(round, n_chunks)
            slot = self._index.slots[round, n_chunks - 1]
            last_rows = n - (n_chunks - 1) * self.header.chunk_size
            self._arrays.ensure_length(slot * self.header.chunk_size + last_rows)

    def append(
        self,
        round: int,
        chunk: int,
        theta: ArrayLike,
        x: ArrayLike,
        z: Mapping[str, AnyArray] | None = None,
        valid: ArrayLike | None = None,
        weight: ArrayLike | None = None,
    ) -> ChunkEntry:
        """Commit a chunk, or replace a short one by a longer one.

        Rows with a non-finite entry in theta, x or z are stored but marked invalid.

        Args:
            round: Round of sequential inference.
            chunk: Number within the round.
            theta: Parameters, shape (rows, d).
            x: Data, shape (rows, *observable.shape); stored as float32.
            z: Latents, each with leading axis rows; the same names in every chunk.
            valid: Rows that may be used, shape (rows,); None for all finite ones.
            weight: Importance weights, shape (rows,); None for ones.

        Returns:
            The entry of the index, with the number of invalid rows.

        Raises:
            ContractError: If a shape or type is wrong or the chunk is there already.
            StoreError: If the store is read-only or the disk refuses.
        """
        self._check_writable()
        values = chunk_arrays(self.header, theta, x, z or {}, valid, weight)
        rows = len(values["theta"])
        have = self.chunk_rows(round, chunk)
        if have >= rows:
            raise ContractError(
                f"chunk {chunk} of round {round} of {self._subject} exists, with {have} rows"
            )
        if round:  # 0 is the array's fill value
            values["round"] = np.full(rows, round, dtype=np.int32)
        size = self.header.chunk_size
        self._index.reserve(round, chunk + 1)
        slot = self._index.slots[round, chunk]
        if have:
            self._index.drop(round, chunk)
        self._add_latents(values)
        self._arrays.ensure_length(slot * size + rows)
        self._arrays.write(slot, values)
        entry = ChunkEntry(
            round=round,
            chunk=chunk,
            rows=rows,
            invalid=rows - int(values["valid"].sum()),
            weighted=weight is not None,
            sums={name: checksum(v) for name, v in values.items() if name != "round"},
        )
        self._index.commit(entry)
        return entry

    def simulations(
        self,
        rounds: Iterable[int] | None = None,
        *,
        n: int | None = None,
        simulator: Simulator | None = None,
        prior: Prior | None = None,
    ) -> Simulations:
        """Return the valid rows committed so far, without reading them.

        Args:
            rounds: Which rounds; None for all.
            n: Only the first n rows (valid or not) of each round.
            simulator: The simulator behind the store, where the registry does not know it.
            prior: The prior they were drawn from, with other roles or labels.

        Raises:
            StoreError: If a round is unknown or the rounds were drawn from different priors.
        """
        chosen = self.rounds if rounds is None else tuple(sorted(set(rounds)))
        # A round without rows is an empty set of simulations only where one could have been drawn.
        unknown = [r for r in chosen if r not in self.rounds and r != 0 and self.rounds and n != 0]
        if unknown:
            raise StoreError(
                f"{self._subject} has rounds {list(self.rounds)}, asked for {unknown}"
            )
        if any(
            prior_essence(self.prior(r)) != prior_essence(self.prior(chosen[0])) for r in chosen
        ):
            raise StoreError(
                f"rounds {list(chosen)} of {self._subject} were drawn from different priors; "
                f"choose rounds of one prior, such as rounds=({chosen[-1]},)"
            )
        parts = [part for round in chosen for part in self.parts(round, n)]
        drawn_from = self.prior(chosen[0] if chosen else 0)
        if prior is not None:
            require_equal(
                prior_essence(drawn_from), prior_essence(prior), f"the prior of {self._subject}"
            )
        return Simulations(
            self, parts, rounds=chosen or (0,), prior=prior or drawn_from, simulator=simulator
        )

    def parts(self, round: int, n: int | None = None, within: Prior | None = None) -> list[Part]:
        """Return the chunks of a round in order, cut to its first `n` rows and to a prior."""
        size = self.header.chunk_size
        entries = sorted((k, e) for (r, k), e in self._index.entries.items() if r == round)
        cut = [(e, e.rows if n is None else min(e.rows, n - k * size)) for k, e in entries]
        return [Part(entry, rows, within) for entry, rows in cut if rows > 0]

    def read(self, entry: ChunkEntry, name: str) -> AnyArray:
        """Read one array of a chunk and verify its checksum.

        Raises:
            StoreError: If the data is missing or is not what was committed.
        """
        try:
            values = self._arrays.read(
                name, self._index.slots[entry.round, entry.chunk], entry.rows
            )
        except StoreError as error:
            raise StoreError(f"{self._chunk_subject(entry)}: {error}. {self._remedy}") from error
        found, stored = checksum(values), entry.sums[name]
        if found != stored:
            raise StoreError(
                f"{self._chunk_subject(entry)}: array {name!r} has checksum {found}, committed "
                f"was {stored}. {self._remedy}"
            )
        return values

    def verify(self) -> None:
        """Read everything and compare checksums.

        Raises:
            StoreError: Naming every damaged chunk.
        """
        faults = self._faults()
        if faults:
            listed = ", ".join(
                f"{e.chunk} of round {e.round} ({reason})" for e, reason in faults[:5]
            )
            more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
            raise StoreError(f"{self._subject} has damaged chunks: {listed}{more}. {self._remedy}")

    def repair(self) -> tuple[tuple[int, int], ...]:
        """Forget damaged chunks, so that the next `simulate` draws them again, identically.

        Returns:
            (round, chunk) of each forgotten chunk.
        """
        self._check_writable()
        damaged = tuple((entry.round, entry.chunk) for entry, _ in self._faults())
        for round, chunk in damaged:
            self._index.drop(round, chunk)
        return damaged

    def _faults(self) -> list[tuple[ChunkEntry, str]]:
        faults = []
        for _, entry in sorted(self._index.entries.items()):
            for name in entry.sums:
                try:
                    self.read(entry, name)
                except StoreError as error:
                    faults.append(
                        (entry, str(error.__cause__ or f"array {name!r} fails its checksum"))
                    )
                    break
        return faults

    def _add_latents(self, values: Mapping[str, AnyArray]) -> None:
        """Create the latents' arrays with the first chunk; later ones must have the same."""
        prefix = f"{LATENTS}/"
        given = {
            n.removeprefix(prefix): (v.shape[1:], v.dtype)
            for n, v in values.items()
            if n.startswith(prefix)
        }
        present = self._arrays.latents()
        if self._index.entries and given != present:
            raise ContractError(
                f"latents of a chunk are {described(given)}; {self._subject} has "
                f"{described(present)}"
            )
        for name, (row, dtype) in given.items():
            if present.get(name, (row, dtype)) != (row, dtype):
                raise ContractError(
                    f"latent {name!r} has rows of shape {row} and type {dtype}; {self._subject} "
                    f"has {present[name]}"
                )
            if name not in present:
                self._arrays.add_latent(name, row, dtype)

    def _check_writable(self) -> None:
        if not self._open:
            raise StoreError(
                f"{self._subject} is not open for appending; use SimulationStore.open(path, 'a')"
            )

    @property
    def _subject(self) -> str:
        return "the store in memory" if self.path is None else f"the store {self.path}"

    def _chunk_subject(self, entry: ChunkEntry) -> str:
        return f"{self._subject} is damaged in chunk {entry.chunk} of round {entry.round}"

    @property
    def _remedy(self) -> str:
        return (
            "SimulationStore.open(path, 'a').repair() forgets damaged chunks, and the same "
            "simulate call then draws them again, identically"
        )
