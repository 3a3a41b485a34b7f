"""One event as a deterministic function of all that is random in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sbi_physics.errors import ContractError
from sbi_physics.types import BoolArray, FloatArray
from sbi_physics_beamdump import kernels
from sbi_physics_beamdump.constants import M_A_MAX
from sbi_physics_beamdump.geometry import Geometry, find_geometry


@dataclass(frozen=True, slots=True)
class DecayRecord:
    """Events from production to the calorimeter, in GeV, metres and radians.

    Every array has the batch shape of the inputs in front. Where an ALP flies backwards,
    `weight` is 0 and `decay_length`, `vertex`, hits and `sep` are NaN.

    Attributes:
        p4_a: (E, px, py, pz) of the ALP, shape (..., 4).
        decay_length: Path from the origin to the decay, shape (...).
        vertex: Place of the decay, shape (..., 3).
        weight: Probability that the ALP decays between z_min and z_max, shape (...).
        p4_g1: (E, px, py, pz) of the photon with the larger energy, shape (..., 4).
        p4_g2: The same of the other photon, shape (..., 4).
        hit1: (x, y) where photon 1 crosses the plane of the calorimeter, shape (..., 2).
        hit2: The same of photon 2, shape (..., 2).
        m_gg: Invariant mass of the photons from energies and angles, shape (...).
        opening: Angle between the photons, shape (...).
        theta1: Polar angle of photon 1 about the beam, shape (...).
        phi1: Its azimuth in (-pi, pi], shape (...).
        theta2: Polar angle of photon 2, shape (...).
        phi2: Its azimuth, shape (...).
        sep: Distance of the hits, shape (...).
        accept: Whether vertex, hits and photons pass the geometry's cuts, shape (...).
    """

    p4_a: FloatArray
    decay_length: FloatArray
    vertex: FloatArray
    weight: FloatArray
    p4_g1: FloatArray
    p4_g2: FloatArray
    hit1: FloatArray
    hit2: FloatArray
    m_gg: FloatArray
    opening: FloatArray
    theta1: FloatArray
    phi1: FloatArray
    theta2: FloatArray
    phi2: FloatArray
    sep: FloatArray
    accept: BoolArray


def decay_event(
    p3_b: ArrayLike,
    is_b0: ArrayLike,
    m_a: ArrayLike,
    ctau: ArrayLike,
    n_a: ArrayLike,
    u_decay: ArrayLike,
    n_gamma: ArrayLike,
    geometry: Geometry | str = "on-axis",
) -> DecayRecord:
    """Follow B -> K a, a -> gamma gamma from given momenta, directions and decay quantile.

    No random numbers are drawn: the simulator gives these arguments their distributions. Batch
    axes are broadcast against one another; a single event needs none.

    Args:
        p3_b: Momentum of the B meson in the laboratory, GeV, shape (..., 3).
        is_b0: Whether it is a B0 (else a B+), shape (...).
        m_a: Mass of the ALP, GeV, shape (...).
        ctau: Proper lifetime of the ALP times c, m, shape (...).
        n_a: Unit vector of the ALP in the B frame, shape (..., 3).
        u_decay: Quantile, in [0, 1], of the exponential decay length conditional on a decay
            between z_min and z_max, shape (...).
        n_gamma: Unit vector of one photon in the ALP frame, shape (..., 3).
        geometry: Name of a geometry, or a `Geometry`.

    Raises:
        ContractError: If an argument is out of range or shapes do not fit.
        UnknownNameError: If there is no geometry of this name.
    """
    box = find_geometry(geometry).array
    vectors = [_vectors(*pair) for pair in (("p3_b", p3_b), ("n_a", n_a), ("n_gamma", n_gamma))]
    numbers = [np.asarray(v, dtype=np.float64) for v in (m_a, ctau, u_decay)]
    species = np.asarray(is_b0, dtype=bool)
    _require("m_a", numbers[0], (numbers[0] > 0) & (numbers[0] <= M_A_MAX), f"(0, {M_A_MAX}] GeV")
    _require("ctau", numbers[1], (numbers[1] > 0) & np.isfinite(numbers[1]), "positive, in m")
    _require("u_decay", numbers[2], (numbers[2] >= 0) & (numbers[2] <= 1), "[0, 1]")
    for name, vector in (("n_a", vectors[1]), ("n_gamma", vectors[2])):
        norm = np.linalg.norm(vector, axis=-1)
        _require(f"the length of {name}", norm, np.abs(norm - 1) < 1e-6, "1, a unit vector")
    shapes = [v.shape[:-1] for v in vectors] + [v.shape for v in (*numbers, species)]
    try:
        batch = np.broadcast_shapes(*shapes)
    except ValueError as error:
        raise ContractError(f"batch shapes {shapes} do not fit one another") from error

    def flat(array: Any, *tail: int) -> Any:
        whole = np.broadcast_to(array, (*batch, *tail)).reshape(-1, *tail)
        return np.ascontiguousarray(whole)

    n = int(np.prod(batch))
    out, accept = np.empty((n, kernels.N_COLUMNS)), np.empty(n, dtype=np.bool_)
    b, a, g = (flat(v, 3) for v in vectors)
    mass, life, u = (flat(v) for v in numbers)
    kernels.decay_events(out, accept, b, flat(species), mass, life, a, u, g, box)

    def columns(first: int, width: int = 0) -> FloatArray:
        part = out[:, first : first + width] if width else out[:, first]
        return part.reshape((*batch, *part.shape[1:])).copy()

    return DecayRecord(
        p4_a=columns(kernels.P4_A, 4),
        decay_length=columns(kernels.LENGTH),
        vertex=columns(kernels.VERTEX, 3),
        weight=columns(kernels.WEIGHT),
        p4_g1=columns(kernels.P4_G1, 4),
        p4_g2=columns(kernels.P4_G2, 4),
        hit1=columns(kernels.HIT1, 2),
        hit2=columns(kernels.HIT2, 2),
        m_gg=columns(kernels.M_GG),
        opening=columns(kernels.OPENING),
        theta1=columns(kernels.THETA1),
        phi1=columns(kernels.PHI1),
        theta2=columns(kernels.THETA2),
        phi2=columns(kernels.PHI2),
        sep=columns(kernels.SEPARATION),
        accept=accept.reshape(batch),
    )


def _vectors(name: str, value: ArrayLike) -> FloatArray:
    vectors = np.asarray(value, dtype=np.float64)
    if vectors.shape[-1:] != (3,):
        raise ContractError(f"{name} has shape {vectors.shape}; expected (..., 3)")
    _require(name, vectors, np.isfinite(vectors), "finite")
    return vectors


def _require(name: str, value: FloatArray, good: Any, accepted: str) -> None:
    if not np.all(good):
        worst = np.asarray(value)[~np.asarray(good)].flat[0]
        raise ContractError(f"{name} has the value {worst:g}; accepted is {accepted}")
