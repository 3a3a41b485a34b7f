"""Tasks for worker processes; light to import."""

from __future__ import annotations

import os
import signal
import sys
import time

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


class Unsendable(Exception):
    def __init__(self, a, b):
        super().__init__(f"{a} and {b}")


class Refuses:
    def __call__(self, task):
        return task

    def __reduce__(self):
        return explode, ()


def explode():
    raise RuntimeError("no such class here")


def square(task):
    return task * task


def report(task):
    """Process, its thread limits, and whether it hears Ctrl-C."""
    deaf = signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    return os.getpid(), [os.environ.get(name) for name in THREADS], deaf


def misbehave(task):
    if task == "raise":
        raise ValueError("three is a crowd")
    if task == "unsendable":
        raise Unsendable(1, 2)
    if task == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if task == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if task == "exit":
        sys.exit(3)
    if task == "sleep":
        time.sleep(60)
    return task
