"""Verdicts on posteriors that are wrong on purpose: this package against its peers.

    OMP_NUM_THREADS=1 python benchmarks/bench_validate.py

One process, one thread, processor seconds, the same arrays for all: N pairs, L draws, six
parameters (three independent copies of a Gaussian with correlated noise, whose exact posterior is
known). `sbi`, `tarp` and `bayesflow` are used where installed. What a peer concludes is read off
as its documentation says: sbi and bayesflow at their 5 % level, TARP curves by whether the
diagonal leaves the two-sigma bootstrap band at more than 5 % of the levels.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sbi_physics import Normal, Parameter, Prior, validate_draws

COPIES = 3
NOISE = 0.25 * np.array([[1.0, 0.6], [0.6, 1.0]])
COVARIANCE = np.linalg.inv(np.eye(2) + np.linalg.inv(NOISE))
SD = np.sqrt(np.diag(COVARIANCE))
PRIOR = Prior([Parameter(f"theta_{k + 1}", Normal(0.0, 1.0)) for k in range(2 * COPIES)])
POSTERIORS = ("exact", "over0.8", "bias0.2_one", "prior", "corr_flip")


@dataclass
class Arrays:
    """What every package is given."""

    theta: np.ndarray
    x: np.ndarray
    draws: np.ndarray
    log_prob_true: np.ndarray
    log_prob_draws: np.ndarray


def arrays(defect: str, n: int, n_draws: int, rng: np.random.Generator) -> Arrays:
    """Return truths, data and posterior draws with one planted defect."""
    theta = rng.standard_normal((n, COPIES, 2))
    x = theta + rng.standard_normal((n, COPIES, 2)) @ np.linalg.cholesky(NOISE).T
    mean = x @ (COVARIANCE @ np.linalg.inv(NOISE)).T
    covariance = COVARIANCE.copy()
    if defect == "over0.8":
        covariance *= 0.8**2
    if defect == "bias0.2_one":
        mean[:, 0, 0] += 0.2 * SD[0]
    if defect == "corr_flip":
        covariance *= np.array([[1.0, -1.0], [-1.0, 1.0]])
    if defect == "prior":
        mean, covariance = np.zeros_like(mean), np.eye(2)
    z = rng.standard_normal((n, n_draws, COPIES, 2))
    draws = mean[:, None] + z @ np.linalg.cholesky(covariance).T
    inverse = np.linalg.inv(covariance)
    constant = COPIES * (0.5 * np.linalg.slogdet(covariance)[1] + np.log(2 * np.pi))

    def log_density(residual: np.ndarray) -> np.ndarray:
        return -0.5 * ((residual @ inverse) * residual).sum(axis=(-1, -2)) - constant

    return Arrays(
        theta.reshape(n, -1),
        x.reshape(n, -1),
        draws.reshape(n, n_draws, -1),
        log_density(theta - mean),
        log_density(draws - mean[:, None]),
    )


def here(given: Arrays) -> str:
    """Return the verdict of `validate_draws`."""
    coverage = validate_draws(
        given.theta,
        given.draws,
        x=given.x,
        log_prob_true=given.log_prob_true,
        log_prob_draws=given.log_prob_draws,
        normalized=True,
        prior=PRIOR,
        rng=np.random.default_rng(1),
    )
    return f"{coverage.verdict} {', '.join(coverage.labels)}".strip()


def sbi_sbc(given: Arrays) -> str:
    """Return what sbi's `check_sbc` says, Kolmogorov-Smirnov and classifiers included."""
    import torch
    from sbi.diagnostics.sbc import check_sbc

    torch.manual_seed(1)
    ranks = (given.draws < given.theta[:, None]).sum(axis=1)
    found = check_sbc(
        torch.from_numpy(ranks).float(),
        torch.from_numpy(given.theta).float(),
        torch.from_numpy(given.draws[:, 0]).float(),
        num_posterior_samples=given.draws.shape[1],
    )
    p = float(found["ks_pvals"].min()) * given.theta.shape[1]
    worst = float(found["c2st_ranks"].max())
    return f"{'rejects' if p < 0.05 else 'accepts'} (KS p = {min(p, 1):.2g}, C2ST {worst:.2f})"


def sbi_tarp(given: Arrays) -> str:
    """Return what sbi's TARP check says of the draws."""
    import torch
    from sbi.diagnostics.tarp import _run_tarp, check_tarp, get_tarp_references

    torch.manual_seed(1)
    theta = torch.from_numpy(given.theta).float()
    draws = torch.from_numpy(given.draws.transpose(1, 0, 2).copy()).float()
    curve = _run_tarp(draws, theta, get_tarp_references(theta), z_score_theta=True)
    area, p = check_tarp(*curve)
    return f"{'rejects' if p < 0.05 else 'accepts'} (p = {p:.2g}, area {area:+.2f})"


def tarp(given: Arrays) -> str:
    """Return what the `tarp` package says with 100 bootstraps."""
    from tarp import get_tarp_coverage

    ecp, alpha = get_tarp_coverage(
        given.draws.transpose(1, 0, 2).copy(),
        given.theta.copy(),
        norm=True,
        bootstrap=True,
        num_bootstrap=100,
    )
    distance = np.abs(ecp.mean(axis=0) - alpha)
    outside = float(np.mean(distance > 2 * ecp.std(axis=0)))
    return f"{'deviates' if outside > 0.05 else 'agrees'} (largest {distance.max():.3f})"


def bayesflow(given: Arrays) -> str:
    """Return what bayesflow's log-gamma statistic says; negative rejects at 5 %."""
    from bayesflow.diagnostics.metrics import calibration_log_gamma

    np.random.seed(1)  # noqa: NPY002 - it draws its null from the global generator
    found = calibration_log_gamma(given.draws, given.theta, quantile=0.05 / given.theta.shape[1])
    smallest = float(np.min(found["values"]))
    return f"{'rejects' if smallest < 0 else 'accepts'} (log gamma {smallest:+.1f})"


PEERS: tuple[tuple[str, str, Callable[[Arrays], str]], ...] = (
    ("sbi", "sbi `check_sbc`", sbi_sbc),
    ("sbi", "sbi `check_tarp`", sbi_tarp),
    ("tarp", "tarp, 100 bootstraps", tarp),
    ("bayesflow", "bayesflow `calibration_log_gamma`", bayesflow),
)


def timed(function: Callable[[Arrays], str], given: Arrays) -> tuple[str, float]:
    """Return the answer and the processor seconds it took."""
    start = time.process_time()
    answer = function(given)
    return answer, time.process_time() - start


def main() -> None:
    """Run all comparisons and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=999)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    os.environ.setdefault("KERAS_BACKEND", "torch")

    cases = {
        name: arrays(name, options.pairs, options.draws, np.random.default_rng(options.seed))
        for name in POSTERIORS
    }
    size = f"{options.pairs} pairs x {options.draws} draws x {2 * COPIES} parameters"
    print(f"{size}, seed {options.seed}; CPU seconds are means over the posteriors\n")
    print(f"| check | CPU, s | {' | '.join(POSTERIORS)} |")
    print("|---" * (len(POSTERIORS) + 2) + "|")
    rows: list[tuple[str, str, Any]] = [("sbi_physics", "`validate_draws`", here), *PEERS]
    for package, label, function in rows:
        if importlib.util.find_spec(package) is None:
            print(f"| {label} | not installed |" + " |" * len(POSTERIORS))
            continue
        function(arrays("exact", 200, 99, np.random.default_rng(0)))  # imports, tables
        found = [timed(function, given) for given in cases.values()]
        seconds = float(np.mean([s for _, s in found]))
        cells = " | ".join(answer for answer, _ in found)
        print(f"| {label} | {seconds:.2f} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
