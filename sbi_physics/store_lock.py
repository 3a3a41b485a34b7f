"""One writer at a time: an advisory lock that the kernel releases when its holder dies.

The lock is `flock` on a file that is never deleted, so there is no moment at which two processes
could each believe to hold it, and a lock left by a killed process is free at once. The file's
content only tells others who the holder is.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from sbi_physics.errors import StoreError, StoreLockedError

_MAX_COMMAND = 300
_HOLDER_PATIENCE = 0.25
"""Seconds to wait for a holder that has locked the file but not yet written who it is."""


class WriterLock:
    """The right to write to one store.

    Args:
        path: The lock file; its folder must exist.
        subject: What is locked, for messages.
    """

    def __init__(self, path: Path, subject: str) -> None:
        self._path, self._subject = path, subject
        self._file: IO[str] | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._file is not None

    def acquire(self) -> None:
        """Take the lock without waiting.

        Raises:
            StoreLockedError: If another process (or another handle in this one) holds it.
            StoreError: If the folder is read-only or its file system cannot lock.
        """
        try:
            import fcntl
        except ImportError as error:
            raise StoreError(
                f"{self._subject} cannot be written: this platform has no POSIX file locks. Use "
                "Linux, macOS or WSL, or keep the simulations in memory (store=None)"
            ) from error
        try:
            file = os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644), "r+")
        except OSError as error:
            raise StoreError(
                f"cannot write to {self._subject}: {error.strerror} ({self._path}). Choose a "
                "writable folder"
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise StoreLockedError(self._refusal()) from error
        except OSError as error:
            file.close()
            raise StoreError(
                f"cannot lock {self._subject}: its file system refuses locks ({error.strerror}). "
                "Simulate into a local folder and copy the finished store"
            ) from error
        self._file = file
        file.truncate(0)
        file.write(json.dumps(_this_process()))
        file.flush()

    def release(self) -> None:
        """Give the lock back; does nothing when it is not held."""
        if self._file is not None:
            self._file.truncate(0)
            self._file.close()
            self._file = None

    def _refusal(self) -> str:
        holder = self._holder()
        if not holder:
            who = "another process (it did not say which)"
        else:
            mine = holder.get("pid") == os.getpid() and holder.get("host") == socket.gethostname()
            who = (
                f"{'this very process' if mine else 'process'} {holder.get('pid')} on "
                f"{holder.get('host')} ({holder.get('command')}), since {holder.get('since')}"
            )
        return (
            f"{self._subject} is being written by {who}. Wait for it, stop it, or choose another "
            "folder; reading is possible meanwhile"
        )

    def _holder(self) -> dict[str, Any]:
        deadline = time.monotonic() + _HOLDER_PATIENCE
        while True:
            try:
                holder = json.loads(self._path.read_text())
            except (OSError, ValueError):
                holder = None
            if isinstance(holder, dict) or time.monotonic() > deadline:
                return holder if isinstance(holder, dict) else {}
            time.sleep(0.02)


def _this_process() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "command": shlex.join(sys.argv)[:_MAX_COMMAND],
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
