"""Where work runs: in this process, or in several on this machine.

An executor maps a function over tasks and yields results as they come. Workers are single-threaded
and fresh (spawned): no state is inherited but the environment, and results must not depend on
where a task runs.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from multiprocessing import connection
from multiprocessing.reduction import ForkingPickler
from typing import Any, Final, Protocol, TypeVar, runtime_checkable

from sbi_physics.errors import ContractError, WorkerError, unknown_name

Task = TypeVar("Task")
Result = TypeVar("Result")

EXECUTORS: Final = ("serial", "processes")

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
_IN_FLIGHT = 2
"""Tasks a worker holds: one at work, one ready, so that it never waits for a commit."""

_SECONDS_TO_STOP = 5.0
_starting = threading.Lock()


@runtime_checkable
class Executor(Protocol):
    """Something that runs tasks."""

    def map_unordered(
        self, function: Callable[[Task], Result], tasks: Sequence[Task]
    ) -> Generator[tuple[int, Result], None, None]:
        """Yield (index of the task, its result) in order of completion.

        An exception in a task is raised here and ends the run. Closing the generator stops all
        work.
        """


class SerialExecutor:
    """Runs tasks here, one after the other; thread counts stay as they are."""

    def map_unordered(
        self, function: Callable[[Task], Result], tasks: Sequence[Task]
    ) -> Generator[tuple[int, Result], None, None]:
        """Yield (index of the task, its result), in order."""
        for index, task in enumerate(tasks):
            yield index, function(task)


class ProcessExecutor:
    """Runs tasks in spawned, single-threaded processes of this machine.

    The function and its tasks travel between processes by multiprocessing's own means, so both
    must be importable from a module (not defined in a notebook or in `__main__` of an interactive
    session). They are started for each call of `map_unordered` and stopped with it.

    Args:
        workers: Number of processes.
    """

    def __init__(self, workers: int) -> None:
        self.workers = check_workers(workers)

    def map_unordered(
        self, function: Callable[[Task], Result], tasks: Sequence[Task]
    ) -> Generator[tuple[int, Result], None, None]:
        """Yield (index of the task, its result) in order of completion.

        Raises:
            WorkerError: If a worker dies, with the signal that killed it.
            ContractError: If the function cannot be sent to another process.
        """
        if not tasks:
            return
        with _pool(function, min(self.workers, len(tasks))) as workers:
            waiting = deque(enumerate(tasks))
            for _ in range(_IN_FLIGHT):
                for worker in workers:
                    worker.give(waiting)
            left = len(tasks)
            while left:
                for worker in _ready(workers):
                    index, result = worker.take()
                    worker.give(waiting)
                    left -= 1
                    yield index, result


def executor_from(executor: str | Executor | None, workers: int) -> Executor:
    """Return an executor.

    Args:
        executor: A name (`serial`, `processes`), an object, or None: serial for one worker, else
            processes.
        workers: Number of processes.

    Raises:
        UnknownNameError: If the name is unknown.
        ContractError: If the number of workers does not fit.
    """
    check_workers(workers)
    if executor is None:
        return SerialExecutor() if workers == 1 else ProcessExecutor(workers)
    if not isinstance(executor, str):
        if not isinstance(executor, Executor):
            raise ContractError(f"an executor needs a method map_unordered, got {executor!r}")
        return executor
    if executor not in EXECUTORS:
        raise unknown_name("executor", executor, EXECUTORS)
    if executor == "processes":
        return ProcessExecutor(workers)
    if workers != 1:
        raise ContractError(
            f"the serial executor has one worker, got workers={workers}; use 'processes'"
        )
    return SerialExecutor()


def check_workers(workers: int) -> int:
    """Return the number of workers, or raise ContractError if it is not a positive integer."""
    if type(workers) is not int or workers < 1:
        raise ContractError(
            f"workers must be a positive integer, got {workers!r}; this machine has "
            f"{os.cpu_count()} cores"
        )
    return workers


class RemoteTraceback(Exception):
    """The traceback of a worker, as the cause of the exception raised here."""

    def __str__(self) -> str:
        return f"\n\n{self.args[0]}"


class _Worker:
    """The parent's end of one worker process."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, far_end = context.Pipe()
        self.process = context.Process(target=_work, args=(far_end,), daemon=True)
        with _quiet_start():
            self.process.start()
        far_end.close()
        self.pending = 0

    def send_function(self, payload: bytes) -> None:
        with self._naming_death():
            self.pipe.send_bytes(payload)

    def give(self, waiting: deque[tuple[int, Any]]) -> None:
        """Send the next task, if any is left."""
        if waiting:
            with self._naming_death():
                self.pipe.send(waiting.popleft())
            self.pending += 1

    def take(self) -> tuple[int, Any]:
        """Receive a result, or raise what the task raised."""
        with self._naming_death():
            index, result, failure, text = self.pipe.recv()
        self.pending -= 1
        if failure is not None:
            raise failure from RemoteTraceback(text)
        return index, result

    def stop(self) -> None:
        self.process.join(_SECONDS_TO_STOP)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.process.close()
        self.pipe.close()

    @contextlib.contextmanager
    def _naming_death(self) -> Iterator[None]:
        """Turn the loss of the connection into the reason for it."""
        try:
            yield
        except (EOFError, OSError) as error:
            self.process.join(_SECONDS_TO_STOP)
            raise WorkerError(_obituary(self.process.exitcode)) from error


@contextlib.contextmanager
def _pool(function: Callable[[Any], Any], n: int) -> Iterator[list[_Worker]]:
    workers: list[_Worker] = []
    try:
        payload = _portable(function)
        for _ in range(n):
            workers.append(_Worker())
        for worker in workers:
            worker.send_function(payload)
        yield workers
    finally:
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.stop()


def _ready(workers: Sequence[_Worker]) -> list[_Worker]:
    """Wait for workers with something to say (a result, or the silence of the dead)."""
    busy: dict[Any, _Worker] = {worker.pipe: worker for worker in workers if worker.pending}
    return [busy[pipe] for pipe in connection.wait(list(busy))]


def _portable(function: Callable[[Any], Any]) -> bytes:
    try:
        return bytes(ForkingPickler.dumps(function))
    except Exception as error:  # an attribute of any type may refuse in its own way
        raise ContractError(
            f"cannot send {function!r} to worker processes ({error}). Define the simulator's "
            "class in an importable module and keep open files and lambdas out of its "
            "attributes, or use workers=1"
        ) from error


@contextlib.contextmanager
def _quiet_start() -> Iterator[None]:
    """Start a process single-threaded and deaf to Ctrl-C, which its parent handles.

    Numerical libraries read their thread counts from the environment when they are first imported,
    and the child imports the main module before any code of ours, so the variables must be in the
    environment it starts with.
    """
    with _starting:
        before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
        mask = getattr(signal, "pthread_sigmask", None)
        masked = mask(signal.SIG_BLOCK, {signal.SIGINT}) if mask else None
        os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
            if mask:
                mask(signal.SIG_SETMASK, masked)


def _work(pipe: connection.Connection) -> None:
    """Life of a worker: receive the function, then answer tasks until the parent hangs up."""
    with contextlib.suppress(EOFError, ConnectionError):
        payload = pipe.recv_bytes()
        answer: tuple[int, Any, Exception | None, str]
        function: Callable[[Any], Any] | Exception
        try:
            function = ForkingPickler.loads(payload)
        except Exception as error:
            function = ContractError(
                f"a worker process cannot rebuild the simulator ({type(error).__name__}: "
                f"{error}). Define its class in an importable module, or use workers=1"
            )
        while True:
            index, task = pipe.recv()
            try:
                if isinstance(function, Exception):
                    raise function
                answer = (index, function(task), None, "")
            except Exception as error:
                answer = (index, None, _sendable(error), traceback.format_exc())
            pipe.send(answer)


def _sendable(error: Exception) -> Exception:
    """The exception itself if it survives the journey, else one with its type and text."""
    try:
        ForkingPickler.loads(ForkingPickler.dumps(error))
    except Exception:
        return WorkerError(f"{type(error).__name__}: {error}")
    return error


def _obituary(code: int | None) -> str:
    if code == -signal.SIGKILL:
        return (
            "a worker process was killed (SIGKILL), as the operating system does when memory "
            "runs out. Use fewer workers or a smaller chunk_size"
        )
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            name = signal.Signals(-code).name
            return f"a worker process was killed by {name}, probably in compiled code"
        return f"a worker process was killed by signal {-code}"
    return (
        f"a worker process ended unexpectedly (exit code {code}); its own message is above. A "
        "script that uses workers > 1 must keep its calls under `if __name__ == '__main__':`"
    )
