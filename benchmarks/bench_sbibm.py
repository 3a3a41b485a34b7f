"""How close every engine's draws come to the exact posterior on three problems of sbibm.

    OMP_NUM_THREADS=1 python benchmarks/bench_sbibm.py

Each engine trains once on 10 000 simulations of two moons, the Gaussian mixture and SLCP
(arXiv:2101.04653) with its default settings. For each of a few fresh observations its draws are
compared with exact ones by a classifier two-sample test: the accuracy of a
perceptron that tells them apart, cross-validated in five folds on standardised draws, as
`sbi.utils.metrics.c2st` does it; 0.5 is perfect, 1 is useless. A run that was stopped goes on
where it stopped.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import results_file
import torch
from sbi.utils.metrics import c2st

import sbi_physics as sp
from sbi_physics import registry
from sbi_physics.progress import SILENT

TASKS = ("toy-two-moons", "toy-mixture", "toy-slcp")
ENGINES = ("exact", "sbi-npe", "sbi-nre", "sbi-fmpe", "swyft-tmnre", "bayesflow-cinn")


def posterior_of(task: str, engine: str, simulations: int, seed: int, folder: Path) -> Any:
    """Train, or load what was trained before."""
    place = folder / f"{task}-{engine}-{simulations}-{seed}"
    if not place.exists():
        train = sp.simulate(task, simulations, seed=seed, progress=SILENT)
        start = time.process_time()
        posterior = sp.train(train, engine, seed=seed, progress=SILENT)
        print(f"{engine} on {task}: {time.process_time() - start:.0f} s of training", flush=True)
        posterior.save(place)
    return sp.load_posterior(place)


def measure(
    task: str,
    engine: str,
    simulations: int,
    observations: int,
    draws: int,
    seed: int,
    folder: Path,
) -> dict[str, Any]:
    """Return the accuracies of the classifier, one for each observation."""
    posterior = posterior_of(task, engine, simulations, seed, folder)
    toy: Any = registry.simulator(task)
    x = sp.simulate(toy, observations, seed=seed, purpose="pairs", progress=SILENT).x
    learned = posterior.sample(x, draws, np.random.default_rng([seed, 1]))
    exact = toy.reference_posterior().sample(x, draws, np.random.default_rng([seed, 2]))
    scores = [
        float(c2st(torch.tensor(b).float(), torch.tensor(a).float(), classifier="mlp"))
        for a, b in zip(learned, exact, strict=True)
    ]
    return {"c2st": scores}


def table(rows: list[dict[str, Any]]) -> str:
    """Return medians and ranges as Markdown."""
    tasks = [t for t in TASKS if any(r["task"] == t for r in rows)]
    lines = ["| engine | " + " | ".join(f"`{t}`" for t in tasks) + " |", "|---" * (1 + len(tasks))]
    lines[1] += "|"
    for engine in dict.fromkeys(r["engine"] for r in rows):
        cells = []
        for task in tasks:
            scores = [r["c2st"] for r in rows if r["engine"] == engine and r["task"] == task]
            cells.append(cell(np.concatenate(scores)) if scores else "")
        lines.append(f"| `{engine}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(scores: np.ndarray[Any, Any]) -> str:
    """Return median and range of some accuracies."""
    return f"{np.median(scores):.2f} ({scores.min():.2f} to {scores.max():.2f})"


def main() -> None:
    """Measure what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engines", nargs="+", default=list(ENGINES))
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--simulations", type=int, default=10_000)
    parser.add_argument("--observations", type=int, default=5)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    results_file.options(parser, "sbibm")
    o = parser.parse_args()
    pieces = [
        {
            "task": task,
            "engine": engine,
            "simulations": o.simulations,
            "observations": o.observations,
            "draws": o.draws,
            "seed": o.seed,
        }
        for task in o.tasks
        for engine in o.engines
    ]

    def one(**piece: Any) -> dict[str, Any]:
        return measure(**piece, folder=o.output.with_suffix(""))

    print(table(results_file.run(o.output, pieces, one, o.max_seconds)))


if __name__ == "__main__":
    main()
