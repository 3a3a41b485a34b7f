"""Progress reporting: a rich bar with rate and time left on a terminal, nothing elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichBars
    from rich.progress import TaskID


class Task(Protocol):
    """One running piece of work."""

    def advance(self, n: int = 1, note: str = "") -> None:
        """Report `n` more finished units and, optionally, a short note (a loss, an acceptance)."""


class Progress(Protocol):
    """Something that can show progress; pass `SILENT` to show none."""

    def task(self, description: str, total: int, unit: str = "it") -> AbstractContextManager[Task]:
        """Open a task of `total` units."""


class _SilentTask:
    def advance(self, n: int = 1, note: str = "") -> None:
        """Do nothing."""


class _Silent:
    @contextlib.contextmanager
    def task(self, description: str, total: int, unit: str = "it") -> Iterator[Task]:
        yield _SilentTask()


SILENT: Progress = _Silent()


class _RichTask:
    def __init__(self, bars: RichBars, task_id: TaskID, unit: str) -> None:
        self._bars, self._id, self._unit = bars, task_id, unit

    def advance(self, n: int = 1, note: str = "") -> None:
        """Move the bar and refresh the rate."""
        self._bars.advance(self._id, n)
        speed = self._bars.tasks[self._bars.task_ids.index(self._id)].speed
        rate = f"{speed:,.3g} {self._unit}/s" if speed else ""
        self._bars.update(self._id, rate=rate, note=note)


class _Rich:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars: RichBars | None = None

    @contextlib.contextmanager
    def task(self, description: str, total: int, unit: str = "it") -> Iterator[Task]:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as RichBars

        outermost = self._bars is None
        if self._bars is None:
            self._bars = RichBars(
                TextColumn("{task.description}", markup=False),  # "[keV]" is no markup
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}", markup=False),
                console=self._console,
                transient=False,
            )
            self._bars.start()
        bars = self._bars
        task_id = bars.add_task(description, total=total, rate="", note="")
        try:
            yield _RichTask(bars, task_id, unit)
        finally:
            bars.stop_task(task_id)
            if outermost:
                bars.stop()
                self._bars = None


def rich_progress(console: Console | None = None) -> Progress:
    """Return bars on standard error, or `SILENT` when it is not a terminal."""
    if console is None:
        if not sys.stderr.isatty():
            return SILENT
        from rich.console import Console

        console = Console(stderr=True)
    return _Rich(console) if console.is_terminal else SILENT
