"""The store: what is appended is read back, by rows and rounds, without loading the rest."""

from __future__ import annotations

import json
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from sample_simulators import Line, TwoStage, Wide
from sample_stores import SIZE, fill, header_of, rows_of, store_of_three_chunks

from sbi_physics.errors import ContractError, StoreError, StoreMismatchError, UnknownNameError
from sbi_physics.simulate import simulate
from sbi_physics.store import SimulationStore, StoreHeader


@pytest.fixture
def folder(tmp_path):
    return store_of_three_chunks(tmp_path / "line.zarr")


# Round trip --------------------------------------------------------------------------------------


@given(
    sizes=st.lists(st.integers(1, SIZE), min_size=1, max_size=4),
    order=st.randoms(use_true_random=False),
)
@settings(max_examples=15)
def test_what_is_appended_in_any_order_is_read_back_in_order(tmp_path_factory, sizes, order):
    chunks = {k: rows_of(Line(), n, seed=k) for k, n in enumerate(sizes)}
    sequence = list(chunks)
    order.shuffle(sequence)
    for path in (None, tmp_path_factory.mktemp("store") / "s"):
        with SimulationStore.open(path, "a", header_of()) as store:
            for chunk in sequence:
                store.append(0, chunk, *chunks[chunk])
            simulations = store.simulations()
        expected = [np.concatenate([chunks[k][i] for k in chunks]) for i in (0, 1)]
        assert simulations.theta.tobytes() == expected[0].tobytes()
        assert simulations.x.tobytes() == expected[1].tobytes()


def test_plain_zarr_reads_the_same_arrays_without_warnings(tmp_path):
    simulations = simulate(TwoStage(), 25, store=tmp_path / "s", seed=1, chunk_size=SIZE)
    group = zarr.open_group(tmp_path / "s", mode="r")
    assert sorted(name for name, _ in group.members()) == [
        "round", "theta", "valid", "weight", "x", "z",
    ]  # fmt: skip
    rows = simulations.read(slice(None))
    np.testing.assert_array_equal(group["theta"][:], rows.theta)
    np.testing.assert_array_equal(group["x"][:], rows.x)
    np.testing.assert_array_equal(group["z/true"][:], rows.z["true"])
    np.testing.assert_array_equal(group["z/count"][:], rows.z["count"])
    np.testing.assert_array_equal(group["valid"][:], np.ones(25, bool))
    np.testing.assert_array_equal(group["weight"][:], np.ones(25))
    np.testing.assert_array_equal(group["round"][:], np.zeros(25))
    assert group["theta"].attrs["units"] == ["m", "m/s"]


def test_any_rows_can_be_asked_for(folder):
    simulations = SimulationStore.open(folder).simulations()
    theta, x = simulations.theta, simulations.x
    for rows in ([0], [24, 3, 3, 11], np.arange(5, 25, 7), []):
        some = simulations.read(np.array(rows, dtype=int))
        np.testing.assert_array_equal(some.theta, theta[rows])
        np.testing.assert_array_equal(some.x, x[np.array(rows, dtype=int)])
    some = simulations.read(slice(8, 22, 3))
    np.testing.assert_array_equal(some.theta, theta[8:22:3])
    blocks = list(simulations.blocks(7))
    assert [len(b) for b in blocks] == [7, 7, 7, 4]
    np.testing.assert_array_equal(np.concatenate([b.x for b in blocks]), x)
    with pytest.raises(ContractError, match=r"row 25 is out of range: there are 25"):
        simulations.read([3, 25])
    with pytest.raises(UnknownNameError, match="latent 'true'"):
        simulations.read([1], latents=["true"])


def test_latents_come_back_with_their_types_and_only_when_asked_for():
    simulations = simulate(TwoStage(), 20, seed=1)
    rows = simulations.read(slice(0, 5))
    assert simulations.latents == ("count", "true")
    assert (rows.z["true"].dtype, rows.z["true"].shape) == (np.float32, (5, 3))
    assert rows.z["count"].dtype == np.int64
    assert set(simulations.read([1], latents=["true"]).z) == {"true"}
    assert simulations.read([], latents=["true"]).z["true"].shape == (0, 3)
    taken = rows.take(np.array([4, 0]))
    np.testing.assert_array_equal(taken.z["count"], rows.z["count"][[4, 0]])


def test_weights_are_none_until_a_chunk_has_some():
    theta, x = rows_of(Line(), 3, seed=0)
    store = SimulationStore.open(None, "a", header_of())
    store.append(0, 0, theta, x)
    assert store.simulations().read(slice(None)).weight is None
    store.append(0, 1, theta, x, weight=[0.5, 2.0, 0.0])
    np.testing.assert_array_equal(
        store.simulations().read(slice(None)).weight, [1, 1, 1, 0.5, 2, 0]
    )
    with pytest.raises(ContractError, match="weights"):
        store.append(0, 2, theta, x, weight=[1.0, -1.0, 1.0])


def test_rows_that_are_not_finite_or_not_selected_are_kept_apart():
    theta, x = rows_of(Line(), 6, seed=0)
    x[1, 2] = np.nan
    x[4] = np.inf
    store = SimulationStore.open(None, "a", header_of())
    store.append(0, 0, theta, x, valid=[True, True, False, True, True, True])
    fill(store, [1], rows=4)
    simulations = store.simulations()
    assert (len(simulations), simulations.n_invalid, simulations.n_simulated) == (7, 3, 10)
    assert simulations.valid_fraction == pytest.approx(0.7)
    np.testing.assert_array_equal(simulations.theta[:3], theta[[0, 3, 5]])
    np.testing.assert_array_equal(simulations.read([1, 3]).x[0], x[3])
    np.testing.assert_array_equal(simulations.invalid_theta(), theta[[1, 2, 4]])
    assert np.isfinite(simulations.x).all()


def test_a_latent_that_is_not_finite_makes_its_row_invalid():
    theta, x = rows_of(Line(), 3, seed=0)
    store = SimulationStore.open(None, "a", header_of())
    store.append(0, 0, theta, x, {"z": np.array([1.0, np.nan, 2.0])})
    assert store.simulations().n_invalid == 1


def test_reading_a_few_rows_of_a_big_store_needs_little_memory(tmp_path):
    n, row = 4000, 2000 * 4
    simulations = simulate(Wide(), n, store=tmp_path / "wide", seed=1)
    list(simulations.blocks(10))  # imports and caches are not what is measured
    tracemalloc.start()
    try:
        simulations.read([1, n // 2, n - 1])
        assert tracemalloc.get_traced_memory()[1] < 4 * 256 * row
        tracemalloc.reset_peak()
        total = sum(len(block) for block in simulations.blocks(100))
        assert tracemalloc.get_traced_memory()[1] < 4 * 256 * row < 0.3 * n * row
    finally:
        tracemalloc.stop()
    assert total == n


def test_an_empty_store_is_a_store(tmp_path):
    SimulationStore.open(tmp_path / "s", "a", header_of()).close()
    simulations = SimulationStore.open(tmp_path / "s").simulations()
    assert len(simulations) == 0
    assert simulations.theta.shape == (0, 2)
    assert simulations.x.shape == (0, 4)
    assert simulations.valid_fraction == 1.0
    assert "0 valid of 0" in repr(simulations)


# Rounds and extension ----------------------------------------------------------------------------


def test_rounds_have_their_own_rows_and_priors(tmp_path):
    narrow = Line().prior.truncate({"a": (0.0, 1.0)})
    first = simulate(Line(), 25, store=tmp_path / "s", seed=1, chunk_size=SIZE)
    second = simulate(
        Line(), 15, store=tmp_path / "s", seed=1, round=1, prior=narrow, chunk_size=SIZE
    )
    more = simulate(Line(), 38, store=tmp_path / "s", seed=1, chunk_size=SIZE)
    assert second.rounds == (1,)
    assert second.prior == narrow
    assert narrow.contains(second.theta).all()
    np.testing.assert_array_equal(more.theta[:25], first.theta)
    store = SimulationStore.open(tmp_path / "s")
    assert (store.n_rows(), store.n_rows(0), store.n_rows(1)) == (53, 38, 15)
    assert store.rounds == (0, 1)
    assert store.committed(1) == {0, 1}
    np.testing.assert_array_equal(store.simulations([1]).theta, second.theta)
    assert (
        store.simulations([0]).digest() == simulate(Line(), 38, seed=1, chunk_size=SIZE).digest()
    )
    group = zarr.open_group(tmp_path / "s", mode="r")
    round_1 = group["theta"][:][(group["round"][:] == 1) & group["valid"][:]]
    np.testing.assert_array_equal(round_1, second.theta)
    with pytest.raises(StoreError, match="different priors"):
        store.simulations()
    with pytest.raises(StoreError, match=r"has rounds \[0, 1\], asked for \[4\]"):
        store.simulations([4])
    with pytest.raises(StoreMismatchError, match=r"round 1 .* high: the store has 1.0, asked"):
        simulate(
            Line(), 15, store=tmp_path / "s", seed=1, round=1,
            prior=Line().prior.truncate({"a": (0.0, 0.5)}),
        )  # fmt: skip


def test_a_chunk_is_written_once_unless_it_grows(folder):
    with SimulationStore.open(folder, "a") as store:
        before = store.simulations()
        with pytest.raises(ContractError, match=r"chunk 1 of round 0 .* exists, with 10 rows"):
            fill(store, [1])
        theta, x = rows_of(Line(), SIZE, seed=9)
        theta[:5], x[:5] = before.theta[20:], before.x[20:]
        store.append(0, 2, theta, x)
        assert store.n_rows() == 30
        # A snapshot taken earlier goes on with the rows it had.
        np.testing.assert_array_equal(before.theta[20:], theta[:5])


# On disk -----------------------------------------------------------------------------------------


def test_committing_costs_little_of_simulating(tmp_path):
    rng = np.random.default_rng(0)
    simulator = TwoStage()
    header = StoreHeader(simulator.identity, simulator.prior, simulator.observable, seed=1)
    theta = simulator.prior.sample(256, rng)
    wide = {"p": rng.random((256, 461), dtype=np.float32)}
    seconds = []
    with SimulationStore.open(tmp_path / "s", "a", header) as store:
        for chunk in range(12):
            start = time.process_time()
            store.append(0, chunk, theta, np.zeros((256, 4)), wide)
            seconds.append(time.process_time() - start)
    # A simulator that fills such latents takes at least 5 ms a row; 5 % of that is 64 ms a chunk.
    assert np.median(seconds) < 0.05 * 256 * 0.005


def test_the_index_is_plain_text_that_a_person_can_read(tmp_path):
    simulate(Line(), 20, store=tmp_path / "s", seed=1, chunk_size=10)
    lines = (tmp_path / "s" / "valid" / "index.jsonl").read_text().splitlines()
    records = [json.loads(line.partition(" ")[2]) for line in lines]
    assert [r["op"] for r in records] == ["reserve", "commit", "commit"]
    assert records[1]["rows"] == 10
