"""Are ensembles' error bands right? Pulls of R(x|theta = 1) on smeft-toy, whose ratio is exact.

For each way to make members differ, independent ensembles are trained on independent simulations;
errors come from the scatter between them. What is finished is kept.

    python benchmarks/bench_smeft_pulls.py --output pulls.jsonl --max-seconds 400
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import results_file
from sbi_physics_smeft.engines.derivative import DerivativeEngine
from sbi_physics_smeft.engines.pull_study import pull_study
from sbi_physics_smeft.smeft_toy import SmeftToy

ALPHA, EVENTS, REPLICAS, SEED = 2.0, 10_000, 12, 1
SETTINGS = {
    "members": 20,
    "max_epochs": 20,
    "batch_size": 512,
    "hidden_features": 32,
    "hidden_layers": 2,
}
"""A fifth of the network and a tenth of the events of the accuracy table."""
KINDS = ("initialization", "repulsion", "bootstrap")
PROPOSALS = ("mixture", "sm")


def measure(proposal: str, members_from: str) -> dict[str, Any]:
    """Train all ensembles of one row."""
    toy = SmeftToy(alpha=ALPHA, proposal=proposal)
    settings: dict[str, Any] = {**SETTINGS, "members_from": members_from}
    if proposal == "sm":
        settings["smearing"] = "fractional"
    start = time.process_time()
    study = pull_study(
        toy,
        DerivativeEngine(),
        settings,
        [1.0],
        n_events=EVENTS,
        replicas=REPLICAS,
        seed=SEED,
    )
    print(study.summary(), flush=True)
    return {
        "mean": study.mean,
        "width": study.width,
        "ratio": study.ratio,
        "factor": study.factor,
        "within": [study.within(1), study.within(2)],
        "ideal": [study.ideal_width, study.ideal_within(1), study.ideal_within(2)],
        "seconds": time.process_time() - start,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return the table in Markdown."""
    lines = [
        "| events from | members differ by | mean pull | width | within 1 | within 2 "
        "| error/spread | factor | CPU s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [row["mean"], row["width"], *row["within"], row["ratio"], row["factor"]]
        shown = " | ".join(f"{value:.2f} ± {error:.2f}" for value, error in cells)
        lines.append(
            f"| {row['proposal']} | {row['members_from']} | {shown} | {row['seconds']:.0f} |"
        )
    if rows:
        width, one, two = rows[0]["ideal"]
        lines.append(f"| | a right spread | 0 | {width:.2f} | {one:.2f} | {two:.2f} | 1.02 | | |")
    return "\n".join(lines)


def main() -> None:
    """Measure the rows that are missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    results_file.options(parser, "bench_smeft_pulls")
    options = parser.parse_args()
    pieces = [{"proposal": p, "members_from": kind} for p in PROPOSALS for kind in KINDS]
    print(table(results_file.run(options.output, pieces, measure, options.max_seconds)))


if __name__ == "__main__":
    main()
