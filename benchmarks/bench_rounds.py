"""Truncated rounds at one observation of the photon-ALP case, against an amortised posterior.

    OMP_NUM_THREADS=1 python benchmarks/bench_rounds.py --amortised runs/million-npe/posterior

The amortised posterior is any of `alp-ngc1275`, e.g. that of benchmarks/README.md, from a million
simulations of the whole prior. Its simulator makes an observation at a fiducial point, and rounds
close in on that; compared are the widths of the central 68 % intervals of log10(m_a) and log10(g).
The truncated posterior is validated on fresh pairs from its own truncated prior. Networks scatter
from one observation to the next, so that widths are also compared over some hundred observations
of these pairs, inside the box. `--store` keeps the simulations and resumes.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

import sbi_physics as sp
from sbi_physics.progress import SILENT
from sbi_physics.truncate import training_simulations

Bounds = tuple[float, float]

DRAWS = 20_000
OTHERS, OTHER_DRAWS, LEAST = 300, 4000, 300


def quantiles(posterior: sp.Posterior, x: np.ndarray) -> np.ndarray:
    """Return the 16 %, 50 % and 84 % quantiles of log10 of both parameters, shape (3, 2)."""
    draws = posterior.sample(x, DRAWS, np.random.default_rng(2))[0, :, :2]
    return np.quantile(np.log10(draws), [0.16, 0.5, 0.84], axis=0)


def widths(posterior: sp.Posterior, x: np.ndarray, box: Mapping[str, Bounds]) -> np.ndarray:
    """Return 68 % widths of log10 of both parameters inside a box, shape (len(x), 2).

    NaN where fewer than 300 of 4000 draws are inside.
    """
    draws = posterior.sample(x, OTHER_DRAWS, np.random.default_rng(1), any_observation=True)
    ends = np.array([box.get(name, (0.0, np.inf)) for name in ("m_a", "g")])
    found = np.full((len(x), 2), np.nan)
    for i, theta in enumerate(draws[:, :, :2]):
        inside = theta[((theta >= ends[:, 0]) & (theta <= ends[:, 1])).all(axis=1)]
        if len(inside) >= LEAST:
            found[i] = np.diff(np.quantile(np.log10(inside), [0.16, 0.84], axis=0), axis=0)[0]
    return found


def row(name: str, simulations: int, middle: np.ndarray, reference: np.ndarray, end: str) -> None:
    """Print one posterior: intervals, widths, and widths over those of the reference."""
    width = middle[2] - middle[0]
    ratio = width / (reference[2] - reference[0])
    cells = " | ".join(
        f"{m:.2f} ({low:.2f} to {high:.2f}) | {w:.3f} | {r:.2f}"
        for (low, m, high), w, r in zip(middle.T, width, ratio, strict=True)
    )
    print(f"| {name} | {simulations} | {cells} | {end} |", flush=True)


def main() -> None:
    """Run the rounds and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--amortised", type=Path, required=True, help="folder of the posterior")
    parser.add_argument("--fiducial", default="m30-g2")
    parser.add_argument("--engine", default="sbi-npe")
    parser.add_argument("--infer", default="", help="also close in on these parameters: a,b,...")
    parser.add_argument("--settings", type=json.loads, default={}, help="engine settings, JSON")
    parser.add_argument("--simulations", type=int, default=10_000, help="of each round")
    parser.add_argument("--final", type=int, default=None, help="simulations of a last round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epsilon", type=float, default=1e-3)
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1, help="of the rounds")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--store", type=Path, default=Path("runs/rounds.zarr"))
    parser.add_argument("--folder", type=Path, default=Path("runs/rounds"))
    o = parser.parse_args()
    torch.set_num_threads(1)

    amortised = sp.load_posterior(o.amortised)
    identity = amortised.context.simulator
    assert identity is not None
    alp = sp.simulator(identity.name, **identity.options)
    x = alp.simulate(alp.theta(o.fiducial)[None], np.random.default_rng(1))
    reference = quantiles(amortised, x)
    start = time.perf_counter()
    posterior = sp.truncate(
        alp,
        x,
        o.engine,
        rounds=o.rounds,
        simulations=o.simulations,
        final_simulations=o.final,
        epsilon=o.epsilon,
        infer=["m_a", "g", *filter(None, o.infer.split(","))],
        settings=o.settings,
        seed=o.seed,
        workers=o.workers,
        store=o.store,
        folder=o.folder,
        replace_rounds=True,
        progress=SILENT,
    )
    seconds = time.perf_counter() - start
    rounds = posterior.context.truncation.rounds
    print("| round | box of m_a, neV | of g | volume | simulated | reused | trained on | s |")
    print("|---" * 8 + "|")
    for k, r in enumerate(rounds):
        box = [r.box.get(name, alp.prior.parameters[name].bounds) for name in ("m_a", "g")]
        ends = " | ".join(f"{low:.3g} to {high:.3g}" for low, high in box)
        print(
            f"| {k} | {ends} | {r.volume:.3f} | {r.simulated} | {r.reused} | {r.trained_on} "
            f"| {r.seconds:.0f} |"
        )
    last = rounds[-1]
    print(f"\nthe next box would have volume {last.next_volume:.3f}; {seconds:.0f} s\n")

    pairs = sp.simulate(
        alp,
        o.pairs,
        prior=posterior.context.simulation_prior,
        seed=2,
        purpose="pairs",
        store=o.folder / f"pairs-{len(rounds)}-{last.volume:.6f}.zarr",
        progress=SILENT,
    )
    with sp.SimulationStore.open(o.store) as store:
        training = training_simulations(posterior, store)
        coverage = sp.validate(posterior, pairs, seed=1, training=training, progress=SILENT)
    verdict = " ".join([coverage.verdict, *coverage.labels]) + f" (p {coverage.p_global:.2g})"
    head = "| posterior | simulations"
    for name in ("m_a", "g"):
        head += f" | log10 {name}, 68 % | width | over amortised"
    print(f"{head} | verdict |\n" + "|---" * 9 + "|")
    seen = amortised.context.simulations["n"]
    row(f"amortised, {amortised.context.engine}", seen, reference, reference, "")
    total = sum(r.simulated for r in rounds)
    row(f"{o.engine}, {len(rounds)} rounds", total, quantiles(posterior, x), reference, verdict)

    others = pairs.read(slice(0, min(OTHERS, len(pairs)))).x
    ratio = np.log(widths(posterior, others, last.box) / widths(amortised, others, last.box))
    ratio = ratio[np.isfinite(ratio).all(axis=1)]
    mean, scatter = np.exp(ratio.mean(axis=0)), ratio.std(axis=0)
    print(
        f"\nover {len(ratio)} observations from the truncated prior, widths over amortised: "
        + ", ".join(
            f"{name} {m:.3f} +- {m * sd / np.sqrt(len(ratio)):.3f} (scatter {sd:.2f})"
            for name, m, sd in zip(("m_a", "g"), mean, scatter, strict=True)
        )
    )


if __name__ == "__main__":
    main()
