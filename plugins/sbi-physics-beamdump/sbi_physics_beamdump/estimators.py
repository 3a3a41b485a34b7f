r"""Conventional estimators of mass, flight and lifetime, from measured photons.

The ALP comes from the origin, so the hits, weighted by the photons' p_z, give its direction
wherever it decayed:

.. math:: c = \frac{p_{z1} h_1 + p_{z2} h_2}{p_{z1} + p_{z2}} = z_{cal}\, t_a .

With d_i = h_i - c and the distance L from the vertex to the calorimeter, the slopes of the photons
are t_i = t_a + d_i / L, and m = sqrt(E_1 E_2) |h_1 - h_2| / L up to the square of angles. Three
estimates differ in the angles they use:

* A, `m_gg`: invariant mass from energies and measured angles;
* B, `pointing`: 1/L by least squares from the measured slopes;
* C, `azimuth`: 1/L from the azimuths alone, which must point away from the vertex.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from sbi_physics.types import BoolArray, DataArray, FloatArray
from sbi_physics_beamdump.geometry import Geometry

SUMMARIES: Final = (
    "log10_m_gg",
    "log10_m_pointing",
    "log10_m_azimuth",
    "mean_vertex_z",
    "mean_slope",
    "log10_ctau_over_m",
    "log10_ctau_over_m_sd",
    "events",
)
"""Names of the columns of `summaries`."""

_SMALLEST_DISTANCE: Final = 0.2
"""Least distance (m) of vertex and calorimeter that an estimate may have."""

_GRID_POINTS: Final = 121


@dataclass(frozen=True, slots=True)
class EventEstimates:
    """Estimates for each event, shape (n, size) unless stated; meaningless where absent.

    Attributes:
        present: Whether there is an event.
        m_gg: Mass from energies and measured angles (A), GeV.
        m_pointing: Mass from the pointing fit (B), GeV.
        m_azimuth: Mass from pointing by azimuths (C), GeV.
        z_pointing: Place of the decay along the beam from B, m.
        z_azimuth: The same from C, m.
        slope: Slopes (x, y) of the ALP from the centroid of the hits, shape (n, size, 2).
        p_z: Momentum of the ALP along the beam, GeV.
    """

    present: BoolArray
    m_gg: FloatArray
    m_pointing: FloatArray
    m_azimuth: FloatArray
    z_pointing: FloatArray
    z_azimuth: FloatArray
    slope: FloatArray
    p_z: FloatArray


def event_estimates(x: DataArray | FloatArray, geometry: Geometry) -> EventEstimates:
    """Estimate mass and vertex of every event.

    Args:
        x: Data of `beamdump-alp`: the ten features first, presence last, shape (n, size, k).
        geometry: The detector.
    """
    data = np.asarray(x, dtype=np.float64)
    energy, hit = np.exp(data[..., 0:2]), data[..., 2:6].reshape(*data.shape[:-1], 2, 2)
    theta, phi = np.exp(data[..., 6:8]), data[..., 8:10]
    p_z = energy * np.cos(theta)
    total = np.maximum(p_z.sum(axis=-1), 1e-9)
    centroid = (p_z[..., None] * hit).sum(axis=-2) / total[..., None]
    slope = centroid / geometry.z_cal
    arm = hit - centroid[..., None, :]
    unit = np.stack([np.cos(phi), np.sin(phi)], axis=-1)
    half_theta = np.sin(0.5 * (theta[..., 0] - theta[..., 1]))
    half_phi = np.sin(0.5 * (phi[..., 0] - phi[..., 1]))
    s = half_theta**2 + np.sin(theta[..., 0]) * np.sin(theta[..., 1]) * half_phi**2
    root = np.sqrt(energy[..., 0] * energy[..., 1])
    separation = np.linalg.norm(hit[..., 0, :] - hit[..., 1, :], axis=-1)

    bend = np.tan(np.minimum(theta, 1.5))[..., None] * unit - slope[..., None, :]
    pointing = _ratio((bend * arm).sum(axis=(-1, -2)), (arm**2).sum(axis=(-1, -2)))
    across = _cross(unit, arm)
    azimuth = -_ratio(
        (across * _cross(unit, slope[..., None, :])).sum(axis=-1), (across**2).sum(axis=-1)
    )
    near = max(geometry.z_cal - geometry.z_max, _SMALLEST_DISTANCE)
    far = geometry.z_cal - geometry.z_min
    k_b, k_c = (np.clip(k, 1.0 / far, 1.0 / near) for k in (pointing, azimuth))
    return EventEstimates(
        present=data[..., -1] > 0,
        m_gg=2.0 * root * np.sqrt(s),
        m_pointing=root * separation * k_b,
        m_azimuth=root * separation * k_c,
        z_pointing=geometry.z_cal - 1.0 / k_b,
        z_azimuth=geometry.z_cal - 1.0 / k_c,
        slope=slope,
        p_z=total,
    )


def summaries(
    x: DataArray | FloatArray,
    geometry: Geometry,
    *,
    ctau_over_m: tuple[float, float],
    vertex: str = "pointing",
) -> FloatArray:
    """Combine the events of a set into the numbers `SUMMARIES`, shape (n, 8).

    Masses: log10 of the mean of A (as published), of the medians of B and C, whose tails are
    heavy. Then the mean vertex (m), the mean size of the ALP's slope, and `lifetime`.

    Args:
        x: Data of `beamdump-alp`, shape (n, size, k).
        geometry: The detector.
        ctau_over_m: Range of ctau/m_a in m/GeV.
        vertex: `pointing` or `azimuth`: which estimate of the vertex is used.
    """
    found = event_estimates(x, geometry)
    z = found.z_azimuth if vertex == "azimuth" else found.z_pointing
    present = found.present
    count = np.maximum(present.sum(axis=1), 1)

    def mean(values: FloatArray) -> FloatArray:
        total: FloatArray = np.where(present, values, 0.0).sum(axis=1) / count
        return total

    def median(values: FloatArray) -> FloatArray:
        ordered = np.sort(np.where(present, values, np.inf), axis=1)
        rows, size = np.arange(len(values)), values.shape[1]
        middle = [ordered[rows, np.minimum(i, size - 1)] for i in ((count - 1) // 2, count // 2)]
        return np.where(present.any(axis=1), 0.5 * (middle[0] + middle[1]), 0.0)

    masses = (mean(found.m_gg), median(found.m_pointing), median(found.m_azimuth))
    centre, width = lifetime(z, found.p_z, present, geometry, ctau_over_m=ctau_over_m)
    return np.stack(
        [
            *(np.log10(np.maximum(m, 1e-6)) for m in masses),
            mean(z),
            mean(np.hypot(found.slope[..., 0], found.slope[..., 1])),
            centre,
            width,
            present.sum(axis=1),
        ],
        axis=1,
    )


def lifetime(
    z: FloatArray,
    p_z: FloatArray,
    present: BoolArray,
    geometry: Geometry,
    *,
    ctau_over_m: tuple[float, float],
) -> tuple[FloatArray, FloatArray]:
    r"""Lifetime from decay vertices: mean and sd of log10(ctau/m_a), shape (n,) each.

    The vertices of a set follow

    .. math:: p(z) = \frac{e^{-z/\lambda} / \lambda}{e^{-z_{min}/\lambda} - e^{-z_{max}/\lambda}},
              \qquad \lambda = \frac{c\tau}{m_a} p_z ,

    taken with a prior uniform in log10(ctau/m_a). Acceptance is ignored, which makes it a
    baseline: where it falls or rises along the window, the estimate is biased.

    Args:
        z: Vertices along the beam, m, shape (n, size).
        p_z: Momenta of the ALPs along the beam, GeV, shape (n, size).
        present: Whether there is an event, shape (n, size).
        geometry: The detector.
        ctau_over_m: Range of ctau/m_a in m/GeV.
    """
    grid = np.linspace(math.log10(ctau_over_m[0]), math.log10(ctau_over_m[1]), _GRID_POINTS)
    flight = 10.0**grid * p_z[..., None]
    window = geometry.z_max - geometry.z_min
    start = np.clip(z - geometry.z_min, 0.0, window)[..., None]
    log_p = -start / flight - np.log(flight) - np.log(-np.expm1(-window / flight))
    total = np.where(present[..., None], log_p, 0.0).sum(axis=1)
    weight = np.exp(total - total.max(axis=1, keepdims=True))
    weight /= weight.sum(axis=1, keepdims=True)
    centre = weight @ grid
    spread = np.sqrt(np.maximum(weight @ grid**2 - centre**2, 0.0))
    return centre, spread


def _ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """A ratio that is 0, the far end, where there is nothing to divide by."""
    some = denominator > 0
    return np.where(some, numerator / np.where(some, denominator, 1.0), 0.0)


def _cross(a: FloatArray, b: FloatArray) -> FloatArray:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
