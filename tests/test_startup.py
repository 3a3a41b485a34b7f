"""`--help` and `list` answer at once: what they import, and the processor time they take."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

HEAVY = {"numpy", "scipy", "pydantic", "zarr", "torch", "rich", "yaml", "matplotlib", "arviz"}


def modules_after(*arguments: str) -> set[str]:
    code = (
        "import sys\n"
        "from sbi_physics.cli import main\n"
        f"try: main({list(arguments)!r})\n"
        "except SystemExit: pass\n"
        "print(*sorted({m.partition('.')[0] for m in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize(
    "arguments",
    [(), ("--help",), ("run", "--help"), ("list",), ("list", "engines", "--json"), ("--version",)],
)
def test_help_and_list_import_nothing_heavy(arguments):
    assert not modules_after(*arguments) & HEAVY


def test_help_does_not_even_look_for_plugins():
    assert "pluggy" not in modules_after("--help")


@pytest.mark.parametrize(("command", "limit"), [("--help", 0.3), ("list", 0.5)])
def test_help_and_list_take_little_processor_time(command, limit):
    # Processor time, not wall time: other work on the machine must not decide. The best of five.
    times = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-m", "sbi_physics", command], capture_output=True, check=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(times) < limit
