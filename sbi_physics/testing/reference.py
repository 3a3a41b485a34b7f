"""Reference points: stored numbers of simulated data, against silent changes of physics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from sbi_physics.errors import ConformanceError
from sbi_physics.simulator import Simulator
from sbi_physics.testing.cases import NotApplicable, ReferencePoint, SimulatorCase
from sbi_physics.types import DataArray, FloatArray

N_SIGMA: Final = 5.0
"""Agreement demanded of stored reference numbers, in standard errors."""

_GROUPS = 8


def reference_points_are_reproduced(case: SimulatorCase) -> None:
    """Stored means and spreads of the data are reproduced within 5 standard errors."""
    if not case.reference_points:
        raise NotApplicable(
            "no reference_points given; make one with reference_point(simulator, point)"
        )
    for k, reference in enumerate(case.reference_points):
        n = reference.draws
        theta = case.at(case.simulator.theta(reference.theta), n)
        numbers = _summary(case.simulator.simulate(theta, case.rng(17, k)))
        mean, sd = numbers.mean(axis=0), numbers.std(axis=0)
        if mean.shape != np.shape(reference.mean):
            raise ConformanceError(
                f"reference point {reference.theta} stores {len(reference.mean)} numbers, the "
                f"data give {len(mean)}"
            )
        fourth = ((numbers - mean) ** 4).mean(axis=0)
        sd_error = np.sqrt(np.maximum(fourth - sd**4, 0) / n) / np.maximum(2 * sd, 1e-300)
        tiny = 1e-6 * np.maximum(np.abs(mean), 1e-300)
        _compare(case, reference, "mean", mean, np.asarray(reference.mean), sd / np.sqrt(n) + tiny)
        _compare(case, reference, "spread", sd, np.asarray(reference.sd), sd_error + tiny)


def reference_point(
    simulator: Simulator, theta: str | Mapping[str, float], draws: int = 1000, seed: int = 2
) -> ReferencePoint:
    """Simulate the summary numbers to store in a test file, once the physics is known to be right.

    Args:
        simulator: The simulator.
        theta: Fiducial name, or values by name.
        draws: Number of simulations.
        seed: Seed; other than that of the check, so that independent draws are compared.
    """
    points = np.repeat(simulator.theta(theta)[None], draws, axis=0)
    numbers = _summary(simulator.simulate(points, np.random.default_rng(seed)))
    mean, sd = numbers.mean(axis=0), numbers.std(axis=0)
    return ReferencePoint(theta, tuple(mean.tolist()), tuple(sd.tolist()), draws)


def _summary(x: DataArray) -> FloatArray:
    """Means over up to 8 groups of neighbouring entries, shape (n, groups)."""
    flat = x.reshape(len(x), -1).astype(np.float64)
    groups = np.array_split(flat, min(_GROUPS, flat.shape[1]), axis=1)
    return np.stack([g.mean(axis=1) for g in groups], axis=1)


def _compare(
    case: SimulatorCase,
    reference: ReferencePoint,
    what: str,
    found: FloatArray,
    stored: FloatArray,
    error: FloatArray,
) -> None:
    pull = np.abs(found - stored) / (np.sqrt(2.0) * error)
    worst = int(pull.argmax())
    if pull[worst] > N_SIGMA:
        raise ConformanceError(
            f"{case.name!r} at {reference.theta}: the {what} of summary number {worst} is "
            f"{found[worst]:.6g}, stored "
            f"is {stored[worst]:.6g}; {pull[worst]:.1f} standard errors apart"
        )
