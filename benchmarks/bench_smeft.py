# ruff: noqa: E402 - thread counts must be set before anything imports NumPy
"""Throughput of the WZ simulators: amplitudes, unweighted events, detector, stores, LHE files.

    python benchmarks/bench_smeft.py [--events 200000] [--repeats 3]

One thread, processor time of this process, median of the repeats; compiling is not counted.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from sbi_physics_smeft.amplitudes import gram_full, gram_production
from sbi_physics_smeft.conventions import vector
from sbi_physics_smeft.cross_section import _sigma_gram, sigma_gram
from sbi_physics_smeft.generator import generate
from sbi_physics_smeft.lhe_events import read_lhe
from sbi_physics_smeft.lhe_writer import write_lhe
from sbi_physics_smeft.smeft_wz import SmeftWz
from sbi_physics_smeft.weighted_events import WeightedEvents

import sbi_physics as sp

LHE_EVENTS = 3000


def main() -> None:
    """Print one row for each job."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print("| job | number | per second |\n|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, n, job in jobs(options.events, Path(folder)):
            job()
            seconds = np.median([_cpu(job) for _ in range(options.repeats)])
            print(f"| {name} | {n} | {n / seconds:.3g} |", flush=True)


def jobs(n: int, folder: Path) -> Iterator[tuple[str, int, Callable[[], object]]]:
    """Name, number of items and the work itself."""
    rng = np.random.default_rng(1)
    point = (rng.uniform(180, 3000, n), rng.uniform(-1, 1, n), rng.choice([-1, 1], n))
    angles = [rng.uniform(-1, 1, n), rng.uniform(0, 6.28, n)] * 2
    yield "Gram matrices of production", n, lambda: gram_production(*point)
    yield "Gram matrices with decays", n, lambda: gram_full(*point, *angles)
    sm = np.zeros((n, 3))
    yield "unweighted events, Standard Model", n, lambda: generate(vector(sm), rng)
    wz = SmeftWz()
    prior = wz.prior.sample(n, rng)
    yield "unweighted events, coefficients of the prior", n, lambda: generate(vector(prior), rng)
    basis = np.array(wz.basis)[rng.integers(0, 9, n)]
    yield "unweighted events, morphing basis", n, lambda: generate(vector(basis), rng)
    yield "selected events with labels", n, lambda: wz.simulate_latent(sm, rng)
    z = wz.simulate_latent(sm, rng)
    yield "features of selected events", n, lambda: wz.observe(z, sm, rng)
    rows = n // 10
    yield "rows of a store in memory", rows, lambda: sp.simulate(wz, rows, seed=1)

    def integrate() -> None:
        _sigma_gram.cache_clear()
        sigma_gram(1)

    yield "integrated Gram matrices", 1, integrate
    points = {"sm": (0.0, 0.0, 0.0)} | {f"b{k}": p for k, p in enumerate(wz.basis)}
    lhe, npz = folder / "events.lhe.gz", folder / "events.npz"
    events = generate(vector(sm[:LHE_EVENTS]), rng)
    write_lhe(lhe, events, points, rng, cross_section=0.4386)
    yield "events from an LHE file with ten weights", LHE_EVENTS, lambda: read_lhe([lhe], points)
    read_lhe([lhe], points).save(npz)
    yield "the same, stored by WeightedEvents.save", LHE_EVENTS, lambda: WeightedEvents.load(npz)


def _cpu(job: Callable[[], object]) -> float:
    start = time.process_time()
    job()
    return time.process_time() - start


if __name__ == "__main__":
    main()
