"""Expected limits on WZ production with learned ratios, against exact ratios of the same events.

Production level: charge, mass and angle of the pair, decays ignoring the coefficients; 300 fb^-1
without acceptance. Both sets of limits use the same events, so that their difference is the
network's. What is finished is kept.

    python benchmarks/bench_smeft_limits.py --seeds 2
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np
import results_file
from sbi_physics_smeft.samples import ReferenceSample
from sbi_physics_smeft.smeft_wz import SmeftWz

import sbi_physics as sp
from sbi_physics.likelihood import EventSet, LikelihoodRatio, interval, pack
from sbi_physics.progress import SILENT

OPTIONS: dict[str, Any] = {"level": "parton", "label_level": "production"}
POINTS = (
    (0.0, 0.0, 0.0), (3.0, 0.0, 0.0), (-3.0, 0.0, 0.0), (0.0, 0.5, 0.0), (0.0, -0.5, 0.0),
    (0.0, 0.0, 0.5), (0.0, 0.0, -0.5), (3.0, 0.5, 0.0), (3.0, 0.0, 0.5), (0.0, 0.5, 0.5),
)  # fmt: skip
"""Far points: several per cent of their events are squared new amplitudes, at high masses. With
zero among them the Standard Model has 55 % of the events."""
SETTINGS = {"loss": "cross-entropy", "max_epochs": 60, "hidden_features": 96}
KNOWN = {"C_HWB": (-0.0703, 0.0703), "C_W": (-0.0251, 0.0263), "C_Hq3": (-0.0083, 0.0083)}
"""Limits of 95 % by integration over mass, angle and charge, others zero."""


def limits(sample: ReferenceSample, grams: np.ndarray) -> dict[str, Any]:
    """Return expected 95 % limits of each coefficient, the others held at zero."""
    data, names = EventSet(grams, sample.weight), sample.simulator.parameters.names
    likelihood = LikelihoodRatio(sample.model(grams))
    found = {}
    for name in names:
        others = {other: 0.0 for other in names if other != name}
        pieces = interval(likelihood, data, name, others=others).pieces
        # the piece that holds zero
        inside = (pieces[:, 0] <= 0) & (pieces[:, 1] >= 0)
        found[name] = pieces[inside][0].tolist()
    return found


def measure(
    engine: str, events: int, tests: int, seed: int, settings: str, points: str
) -> dict[str, Any]:
    """Train once; limits of the learned and of the exact ratio on the same test events."""
    mixture = SmeftWz(**OPTIONS, proposal="mixture", mixture_points=json.loads(points))
    train = sp.simulate(mixture, events, seed=seed, progress=SILENT)
    start = time.process_time()
    posterior: Any = sp.train(
        train, engine, settings=json.loads(settings), seed=seed, progress=SILENT
    )
    seconds = time.process_time() - start
    # Test events from the same far mixture, whatever the training: the tail decides.
    test = SmeftWz(**OPTIONS, proposal="mixture", mixture_points=POINTS)
    sample = ReferenceSample.draw(test, tests, np.random.default_rng(seed + 1))
    return {
        "exact": limits(sample, pack(SmeftWz(**OPTIONS).exact_gram(sample.x))),
        "learned": limits(sample, posterior.coefficients(sample.x)),
        "seconds": seconds,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return the table in Markdown: learned over exact limits, lower and upper."""
    lines = [
        "| engine, events, settings | seed | " + " | ".join(KNOWN) + " | CPU s |",
        "|---" * 6 + "|",
    ]
    for row in rows:
        cells = []
        for name in KNOWN:
            ratio = np.array(row["learned"][name]) / np.array(row["exact"][name])
            cells.append(f"{ratio[0]:.3f}, {ratio[1]:.3f}")
        what = f"{row['engine']}, {row['events']}, {row['settings']}"
        lines.append(f"| {what} | {row['seed']} | {' | '.join(cells)} | {row['seconds']:.0f} |")
    if rows:
        exact = rows[-1]["exact"]
        shown = [f"{exact[n][0]:.4f}, {exact[n][1]:.4f} [{KNOWN[n]}]" for n in KNOWN]
        lines.append(f"| exact limits [by integration] | | {' | '.join(shown)} | |")
    return "\n".join(lines)


def main() -> None:
    """Measure what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", default="smeft-derivative")
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--tests", type=int, default=200_000)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--settings", type=json.loads, default=SETTINGS)
    parser.add_argument("--points", type=json.loads, default=POINTS)
    results_file.options(parser, "bench_smeft_limits")
    options = parser.parse_args()
    pieces = [
        {
            "engine": options.engine,
            "events": options.events,
            "tests": options.tests,
            "seed": 1 + k,
            "settings": json.dumps(options.settings),
            "points": json.dumps(options.points),
        }
        for k in range(options.seeds)
    ]
    print(table(results_file.run(options.output, pieces, measure, options.max_seconds)))


if __name__ == "__main__":
    main()
