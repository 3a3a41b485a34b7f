"""Tutorials run from top to bottom.

A tutorial is a MyST notebook. Its front matter may hold `sbi_physics: {requires: [...], quick:
{...}}`: modules it needs, and values that replace those of its cell tagged `parameters` for a
small budget. Plain test runs use the small budget; `SBI_PHYSICS_TUTORIALS=full`, or `-m slow`,
runs them as printed.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
TUTORIALS = sorted((ROOT / "tutorials").glob("[0-9]*.md"))
CELL = re.compile(r"^```\{code-cell\}[^\n]*\n((?::[^\n]*\n)*)(.*?)^```$", re.MULTILINE | re.DOTALL)
TIME_LIMIT = {"quick": 250, "full": 1800}


def front_matter(page: Path) -> dict:
    _, head, _ = page.read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(head).get("sbi_physics", {})


def script(page: Path, values: dict) -> str:
    """The cells as one program, with `values` assigned after the cell tagged `parameters`."""
    parts, assigned = [], False
    for options, code in CELL.findall(page.read_text(encoding="utf-8")):
        parts.append(code)
        if "parameters" in options:
            parts.extend(f"{name} = {value!r}\n" for name, value in values.items())
            assigned = True
    assert parts, f"{page.name} has no code cells"
    assert assigned or not values, f"{page.name} has values for a small budget but no parameters"
    return "\n".join(parts)


def run(page: Path, folder: Path, budget: str) -> None:
    wanted = front_matter(page)
    values = wanted.get("quick", {}) if budget == "quick" else {}
    if budget == "full":
        for module in wanted.get("requires", []):
            if importlib.util.find_spec(module) is None:
                pytest.skip(f"{page.name} needs {module}")
    program = folder / "tutorial.py"
    # A script that may start worker processes keeps its calls out of their way.
    body = "".join(f"    {line}" for line in script(page, values).splitlines(keepends=True))
    program.write_text(f"def main():\n{body}\n\nif __name__ == '__main__':\n    main()\n")
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", str(program)],
        cwd=folder,
        env={**os.environ, "MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT[budget],
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def needs_plugins(page: Path) -> bool:
    return front_matter(page).get("quick", {}).get("engine") != "exact"


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(p, id=p.stem, marks=[pytest.mark.engine] if needs_plugins(p) else [])
        for p in TUTORIALS
    ],
)
def test_a_tutorial_runs_with_a_small_budget(page, tmp_path):
    run(page, tmp_path, os.environ.get("SBI_PHYSICS_TUTORIALS", "quick"))


@pytest.mark.slow
@pytest.mark.timeout(2000)
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda p: p.stem)
def test_a_tutorial_runs_as_printed(page, tmp_path):
    run(page, tmp_path, "full")


def test_there_are_tutorials():
    assert [p.name for p in TUTORIALS][:1] == ["01_toy_in_five_minutes.md"]


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda p: p.stem)
def test_a_tutorial_is_a_notebook(page):
    jupytext = pytest.importorskip("jupytext")
    notebook = jupytext.read(page)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) == len(CELL.findall(page.read_text(encoding="utf-8")))
    assert all("outputs" not in cell or not cell.outputs for cell in code)
