"""Errors of learned log ratios on smeft-toy, against the exact ratio, for all methods.

Each row trains once on 100 000 events and is kept in a JSON-lines file, so that the table can be
filled piece by piece (`--max-seconds`): rows that are there are not computed again.

    python benchmarks/bench_smeft_toy.py --seeds 2          # compute what is missing
    python benchmarks/bench_smeft_toy.py --table            # print the table of what is there
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

import sbi_physics as sp
from sbi_physics.progress import SILENT

EVENTS, TESTS, EPOCHS = 100_000, 100_000, 20
ALPHAS = (1.0, 2.0, 3.0)
AS_SIMULATED = {"redraw": False}
METHODS = {
    "derivative, plain (SM events)": ("smeft-derivative", "sm", AS_SIMULATED),
    "derivative + fractional smearing": (
        "smeft-derivative",
        "sm",
        {**AS_SIMULATED, "smearing": "fractional"},
    ),
    "derivative + fractional smearing, redrawn": (
        "smeft-derivative",
        "sm",
        {"smearing": "fractional"},
    ),
    "morphing, ROLR": ("smeft-morphing", "mixture", {"loss": "rolr"}),
    "morphing, ALICE": ("smeft-morphing", "mixture", {}),
    "mixture reference, MSE": ("smeft-derivative", "mixture", {}),
    "mixture reference, cross-entropy": (
        "smeft-derivative",
        "mixture",
        {"loss": "cross-entropy"},
    ),
}
"""Engine, proposal and settings of each row."""

SPECIFIED = {
    "derivative, plain (SM events)": ((0.0119, 0.0117), (0.0253, 0.0356), (0.119, 0.333)),
    "derivative + fractional smearing": ((0.0090, 0.0090), (0.0114, 0.0185), (0.108, 0.262)),
    "morphing, ALICE": ((0.0073, 0.0075), (0.0063, 0.0111), (0.0043, 0.029)),
    "morphing, ROLR": ((0.0098, 0.0116), (0.0123, 0.0233), (0.094, 0.142)),
    "mixture reference, MSE": ((0.0050, 0.0054), (0.0073, 0.0165), (0.0045, 0.063)),
}
"""Mean absolute errors of an independent implementation (SM, theta = 1), for alpha = 1, 2, 3."""


def measure(method: str, alpha: float, seed: int) -> dict[str, object]:
    """Train one row and compare with the exact ratio."""
    engine, proposal, settings = METHODS[method]
    toy = sp.simulator("smeft-toy", alpha=alpha, proposal=proposal)
    simulations = sp.simulate(toy, EVENTS, seed=seed, progress=SILENT)
    start = time.process_time()
    posterior = sp.train(
        simulations,
        engine,
        settings={"max_epochs": EPOCHS, "validation_fraction": 0.05, **settings},
        seed=seed,
        progress=SILENT,
    )
    seconds = time.process_time() - start
    exact = sp.simulator("smeft-toy", alpha=alpha)
    rng = np.random.default_rng([7, int(alpha), seed])
    errors = []
    for theta in (0.0, 1.0):
        x = exact.simulate(np.full((TESTS, 1), theta), rng)
        errors.append(posterior.log_ratio([[1.0]], x)[:, 0] - exact.exact_log_ratio(x, [1.0]))
    return {
        "method": method,
        "alpha": alpha,
        "seed": seed,
        "mean": [float(np.abs(e).mean()) for e in errors],
        "rms": [float(np.sqrt((e**2).mean())) for e in errors],
        "seconds": seconds,
    }


def table(rows: list[dict]) -> str:
    """Return the table in Markdown."""
    heads = [f"alpha={a:g} {t}" for a in ALPHAS for t in ("SM", "th1")]
    lines = [f"| method | {' | '.join(heads)} | CPU s |", "|---" * (len(heads) + 2) + "|"]
    for method in METHODS:
        cells, seconds = [], []
        for k, alpha in enumerate(ALPHAS):
            mine = [r for r in rows if r["method"] == method and r["alpha"] == alpha]
            for j in range(2):
                value = np.mean([r["mean"][j] for r in mine]) if mine else np.nan
                spread = np.mean([r["rms"][j] for r in mine]) if mine else np.nan
                known = f" [{SPECIFIED[method][k][j]:g}]" if method in SPECIFIED else ""
                cells.append(f"{value:.4f} ({spread:.3f}){known}")
            seconds += [r["seconds"] for r in mine]
        time_ = f"{np.mean(seconds):.0f}" if seconds else ""
        lines.append(f"| {method} | {' | '.join(cells)} | {time_} |")
    return "\n".join(lines)


def main() -> None:
    """Compute missing rows or print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/bench_smeft_toy.jsonl"))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--max-seconds", type=float, default=np.inf)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    text = options.output.read_text() if options.output.exists() else ""
    rows = [json.loads(line) for line in text.splitlines()]
    done = {(r["method"], r["alpha"], r["seed"]) for r in rows}
    start = time.monotonic()
    for seed in range(0 if options.table else options.seeds):
        for alpha in ALPHAS:
            for method in METHODS:
                if (method, alpha, seed) in done or time.monotonic() - start > options.max_seconds:
                    continue
                rows.append(measure(method, alpha, seed))
                with options.output.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
                print(rows[-1], flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
