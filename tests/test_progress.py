"""Progress: a bar with rate on a terminal, not a byte elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from sbi_physics.progress import SILENT, rich_progress


def terminal() -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, force_terminal=True, width=160, color_system=None), text


def test_silent_progress_prints_nothing(capfd):
    with SILENT.task("simulating", 10, "rows") as task:
        task.advance(5, "half")
        with SILENT.task("inner", 1) as inner:
            inner.advance()
    assert capfd.readouterr() == ("", "")


def test_no_terminal_means_silence(capfd, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: False, raising=False)
    assert rich_progress() is SILENT
    assert rich_progress(Console(file=io.StringIO())) is SILENT
    assert capfd.readouterr() == ("", "")


def test_a_terminal_sees_description_count_rate_and_note():
    console, text = terminal()
    with rich_progress(console).task("simulating", 8, "rows") as task:
        for _ in range(8):
            task.advance(1, "loss 0.25")
    shown = text.getvalue()
    for expected in ("simulating", "8/8", "rows/s", "loss 0.25"):
        assert expected in shown


def test_square_brackets_are_shown_not_taken_for_markup():
    console, text = terminal()
    with rich_progress(console).task("folding [keV]", 1) as task:
        task.advance(1, "best [bold]")
    assert "folding [keV]" in text.getvalue()
    assert "best [bold]" in text.getvalue()


def test_nested_and_later_tasks_share_one_reporter():
    console, text = terminal()
    progress = rich_progress(console)
    with progress.task("members", 2) as outer:
        for k in range(2):
            with progress.task(f"epochs of {k}", 1) as inner:
                inner.advance()
            outer.advance()
    with progress.task("draws", 1) as task:
        task.advance()
    for expected in ("members", "epochs of 0", "epochs of 1", "draws"):
        assert expected in text.getvalue()


def test_an_error_inside_a_task_passes_and_leaves_the_reporter_usable():
    console, text = terminal()
    progress = rich_progress(console)
    with pytest.raises(KeyboardInterrupt), progress.task("first", 3):
        raise KeyboardInterrupt
    with progress.task("second", 1) as task:
        task.advance()
    assert "second" in text.getvalue()
    assert text.getvalue().count("\x1b[?25l") == text.getvalue().count("\x1b[?25h")  # cursor back
