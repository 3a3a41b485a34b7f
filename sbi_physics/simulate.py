"""Fill a store from a simulator, here or in several processes.

Row i of a round is always the same, whatever else is asked for: chunk k is drawn from its own
stream, in blocks of fixed size, and a short last chunk is the beginning of the whole one. So
`simulate(n)` is the first n rows of one endless sequence given by (simulator, prior, seed,
purpose, round), and may be interrupted, repeated, enlarged or shortened at will.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from sbi_physics.errors import ContractError, SbiPhysicsError
from sbi_physics.executors import Executor, executor_from
from sbi_physics.priors import Prior
from sbi_physics.progress import Progress, Task, rich_progress
from sbi_physics.seeding import check_seed, fresh_seed, generator
from sbi_physics.simulator import Simulator
from sbi_physics.store import Simulations, SimulationStore, StoreHeader, default_chunk_size
from sbi_physics.types import DataArray, FloatArray, Latents

BLOCK_ROWS: Final = 32
"""Rows drawn together. Part of the storage format: another number gives other simulations."""


@dataclass(frozen=True, slots=True)
class DrawnChunk:
    """Simulations of one chunk.

    Attributes:
        theta: Parameters, float64, shape (rows, d).
        x: Data, float32, shape (rows, *observable.shape).
        z: Latents, each with leading axis rows.
    """

    theta: FloatArray
    x: DataArray
    z: Latents


@dataclass(frozen=True, slots=True)
class ChunkSource:
    """Draws any chunk of one round, in this process or another.

    Attributes:
        simulator: The simulator.
        prior: What theta is drawn from.
        seed: Seed of the store.
        purpose: Purpose of the store.
        round: The round.
        chunk_size: Rows of a whole chunk.
    """

    simulator: Simulator
    prior: Prior
    seed: int
    purpose: str
    round: int
    chunk_size: int

    def __call__(self, task: tuple[int, int]) -> DrawnChunk:
        """Draw the first rows of a chunk, given (chunk, rows).

        Raises:
            ContractError: If the simulator raises, naming simulator, chunk, seed and the range of
                theta.
        """
        chunk, rows = task
        rng = generator(self.seed, self.purpose, self.round, chunk)
        blocks = [
            self._block(chunk, start, rng)
            for start in range(0, rows, min(BLOCK_ROWS, self.chunk_size))
        ]
        return DrawnChunk(
            theta=_joined([b.theta for b in blocks], rows),
            x=_joined([b.x for b in blocks], rows),
            z={name: _joined([b.z[name] for b in blocks], rows) for name in blocks[0].z},
        )

    def _block(self, chunk: int, start: int, rng: np.random.Generator) -> DrawnChunk:
        # Always whole blocks, whatever number of rows is wanted: the stream of a chunk must not
        # depend on it.
        theta = self.prior.sample(min(BLOCK_ROWS, self.chunk_size - start), rng)
        try:
            if self.simulator.is_two_stage:
                z = self.simulator.simulate_latent(theta, rng)
                return DrawnChunk(theta, self.simulator.observe(z, theta, rng), z)
            return DrawnChunk(theta, self.simulator.simulate(theta, rng), {})
        except Exception as error:  # a simulator may fail in any way; say where
            raise ContractError(
                f"simulator {self.simulator.name!r} failed in chunk {chunk} of round "
                f"{self.round} (seed {self.seed}, purpose {self.purpose!r}), rows {start} to "
                f"{start + len(theta) - 1}, {_ranges(self.prior, theta)}: "
                f"{type(error).__name__}: {error}"
            ) from error


def simulate(
    simulator: Simulator | str,
    n: int,
    *,
    store: str | Path | SimulationStore | None = None,
    prior: Prior | None = None,
    seed: int | None = None,
    workers: int = 1,
    executor: str | Executor | None = None,
    purpose: str = "train",
    round: int = 0,
    chunk_size: int | None = None,
    progress: Progress | None = None,
) -> Simulations:
    """Simulate, or finish what an earlier call began.

    Args:
        simulator: A simulator or its registered name.
        n: Number of rows, including failed ones.
        store: Folder of the store (resumed if it exists), an open store, or None for memory.
        prior: What to draw from, over the same parameters; None for the simulator's own.
        seed: Seed of everything; None takes an existing store's, or a fresh one.
        workers: Number of local processes.
        executor: `serial`, `processes` or an `Executor`; None chooses by the number of workers.
        purpose: What they are for; streams of different purposes never overlap.
        round: Round of sequential inference.
        chunk_size: Rows of a chunk, the unit of commit; None takes an existing store's, or 256.
        progress: Where to show progress; None for a bar on a terminal.

    Returns:
        The valid ones among the first `n` rows of the round.

    Raises:
        ContractError: If the simulator raises, or more rows than its `max_failure_fraction` are
            not finite.
        StoreMismatchError: If the store was made from something else.
        StoreLockedError: If another process is writing to it.
        WorkerError: If a worker process dies.
        KeyboardInterrupt: On Ctrl-C, saying how many rows are safe.

    Example:
        >>> import sbi_physics as sp
        >>> simulations = sp.simulate("toy-gaussian", 100, seed=1)
        >>> len(simulations)
        100
    """
    if isinstance(simulator, str):
        from sbi_physics import registry

        simulator = registry.simulator(simulator)
    n, round = _count("n", n), _count("round", round)
    chosen_prior = simulator.prior if prior is None else prior
    if chosen_prior.names != simulator.parameters.names:
        raise ContractError(
            f"the prior is over ({', '.join(chosen_prior.names)}); simulator {simulator.name!r} "
            f"needs ({', '.join(simulator.parameters.names)}), in this order"
        )
    runner = executor_from(executor, workers)
    header = _header(simulator, chosen_prior, store, seed, purpose, round, chunk_size)
    with _opened(store, header) as opened:
        opened.begin_round(round, chosen_prior)
        assert header.seed is not None
        source = ChunkSource(
            simulator, chosen_prior, header.seed, purpose, round, header.chunk_size
        )
        _fill(opened, source, n, runner, rich_progress() if progress is None else progress)
        simulations = opened.simulations((round,), n=n, simulator=simulator, prior=chosen_prior)
    _check_failures(simulations, simulator, opened)
    return simulations


@contextlib.contextmanager
def store_for(
    simulator: Simulator,
    store: str | Path | SimulationStore | None,
    *,
    prior: Prior,
    seed: int | None,
    purpose: str = "train",
    chunk_size: int | None = None,
) -> Iterator[SimulationStore]:
    """Open the store that `simulate` would fill, for several calls of it.

    Args:
        simulator: The simulator.
        store: Folder of the store (made if needed), an open store, or None for memory.
        prior: Prior of round 0.
        seed: Seed of everything; None takes an existing store's, or a fresh one.
        purpose: What the simulations are for.
        chunk_size: Rows of a chunk; None takes an existing store's, or the default.

    Raises:
        StoreMismatchError: If the store was made from something else.
        StoreLockedError: If another process is writing to it.
    """
    with _opened(store, _header(simulator, prior, store, seed, purpose, 0, chunk_size)) as opened:
        yield opened


def _fill(
    store: SimulationStore, source: ChunkSource, n: int, executor: Executor, progress: Progress
) -> None:
    """Draw and commit the missing chunks."""
    round, size = source.round, source.chunk_size
    wanted = [(chunk, min(size, n - start)) for chunk, start in enumerate(range(0, n, size))]
    missing = [(chunk, rows) for chunk, rows in wanted if store.chunk_rows(round, chunk) < rows]
    if not missing:
        return
    store.reserve(round, n)
    total = sum(rows for _, rows in missing)
    with progress.task(f"simulating {source.simulator.name}", total, "simulations") as task:
        try:
            _run(store, source, missing, executor, task)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(_rescue(store, wanted, round, n, "Interrupted")) from None
        except SbiPhysicsError as error:
            raise type(error)(f"{error}. {_rescue(store, wanted, round, n, 'Stopped')}") from error


def _run(
    store: SimulationStore,
    source: ChunkSource,
    missing: list[tuple[int, int]],
    executor: Executor,
    task: Task,
) -> None:
    done = invalid = 0
    with contextlib.closing(executor.map_unordered(source, missing)) as results:
        for index, drawn in results:
            chunk, rows = missing[index]
            entry = store.append(source.round, chunk, drawn.theta, drawn.x, drawn.z)
            done, invalid = done + rows, invalid + entry.invalid
            task.advance(rows, f"{invalid} invalid" if invalid else "")
            if invalid == done and rows == source.chunk_size:
                raise ContractError(
                    f"all {invalid} simulations of {source.simulator.name!r} so far are "
                    f"non-finite ({_ranges(source.prior, drawn.theta)}); not going on"
                )


def _header(
    simulator: Simulator,
    prior: Prior,
    store: str | Path | SimulationStore | None,
    seed: int | None,
    purpose: str,
    round: int,
    chunk_size: int | None,
) -> StoreHeader:
    """What the store must have been made from; an existing one fills what the call omits."""
    if isinstance(store, SimulationStore):
        present: StoreHeader | None = store.header
    else:
        present = None if store is None else SimulationStore.header_of(store)
    if seed is None:
        seed = fresh_seed() if present is None or present.seed is None else present.seed
    if chunk_size is None:
        chunk_size = (
            default_chunk_size(simulator.observable) if present is None else present.chunk_size
        )
    return StoreHeader(
        simulator=simulator.identity,
        # Later rounds have priors of their own; the store's header keeps the first.
        prior=prior if present is None or round == 0 else present.prior,
        observable=simulator.observable,
        seed=check_seed(seed),
        purpose=purpose,
        chunk_size=chunk_size,
    )


@contextlib.contextmanager
def _opened(
    store: str | Path | SimulationStore | None, header: StoreHeader
) -> Iterator[SimulationStore]:
    if isinstance(store, SimulationStore):
        store.header.require(header, "the given store")
        yield store
    elif store is None:
        yield SimulationStore.open(None, "a", header)
    else:
        with SimulationStore.open(store, "a", header) as opened:
            yield opened


def _check_failures(
    simulations: Simulations, simulator: Simulator, store: SimulationStore
) -> None:
    """Refuse more failed rows than the simulator declares; the data stay where they are."""
    bad, n = simulations.n_invalid, simulations.n_simulated
    if bad == 0 or (bad < n and bad <= simulator.max_failure_fraction * n):
        return
    failed = simulations.invalid_theta()
    kept = (
        f"The {n - bad} valid ones can be had with "
        f"SimulationStore.open({str(store.path)!r}).simulations(). "
        if store.path is not None and bad < n
        else ""
    )
    raise ContractError(
        f"{bad} of {n} simulations of {simulator.name!r} ({bad / n:.2%}) are non-finite; it "
        f"declares at most {simulator.max_failure_fraction:.2%} (max_failure_fraction). They "
        f"have {_ranges(simulations.prior, failed)}. {kept}Mend the simulator, narrow the prior, "
        "or raise max_failure_fraction"
    )


def _rescue(
    store: SimulationStore, wanted: list[tuple[int, int]], round: int, n: int, what: str
) -> str:
    safe = sum(min(rows, store.chunk_rows(round, chunk)) for chunk, rows in wanted)
    if store.path is None:
        return (
            f"{what} after {safe} of {n} simulations, kept in memory only; with store=<folder> "
            "they could be resumed"
        )
    return (
        f"{what}: {safe} of {n} simulations are safe in {store.path}; the same call resumes there"
    )


def _ranges(prior: Prior, theta: FloatArray) -> str:
    """Parameter ranges of some rows, as 'm_a 0.1 to 3.2 neV'."""
    spans = [
        f"{p.name} {low:.4g} to {high:.4g}{' ' + p.unit if p.unit else ''}"
        for p, low, high in zip(
            prior.parameters, theta.min(axis=0), theta.max(axis=0), strict=True
        )
    ]
    return f"theta: {', '.join(spans)}"


def _joined(blocks: list[Any], rows: int) -> Any:
    return np.concatenate(blocks)[:rows]


def _count(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
        raise ContractError(f"{name} must be a non-negative integer, got {value!r}")
    return int(value)
