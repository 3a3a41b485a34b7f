# ruff: noqa: E402 - thread counts must be set before anything imports NumPy
"""The nine published detectors: conventional mass estimates and, if there, posteriors.

    python benchmarks/beamdump_detectors.py [--sets 1500] [--smearing azimuth]

and with networks, after hours of `sbi-physics scan beamdump-alp --engine bayesflow-cinn:beamdump
--vary sigma_e=0.01,0.05,0.1 --vary sigma_angle=1mrad,5mrad,10mrad --seed 1 -o runs/on`, and the
same with `--set geometry=off-axis -o runs/off`:

    python benchmarks/beamdump_detectors.py --on runs/on --off runs/off

For sets of three events at 0.2, 1 and 4 GeV, ctau = 1 m, the same truths for every detector:

* A: sd of log10 of the mean invariant mass and its mean bias, as in arXiv:2308.01353;
* C: half the 68 % width of log10 of the median mass by azimuths;
* q: with a scan, the median posterior sd of log10 m_a, in brackets where validation failed.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import json
from pathlib import Path

import numpy as np
from sbi_physics_beamdump.estimators import SUMMARIES
from sbi_physics_beamdump.simulator import BeamdumpAlp

from sbi_physics.scan import Scan

POINTS = ("m02", "m1", "m4")
ENERGIES = ("0.01", "0.05", "0.1")
ANGLES = ("1mrad", "5mrad", "10mrad")
_A, _C = SUMMARIES.index("log10_m_gg"), SUMMARIES.index("log10_m_azimuth")


def main() -> None:
    """Print one table for each geometry."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=int, default=1500, help="sets of three events at each mass")
    parser.add_argument("--smearing", choices=("azimuth", "tangent"), default="azimuth")
    parser.add_argument("--on", type=Path, help="a scan of the nine detectors on-axis")
    parser.add_argument("--off", type=Path, help="the same off-axis")
    arguments = parser.parse_args()
    for geometry, folder in (("on-axis", arguments.on), ("off-axis", arguments.off)):
        found = None if folder is None else _read(folder)
        print(f"\n{geometry}, angle_smearing={arguments.smearing}\n")
        cells = "A (bias) · C" + ("" if found is None else " · q")
        print(f"| sigma_E/E | sigma_angle | {' | '.join(f'{p}: {cells}' for p in POINTS)} |")
        print("|---" * 5 + "|")
        table = _conventional(geometry, arguments.smearing, arguments.sets)
        for i, energy in enumerate(ENERGIES):
            for j, angle in enumerate(ANGLES):
                row = []
                for k, point in enumerate(POINTS):
                    sd, bias, median = table[k, i, j]
                    text = f"{sd:.4f} ({bias:+.3f}) · {median:.4f}"
                    if found is not None:
                        text += f" · {_width(found, energy, angle, point)}"
                    row.append(text)
                print(f"| {energy} | {angle} | {' | '.join(row)} |", flush=True)


def _conventional(geometry: str, smearing: str, n: int) -> np.ndarray:
    """Width and bias of A, half width of C, shape (point, energy, angle, 3)."""
    truth = BeamdumpAlp(geometry=geometry)
    table = np.empty((len(POINTS), len(ENERGIES), len(ANGLES), 3))
    for k, point in enumerate(POINTS):
        theta = np.tile(truth.theta(point), (n, 1))
        z = truth.simulate_latent(theta, np.random.default_rng([1, k]))
        for i, energy in enumerate(ENERGIES):
            for j, angle in enumerate(ANGLES):
                detector = BeamdumpAlp(
                    geometry=geometry, sigma_e=energy, sigma_angle=angle, angle_smearing=smearing
                )
                # The same noise for every detector: differences are those of its size.
                x = detector.observe(z, theta, np.random.default_rng([2, k]))
                found = detector.summary_statistics(x) - np.log10(theta[0, 0])
                low, high = np.quantile(found[:, _C], [0.16, 0.84])
                table[k, i, j] = found[:, _A].std(), found[:, _A].mean(), 0.5 * (high - low)
    return table


def _read(folder: Path) -> Scan:
    return Scan.from_dict(json.loads((folder / "scan.json").read_text()), folder)


def _width(scan: Scan, energy: str, angle: str, point: str) -> str:
    for each in scan.points:
        if (each.values["sigma_e"], each.values["sigma_angle"]) == (energy, angle):
            if each.widths is None:
                return "failed"
            text = f"{each.widths[point]['m_a']:.4f}"
            return text if each.verdict in ("PASS", "MARGINAL") else f"({text})"
    return "-"


if __name__ == "__main__":
    main()
