"""Command lines carried out inside a test, and what their errors must look like."""

from __future__ import annotations

import pytest

from sbi_physics import cli
from sbi_physics.cli import main

SMALL = ["--simulations", "300", "--pairs", "220", "--draws", "99", "--samples", "400"]


def command_line(capsys, monkeypatch):
    """A function that runs a command line: (exit code, standard output, standard error)."""
    monkeypatch.setattr(cli, "_show_warnings_as_lines", lambda debug: None)

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return left.value.code, out, err

    return run


def one_paragraph(text: str) -> bool:
    return text.startswith("Error: ") and text.count("\n") == 1 and "Traceback" not in text
