"""Validation with the draws included: sbi's own way to them against `sp.validate`.

    OMP_NUM_THREADS=1 python benchmarks/bench_validate_draws.py

One process, one thread, processor seconds. `sp.validate` draws for every pair, evaluates the
density of the draws and of the truth, runs every test and gives the verdict. sbi's side is only
what such a validation needs of it: draws and their unnormalised densities. sbi's side of flows is
measured on some of the observations and scaled; its Markov chains for ratios start anew at every
observation, so few are run and their time is multiplied by the number of observations.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from sbi.inference import NPE, NRE_A

import sbi_physics as sp
from sbi_physics.testing import ToyGaussian


class NoTracker:
    """Keeps sbi from writing logs into the working folder."""

    log_dir = None

    def _ignore(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing."""

    log_metric = log_metrics = log_params = add_figure = flush = _ignore


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """Return the result and the processor time of a call."""
    start = time.process_time()
    result = function()
    return result, time.process_time() - start


def trained(method: Any, toy: ToyGaussian, epochs: int) -> Any:
    """Return sbi's posterior after a few epochs on 4000 simulations."""
    simulator, prior = toy.native("sbi")
    torch.manual_seed(1)
    theta = prior.sample((4000,))
    inference = method(prior, show_progress_bars=False, tracker=NoTracker())
    inference.append_simulations(theta, simulator(theta)).train(max_num_epochs=epochs)
    return inference.build_posterior()


def flow_draws(posterior: Any, x: torch.Tensor, n_draws: int) -> None:
    """Draw and evaluate in sbi, for all observations in one call each."""
    draws = posterior.sample_batched((n_draws,), x=x, show_progress_bars=False)
    posterior.log_prob_batched(draws, x=x, norm_posterior=False)


def chain_draws(posterior: Any, x: torch.Tensor, n_draws: int) -> None:
    """Draw in sbi by Markov chains and evaluate, one observation at a time."""
    for one in x:
        draws = posterior.sample((n_draws,), x=one[None], show_progress_bars=False)
        posterior.potential(draws, x=one[None])


def main() -> None:
    """Run all comparisons and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--flow-observations", type=int, default=100)
    parser.add_argument("--chain-observations", type=int, default=2)
    options = parser.parse_args()
    n, n_draws, epochs = options.pairs, options.draws, options.epochs
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)

    toy = ToyGaussian(dimension=3)
    simulations = sp.simulate(toy, 4000, seed=1)
    pairs = sp.simulate(toy, n, seed=1, purpose="pairs")
    x = torch.from_numpy(pairs.x[: options.flow_observations])

    flow = trained(lambda prior, **k: NPE(prior, density_estimator="nsf", **k), toy, epochs)
    _, native = timed(lambda: flow_draws(flow, x, n_draws))
    flow_native = native * n / len(x)
    ratio = trained(NRE_A, toy, epochs)
    chains = x[: options.chain_observations]
    _, native = timed(lambda: chain_draws(ratio, chains, n_draws))
    ratio_native = native * n / len(chains)

    print(f"{n} pairs x {n_draws} draws, 3 parameters, torch {torch.__version__}\n")
    print("| posterior | sbi: draws and densities, s | `sp.validate`, s | gain, nats | verdict |")
    print("|---|---|---|---|---|")
    settings = {"density_estimator": "nsf", "max_epochs": epochs}
    rows: tuple[tuple[str, Callable[[], Any], float | None], ...] = (
        ("sbi's NPE, coupling flow (`nsf`)", lambda: flow, flow_native),
        (
            "engine `sbi-npe`, the same flow",
            lambda: sp.train(simulations, "sbi-npe", settings=settings, seed=1),
            None,
        ),
        ("sbi's NRE", lambda: ratio, ratio_native),
        (
            "engine `sbi-nre`",
            lambda: sp.train(simulations, "sbi-nre", settings={"max_epochs": epochs}, seed=1),
            None,
        ),
    )
    for label, made, seconds in rows:
        posterior = made()
        found, own = timed(
            lambda p=posterior: sp.validate(p, pairs, n_draws=n_draws, seed=1)  # type: ignore[misc]
        )
        cell = "" if seconds is None else f"{seconds:.0f}"
        gain = f"{found.gain.mean:.2f}"
        print(f"| {label} | {cell} | {own:.1f} | {gain} | {found.verdict} |", flush=True)
    print(
        f"\nsbi: flow measured on {len(x)} observations and scaled to {n}; Markov chains on "
        f"{len(chains)}, {ratio_native / n:.1f} s each, multiplied by {n}"
    )


if __name__ == "__main__":
    main()
