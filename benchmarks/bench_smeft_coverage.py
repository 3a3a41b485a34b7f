"""Do confidence regions of WZ coefficients cover, with the exact and with a learned ratio?

Toys have exact weights; production level, 10 fb^-1, rate and shape. Each row is the fraction of
toys whose asymptotic region (Wilks) contains the truth, with its binomial error, and the critical
value that would cover; one row validates the posterior of event sets instead (`sp.validate`).

    python benchmarks/bench_smeft_coverage.py --max-seconds 400       # resumes
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
import results_file
from sbi_physics_smeft.engines.derivative import DerivativeEngine, DerivativePosterior
from sbi_physics_smeft.samples import ReferenceSample
from sbi_physics_smeft.smeft_wz import SmeftWz

import sbi_physics as sp
from sbi_physics import Prior, Uniform
from sbi_physics.likelihood import EventPool, LikelihoodRatio, run_toys
from sbi_physics.progress import SILENT

OPTIONS: dict[str, Any] = {"level": "parton", "label_level": "production", "luminosity": 10.0}
POINTS = (
    (0.0, 0.0, 0.0), (3.0, 0.0, 0.0), (-3.0, 0.0, 0.0), (0.0, 0.5, 0.0), (0.0, -0.5, 0.0),
    (0.0, 0.0, 0.5), (0.0, 0.0, -0.5), (3.0, 0.5, 0.0), (3.0, 0.0, 0.5), (0.0, 0.5, 0.5),
)  # fmt: skip
BOX = {"C_HWB": (-4.0, 4.0), "C_W": (-0.4, 0.4), "C_Hq3": (-0.3, 0.3)}
"""Bounds of the fits, so wide that hardly any ends there."""
TRUTHS = {"sm": (0.0, 0.0, 0.0), "bsm": (0.5, 0.05, 0.02)}
INTERESTS = (("C_W",), ("C_W", "C_Hq3"))
EVENTS, POOL, TOYS, LEVELS = 100_000, 500_000, 300, (0.683, 0.954)
TRAINING = {"loss": "cross-entropy", "max_epochs": 40, "hidden_features": 64}
SET_EVENTS, PAIRS, DRAWS = 400, 300, 199


def box() -> Prior:
    """The bounds of all fits, and the prior of the posterior of event sets."""
    parameters = SmeftWz(**OPTIONS).parameters
    return Prior([dataclasses.replace(p, distribution=Uniform(*BOX[p.name])) for p in parameters])


def mixture() -> SmeftWz:
    """Where events of training and of the pool come from."""
    return SmeftWz(**OPTIONS, proposal="mixture", mixture_points=POINTS)


@functools.cache
def trained(folder: Path, max_events: int) -> DerivativePosterior:
    """The learned ratio, kept in a folder."""
    found = folder / f"ratio-{max_events}"
    if not found.exists():
        train = sp.simulate(mixture(), EVENTS, prior=box(), seed=1, progress=SILENT)
        settings = {**TRAINING, "max_events": max_events}
        DerivativeEngine().train(train, settings, seed=1, progress=SILENT).save(found)
    posterior = sp.load_posterior(found)
    assert isinstance(posterior, DerivativePosterior)
    return posterior


@functools.cache
def pool(folder: Path, ratio: str) -> tuple[LikelihoodRatio, EventPool]:
    """The likelihood under test and events with exact weights."""
    sample = ReferenceSample.draw(mixture(), POOL, np.random.default_rng(5))
    if ratio == "exact":
        return LikelihoodRatio(sample.model(prior=box())), sample.pool(prior=box())
    events = trained(folder, 0).coefficients(sample.x)
    return LikelihoodRatio(sample.model(events, prior=box())), sample.pool(events, prior=box())


def measure(folder: Path, ratio: str, truth: str, interest: tuple[str, ...]) -> dict[str, Any]:
    """Coverage and critical values of one row."""
    likelihood, events = pool(folder, ratio)
    point = np.array(TRUTHS[truth])
    held = {n: float(v) for n, v in zip(BOX, point, strict=True) if n not in interest}
    toys = run_toys(likelihood, events, point[None], held=held, n_toys=TOYS, seed=11)
    found = toys.coverage(LEVELS)
    covered = found.coverage[0]
    return {
        "coverage": covered.tolist(),
        "error": np.sqrt(covered * (1 - covered) / TOYS).tolist(),
        "joint_interval": [found.low[0].tolist(), found.high[0].tolist()],
        "critical": [[float(v[0]) for v in toys.quantile(level)] for level in LEVELS],
        "below_floor": float(toys.below_floor[0]),
    }


def validated(folder: Path) -> dict[str, Any]:
    """The posterior of sets of events, through the validator."""
    posterior, prior = trained(folder, SET_EVENTS), box()
    rng = np.random.default_rng(8)
    theta = prior.sample(PAIRS, rng)
    each = SmeftWz(**OPTIONS).simulate(np.repeat(theta, SET_EVENTS, axis=0), rng)
    x = np.ones((PAIRS, SET_EVENTS, each.shape[1] + 1), np.float32)
    x[..., :-1] = each.reshape(PAIRS, SET_EVENTS, -1)
    pairs = sp.Simulations.from_arrays(
        theta, x, prior, posterior.observable, purpose="pairs", seed=9
    )
    coverage = sp.validate(posterior, pairs, n_draws=DRAWS, seed=1, progress=SILENT)
    return {"verdict": str(coverage.verdict), "p": float(coverage.p_global)}


def table(rows: list[dict[str, Any]]) -> str:
    """Return the table in Markdown."""
    lines = [
        "| ratio | truth | region of | 68.3 % | 95.4 % | critical values (Wilks) |",
        "|---|---|---|---|---|---|",
    ]
    wilks = {1: (1.0, 3.98), 2: (2.30, 6.16)}
    for row in rows:
        if "verdict" in row:
            continue
        cells = [f"{c:.3f} ± {e:.3f}" for c, e in zip(row["coverage"], row["error"], strict=True)]
        critical = [
            f"{q[0]:.2f} [{q[1]:.2f}, {q[2]:.2f}] ({w:.2f})"
            for q, w in zip(row["critical"], wilks[len(row["interest"])], strict=True)
        ]
        lines.append(
            f"| {row['ratio']} | {row['truth']} | {', '.join(row['interest'])} | "
            f"{' | '.join(cells)} | {', '.join(critical)} |"
        )
    for row in rows:
        if "verdict" in row:
            lines.append(f"\nPosterior of sets, `sp.validate`: {row['verdict']}, p {row['p']:.2g}")
    return "\n".join(lines)


def main() -> None:
    """Measure what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    results_file.options(parser, "bench_smeft_coverage")
    options = parser.parse_args()
    folder = options.output.parent / f"{options.output.stem}-posteriors"
    folder.mkdir(parents=True, exist_ok=True)
    pieces: list[dict[str, Any]] = [
        {"ratio": ratio, "truth": truth, "interest": list(interest)}
        for ratio in ("exact", "learned")
        for truth in TRUTHS
        for interest in INTERESTS
    ]
    pieces.append({"posterior": "sets"})

    def one(**piece: Any) -> dict[str, Any]:
        if "posterior" in piece:
            return validated(folder)
        return measure(folder, piece["ratio"], piece["truth"], tuple(piece["interest"]))

    print(table(results_file.run(options.output, pieces, one, options.max_seconds)))


if __name__ == "__main__":
    main()
