"""Small studies that tell what they do."""

from __future__ import annotations

from pathlib import Path

import pytest

import sbi_physics as sp
from sbi_physics.progress import SILENT
from sbi_physics.study import page

SMALL = {"simulations": 300, "pairs": 220, "draws": 99, "samples": 400}


class Log:
    """Collects what a study tells."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def __call__(self, stage: str, line: str) -> None:
        self.lines.append((stage, line))

    @property
    def done(self) -> list[str]:
        return [stage for stage, line in self.lines if line.startswith("done")]

    @property
    def skipped(self) -> list[str]:
        return [stage for stage, line in self.lines if line == "unchanged, skipped"]


def without_figures(patch: pytest.MonkeyPatch) -> None:
    """Figures take seconds and are tested elsewhere."""

    def write_report(report, folder: Path, progress) -> None:
        (folder / "figures").mkdir()
        (folder / "report.html").write_text("<html>")

    patch.setattr(page, "write_report", write_report)


def carry_out(directory: Path, study="toy-gaussian", **fields) -> tuple[sp.Study, Log]:
    log = Log()
    fields = {"seed": 1, "engine": "exact", **SMALL, **fields}
    engine = fields.pop("engine")
    if isinstance(study, Path):  # a run file states all of it
        fields, engine = {}, None
    done = sp.run(study, engine, directory=directory, progress=SILENT, tell=log, **fields)
    return done, log
