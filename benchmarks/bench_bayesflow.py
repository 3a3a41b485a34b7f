"""BayesFlow's own training and sampling against `bayesflow-cinn`, same network, same data.

    OMP_NUM_THREADS=1 python benchmarks/bench_bayesflow.py

One process, one thread, processor seconds. Both sides train the same coupling flow (3 parameters,
affine, depth 4, subnets 128-128, no dropout) on the same number of simulations and batches, one
epoch at a time in turn; ours also evaluates the held-out tenth after each. Printed are medians,
and the median of the ratios of neighbouring runs with its quartiles.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sbi_physics_bayesflow.backend import seeded
from sbi_physics_bayesflow.cinn import CouplingEngine

import sbi_physics as sp
from sbi_physics.guard import quiet
from sbi_physics.nn.loop import fit
from sbi_physics.progress import SILENT
from sbi_physics.testing import ToyGaussian
from sbi_physics.training import TrainingData

WIDTHS = (128, 128)
SETTINGS = {
    "transform": "affine",
    "depth": 4,
    "widths": WIDTHS,
    "max_epochs": 1,
    "batch_size": 512,
    "schedule": "constant",
}


def seconds(function: Callable[[], Any]) -> float:
    """Return the processor time of a call."""
    start = time.process_time()
    function()
    return time.process_time() - start


def in_turn(
    native: Callable[[], Any], ours: Callable[[], Any], pairs: int
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the times of both, called in turn after one call each that does not count."""
    native()  # BayesFlow builds its network at the first call
    ours()
    times = np.array([(seconds(native), seconds(ours)) for _ in range(pairs)])
    return times[:, 0], times[:, 1]


def row(job: str, native: np.ndarray[Any, Any], ours: np.ndarray[Any, Any], unit: float) -> None:
    """Print one comparison; `unit` divides the times."""
    low, middle, high = np.percentile(native / ours, [25, 50, 75])
    print(
        f"| {job} | {np.median(native) / unit:.3g} | {np.median(ours) / unit:.3g} "
        f"| {middle:.2f} ({low:.2f} to {high:.2f}) |",
        flush=True,
    )


def main() -> None:
    """Run all comparisons and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--draw-pairs", type=int, default=9)
    parser.add_argument("--simulations", type=int, default=10_000)
    parser.add_argument("--observations", type=int, default=100)
    parser.add_argument("--draws", type=int, default=1000)
    options = parser.parse_args()
    torch.set_num_threads(1)

    toy = ToyGaussian(dimension=3)
    simulations = sp.simulate(toy, options.simulations, seed=1)
    engine = CouplingEngine()
    posterior = engine.train(simulations, SETTINGS, seed=1)
    settings = engine.settings(**SETTINGS)
    data = TrainingData(simulations, infer=simulations.parameters.names, settings=settings, seed=1)
    steps = -(-data.n_train // settings.batch_size)

    view = toy.native("bayesflow")
    with seeded(1) as backend, quiet(["bayesflow"]):
        approximator = backend.bayesflow.ContinuousApproximator(
            inference_network=backend.bayesflow.networks.CouplingFlow(
                depth=4, transform="affine", subnet_kwargs={"widths": WIDTHS, "dropout": None}
            ),
            adapter=view.adapter,
            standardize="all",
        )
        everything = view.dataset(simulations)
        rows = {k: v[: data.n_train] for k, v in everything.data.items()}
        dataset = backend.bayesflow.OfflineDataset(rows, settings.batch_size, view.adapter)
        approximator.compile(optimizer=backend.keras.optimizers.Adam(settings.learning_rate))

    def native_fit() -> None:
        with quiet(["bayesflow"]):
            approximator.fit(dataset=dataset, epochs=1, verbose=0)

    def our_fit() -> None:
        fit(posterior.network, posterior.network.loss, data, settings, seed=1, progress=SILENT)

    x = sp.simulate(toy, options.observations, seed=1, purpose="pairs").x

    def native_draws() -> None:
        with quiet(["bayesflow"]):
            approximator.sample(
                num_samples=options.draws, conditions={"x": x}, batch_size=50, seed=1
            )

    def our_draws() -> None:
        posterior.sample(x, options.draws, np.random.default_rng(1))

    print("| job | BayesFlow | here | ratio |\n|---|---|---|---|")
    job = f"training step of {settings.batch_size}, ms"
    row(job, *in_turn(native_fit, our_fit, options.pairs), steps * 1e-3)
    job = f"draws, {options.observations} observations x {options.draws}, s"
    times = [(seconds(native_draws), seconds(our_draws)) for _ in range(options.draw_pairs)]
    row(job, *np.array(times).T, 1.0)


if __name__ == "__main__":
    main()
