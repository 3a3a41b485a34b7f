"""Snapshots of process-wide state, whole, so that a change of any part is seen and named.

NumPy's legacy generator is the classic trap: its key array stays equal until 624 words are drawn,
so only the whole state (key, position, cached normal) tells whether it was used.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import random
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.truncate", "shutil.rmtree")
_NETWORK = ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname")
_PROCESSES = ("subprocess.Popen", "os.system", "os.posix_spawn", "os.fork")


def snapshot() -> dict[str, Any]:
    """Return the process-wide state that no simulator or engine may change, item by item."""
    state: dict[str, Any] = {
        "Python's random generator": random.getstate(),
        "NumPy's global random generator": _numpy_generator(),
        "NumPy's floating-point error handling": dict(np.geterr()),
        "NumPy's print options": repr(np.get_printoptions()),
        "the warning filters": list(warnings.filters),
        "the working folder": str(Path.cwd()),
        "the environment variables": dict(os.environ),
        "the import path": list(sys.path),
        "the standard streams": (id(sys.stdout), id(sys.stderr), id(sys.stdin)),
        "the exception hook": id(sys.excepthook),
        "the disabled logging level": logging.root.manager.disable,
    }
    state.update(_loggers())
    state.update(_torch())
    return state


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return a description of every item that changed between two snapshots."""
    changed = []
    for name, value in before.items():
        if name in after and after[name] != value:
            detail = ""
            if isinstance(value, bool | int | str | float | tuple) and len(repr(value)) < 60:
                detail = f" (from {value!r} to {after[name]!r})"
            changed.append(f"{name}{detail}")
    for name in after.keys() - before.keys():
        # Imported in between: must be as a fresh import leaves it.
        if name in _FRESH_TORCH and after[name] != _FRESH_TORCH[name]:
            changed.append(f"{name} (to {after[name]!r})")
    return changed


@dataclass(slots=True)
class Activity:
    """What happened while watching.

    Attributes:
        written: Files opened for writing, created, renamed or removed.
        network: Connections and name look-ups.
        processes: Commands started.
        printed: Text sent to the standard streams.
        left: Files that appeared in the working folder.
    """

    written: list[str] = field(default_factory=list)
    network: list[str] = field(default_factory=list)
    processes: list[str] = field(default_factory=list)
    printed: str = ""
    left: list[str] = field(default_factory=list)


@contextlib.contextmanager
def watch() -> Iterator[Activity]:
    """Record file writes, network access and commands of this thread, and printed text.

    Works through an audit hook, which Python cannot remove again; it is installed at the first use
    and idle outside the block. The block runs in a new, temporary working folder, which is where
    stray files are looked for. Byte-code caches and temporary files are nobody's business.
    """
    _install_hook()
    activity = Activity()
    out, err = io.StringIO(), io.StringIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        _watching.activity, before = None, set(os.listdir())  # noqa: PTH208
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            _watching.activity = activity
            try:
                yield activity
            finally:
                _watching.activity = None
        found = {str(p.relative_to(folder)) for p in Path(folder).rglob("*")}
        activity.left.extend(sorted(found - before))
    activity.printed = out.getvalue() + err.getvalue()


_watching = threading.local()
_hooks: list[str] = []


def _install_hook() -> None:
    if not _hooks:
        sys.addaudithook(_audit)
        _hooks.append("installed")


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    activity: Activity | None = getattr(_watching, "activity", None)
    if activity is None:
        return
    if event == "open":
        path, mode, flags = arguments
        writing = (isinstance(mode, str) and any(c in mode for c in "wax+")) or (
            isinstance(flags, int) and bool(flags & _WRITE_FLAGS)
        )
        if writing and not _ignored(path):
            activity.written.append(str(path))
    elif event in _CHANGES:
        if not _ignored(arguments[0]):
            activity.written.append(f"{event}({arguments[0]!r})")
    elif event in _NETWORK:
        activity.network.append(f"{event}{arguments[1:]!r}")
    elif event in _PROCESSES:
        activity.processes.append(f"{event}({arguments[0]!r})" if arguments else event)


def _ignored(path: Any) -> bool:
    if not isinstance(path, str | bytes | os.PathLike):
        return True  # an already open descriptor
    text = os.fsdecode(path)
    temporary = os.path.realpath(tempfile.gettempdir())
    return (
        "__pycache__" in text
        or text == os.devnull
        or text.startswith(("/dev/", "/proc/"))
        or (Path(text).is_absolute() and os.path.realpath(text).startswith(temporary))
    )


def _numpy_generator() -> tuple[Any, ...]:
    state: Any = np.random.get_state(legacy=False)  # noqa: NPY002 - our subject
    inner = state["state"]
    key = inner["key"].tobytes() if "key" in inner else repr(inner)
    return (state["bit_generator"], key, inner.get("pos"), state["has_gauss"], state["gauss"])


def _loggers() -> dict[str, Any]:
    """Configuration of the root logger and of every existing logger that is configured."""
    root = logging.root
    found: dict[str, Any] = {
        "the root logger": (root.level, tuple(map(id, root.handlers)), root.disabled)
    }
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger):
            handlers = tuple(map(id, logger.handlers))
            found[f"logger {name!r}"] = (logger.level, handlers, logger.propagate, logger.disabled)
    return found


_GRAD, _DTYPE = "torch's autograd flag", "torch's default dtype"
_FRESH_TORCH = {_GRAD: True, _DTYPE: "torch.float32"}


def _torch() -> dict[str, Any]:
    torch: Any = sys.modules.get("torch")
    if torch is None:
        return {}
    return {
        "torch's random generator": torch.get_rng_state().numpy().tobytes(),
        _GRAD: torch.is_grad_enabled(),
        _DTYPE: str(torch.get_default_dtype()),
        "torch's thread count": torch.get_num_threads(),
        "torch's deterministic mode": torch.are_deterministic_algorithms_enabled(),
        "torch's matmul precision": torch.get_float32_matmul_precision(),
    }
