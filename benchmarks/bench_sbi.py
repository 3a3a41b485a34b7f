"""Sampling for many observations: sbi's own posteriors against the same networks wrapped here.

    OMP_NUM_THREADS=1 python benchmarks/bench_sbi.py

One process, one thread, processor seconds; every row compares the same trained network. Networks
are trained briefly: the time of a draw depends on the architecture, not on the fit, except that
leakage slows sbi's rejection. `--observations` and `--draws` scale the work.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sbi.inference import NPE, NRE_A
from sbi_physics_sbi.native_posterior import native_posterior

import sbi_physics as sp
from sbi_physics.testing import ToyGaussian

ROWS = ("densities", "ratios", "engines")
RATIO_OBSERVATIONS = 1000
MCMC_OBSERVATIONS = 2
MCMC_DRAWS = 100


class NoTracker:
    """Keeps sbi from writing logs into the working folder."""

    log_dir = None

    def _ignore(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing."""

    log_metric = log_metrics = log_params = add_figure = flush = _ignore


def seconds(function: Callable[[], Any]) -> float:
    """Return the processor time of a call."""
    start = time.process_time()
    function()
    return time.process_time() - start


def trained(method: Any, toy: ToyGaussian, epochs: int) -> Any:
    """Return sbi's posterior after a few epochs on 4000 simulations."""
    simulator, prior = toy.native("sbi")
    torch.manual_seed(1)
    theta = prior.sample((4000,))
    inference = method(prior, show_progress_bars=False, tracker=NoTracker())
    inference.append_simulations(theta, simulator(theta)).train(max_num_epochs=epochs)
    return inference.build_posterior()


def row(job: str, native: float, ours: float) -> None:
    """Print one comparison."""
    print(f"| {job} | {native:.2f} | {ours:.2f} | {native / ours:.1f} |")


def densities(toy: ToyGaussian, n: int, draws: int) -> None:
    """Print the rows of density estimators."""
    rng = np.random.default_rng(1)
    theta = toy.prior.sample(n, rng)
    x = toy.simulate(theta, rng)
    xt = torch.from_numpy(x)
    for name, epochs in (("maf", 5), ("maf", 40), ("zuko_nsf", 10), ("mdn", 20)):
        method = lambda prior, name=name, **k: NPE(prior, density_estimator=name, **k)  # noqa: E731
        direct = trained(method, toy, epochs)
        ours = native_posterior(direct, toy.prior)
        native = seconds(
            lambda p=direct: p.sample_batched((draws,), x=xt, show_progress_bars=False)
        )
        mine = seconds(lambda p=ours: p.sample(x, draws, np.random.default_rng(1)))
        row(f"NPE draws, {name}, {epochs} epochs", native, mine)

    points = np.repeat(theta[:, None], 100, axis=1)

    def normalised() -> None:
        for i in range(10):
            direct.log_prob(torch.from_numpy(points[i]).float(), x=xt[i : i + 1])

    row(
        "normalised log density, 100 points each (sbi: 10 observations, scaled)",
        seconds(normalised) * n / 10,
        seconds(lambda: ours.log_prob(points, x)),
    )


def ratios(toy: ToyGaussian, draws: int) -> None:
    """Print the row of ratio estimators: many observations, sbi's chains scaled from a few."""
    rng = np.random.default_rng(1)
    x = toy.simulate(toy.prior.sample(RATIO_OBSERVATIONS, rng), rng)
    ratio = trained(NRE_A, toy, 10)
    pool = native_posterior(ratio, toy.prior)

    def chains() -> None:
        for i in range(MCMC_OBSERVATIONS):
            one = torch.from_numpy(x[i : i + 1])
            ratio.sample((MCMC_DRAWS,), x=one, show_progress_bars=False)

    native = seconds(chains) * RATIO_OBSERVATIONS / MCMC_OBSERVATIONS
    here = seconds(lambda: pool.sample(x, draws, np.random.default_rng(1)))
    row(
        f"NRE, {RATIO_OBSERVATIONS} observations (sbi: MCMC, {MCMC_DRAWS} draws each, "
        f"{MCMC_OBSERVATIONS} observations, scaled; here: all, {draws} draws each)",
        native,
        here,
    )


def engines(toy: ToyGaussian, n: int, draws: int) -> None:
    """Print the times of this package's own engines."""
    print("\nengines, same task (networks of this package):\n")
    print("| engine | train, s | draws, s | log density of the draws, s |\n|---|---|---|---|")
    rng = np.random.default_rng(1)
    x = toy.simulate(toy.prior.sample(n, rng), rng)
    simulations = sp.simulate(toy, 4000, seed=1)
    for engine in ("sbi-npe", "sbi-nre"):
        start = time.process_time()
        posterior = sp.train(simulations, engine, settings={"max_epochs": 10}, seed=1)
        fit = time.process_time() - start
        start = time.process_time()
        sampled = posterior.sample(x, draws, rng)
        draw = time.process_time() - start
        start = time.process_time()
        posterior.log_prob(sampled, x)
        density = time.process_time() - start
        print(f"| {engine} (10 epochs) | {fit:.1f} | {draw:.2f} | {density:.2f} |")


def main() -> None:
    """Run the comparisons asked for and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--observations", type=int, default=100)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS, help="rows to measure")
    options = parser.parse_args()
    n, draws = options.observations, options.draws
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    toy = ToyGaussian(dimension=3)
    print(f"{n} observations x {draws} draws, 3 parameters, torch {torch.__version__}\n")
    print("| job | sbi, s | here, s | ratio |\n|---|---|---|---|")
    if "densities" in options.rows:
        densities(toy, n, draws)
    if "ratios" in options.rows:
        ratios(toy, draws)
    if "engines" in options.rows:
        engines(toy, n, draws)


if __name__ == "__main__":
    main()
