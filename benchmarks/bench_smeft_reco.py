"""Limits from reconstructed WZ events: learned ratios, a histogram of mT(WZ), and generic NRE.

Three leptons and missing momentum after the detector, 300 fb^-1, each coefficient with the others
at zero; every method sees the same number of simulated events. Two kinds of expected 95 % limits:

- achieved: where the median Standard Model experiment excludes the point at 1.96 standard
  deviations of the method's own statistic (`likelihood.separation`): right for right and wrong
  ratios;
- claimed: Asimov set and Wilks' threshold, which trusts the ratio.

    python benchmarks/bench_smeft_reco.py --max-seconds 400       # resumes
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import results_file
from sbi_physics_smeft.engines.derivative import DerivativeEngine
from sbi_physics_smeft.engines.label_engine import LabelEngine
from sbi_physics_smeft.engines.morphing_engine import MorphingEngine
from sbi_physics_smeft.samples import ReferenceSample
from sbi_physics_smeft.smeft_wz import SmeftWz

import sbi_physics as sp
from sbi_physics.likelihood import (
    EventModel,
    FunctionModel,
    LikelihoodRatio,
    separation,
)
from sbi_physics.progress import SILENT

EVENTS, POOL, RESAMPLES, LEVEL, CHI2 = 60_000, 60_000, 200, 1.959964, 3.841459
POINTS = (
    (0.0, 0.0, 0.0), (3.0, 0.0, 0.0), (-3.0, 0.0, 0.0), (0.0, 0.5, 0.0), (0.0, -0.5, 0.0),
    (0.0, 0.0, 0.5), (0.0, 0.0, -0.5), (3.0, 0.5, 0.0), (3.0, 0.0, 0.5), (0.0, 0.5, 0.5),
)  # fmt: skip
"""Mixture of the sample and of label learning: squared amplitudes of the size of the interference
with the Standard Model at energies of a few TeV."""
EDGES = np.log([150.0, 200, 250, 300, 350, 400, 500, 600, 700, 850, 1000, 1250, 1500, 2000])
GRIDS = {
    "C_HWB": np.geomspace(0.04, 0.6, 10),
    "C_W": np.geomspace(0.01, 0.1, 10),
    "C_Hq3": np.geomspace(0.004, 0.05, 10),
}
LEARNED = {"max_epochs": 40, "hidden_features": 96}
GENERIC = {"embedding": "none", "contrasts": 8, "batch_size": 512, "max_epochs": 15}
METHODS = ("histogram", "smeft-derivative", "smeft-morphing", "sbi-nre")


@functools.cache
def sample() -> ReferenceSample:
    """Events with exact weights by their parton-level labels, and their data."""
    return ReferenceSample.draw(mixture(), POOL, np.random.default_rng(99))


def mixture() -> SmeftWz:
    """Where events of the sample and of label learning come from."""
    return SmeftWz(proposal="mixture", mixture_points=POINTS)


def points() -> np.ndarray:
    """All points of the scans, shape (6 x 10, 3): each coefficient upwards, then downwards."""
    found = []
    for column, grid in enumerate(GRIDS.values()):
        for sign in (1, -1):
            theta = np.zeros((len(grid), 3))
            theta[:, column] = sign * grid
            found.append(theta)
    return np.concatenate(found)


def histogram(seed: int) -> tuple[EventModel, np.ndarray]:
    """Each event stands for its bin: the mean matrix of simulated events there."""
    train = ReferenceSample.draw(mixture(), EVENTS, np.random.default_rng(seed))
    means = train.binned(mixture().summary_statistics(train.x)[:, 0], EDGES)
    events = means[np.digitize(mixture().summary_statistics(sample().x)[:, 0], EDGES)]
    return sample().model(events), events


def labelled(
    seed: int, engine: LabelEngine, points: Sequence[Sequence[float]] = POINTS, **settings: str
) -> tuple[EventModel, np.ndarray]:
    """The ratio from parton-level labels of events from a mixture of these points and zero."""
    simulator = SmeftWz(proposal="mixture", mixture_points=points)
    train = sp.simulate(simulator, EVENTS, seed=seed, progress=SILENT)
    posterior = engine.train(train, {**LEARNED, **settings}, seed=seed)
    events = posterior.coefficients(sample().x)
    return sample().model(events), events


def generic(seed: int) -> tuple[EventModel, np.ndarray]:
    """A classifier that sees parameters and data but no labels, normalised on the sample."""
    wz, x, weight = SmeftWz(), sample().x, sample().weight
    train = sp.simulate(wz, EVENTS, seed=seed, progress=SILENT)
    posterior = sp.train(train, "sbi-nre", settings=GENERIC, seed=seed, progress=SILENT)
    theta = np.concatenate([np.zeros((1, 3)), points()])
    log = np.concatenate(
        [posterior.log_ratio(theta, x[i : i + 5000]) for i in range(0, len(x), 5000)]
    )
    log = (log - log[:, :1]).T
    log -= np.log(np.exp(log) @ weight / weight.sum())[:, None]
    log += np.log(wz.expected_events(theta) / wz.expected_sm_events())[:, None]

    def tabulated(at: np.ndarray, events: np.ndarray) -> np.ndarray:
        rows = np.abs(theta[None] - at[:, None]).sum(axis=2).argmin(axis=1)
        return log[np.ix_(rows, events[:, 0].astype(int))]

    numbers = np.arange(len(x), dtype=np.float64)[:, None]
    return FunctionModel(wz.prior, tabulated, wz.expected_events), numbers


def measure(method: str, seed: int) -> dict[str, Any]:
    """Limits of one method: {coefficient: [upper, lower]}, and bootstrap samples of the same."""
    start = time.process_time()
    makers: dict[str, Callable[[int], tuple[EventModel, np.ndarray]]] = {
        "histogram": histogram,
        "smeft-derivative": lambda seed: labelled(seed, DerivativeEngine(), loss="cross-entropy"),
        "smeft-morphing": lambda seed: labelled(seed, MorphingEngine(), POINTS[1:], loss="alice"),
        "sbi-nre": generic,
    }
    model, events = makers[method](seed)
    seconds = time.process_time() - start
    seen = sample().pool(events)
    likelihood, theta = LikelihoodRatio(model), points()
    z = separation(likelihood, seen, np.zeros(3), theta, resamples=RESAMPLES, seed=1)
    data = seen.asimov(np.zeros(3))
    t = likelihood.minus2_log_ratio(theta, data)
    achieved, samples = _limits(z[0], LEVEL), [_limits(row, LEVEL) for row in z[1:]]
    return {
        "achieved": achieved,
        "claimed": _limits(t, CHI2),
        "samples": samples,
        "seconds": seconds,
    }


def _limits(values: np.ndarray, level: float) -> list[float]:
    """Where a statistic crosses a level, by interpolation of logarithms, shape (6,)."""
    found, start = [], 0
    for grid in GRIDS.values():
        for _ in range(2):
            log = np.log(np.maximum(values[start : start + len(grid)], 1e-12))
            rising = np.maximum.accumulate(log)
            inside = rising[0] < np.log(level) < rising[-1]
            crossing = np.exp(np.interp(np.log(level), rising, np.log(grid)))
            found.append(float(crossing) if inside else float("nan"))
            start += len(grid)
    return found


def ratios(rows: list[dict[str, Any]], method: str, other: str) -> tuple[np.ndarray, np.ndarray]:
    """Widths of a method over those of another, and errors, for each coefficient.

    Errors are those of the bootstrap, the same samples for both, and of the seeds.
    """

    def widths(name: str, which: str) -> np.ndarray:
        mine = [row for row in rows if row["method"] == name]
        values = np.array([row[which] for row in mine], dtype=np.float64)
        return values.reshape(*values.shape[:-1], 3, 2).sum(axis=-1)

    value = widths(method, "achieved").mean(axis=0) / widths(other, "achieved").mean(axis=0)
    samples = widths(method, "samples").mean(axis=0) / widths(other, "samples").mean(axis=0)
    variance = samples.var(axis=0, ddof=1)
    for name in (method, other):
        own = widths(name, "achieved")
        if len(own) > 1:
            variance += value**2 * own.var(axis=0, ddof=1) / len(own) / own.mean(axis=0) ** 2
    return value, np.sqrt(variance)


def table(rows: list[dict[str, Any]]) -> str:
    """Return both tables in Markdown."""
    lines = [
        f"| method | seed | {' | '.join(f'{n}, achieved (claimed)' for n in GRIDS)} | CPU s |"
    ]
    lines.append("|---" * 6 + "|")
    ends = [grid[-1] for grid in GRIDS.values()]

    def shown(values: list[float], k: int) -> str:
        up, down = values[2 * k], values[2 * k + 1]
        if np.isnan([up, down]).any():
            return f"beyond ±{ends[k]:g}"
        return f"-{down:.4f}, {up:.4f}"

    for row in rows:
        cells = [f"{shown(row['achieved'], k)} ({shown(row['claimed'], k)})" for k in range(3)]
        lines.append(
            f"| {row['method']} | {row['seed']} | {' | '.join(cells)} | {row['seconds']:.0f} |"
        )
    present = {row["method"] for row in rows}
    lines += [
        "",
        f"| width over that of smeft-derivative | {' | '.join(GRIDS)} |",
        "|---|---|---|---|",
    ]
    for method in ("histogram", "smeft-morphing", "sbi-nre"):
        if {method, "smeft-derivative"} <= present:
            value, error = ratios(rows, method, "smeft-derivative")
            cells = [
                "beyond the scan" if np.isnan(v) else f"{v:.3f} ± {e:.3f}"
                for v, e in zip(value, error, strict=True)
            ]
            lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2)
    results_file.options(parser, "bench_smeft_reco")
    options = parser.parse_args()
    pieces = [{"method": m, "seed": 1 + s} for s in range(options.seeds) for m in METHODS]
    print(table(results_file.run(options.output, pieces, measure, options.max_seconds)))


if __name__ == "__main__":
    main()
