"""Failed rows, exceptions, interruptions and kills: what was simulated stays, and is resumed."""

from __future__ import annotations

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
from sample_simulators import Hopeless, Killed, Line, Patchy, RaisesOnce, StrictPatchy, TwoStage
from sample_stores import Watch, content, files

from sbi_physics.errors import ContractError, StoreLockedError, WorkerError
from sbi_physics.simulate import simulate
from sbi_physics.store import SimulationStore

TESTS = Path(__file__).parent


def ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)


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
