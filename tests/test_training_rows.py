"""Rows for training: the same from memory and from disk, with their weights."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from sample_training import NUMBERED, PRIOR, TINY, data, numbered, rows

from sbi_physics.store import Simulations, SimulationStore, StoreHeader

# Memory and disk ---------------------------------------------------------


def by_row(batches) -> dict[int, tuple[list[float], list[float]]]:
    found = {}
    for batch in batches:
        for u, x in zip(batch.u, batch.x, strict=True):
            found[int(x[0])] = (u.tolist(), x.tolist())
    return found


def test_disk_and_memory_give_the_same_rows(tmp_path):
    theta = PRIOR.sample(5000, np.random.default_rng(0))
    x = np.column_stack([np.arange(5000), theta[:, 0]])
    with SimulationStore.open(
        tmp_path / "s.zarr", "a", StoreHeader(None, PRIOR, NUMBERED, 1, chunk_size=512)
    ) as store:
        for k, start in enumerate(range(0, 5000, 512)):
            part = slice(start, start + 512)
            store.append(0, k, theta[part], x[part], valid=x[part, 0] % 7 > 0)
        simulations = store.simulations()
    memory, disk = data(simulations), data(simulations, memory_gb=TINY)
    assert len(simulations) == np.count_nonzero(x[:, 0] % 7)
    assert disk.transform == memory.transform
    assert rows(disk.validation()) == rows(memory.validation())
    in_memory = by_row(memory.epoch(0))
    assert by_row(disk.epoch(0)) == in_memory
    assert not any(row % 7 == 0 for row in in_memory)
    assert rows(disk.epoch(0)) == rows(disk.epoch(0))
    assert rows(disk.epoch(0)) != rows(disk.epoch(1))


def test_on_disk_rows_are_mixed_beyond_their_neighbourhood(tmp_path):
    simulations = numbered(40_000)
    order = np.array(rows(data(simulations, memory_gb=TINY).epoch(0)))
    # Rows are read in pieces of 1024 neighbours, 16 pieces at once, and shuffled together: within
    # a batch of 256 most of the 16 pieces must appear.
    pieces = [len(set(order[i : i + 256] // 1100)) for i in range(0, 16_384 - 256, 256)]
    assert min(pieces) >= 12


def test_the_memory_limit_counts_what_is_kept(monkeypatch):
    reads = []
    simulations = numbered(1000)
    original = Simulations.read

    def counted(self, rows, **kwargs):
        reads.append(len(np.arange(len(self))[rows]))
        return original(self, rows, **kwargs)

    monkeypatch.setattr(Simulations, "read", counted)
    row_bytes = 2 * 8 + 2 * 4
    for limit, touches_disk in [(1001 * row_bytes, False), (999 * row_bytes, True)]:
        made = data(simulations, memory_gb=limit / 1e9)
        reads.clear()
        list(made.epoch(0))
        assert bool(reads) == touches_disk


# Weights -----------------------------------------------------------------


def weighted(n: int, weight) -> Simulations:
    theta = PRIOR.sample(n, np.random.default_rng(0))
    store = SimulationStore.open(None, "a", StoreHeader(None, PRIOR, NUMBERED, 1, chunk_size=n))
    store.append(
        0, 0, theta, np.column_stack([np.arange(n), theta[:, 0]]), weight=weight(np.arange(n))
    )
    return store.simulations()


@pytest.mark.parametrize("memory_gb", [1.0, TINY])
def test_weights_stay_with_their_rows(memory_gb):
    made = data(weighted(300, lambda i: 1.0 + i), memory_gb=memory_gb, batch_size=32)
    for batch in [*made.epoch(0), *made.validation(), made.sample_rows(9)]:
        assert batch.weight.dtype == np.float32
        assert np.array_equal(batch.weight, 1.0 + batch.x[:, 0])


@pytest.mark.parametrize("memory_gb", [1.0, TINY])
def test_weights_of_one_are_left_out(memory_gb):
    made = data(weighted(300, np.ones_like), memory_gb=memory_gb)
    assert all(b.weight is None for b in [*made.epoch(0), *made.validation()])
