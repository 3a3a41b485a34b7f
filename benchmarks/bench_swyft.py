"""Log ratios for many observations: swyft's `infer` against the same network evaluated here.

    OMP_NUM_THREADS=1 python benchmarks/bench_swyft.py

One process, one thread, processor seconds. Both sides use the same trained weights and the same
points; the largest difference of their log ratios is printed. swyft handles one observation a
call, so its time is measured on `--measured` observations and scaled. `--observations` and
`--points` set the size.
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sbi_physics_swyft.backend import LOGGERS, swyft
from sbi_physics_swyft.native_posterior import native_posterior

import sbi_physics as sp
from sbi_physics.guard import quiet
from sbi_physics.nn.coordinates import to_normal
from sbi_physics.testing import ToyGaussian

ROWS = ("joint", "marginals", "wrapped")


class Native(swyft.SwyftModule):  # type: ignore[misc]
    """The engine's network, with batch normalisation, as a swyft user would write it."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.embedding = network.embedding
        self.estimators = torch.nn.ModuleDict()
        d = len(network.names)
        for head in network.heads:
            width = network.estimators[head.name].classifier.net.hidden_features
            columns = tuple(tuple(network.columns(block)) for block in head.blocks)
            if len(columns[0]) == 1:
                fresh = swyft.LogRatioEstimator_1dim(
                    network.n_features,
                    d,
                    varnames="z",
                    hidden_features=width,
                    ptrans_online_z_score=False,
                )
            else:
                fresh = swyft.LogRatioEstimator_Ndim(
                    network.n_features, marginals=columns, varnames="z", hidden_features=width
                )
            fresh.load_state_dict(network.estimators[head.name].state_dict())
            self.estimators[head.name] = fresh

    def forward(self, sample: Any, contrast: Any) -> Any:
        """Return the log ratios of every head."""
        features = self.embedding(sample["x"])
        return {k: v(features, contrast["z"]) for k, v in self.estimators.items()}


def seconds(function: Callable[[], Any]) -> tuple[float, Any]:
    """Return the processor time of a call, and what it returned."""
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def compare(heads: str, n: int, k: int, measured: int) -> None:
    """Print one row of the table."""
    toy = ToyGaussian(dimension=3)
    simulations = sp.simulate(toy, 1000, seed=1)
    settings = {"max_epochs": 2, "heads": heads, "batch_norm": True}
    posterior: Any = sp.train(simulations, "swyft-tmnre", settings=settings, seed=1)
    rng = np.random.default_rng(1)
    x = toy.simulate(toy.prior.sample(n, rng), rng)
    points = toy.prior.sample(k, rng)
    xt = posterior.context.transform(x)
    blocks = posterior.blocks

    def ours() -> list[Any]:
        parts = [posterior] if len(blocks) == 1 else [posterior.marginal(b) for b in blocks]
        columns = [toy.parameters.indices(b) for b in blocks]
        return [p.log_ratio(points[:, c], x) for p, c in zip(parts, columns, strict=True)]

    here, ratios = seconds(ours)
    module = Native(posterior.network).eval()
    z = to_normal(torch.from_numpy(toy.prior.to_unconstrained(points))).float().numpy()
    trainer = swyft.SwyftTrainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False
    )
    samples = swyft.Samples(z=z)

    def native(count: int) -> list[Any]:
        return [
            trainer.infer(module, swyft.Sample(x=xt[i]), samples, batch_size=k)
            for i in range(count)
        ]

    with quiet(LOGGERS):
        native(2)  # imports and caches
        there, outputs = seconds(lambda: native(measured))
    expected = [
        torch.cat([out[name].logratios for name in out], dim=1).T.numpy() for out in outputs
    ]
    worst = max(
        float(np.abs(np.stack([r[i] for r in ratios]) - e).max()) for i, e in enumerate(expected)
    )
    scaled = there * n / measured
    print(
        f"| {heads}, {len(blocks)} channel{'s' * (len(blocks) > 1)} | {scaled:.1f} | {here:.2f} "
        f"| {scaled / here:.0f} | {worst:.0e} |",
        flush=True,
    )


def wrapped(n: int, k: int, measured: int) -> None:
    """Print the row of a swyft module wrapped for the validator."""
    toy = ToyGaussian(dimension=3)
    settings = {"max_epochs": 1, "batch_norm": True}
    posterior: Any = sp.train(
        sp.simulate(toy, 1000, seed=1), "swyft-tmnre", settings=settings, seed=1
    )
    module = Native(posterior.network).eval()
    rng = np.random.default_rng(1)
    points, x = toy.prior.sample(k, rng), toy.simulate(toy.prior.sample(n, rng), rng)
    trainer = swyft.SwyftTrainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False
    )
    samples = swyft.Samples(z=points.astype(np.float32))
    with quiet(LOGGERS):
        there, outputs = seconds(
            lambda: [
                trainer.infer(module, swyft.Sample(x=x[i]), samples, batch_size=k)
                for i in range(measured)
            ]
        )
    view: Any = native_posterior(module, toy.prior, toy.observable)
    here, ratios = seconds(lambda: view.log_ratio(points, x))
    worst = max(
        float(np.abs(ratios[i] - out["joint"].logratios[:, 0].numpy()).max())
        for i, out in enumerate(outputs)
    )
    scaled = there * n / measured
    print(
        f"| the user's module, wrapped for `validate` | {scaled:.1f} | {here:.2f} "
        f"| {scaled / here:.0f} | {worst:.0e} |",
        flush=True,
    )


def main() -> None:
    """Run all comparisons and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--observations", type=int, default=1000)
    parser.add_argument("--points", type=int, default=2000)
    parser.add_argument("--measured", type=int, default=50, help="observations given to swyft")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS, help="rows to measure")
    options = parser.parse_args()
    n, k = options.observations, options.points
    measured = min(n, options.measured)
    warnings.simplefilter("ignore")
    logging.disable(logging.INFO)
    torch.set_num_threads(1)
    print(
        f"{n} observations x {k} points, 3 parameters, torch {torch.__version__}; swyft's "
        f"`infer` on {measured} observations, scaled\n"
    )
    print("| network | swyft, s | here, s | ratio | largest difference |\n|---|---|---|---|---|")
    for name in options.rows:
        if name == "wrapped":
            wrapped(n, k, measured)
        else:
            compare(name, n, k, measured)


if __name__ == "__main__":
    main()
