"""How long a first answer takes: start-up times side by side with other packages.

Each command runs in a fresh interpreter, once unmeasured (to warm the disk cache), then
`--repeats` times; the table gives the best wall time, and the best CPU time, which other work on
the machine hardly changes. Peers are imported as a user of each would begin:

    .venv/bin/python benchmarks/bench_startup.py
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import resource
import subprocess
import sys
import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Case:
    """A command, and the longest time we promise for it (None for other packages)."""

    label: str
    arguments: tuple[str, ...]
    goal: float | None = None


def cases() -> list[Case]:
    """Return our own commands, then the bare imports of whichever peers are installed."""
    ours = [
        Case("python (nothing)", ("-c", "pass")),
        Case("import sbi_physics", ("-c", "import sbi_physics"), 0.1),
        Case("sbi-physics --help", (*console_script(), "--help"), 0.3),
        Case("sbi-physics list", (*console_script(), "list"), 0.5),
    ]
    peers = (
        "import numpy",
        "import torch",
        "from sbi.inference import NPE",
        "import swyft",
        "import bayesflow",
        "from gammapy.datasets import SpectrumDatasetOnOff",
        "import pyhf",
    )
    return ours + [
        Case(code, ("-c", code))
        for code in peers
        if importlib.util.find_spec(code.split()[1].partition(".")[0])
    ]


def console_script() -> tuple[str, ...]:
    """Return what the installed `sbi-physics` script does, run by this interpreter."""
    return ("-c", "import sys; from sbi_physics.cli import main; sys.exit(main())")


def cpu_seconds() -> float:
    """Return the CPU time of all children that ended so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(arguments: tuple[str, ...], repeats: int) -> tuple[float, float]:
    """Return the best wall and CPU time in seconds of `repeats` runs after one unmeasured run."""
    times = []
    for _ in range(repeats + 1):
        start, cpu_start = time.perf_counter(), cpu_seconds()
        done = subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
        )
        times.append((time.perf_counter() - start, cpu_seconds() - cpu_start))
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:]
            raise RuntimeError(f"{' '.join(arguments)} failed: {''.join(last)}")
    wall, cpu = zip(*times[1:], strict=True)
    return min(wall), min(cpu)


def main() -> int:
    """Print the table; return 1 if a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    print(f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores,")
    print(f"load {os.getloadavg()[0]:.1f}, best of {repeats} runs\n")
    print("| command | wall / s | CPU / s | goal / s | CPU over our import |")
    print("|---|---|---|---|---|")
    own = None
    broken = 0
    for case in cases():
        try:
            wall, cpu = measure(case.arguments, repeats)
        except RuntimeError as error:
            print(f"| `{case.label}` | - | - | - | {error} |", flush=True)
            broken += case.goal is not None
            continue
        if case.label == "import sbi_physics":
            own = cpu
        ratio = f"{cpu / own:.0f}x" if own and case.goal is None else ""
        goal = "" if case.goal is None else f"{case.goal:g}"
        broken += case.goal is not None and wall > case.goal
        print(f"| `{case.label}` | {wall:.3f} | {cpu:.3f} | {goal} | {ratio} |", flush=True)
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
