"""What one network for all detectors makes of the nine published ones: widths of log10 m_a.

    python benchmarks/beamdump_amortised.py runs/amortized/posterior

The posterior is of `beamdump-alp` with `detector=amortized` (the plugin's README has the command).
For sets of three events at 0.2, 1 and 4 GeV, ctau = 1 m: median posterior sd of log10 m_a. That of
the exact posterior is printed by `beamdump_exact.py`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

import sbi_physics as sp

POINTS = ("m02", "m1", "m4")
ENERGIES = (0.01, 0.05, 0.1)
ANGLES = (1e-3, 5e-3, 1e-2)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("posterior", type=Path, help="folder of the posterior")
    parser.add_argument("--sets", type=int, default=300, help="at each point and detector")
    parser.add_argument("--draws", type=int, default=1000)
    o = parser.parse_args()
    torch.set_num_threads(1)

    posterior = sp.load_posterior(o.posterior)
    identity = posterior.context.simulator
    assert identity is not None
    simulator = sp.simulator(identity.name, **identity.options)
    names = simulator.prior.names
    print("| sigma_E/E | sigma_angle | " + " | ".join(POINTS) + " |\n" + "|---" * 5 + "|")
    for energy in ENERGIES:
        for angle in ANGLES:
            cells = []
            for point in POINTS:
                theta = np.tile(simulator.theta(point), (o.sets, 1))
                theta[:, names.index("sigma_e")] = energy
                theta[:, names.index("sigma_angle")] = angle
                x = simulator.simulate(theta, np.random.default_rng(1))
                draws = posterior.sample(x, o.draws, np.random.default_rng(2))[..., 0]
                cells.append(f"{np.median(np.log10(draws).std(axis=1)):.4f}")
            print(f"| {energy} | {1e3 * angle:g}mrad | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
