# ruff: noqa: E402 - thread counts must be set before anything imports NumPy
"""Beam-dump events: proposals a second, and whole sets through the simulator and the store.

    python benchmarks/bench_beamdump.py [--repeats 3] [--sets 50000]

Everything runs on one thread; processor seconds, the best of the repeats.

1. proposals: ALPs produced, decayed and tested a second, over the whole prior;
2. sets: that many sets of three accepted, smeared events by `Simulator.simulate` at once, and by
   `simulate` in memory (chunks and blocks of the store);
3. observe: smearing the same truth again.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from sbi_physics_beamdump.simulator import BeamdumpAlp

import sbi_physics as sp
from sbi_physics.progress import SILENT


def main() -> None:
    """Run and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3, help="runs of each job")
    parser.add_argument("--sets", type=int, default=50_000, help="sets of three events")
    arguments = parser.parse_args()
    print("| job | processor seconds | rate |")
    print("|---|---|---|")
    # Off-axis a set takes twenty times as many proposals: fewer sets do.
    for geometry, n in (("on-axis", arguments.sets), ("off-axis", arguments.sets // 10)):
        simulator = BeamdumpAlp(geometry=geometry)
        theta = simulator.prior.sample(n, np.random.default_rng(1))
        simulator.simulate(theta[:10], np.random.default_rng(2))  # compiles

        def whole(simulator: BeamdumpAlp = simulator, theta: Any = theta) -> int:
            count = np.full(len(theta), 3)
            _, proposals = simulator._sampler.columns(
                theta[:, 0].copy(), theta[:, 1].copy(), count, np.random.default_rng(3)
            )
            return int(proposals)

        seconds, proposals = best(whole, arguments.repeats)
        row(f"{geometry}: {proposals / 1e6:.1f} M proposals for {n} sets", seconds, proposals)
        seconds, _ = best(
            lambda s=simulator, t=theta: s.simulate(t, np.random.default_rng(3)), arguments.repeats
        )
        row(f"{geometry}: `Simulator.simulate`, {n} sets", seconds, n)
        seconds, _ = best(
            lambda s=simulator, n=n: sp.simulate(s, n, seed=1, progress=SILENT), arguments.repeats
        )
        row(f"{geometry}: `sp.simulate` in memory, {n} sets", seconds, n)
        z = simulator.simulate_latent(theta, np.random.default_rng(3))
        seconds, _ = best(
            lambda s=simulator, t=theta, z=z: s.observe(z, t, np.random.default_rng(4)),
            arguments.repeats,
        )
        row(f"{geometry}: `observe` alone, {n} sets", seconds, n)


def best(job: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Least processor seconds of some runs, and the result of the last."""
    least = np.inf
    for _ in range(repeats):
        start = time.process_time()
        result = job()
        least = min(least, time.process_time() - start)
    return float(least), result


def row(name: str, seconds: float, count: float) -> None:
    """Print one row."""
    print(f"| {name} | {seconds:.2f} | {count / seconds:.3g} / s |", flush=True)


if __name__ == "__main__":
    main()
