"""How often the validator notices planted defects, and how often it rejects an exact posterior.

    OMP_NUM_THREADS=1 python benchmarks/power_validator.py --repetitions 200

Every line of the results file is one validation; a run that was stopped goes on where it stopped.
Repetitions are the outer loop, so that a stopped run has measured every cell about equally often.
The table goes to standard output and between the marks in benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import time
import zlib
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

import numpy as np

from sbi_physics.diagnostics.bands import clopper_pearson
from sbi_physics.testing.known_answers import DEFECTS, known_case
from sbi_physics.validate_arrays import validate_draws

README: Final = Path(__file__).with_name("README.md")
BEGIN: Final = "<!-- power: begin -->"
END: Final = "<!-- power: end -->"
COLUMNS: Final = ("sbc", "hpd", "tarp_u", "tarp_x", "moment", "width_x")


def measure(defect: str, n: int, n_draws: int, repetition: int) -> dict[str, Any]:
    """Return the outcome of one validation."""
    rng = np.random.default_rng([zlib.crc32(defect.encode()), n, repetition])
    result = validate_draws(rng=rng, **known_case(defect, n, rng).arrays(n_draws, rng))
    p: dict[str, float] = defaultdict(lambda: 1.0)
    count: dict[str, int] = defaultdict(int)
    for test in result.tests:
        count[test.family] += 1
        p[test.family] = min(p[test.family], test.p_value)
    return {
        "defect": defect,
        "n": n,
        "draws": n_draws,
        "repetition": repetition,
        "p": {k: min(1.0, count[k] * p[k]) for k in COLUMNS},
        "p_global": result.p_global,
        "verdict": result.verdict,
        "labels": list(result.labels),
    }


def read(path: Path) -> list[dict[str, Any]]:
    """Return the finished validations; a line cut off by a crash is left out."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """Return the measured rates as Markdown, one table for each number of pairs."""
    parts = []
    for n in sorted({r["n"] for r in rows}):
        own = [r for r in rows if r["n"] == n]
        draws = ", ".join(str(d) for d in sorted({r["draws"] for r in own}))
        lines = [
            f"N = {n}, L = {draws}",
            "",
            "| posterior | runs | " + " | ".join(COLUMNS) + " | p_global < 0.05 | < 0.01 "
            "| 95 % limits of the last | labels (share of runs) |",
            "|---" * (len(COLUMNS) + 6) + "|",
        ]
        for defect in DEFECTS:
            cell = [r for r in own if r["defect"] == defect]
            if cell:
                lines.append(_line(defect, cell))
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _line(defect: str, cell: list[dict[str, Any]]) -> str:
    k = len(cell)
    rates = [
        "/".join(f"{np.mean([r['p'][c] < a for r in cell]):.2f}" for a in (0.05, 0.01))
        for c in COLUMNS
    ]
    found = sum(r["p_global"] < 0.01 for r in cell)
    low, high = clopper_pearson(np.array([found]), k)
    counts: dict[str, int] = defaultdict(int)
    for r in cell:
        for label in r["labels"]:
            counts[label] += 1
    labels = ", ".join(
        f"{label} {c / k:.2f}" for label, c in sorted(counts.items(), key=lambda x: -x[1])
    )
    warned = np.mean([r["p_global"] < 0.05 for r in cell])
    return (
        f"| {defect} | {k} | {' | '.join(rates)} | {warned:.2f} | {found / k:.2f} "
        f"| {low[0]:.2f} to {high[0]:.2f} | {labels} |"
    )


def write(text: str) -> None:
    """Put the table between its marks in the README."""
    page = README.read_text()
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def main() -> None:
    """Measure what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--pairs", type=int, nargs="+", default=[200, 500, 1000])
    parser.add_argument("--draws", type=int, default=199)
    parser.add_argument("--defects", nargs="+", choices=DEFECTS, default=list(DEFECTS))
    parser.add_argument("--results", type=Path, default=Path("runs/power/results.jsonl"))
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after")
    parser.add_argument("--write", action="store_true", help="write the table into the README")
    options = parser.parse_args()

    options.results.parent.mkdir(parents=True, exist_ok=True)
    rows = read(options.results)
    done = {(r["defect"], r["n"], r["draws"], r["repetition"]) for r in rows}
    wanted = [
        (defect, n, options.draws, repetition)
        for repetition in range(options.repetitions)
        for n in options.pairs
        for defect in options.defects
    ]
    stop = time.monotonic() + 60.0 * options.minutes
    with options.results.open("a") as file:
        for cell in wanted:
            if cell in done or time.monotonic() > stop:
                continue
            rows.append(measure(*cell))
            file.write(json.dumps(rows[-1]) + "\n")
            file.flush()
    text = table(rows)
    print(text)
    if options.write:
        write(text)


if __name__ == "__main__":
    main()
