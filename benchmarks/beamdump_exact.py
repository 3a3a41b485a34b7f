# ruff: noqa: E402 - thread counts must be set before anything imports NumPy
"""The nine published detectors at their best: exact posteriors of the same sets of three events.

    python benchmarks/beamdump_exact.py [--geometry on-axis] [--smearing azimuth] [--sets 40]

At 0.2, 1 and 4 GeV, ctau = 1 m: the median posterior sd of log10 m_a with its standard error (from
1000 bootstrap samples of the sets), beside the sd of log10 of the mean invariant mass (A, of 1500
sets). Then the orderings that one expects, as mean differences of ln(posterior sd) with standard
errors: truths and noise are the same for every detector, so that sets are compared one by one. A
claim needs three standard errors. No network is trained, so there is no spread of trainings.
Takes a minute of one core for each geometry.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import math

import numpy as np
from sbi_physics_beamdump.estimators import SUMMARIES
from sbi_physics_beamdump.simulator import BeamdumpAlp

POINTS = ("m02", "m1", "m4")
ENERGIES = ("0.01", "0.05", "0.1")
ANGLES = ("1mrad", "5mrad", "10mrad")
DRAWS = 400


def main() -> None:
    """Print the table and the orderings of one geometry."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--geometry", choices=("on-axis", "off-axis"), default="on-axis")
    parser.add_argument("--smearing", choices=("azimuth", "tangent"), default="azimuth")
    parser.add_argument("--sets", type=int, default=40, help="sets of three events at each mass")
    arguments = parser.parse_args()
    widths, conventional = _widths(arguments.geometry, arguments.smearing, arguments.sets)
    rng = np.random.default_rng(3)
    print(f"\n{arguments.geometry}, angle_smearing={arguments.smearing}\n")
    print(f"| sigma_E/E | sigma_angle | {' | '.join(f'{p}: exact · A' for p in POINTS)} |")
    print("|---" * 5 + "|")
    for i, energy in enumerate(ENERGIES):
        for j, angle in enumerate(ANGLES):
            cells = []
            for k in range(len(POINTS)):
                values = widths[k, i, j]
                again = np.median(rng.choice(values, (1000, len(values))), axis=1)
                cells.append(
                    f"{np.median(values):.4f} ± {again.std():.4f} · {conventional[k, i, j]:.4f}"
                )
            print(f"| {energy} | {angle} | {' | '.join(cells)} |")
    print("\n| sd over sd, same sets | m02 | m1 | m4 |\n|---|---|---|---|")
    log = np.log(widths)
    for name, a, b in (
        ("sigma_E/E 0.1 over 0.01, 1 mrad", (2, 0), (0, 0)),
        ("sigma_E/E 0.1 over 0.01, 10 mrad", (2, 2), (0, 2)),
        ("sigma_angle 10 over 1 mrad, 0.01", (0, 2), (0, 0)),
        ("sigma_angle 10 over 1 mrad, 0.1", (2, 2), (2, 0)),
        ("(0.05, 5 mrad) over (0.01, 1 mrad)", (1, 1), (0, 0)),
        ("(0.1, 10 mrad) over (0.05, 5 mrad)", (2, 2), (1, 1)),
    ):
        cells = []
        for k in range(len(POINTS)):
            difference = log[k, *a] - log[k, *b]
            mean, error = difference.mean(), difference.std() / math.sqrt(len(difference))
            cells.append(f"{math.exp(mean):.2f} ({mean / error:+.0f} errors)")
        print(f"| {name} | {' | '.join(cells)} |")
    steps = (
        np.concatenate([np.diff(log, axis=axis).mean(axis=-1).ravel() for axis in (1, 2)]),
        np.concatenate(
            [
                (np.diff(log, axis=axis).std(axis=-1) / math.sqrt(log.shape[-1])).ravel()
                for axis in (1, 2)
            ]
        ),
    )
    pulls = steps[0] / steps[1]
    print(
        f"\n{len(pulls)} steps to the next worse resolution: {(pulls > 3).sum()} widen the "
        f"posterior by more than three errors, {(pulls < -3).sum()} narrow it by as much; the "
        f"lowest is {pulls.min():+.1f} errors"
    )


def _widths(geometry: str, smearing: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Posterior sd of log10 m_a (point, energy, angle, set); sd of A (point, energy, angle)."""
    truth = BeamdumpAlp(geometry=geometry)
    shape = (len(POINTS), len(ENERGIES), len(ANGLES))
    widths, conventional = np.empty((*shape, n)), np.empty(shape)
    column = SUMMARIES.index("log10_m_gg")
    for k, point in enumerate(POINTS):
        # As many sets as `beamdump_detectors.py` has, for A; the exact posterior of the first.
        theta = np.tile(truth.theta(point), (1500, 1))
        z = truth.simulate_latent(theta, np.random.default_rng([1, k]))
        for i, energy in enumerate(ENERGIES):
            for j, angle in enumerate(ANGLES):
                detector = BeamdumpAlp(
                    geometry=geometry, sigma_e=energy, sigma_angle=angle, angle_smearing=smearing
                )
                x = detector.observe(z, theta, np.random.default_rng([2, k]))
                conventional[k, i, j] = detector.summary_statistics(x)[:, column].std()
                draws = detector.reference_posterior().sample(
                    x[:n], DRAWS, np.random.default_rng(4)
                )
                widths[k, i, j] = np.log10(draws[..., 0]).std(axis=1, ddof=1)
    return widths, conventional


if __name__ == "__main__":
    main()
