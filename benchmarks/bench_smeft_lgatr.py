"""Perceptron against L-GATr on reconstructed WZ events: loss and processor time at a small scale.

`smeft-derivative` by the cross-entropy of the mixture's points, 20 000 events of the mixture of
`bench_smeft_reco`. Networks are tested on 20 000 events with equal shares of the points: how well
do they tell which one an event came from, in thousandths of a nat better than without looking?
Errors are those of a bootstrap of the test events, the same samples for all networks.

    python benchmarks/bench_smeft_lgatr.py --seeds 1 --max-seconds 200       # resumes
"""

from __future__ import annotations

import argparse
import functools
import time
from typing import Any

import numpy as np
import results_file
import torch
from bench_smeft_reco import POINTS, mixture
from sbi_physics_smeft.conventions import pack
from sbi_physics_smeft.engines.derivative import DerivativeEngine
from sbi_physics_smeft.smeft_wz import SmeftWz

import sbi_physics as sp
from sbi_physics.likelihood.gram import monomials
from sbi_physics.progress import SILENT

EVENTS, TESTS, BATCH, RESAMPLES = 20_000, 20_000, 128, 200
SMALL = {
    "network": "lgatr",
    "lgatr_blocks": 2,
    "lgatr_multivectors": 4,
    "lgatr_scalars": 16,
    "lgatr_heads": 2,
}
NETWORKS: dict[str, dict[str, Any]] = {
    "perceptron, 4 epochs": {"max_epochs": 4},
    "L-GATr, small, 4 epochs": {**SMALL, "max_epochs": 4},
}
DEFAULT_EVENTS = 1000
"""Training events of a network of default sizes, whose time alone is measured."""


@functools.cache
def equal() -> SmeftWz:
    """The mixture with equal shares of all points, before selection."""
    return SmeftWz(proposal="mixture", mixture_points=POINTS, sm_share=1 / len(mixture().points))


@functools.cache
def tests() -> tuple[np.ndarray, np.ndarray]:
    """Data of events and the probabilities of their origin, shape (n, points)."""
    theta, rng = np.zeros((TESTS, 3)), np.random.default_rng(7)
    z = equal().simulate_latent(theta, rng)
    return equal().observe(z, theta, rng), origin(pack(equal().labels(z)["gram"]))


def origin(gram: np.ndarray) -> np.ndarray:
    """Probability of each point for matrices (n, entries), shape (n, points).

    The chance to be selected is the same for all points, given the event.
    """
    rows = monomials(equal().points)
    values = gram @ rows.T / (rows @ pack(equal().inclusive_gram()))
    return values / values.sum(axis=1, keepdims=True)


def measure(network: str, seed: int) -> dict[str, Any]:
    """Losses and processor times of one network."""
    train = sp.simulate(mixture(), EVENTS, seed=seed, progress=SILENT)
    settings = {"loss": "cross-entropy", "batch_size": BATCH, **NETWORKS[network]}
    start = time.process_time()
    posterior = DerivativeEngine().train(train, settings, seed=seed)
    seconds = time.process_time() - start
    x, truth = tests()
    found = np.log(np.maximum(origin(posterior.coefficients(x)), 1e-12))
    loss = -(truth * found).sum(axis=1)
    history = posterior.context.history
    return {
        "weights": sum(p.numel() for p in posterior.network.parameters()),
        "seconds": seconds,
        "epochs": len(history.validation_loss),
        "validation": history.validation_loss[-1],
        "first": history.validation_loss[0],
        **resampled(loss),
    }


def resampled(loss: np.ndarray) -> dict[str, Any]:
    """Gain over the best guess without data, in 1e-3, of all test events and of samples."""
    guess = tests()[1] @ -np.log(origin(pack(equal().fiducial_gram())[None]))[0]
    gain = 1e3 * (guess - loss)
    counts = np.random.default_rng(9).multinomial(TESTS, np.full(TESTS, 1 / TESTS), RESAMPLES)
    return {"gain": gain.mean(), "samples": np.round(counts @ gain / TESTS, 4).tolist()}


def default_sizes() -> str:
    """Time of an epoch of a network of default sizes, for as many events as the others."""
    train = sp.simulate(mixture(), DEFAULT_EVENTS, seed=1, progress=SILENT)
    settings = {"loss": "cross-entropy", "batch_size": BATCH, "network": "lgatr", "max_epochs": 1}
    start = time.process_time()
    posterior = DerivativeEngine().train(train, settings, seed=1)
    seconds = (time.process_time() - start) * EVENTS / DEFAULT_EVENTS
    weights = sum(p.numel() for p in posterior.network.parameters())
    return f"L-GATr, default sizes: {weights} weights, {seconds:.0f} CPU s an epoch"


def table(rows: list[dict[str, Any]]) -> str:
    """Return the table in Markdown."""
    lines = [
        "| network | seed | weights | CPU s an epoch | validation loss, first and last epoch "
        "| gain on test events, 1e-3 | minus that of the first |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        first = next(other for other in rows if other["seed"] == row["seed"])
        samples = np.array([row["samples"], first["samples"]])
        own, paired = samples[0].std(ddof=1), (samples[0] - samples[1]).std(ddof=1)
        lines.append(
            f"| {row['network']} | {row['seed']} | {row['weights']} "
            f"| {row['seconds'] / row['epochs']:.1f} | {row['first']:.4f}, "
            f"{row['validation']:.4f} | {row['gain']:.1f} ± {own:.1f} "
            f"| {row['gain'] - first['gain']:.1f} ± {paired:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--default-sizes", action="store_true", help="time of an epoch alone")
    results_file.options(parser, "bench_smeft_lgatr")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.default_sizes:
        print(default_sizes())
        return
    pieces = [{"network": n, "seed": 1 + s} for s in range(options.seeds) for n in NETWORKS]
    print(table(results_file.run(options.output, pieces, measure, options.max_seconds)))


if __name__ == "__main__":
    main()
