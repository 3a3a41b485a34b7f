"""How good every engine's default network is on a problem whose posterior is known.

    OMP_NUM_THREADS=1 python benchmarks/bench_engines.py

The problem is `toy-gaussian` with three parameters: uniform in [-1, 1]^3, data with noise 0.3.
Each engine trains on 10 000 simulations with its default settings and three seeds; simulations,
network and fresh pairs change with the seed. The loss is the mean of -log q(theta|x) over the
pairs, printed beside that of the exact posterior on the same pairs. A run that was stopped goes on
where it stopped.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import results_file

import sbi_physics as sp
from sbi_physics.progress import SILENT
from sbi_physics.testing import ToyGaussian

ENGINES = ("sbi-npe", "sbi-nre", "sbi-fmpe", "swyft-tmnre", "bayesflow-cinn")
PAIRS, DRAWS = 1000, 199


def measure(engine: str, seed: int, simulations: int) -> dict[str, Any]:
    """Train once and compare with the exact posterior on fresh pairs."""
    toy = ToyGaussian(dimension=3)
    train = sp.simulate(toy, simulations, seed=seed, progress=SILENT)
    start = time.process_time()
    posterior = sp.train(train, engine, seed=seed, progress=SILENT)
    training = time.process_time() - start
    fresh = sp.simulate(toy, PAIRS, seed=seed, purpose="pairs", progress=SILENT)
    start = time.process_time()
    coverage = sp.validate(
        posterior, fresh, n_draws=DRAWS, seed=seed, training=train, progress=SILENT
    )
    validation = time.process_time() - start
    points = fresh.theta[:, None]
    learned = -posterior.log_prob(points, fresh.x)[:, 0]
    exact = -toy.reference_posterior().log_prob(points, fresh.x)[:, 0]
    history = posterior.context.history
    return {
        "pairs": PAIRS,
        "draws": DRAWS,
        "loss": float(learned.mean()),
        "exact": float(exact.mean()),
        "excess": float((learned - exact).mean()),
        "excess_error": float((learned - exact).std() / np.sqrt(len(exact))),
        "verdict": coverage.verdict,
        "labels": list(coverage.labels),
        "p_global": coverage.p_global,
        "epochs": None if history is None else len(history.validation_loss),
        "best_epoch": None if history is None else history.best_epoch,
        "training_s": training,
        "validation_s": validation,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return the results as Markdown."""
    lines = [
        "| engine | seed | loss | exact | above exact, nats | draws | verdict | p | epochs "
        "| train, s | validate, s |",
        "|---" * 11 + "|",
    ]
    for r in sorted(rows, key=lambda r: (r["engine"], r["seed"])):
        verdict = " ".join([r["verdict"], *r["labels"]])
        lines.append(
            f"| `{r['engine']}` | {r['seed']} | {r['loss']:.3f} | {r['exact']:.3f} "
            f"| {r['excess']:.3f} ± {r['excess_error']:.3f} | {r['draws']} | {verdict} "
            f"| {r['p_global']:.2g} | {r['epochs']} | {r['training_s']:.0f} "
            f"| {r['validation_s']:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engines", nargs="+", default=list(ENGINES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--simulations", type=int, default=10_000)
    results_file.options(parser, "engines")
    o = parser.parse_args()
    pieces = [
        {"engine": engine, "seed": seed, "simulations": o.simulations}
        for seed in o.seeds
        for engine in o.engines
    ]
    print(table(results_file.run(o.output, pieces, measure, o.max_seconds)))


if __name__ == "__main__":
    main()
