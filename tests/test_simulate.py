"""simulate(): the same rows however they are made, and arguments that make no sense."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from sample_simulators import Line, Patchy, TwoStage
from sample_stores import Watch, content, files

from sbi_physics.errors import ContractError, StoreMismatchError, UnknownNameError
from sbi_physics.executors import SerialExecutor
from sbi_physics.parameters import ParameterSpace
from sbi_physics.priors import Prior
from sbi_physics.seeding import generator
from sbi_physics.simulate import BLOCK_ROWS, simulate
from sbi_physics.store import SimulationStore, StoreHeader


class Backwards(SerialExecutor):
    """The last task first."""

    def map_unordered(self, function, tasks):
        for index in reversed(range(len(tasks))):
            yield index, function(tasks[index])


# What comes out ----------------------------------------------------------------------------------


def test_a_chunk_is_drawn_from_its_own_stream():
    simulator = Line()
    simulations = simulate(simulator, 100, seed=3, chunk_size=40, purpose="pairs", round=2)
    expected = []
    for chunk in range(3):
        rng = generator(3, "pairs", 2, chunk)
        for start in range(0, 40, BLOCK_ROWS):
            theta = simulator.prior.sample(min(BLOCK_ROWS, 40 - start), rng)
            expected.append((theta, simulator.simulate(theta, rng)))
    np.testing.assert_array_equal(
        simulations.theta, np.concatenate([theta for theta, _ in expected])[:100]
    )
    np.testing.assert_array_equal(simulations.x, np.concatenate([x for _, x in expected])[:100])


@pytest.mark.parametrize("simulator", [Line(), TwoStage()], ids=["one-stage", "two-stage"])
def test_memory_disk_and_any_order_of_completion_agree_byte_for_byte(tmp_path, simulator):
    plain = simulate(simulator, 330, seed=1, chunk_size=50)
    simulate(simulator, 330, seed=1, chunk_size=50, store=tmp_path / "a")
    simulate(simulator, 330, seed=1, chunk_size=50, store=tmp_path / "b", executor=Backwards())
    assert content(tmp_path / "a") == content(tmp_path / "b") == content(plain)
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_one_and_two_workers_agree_byte_for_byte(tmp_path):
    for workers in (1, 2):
        simulate(
            TwoStage(), 500, seed=1, chunk_size=50, store=tmp_path / str(workers), workers=workers
        )
    assert content(tmp_path / "1") == content(tmp_path / "2")
    assert files(tmp_path / "1") == files(tmp_path / "2")
    SimulationStore.open(tmp_path / "2").verify()


@pytest.mark.parametrize("chunk_size", [None, 7, 64, 1000])
def test_fewer_rows_are_the_beginning_of_more(tmp_path, chunk_size):
    def some(n, store=None):
        return simulate(Patchy(), n, seed=1, chunk_size=chunk_size, store=store)

    steps = [some(n, tmp_path / "s") for n in (1, 100, 101, 640)]
    at_once = [some(n) for n in (1, 100, 101, 640)]
    back = [some(n, tmp_path / "s") for n in (1, 100, 101, 640)]
    for grown, fresh, cut in zip(steps, at_once, back, strict=True):
        assert content(grown) == content(fresh) == content(cut)
        assert grown.digest() == fresh.digest() == cut.digest()
        assert grown.n_invalid == fresh.n_invalid == cut.n_invalid
    assert content(at_once[3])["theta"].startswith(content(at_once[1])["theta"])


def test_a_thousand_then_two_and_a_half_thousand_equal_all_at_once(tmp_path):
    first = simulate(Line(), 1000, seed=1, store=tmp_path / "steps")
    second = simulate(Line(), 2500, seed=1, store=tmp_path / "steps")
    simulate(Line(), 2500, seed=1, store=tmp_path / "once")
    assert files(tmp_path / "steps") == files(tmp_path / "once")
    assert content(tmp_path / "steps") == content(tmp_path / "once") == content(second)
    np.testing.assert_array_equal(second.x[:1000], first.x)


@pytest.mark.parametrize("store", ["s", None])
def test_none_and_one_are_numbers_of_simulations_too(tmp_path, store):
    path = None if store is None else tmp_path / store
    none = simulate(TwoStage(), 0, seed=1, store=path)
    assert (len(none), none.theta.shape, none.x.shape) == (0, (0, 2), (0, 4))
    one = simulate(TwoStage(), 1, seed=1, store=path)
    assert (len(one), one.theta.shape, one.x.shape) == (1, (1, 2), (1, 4))
    assert one.read([0]).z["true"].shape == (1, 3)
    assert len(simulate(TwoStage(), 0, seed=1, store=path)) == 0


def test_a_finished_store_is_not_touched_again(tmp_path):
    simulate(Line(), 100, seed=1, store=tmp_path / "s")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "s").rglob("*") if p.is_file()}
    watch = Watch()
    again = simulate(Line(), 100, store=tmp_path / "s", progress=watch)
    after = {p: p.stat().st_mtime_ns for p in (tmp_path / "s").rglob("*") if p.is_file()}
    lock = tmp_path / "s" / "valid" / "lock"
    assert {p for p in after if after[p] != before.get(p)} <= {lock}
    assert (watch.tasks, again.seed, len(again)) == ([], 1, 100)


def test_a_seed_that_was_not_given_is_recorded_and_kept(tmp_path):
    first = simulate(Line(), 10, store=tmp_path / "s")
    more = simulate(Line(), 20, store=tmp_path / "s")
    assert first.seed == more.seed == SimulationStore.open(tmp_path / "s").header.seed
    np.testing.assert_array_equal(simulate(Line(), 20, seed=first.seed).theta, more.theta)
    assert simulate(Line(), 5).seed != simulate(Line(), 5).seed


def test_an_open_store_is_used_and_left_open(tmp_path):
    header = StoreHeader(Line().identity, Line().prior, Line().observable, seed=1)
    with SimulationStore.open(tmp_path / "s", "a", header) as store:
        assert len(simulate(Line(), 10, store=store)) == 10
        assert len(simulate(Line(), 30, store=store)) == 30
        with pytest.raises(StoreMismatchError, match="seed: the store has 1, asked for 2"):
            simulate(Line(), 30, store=store, seed=2)
        assert store.n_rows() == 30


def test_purposes_and_rounds_give_unrelated_rows():
    firsts = {
        simulate(Line(), 1, seed=1, purpose=purpose, round=round).theta.tobytes()
        for purpose in ("train", "test", "pairs")
        for round in (0, 1)
    }
    assert len(firsts) == 6


def test_a_custom_prior_is_drawn_from_and_recorded(tmp_path):
    narrow = Line().prior.truncate({"a": (0.5, 0.6)})
    fixed = Prior(ParameterSpace(narrow.parameters).fix({"b": 0.25}))
    simulations = simulate(Line(), 50, prior=fixed, seed=1, store=tmp_path / "s")
    assert ((simulations.theta[:, 0] > 0.5) & (simulations.theta[:, 0] < 0.6)).all()
    assert (simulations.theta[:, 1] == 0.25).all()
    assert SimulationStore.open(tmp_path / "s").simulations().prior == fixed
    with pytest.raises(StoreMismatchError, match=r"the store has 0\.5, asked for -1\.0"):
        simulate(Line(), 60, seed=1, store=tmp_path / "s")


def test_other_roles_and_labels_are_no_other_simulations(tmp_path):
    first = simulate(Line(), 20, seed=1, store=tmp_path / "s")
    other = Prior(Line().parameters.with_interest(["b"]))
    second = simulate(Line(), 30, prior=other, store=tmp_path / "s")
    assert (first.prior.parameters.interest, second.prior.parameters.interest) == (("a",), ("b",))
    assert second.digest() == simulate(Line(), 30, seed=1).digest()


def test_progress_counts_only_what_is_missing(tmp_path):
    simulate(Line(), 40, seed=1, store=tmp_path / "s", chunk_size=20)
    watch = Watch()
    simulate(Line(), 75, seed=1, store=tmp_path / "s", progress=watch)
    assert watch.tasks == [("simulating line", 35, "simulations")]
    assert watch.advances == [20, 15]


# Refusals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n": -1}, ContractError, "n must be a non-negative integer, got -1"),
        ({"n": 2.5}, ContractError, "n must be a non-negative integer, got 2.5"),
        ({"n": True}, ContractError, "got True"),
        ({"round": -1}, ContractError, "round must be"),
        ({"purpose": "pair"}, UnknownNameError, "Did you mean 'pairs'"),
        ({"seed": -3}, ContractError, "seed"),
        ({"chunk_size": 0}, ContractError, "chunk_size must be at least 1"),
        ({"workers": 0}, ContractError, "workers"),
        ({"executor": "slurm"}, UnknownNameError, "executor 'slurm'"),
        ({"simulator": "lien"}, UnknownNameError, "'lien'"),
        (
            {"prior": Prior(Line().parameters.select(["b", "a"]))},
            ContractError,
            r"prior is over \(b, a\); simulator 'line' needs \(a, b\)",
        ),
    ],
)
def test_arguments_that_make_no_sense_are_refused(tmp_path, arguments, error, message):
    arguments = {"simulator": Line(), "n": 10, **arguments}
    with pytest.raises(error, match=message):
        simulate(store=tmp_path / "s", **arguments)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("simulator", "arguments", "message"),
    [
        (Line(), {"seed": 2}, "seed: the store has 1, asked for 2"),
        (Line(), {"purpose": "pairs"}, "purpose: the store has 'train', asked for 'pairs'"),
        (Line(), {"chunk_size": 5}, "chunk_size: the store has 256, asked for 5"),
        (Line(noise=2.0), {}, "simulator options noise: the store has 0.5, asked for 2.0"),
        (Patchy(), {}, "simulator name: the store has 'line', asked for 'patchy'"),
    ],
)
def test_a_store_of_something_else_is_refused(tmp_path, simulator, arguments, message):
    simulate(Line(), 10, seed=1, store=tmp_path / "s")
    with pytest.raises(StoreMismatchError, match=message):
        simulate(simulator, 20, store=tmp_path / "s", **arguments)
    assert SimulationStore.open(tmp_path / "s").n_rows() == 10
