"""The numbers that the conformance kit bounds, measured on trained engines.

    OMP_NUM_THREADS=1 python benchmarks/bench_conformance.py

Every engine is trained on the closed-form problems of the kit (docs/conformance.md) with its
default settings and several seeds, and compared with the exact posterior exactly as the checks
`accurate_on_...` do it. A run that was stopped goes on where it stopped.
"""

from __future__ import annotations

import argparse
from typing import Any

import results_file

from sbi_physics import registry
from sbi_physics.testing.cases import EngineCase
from sbi_physics.testing.engine_checks import accuracy_on

ENGINES = ("sbi-npe", "sbi-nre", "sbi-fmpe", "swyft-tmnre", "bayesflow-cinn")
PROBLEMS = ("gaussian", "two modes", "two stages", "sets", "spectra", "images")


def measure(engine: str, problem: str, seed: int, simulations: int) -> dict[str, Any]:
    """Train once and compare."""
    case = EngineCase(lambda: registry.engine(engine), seed=seed, n_train=simulations)
    found = accuracy_on(case, problem)
    return {
        "pull": found.pull.tolist(),
        "width": found.width_ratio.tolist(),
        "coverage": {str(level): v.tolist() for level, v in found.coverage.items()},
        "loss": found.loss,
        "seconds": case.seconds[problem],
        "problems": found.problems(),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return the results as Markdown."""
    lines = [
        "| problem | engine | seed | mean pull | width | 68 % | 95 % | loss, nats | train, s |",
        "|---" * 9 + "|",
    ]
    for r in sorted(rows, key=lambda r: (PROBLEMS.index(r["problem"]), r["engine"], r["seed"])):
        cells = [r["pull"], r["width"], r["coverage"]["0.68"], r["coverage"]["0.95"]]
        numbers = " | ".join(", ".join(f"{v:.2f}" for v in cell) for cell in cells)
        lines.append(
            f"| {r['problem']} | `{r['engine']}` | {r['seed']} | {numbers} | {r['loss']:.2f} "
            f"| {r['seconds']:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engines", nargs="+", default=list(ENGINES))
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--simulations", type=int, default=4096)
    results_file.options(parser, "conformance")
    o = parser.parse_args()
    pieces = [
        {"engine": e, "problem": p, "seed": s, "simulations": o.simulations}
        for p in o.problems
        for s in o.seeds
        for e in o.engines
    ]
    print(table(results_file.run(o.output, pieces, measure, o.max_seconds)))


if __name__ == "__main__":
    main()
