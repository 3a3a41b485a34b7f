"""simulate(): the same rows however they are made, and never a half of anything."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import zarr

sys.path.insert(0, str(Path(__file__).parent))
from sample_simulators import (
    Hopeless,
    Killed,
    Line,
    Patchy,
    RaisesOnce,
    StrictPatchy,
    TwoStage,
)

from sbi_physics.errors import (
    ContractError,
    StoreLockedError,
    StoreMismatchError,
    UnknownNameError,
    WorkerError,
)
from sbi_physics.executors import SerialExecutor
from sbi_physics.parameters import ParameterSpace
from sbi_physics.priors import Prior
from sbi_physics.seeding import generator
from sbi_physics.simulate import BLOCK_ROWS, simulate
from sbi_physics.store import Simulations, SimulationStore, StoreHeader

TESTS = Path(__file__).parent


def content(source):
    """Bytes of every array, from simulations or from a store's folder by way of plain zarr."""
    if isinstance(source, Simulations):
        rows = source.read(slice(None))
        arrays = {"theta": rows.theta, "x": rows.x, **rows.z}
    else:
        group = zarr.open_group(source, mode="r")
        arrays = {name: group[name][:] for name in ("theta", "x")}
        arrays |= {name: a[:] for name, a in group["z"].arrays()} if "z" in group else {}
    return {name: values.tobytes() for name, values in arrays.items()}


def files(folder):
    """Content of every chunk file of a store."""
    return {p.relative_to(folder): p.read_bytes() for p in folder.glob("**/c/**/*") if p.is_file()}


class Backwards(SerialExecutor):
    """The last task first."""

    def map_unordered(self, function, tasks):
        for index in reversed(range(len(tasks))):
            yield index, function(tasks[index])


class Watch:
    """A progress display that records, and can act after some chunks."""

    def __init__(self, act_after=None, action=None):
        self.tasks, self.advances, self.notes = [], [], []
        self._act_after, self._action = act_after, action

    @contextlib.contextmanager
    def task(self, description, total, unit="it"):
        self.tasks.append((description, total, unit))
        yield self

    def advance(self, n=1, note=""):
        self.advances.append(n)
        self.notes.append(note)
        if len(self.advances) == self._act_after:
            self._action()


def ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)


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


# Failures ----------------------------------------------------------------------------------------


def test_failed_rows_are_stored_counted_reported_and_never_served(tmp_path):
    watch = Watch()
    simulations = simulate(Patchy(), 600, seed=1, store=tmp_path / "s", progress=watch)
    assert 60 < simulations.n_invalid < 180
    assert len(simulations) == 600 - simulations.n_invalid
    assert np.isfinite(simulations.x).all()
    assert (simulations.theta[:, 0] <= 1.4).all()
    assert (simulations.invalid_theta()[:, 0] > 1.4).all()
    assert watch.notes[-1] == f"{simulations.n_invalid} invalid"
    assert zarr.open_group(tmp_path / "s", mode="r")["valid"][:].sum() == len(simulations)


def test_more_failures_than_declared_are_an_error_but_the_data_stay(tmp_path):
    with pytest.raises(ContractError) as info:
        simulate(StrictPatchy(), 300, seed=1, store=tmp_path / "s")
    text = str(info.value)
    assert "of 300 simulations of 'strict-patchy'" in text
    assert "at most 1.00% (max_failure_fraction)" in text
    assert "theta: a 1.4" in text
    kept = SimulationStore.open(tmp_path / "s").simulations()
    assert kept.n_simulated == 300
    assert f"{kept.n_invalid} of 300" in text


def test_a_simulator_that_always_fails_is_stopped_early(tmp_path):
    with pytest.raises(ContractError, match=r"all 32 simulations of 'hopeless' so far"):
        simulate(Hopeless(), 10_000, seed=1, store=tmp_path / "s", chunk_size=32)
    assert SimulationStore.open(tmp_path / "s").n_rows() == 32
    with pytest.raises(ContractError, match=r"5 of 5 simulations of 'hopeless' \(100.00%\)"):
        simulate(Hopeless(), 5, seed=1)


@pytest.mark.parametrize("executor", ["serial", "processes"])
def test_an_exception_says_where_and_earlier_chunks_stay(tmp_path, monkeypatch, executor):
    mended = tmp_path / "mended"
    monkeypatch.setenv("MENDED", str(mended))
    arguments = {"seed": 3, "store": tmp_path / "s", "chunk_size": 20}
    with pytest.raises(ContractError) as info:
        simulate(RaisesOnce(), 200, **arguments, executor=executor)
    text = str(info.value)
    for part in (
        "simulator 'raises-once' failed in chunk",
        "seed 3",
        "theta: a ",
        " m/s: ZeroDivisionError: the bar is bent",
        "the same call resumes there",
    ):
        assert part in text
    safe = SimulationStore.open(tmp_path / "s").n_rows()
    assert f"{safe} of 200 simulations are safe" in text
    assert multiprocessing.active_children() == []
    mended.touch()
    assert content(simulate(RaisesOnce(), 200, **arguments)) == content(
        simulate(RaisesOnce(), 200, seed=3, chunk_size=20)
    )


def test_a_worker_killed_by_the_system_is_reported(tmp_path):
    with pytest.raises(WorkerError, match=r"SIGKILL.*0 of 100 simulations are safe in"):
        simulate(Killed(), 100, seed=1, store=tmp_path / "s", executor="processes", chunk_size=50)
    assert SimulationStore.open(tmp_path / "s").n_rows() == 0


@pytest.mark.parametrize("executor", ["serial", "processes"])
def test_ctrl_c_leaves_a_resumable_store_and_no_workers(tmp_path, executor):
    arguments = {"seed": 1, "store": tmp_path / "s", "chunk_size": 20}
    with pytest.raises(KeyboardInterrupt) as info:
        simulate(Line(), 200, **arguments, executor=executor, progress=Watch(3, ctrl_c))
    safe = SimulationStore.open(tmp_path / "s").n_rows()
    assert 60 <= safe < 200
    assert str(info.value) == (
        f"Interrupted: {safe} of 200 simulations are safe in {tmp_path / 's'}; "
        "the same call resumes there"
    )
    assert multiprocessing.active_children() == []
    assert content(simulate(Line(), 200, **arguments)) == content(
        simulate(Line(), 200, seed=1, chunk_size=20)
    )
    with pytest.raises(KeyboardInterrupt, match="kept in memory only"):
        simulate(Line(), 200, chunk_size=20, progress=Watch(3, ctrl_c))


# Kill -9 -----------------------------------------------------------------------------------------

KILL_LOOP = """
    import os, random, signal, sys, time
    import numcodecs.zstd, zarr
    from sample_simulators import TwoStage
    from sbi_physics.simulate import simulate
    path, rng = sys.argv[1], random.Random(int(sys.argv[2]))
    kills = 0
    while True:
        child = os.fork()
        if child == 0:
            simulate(TwoStage(), 6000, store=path, seed=3, chunk_size=40)
            os._exit(0)
        # Ever later on average, so that the loop ends on a busy machine too.
        time.sleep(rng.expovariate(1.0) * 0.03 * 1.1**kills)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if status == 0:
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        kills += 1
    print(kills)
"""


def python(code, *arguments):
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )


def test_killed_at_random_moments_the_store_ends_up_the_same(tmp_path):
    seed = random.SystemRandom().randrange(10**6)
    process = python(KILL_LOOP, tmp_path / "killed", seed)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert int(out) >= 3, f"only {out} kills with seed {seed}"
    simulate(TwoStage(), 6000, store=tmp_path / "whole", seed=3, chunk_size=40)
    killed = SimulationStore.open(tmp_path / "killed")
    killed.verify()
    assert content(tmp_path / "killed") == content(tmp_path / "whole"), seed
    assert files(tmp_path / "killed") == files(tmp_path / "whole"), seed
    assert (
        killed.simulations().digest() == simulate(TwoStage(), 6000, seed=3, chunk_size=40).digest()
    )


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
def test_workers_do_not_outlive_a_killed_parent(tmp_path):
    path = tmp_path / "s"
    process = python(
        """
        import sys
        from sample_simulators import Line
        from sbi_physics.simulate import simulate
        simulate(Line(seconds_per_row=0.002), 4000, store=sys.argv[1], seed=3, chunk_size=50,
                 workers=2)
        """,
        path,
    )
    try:
        index = path / "valid" / "index.jsonl"
        await_true(lambda: index.exists() and index.read_bytes().count(b"commit") >= 2)
        with pytest.raises(StoreLockedError, match=f"process {process.pid} "):
            simulate(Line(seconds_per_row=0.002), 4000, store=path)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        workers = [
            pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
    finally:
        process.kill()
        process.communicate()
    assert len(workers) == 2
    await_true(lambda: not any(alive(pid) for pid in workers))
    safe = SimulationStore.open(path).n_rows()
    assert safe < 4000
    # Speed is an option of the simulator, so the resumed run must be as slow; finish a part of it.
    resumed = simulate(Line(seconds_per_row=0.002), safe + 70, store=path)
    plain = simulate(Line(), safe + 70, seed=3, chunk_size=50)
    assert (resumed.theta.tobytes(), resumed.x.tobytes()) == (
        plain.theta.tobytes(),
        plain.x.tobytes(),
    )


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def await_true(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


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
