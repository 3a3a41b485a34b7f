r"""From true photons to measured ones, in the order and with the cuts of arXiv:2308.01353.

An event is ten numbers: ln E1, ln E2, x1, y1, x2, y2, ln theta1, ln theta2, phi1, phi2. Energies,
hits and angles are smeared by independent normal distributions. For angles there are two models:

* `azimuth` (published): sigma_angle in theta and the *same number* in phi. For photons close to
  the beam this measures azimuths far better than a calorimeter does, as an error in phi moves the
  direction by sin(theta) sigma only.
* `tangent` (physical): sigma_angle in each of the slopes p_x/p_z and p_y/p_z.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from sbi_physics.types import FloatArray, Latents
from sbi_physics_beamdump.geometry import Geometry

AngleSmearing = Literal["azimuth", "tangent"]

FEATURES: Final = (
    "ln_E1",
    "ln_E2",
    "x1",
    "y1",
    "x2",
    "y2",
    "ln_theta1",
    "ln_theta2",
    "phi1",
    "phi2",
)
"""What is measured of one event: natural logarithms of GeV and radians, metres, radians."""

_SMALLEST_THETA: Final = 1e-9
"""Polar angle (rad) below which a logarithm would not be useful; nothing real is that small."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """Resolution of the calorimeter.

    Attributes:
        sigma_e: Relative energy resolution; a number or an array of shape (n,).
        sigma_hit: Resolution of x and y, m.
        sigma_angle: Angular resolution, rad; a number or an array of shape (n,).
        angle_smearing: Model of the angles.
    """

    sigma_e: float | FloatArray
    sigma_hit: float
    sigma_angle: float | FloatArray
    angle_smearing: AngleSmearing = "azimuth"


def smear(
    z: Latents, resolution: Resolution, geometry: Geometry, rng: np.random.Generator
) -> FloatArray:
    """Measure the photons of latents.

    The photons keep their labels: after smearing, E1 may be below E2. Absent events are zero.

    Args:
        z: Latents of `EventSampler.latents`, n sets of `size` slots.
        resolution: What smears them.
        geometry: Energies are cut from below at its e_min, hits at the edges of its calorimeter.
        rng: Source of randomness.

    Returns:
        The ten `FEATURES`, shape (n, size, 10).
    """
    present = np.asarray(z["present"], dtype=np.float64) > 0
    noise = rng.standard_normal((*present.shape, 10))
    sigma_angle = _of_sets(resolution.sigma_angle)
    energy, hit, slope = (np.asarray(z[k], dtype=np.float64) for k in ("energy", "hit", "slope"))
    energy = energy * (1.0 + _of_sets(resolution.sigma_e) * noise[..., :2])
    low, high = (
        np.array([getattr(geometry, f"{axis}_{end}") for axis in "xy"]) for end in ("min", "max")
    )
    hits = hit.reshape(*present.shape, 4) + resolution.sigma_hit * noise[..., 2:6]
    if resolution.angle_smearing == "tangent":
        slope = slope + sigma_angle[..., None] * noise[..., 6:].reshape(slope.shape)
    theta = np.arctan(np.hypot(slope[..., 0], slope[..., 1]))
    phi = np.arctan2(slope[..., 1], slope[..., 0])
    smallest: FloatArray = np.asarray(_SMALLEST_THETA)
    if resolution.angle_smearing == "azimuth":
        theta = theta + sigma_angle * noise[..., 6:8]
        phi = np.clip(phi + sigma_angle * noise[..., 8:], -math.pi, math.pi)
        smallest = np.maximum(sigma_angle, _SMALLEST_THETA)
    events = np.concatenate(
        [
            np.log(np.maximum(energy, max(geometry.e_min, 1e-9))),
            np.clip(hits, np.tile(low, 2), np.tile(high, 2)),
            np.log(np.clip(theta, smallest, 0.5 * math.pi)),
            phi,
        ],
        axis=-1,
    )
    return np.where(present[..., None], events, 0.0)


def _of_sets(value: float | FloatArray) -> FloatArray:
    """One number, or one for each set, against arrays of shape (n, size, photon)."""
    return np.reshape(np.asarray(value, dtype=np.float64), (-1, 1, 1))
