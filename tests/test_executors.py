"""Executors: every task is done once, failures say what happened, and nobody is left behind."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from sample_tasks import THREADS, Refuses, misbehave, report, square

from sbi_physics.errors import ContractError, UnknownNameError, WorkerError
from sbi_physics.executors import (
    Executor,
    ProcessExecutor,
    SerialExecutor,
    executor_from,
)


def test_serial_work_is_done_here_and_in_order():
    assert list(SerialExecutor().map_unordered(square, [3, 1, 2])) == [(0, 9), (1, 1), (2, 4)]


def test_processes_do_every_task_once():
    results = list(ProcessExecutor(2).map_unordered(square, range(50)))
    assert sorted(results) == [(i, i * i) for i in range(50)]
    assert multiprocessing.active_children() == []


def test_workers_are_other_processes_with_one_thread_each_and_deaf_to_ctrl_c(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    before = dict(os.environ)
    answers = [answer for _, answer in ProcessExecutor(2).map_unordered(report, range(8))]
    assert os.environ == before
    assert all(threads == ["1"] * len(THREADS) and deaf for _, threads, deaf in answers)
    assert os.getpid() not in {pid for pid, _, _ in answers}
    assert not report(None)[2]


def test_no_tasks_need_no_workers():
    assert list(ProcessExecutor(4).map_unordered(square, [])) == []


def test_there_are_never_more_workers_than_tasks():
    pids = {answer[0] for _, answer in ProcessExecutor(4).map_unordered(report, [0])}
    assert len(pids) == 1


@pytest.mark.parametrize(
    ("task", "error", "message"),
    [
        ("raise", ValueError, "three is a crowd"),
        ("unsendable", WorkerError, "Unsendable: 1 and 2"),
        ("kill", WorkerError, r"killed \(SIGKILL\), as .* when memory runs out. Use fewer"),
        ("segfault", WorkerError, "killed by SIGSEGV, probably in compiled code"),
        ("exit", WorkerError, r"exit code 3.*__main__"),
    ],
)
def test_a_failing_task_is_reported_and_stops_all_workers(task, error, message):
    faulthandler_was = faulthandler.is_enabled()
    start = time.monotonic()
    with pytest.raises(error, match=message):
        list(ProcessExecutor(2).map_unordered(misbehave, ["ok", task, "sleep", "sleep"]))
    assert time.monotonic() - start < 30
    assert multiprocessing.active_children() == []
    assert faulthandler.is_enabled() == faulthandler_was


def test_the_traceback_of_a_worker_is_shown():
    with pytest.raises(ValueError, match="crowd") as info:
        list(ProcessExecutor(1).map_unordered(misbehave, ["raise"]))
    assert 'raise ValueError("three is a crowd")' in str(info.value.__cause__)


def test_closing_early_stops_all_workers():
    results = ProcessExecutor(2).map_unordered(misbehave, ["ok", "sleep", "sleep", "sleep"])
    assert next(results) == (0, "ok")
    results.close()
    assert multiprocessing.active_children() == []


def test_what_cannot_travel_is_refused_before_any_work():
    with pytest.raises(ContractError, match=r"cannot send .*workers=1"):
        list(ProcessExecutor(2).map_unordered(lambda task: task, [1]))
    assert multiprocessing.active_children() == []


def test_what_cannot_be_rebuilt_in_a_worker_is_explained():
    with pytest.raises(ContractError, match=r"cannot rebuild .*no such class here.*workers=1"):
        list(ProcessExecutor(1).map_unordered(Refuses(), [1]))


def test_a_script_without_a_main_guard_is_told_so(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import sys
            sys.path.insert(0, {str(Path(__file__).parent)!r})
            from sample_tasks import square
            from sbi_physics.executors import ProcessExecutor
            print(list(ProcessExecutor(1).map_unordered(square, [1, 2])))
            """
        )
    )
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert run.returncode == 1
    assert "if __name__ == '__main__'" in run.stderr.splitlines()[-1]


def test_executors_are_chosen_by_name_object_or_number_of_workers():
    assert isinstance(executor_from(None, 1), SerialExecutor)
    several = executor_from(None, 3)
    assert isinstance(several, ProcessExecutor)
    assert several.workers == 3
    assert isinstance(executor_from("processes", 1), ProcessExecutor)
    assert isinstance(executor_from("serial", 1), SerialExecutor)
    own = SerialExecutor()
    assert executor_from(own, 1) is own
    assert isinstance(own, Executor)


@pytest.mark.parametrize(
    ("executor", "workers", "error", "message"),
    [
        ("proceses", 2, UnknownNameError, "Did you mean 'processes'"),
        ("serial", 2, ContractError, "serial executor has one worker, got workers=2"),
        (None, 0, ContractError, "positive integer, got 0"),
        (None, 1.5, ContractError, "positive integer, got 1.5"),
        (None, True, ContractError, "positive integer, got True"),
        (object(), 1, ContractError, "map_unordered"),
    ],
)
def test_executors_that_make_no_sense_are_refused(executor, workers, error, message):
    with pytest.raises(error, match=message):
        executor_from(executor, workers)
