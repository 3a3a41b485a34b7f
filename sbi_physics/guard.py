"""Leave the process as it was found: a snapshot of global state around foreign code.

Deep-learning packages change the process they run in. Measured with the versions this package is
tested with: importing bayesflow 2 switches torch's autograd off and adds a handler to the root
logger, a Lightning fit switches autograd on again, most trainers draw from (and some reseed) the
global random generators. Every engine call therefore runs inside :func:`preserve_state`.

This module imports no framework. What is not imported yet when the guard is entered is restored
to the state a fresh import has.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import random
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any

__all__ = ["preserve_state", "quiet"]

#: Environment variables that the supported engines or their back ends are known to write.
GUARDED_VARIABLES = (
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_VISIBLE_DEVICES",
    "KERAS_BACKEND",
    "KERAS_HOME",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "PL_GLOBAL_SEED",
    "PYTHONHASHSEED",
    "PYTORCH_NVML_BASED_CUDA_CHECK",
    "TF_CPP_MIN_LOG_LEVEL",
)


@contextlib.contextmanager
def preserve_state() -> Iterator[None]:
    """Restore the process-wide state on the way out, also when the block raises.

    Covered: Python's, NumPy's legacy and torch's random generators (every CUDA device that is in
    use included), NumPy's floating-point error handling, torch's autograd flag, default dtype and
    device, thread count, determinism and matmul-precision switches and validation of
    distributions, the root logger's handlers and levels, warning filters, the working folder and
    the environment variables in ``GUARDED_VARIABLES``. The autograd flag is per thread; the
    calling thread's is restored. If torch is first imported inside the block its thread count is
    left as it is, because what it was at import cannot be known.

    Example:
        >>> import random
        >>> from sbi_physics.guard import preserve_state
        >>> random.seed(1)
        >>> with preserve_state():
        ...     random.seed(2)
        >>> round(random.random(), 6)  # as if seed(2) had not happened
        0.134364
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        for snapshot in (_working_folder, _environment, _root_logger, _python, _numpy, _torch):
            stack.callback(snapshot())
        yield


@contextlib.contextmanager
def quiet(loggers: Iterable[str] = ()) -> Iterator[io.StringIO]:
    r"""Collect what foreign code prints, and raise the threshold of named loggers to ERROR.

    Both standard streams of the process are redirected, so show no progress bar inside the block.
    The collected text is handed out for use in an error message.

    Args:
        loggers: names of loggers to restrict to errors inside the block.

    Example:
        >>> from sbi_physics.guard import quiet
        >>> with quiet() as chatter:
        ...     print("Reloading best model")
        >>> chatter.getvalue()
        'Reloading best model\n'
    """
    chatter = io.StringIO()
    with contextlib.ExitStack() as stack:
        for name in loggers:
            logger = logging.getLogger(name)
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.ERROR)
        stack.enter_context(contextlib.redirect_stdout(chatter))
        stack.enter_context(contextlib.redirect_stderr(chatter))
        yield chatter


def _working_folder() -> Callable[[], None]:
    try:
        folder = os.getcwd()  # noqa: PTH109 - the string is all that is needed
    except FileNotFoundError:  # the folder was removed under our feet: nothing to return to
        return _nothing

    def restore() -> None:
        os.chdir(folder)

    return restore


def _environment() -> Callable[[], None]:
    found = {name: os.environ.get(name) for name in GUARDED_VARIABLES}

    def restore() -> None:
        for name, value in found.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    return restore


def _root_logger() -> Callable[[], None]:
    root = logging.getLogger()
    handlers, level, disabled = list(root.handlers), root.level, root.manager.disable

    def restore() -> None:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.disable(disabled)

    return restore


def _python() -> Callable[[], None]:
    state = random.getstate()
    return lambda: random.setstate(state)


def _numpy() -> Callable[[], None]:
    import numpy as np

    # The whole state: the key array alone stays equal until 624 words have been drawn.
    state = np.random.get_state(legacy=False)  # noqa: NPY002 - the legacy state is the subject
    errors: dict[str, Any] = dict(np.geterr())

    def restore() -> None:
        np.random.set_state(state)  # noqa: NPY002
        np.seterr(**errors)

    return restore


def _torch() -> Callable[[], None]:
    torch = sys.modules.get("torch")
    found = None if torch is None else _torch_state(torch)

    def restore() -> None:
        torch = sys.modules.get("torch")
        if torch is not None:
            _restore_torch(torch, _fresh_torch_state(torch) if found is None else found)

    return restore


def _torch_state(torch: ModuleType | Any) -> dict[str, Any]:
    return {
        "grad": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "threads": torch.get_num_threads(),
        "deterministic": (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ),
        "matmul": torch.get_float32_matmul_precision(),
        "validate": torch.distributions.Distribution._validate_args,
        "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None,
    }


def _fresh_torch_state(torch: ModuleType | Any) -> dict[str, Any]:
    """The state after ``import torch`` in a new process."""
    return {
        "grad": True,
        "dtype": torch.float32,
        "device": torch.device("cpu"),
        "threads": torch.get_num_threads(),
        "deterministic": (False, False),
        "matmul": "highest",
        "validate": __debug__,
        "rng": torch.Generator().get_state(),  # a new generator carries torch's default seed
        "cuda_rng": None,
    }


def _restore_torch(torch: ModuleType | Any, state: dict[str, Any]) -> None:
    # Setters with side effects (thread pools, function modes) are called only on a change.
    now = _torch_state(torch)
    torch.set_grad_enabled(state["grad"])
    torch.set_rng_state(state["rng"])
    if state["cuda_rng"] is not None:
        torch.cuda.set_rng_state_all(state["cuda_rng"])
    if now["dtype"] != state["dtype"]:
        torch.set_default_dtype(state["dtype"])
    if now["device"] != state["device"]:
        cpu = state["device"] == torch.device("cpu")
        torch.set_default_device(None if cpu else state["device"])
    if now["threads"] != state["threads"]:
        torch.set_num_threads(state["threads"])
    if now["deterministic"] != state["deterministic"]:
        enabled, warn_only = state["deterministic"]
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
    if now["matmul"] != state["matmul"]:
        torch.set_float32_matmul_precision(state["matmul"])
    if now["validate"] != state["validate"]:
        torch.distributions.Distribution.set_default_validate_args(state["validate"])


def _nothing() -> None:
    """Restore nothing."""
