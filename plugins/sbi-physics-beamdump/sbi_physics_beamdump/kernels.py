r"""Compiled kinematics of one event, :math:`B \to K a`, :math:`a \to \gamma\gamma`.

Both the simulator and `kinematics.decay_event` call these functions, so that what tests compare
with independent arithmetic is what is simulated.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numba import njit

from sbi_physics_beamdump import constants

Array = np.ndarray[Any, np.dtype[np.float64]]
Flags = np.ndarray[Any, np.dtype[np.bool_]]

# Columns of an event; momenta are (E, px, py, pz).
P4_A: Final = 0
LENGTH: Final = 4
VERTEX: Final = 5
WEIGHT: Final = 8
P4_G1: Final = 9
P4_G2: Final = 13
HIT1: Final = 17
HIT2: Final = 19
M_GG: Final = 21
OPENING: Final = 22
THETA1: Final = 23
PHI1: Final = 24
THETA2: Final = 25
PHI2: Final = 26
SEPARATION: Final = 27
N_COLUMNS: Final = 28

_M_B0, _M_BPLUS = constants.M_B0, constants.M_BPLUS
_M_K0, _M_KPLUS = constants.M_K0, constants.M_KPLUS


@njit(cache=True, error_model="numpy")
def boosted(
    energy: float,
    x: float,
    y: float,
    z: float,
    gx: float,
    gy: float,
    gz: float,
    gamma: float,
) -> tuple[float, float, float, float]:
    """Boost (energy, x, y, z) by a velocity with gamma * beta = (gx, gy, gz).

    With gamma^2 / (gamma + 1) in place of (gamma - 1) / beta^2 it is safe at rest.
    """
    along = gx * x + gy * y + gz * z
    factor = along / (gamma + 1.0) + energy
    return gamma * energy + along, x + factor * gx, y + factor * gy, z + factor * gz


@njit(cache=True, error_model="numpy")
def alp_momentum(
    bx: float, by: float, bz: float, is_b0: bool, m_a: float, nx: float, ny: float, nz: float
) -> tuple[float, float, float, float]:
    """Momentum of the ALP of B -> K a that flies along the unit vector n in the B frame."""
    m_b = _M_B0 if is_b0 else _M_BPLUS
    m_k = _M_K0 if is_b0 else _M_KPLUS
    plus, minus = m_k + m_a, m_k - m_a
    p = math.sqrt((m_b - plus) * (m_b + plus) * (m_b - minus) * (m_b + minus)) / (2.0 * m_b)
    energy = math.sqrt(p * p + m_a * m_a)
    inverse = 1.0 / m_b
    gx, gy, gz = bx * inverse, by * inverse, bz * inverse
    gamma = math.sqrt(1.0 + gx * gx + gy * gy + gz * gz)
    return boosted(energy, p * nx, p * ny, p * nz, gx, gy, gz, gamma)


@njit(cache=True, error_model="numpy")
def window_probability(decay_length: float, z_min: float, z_max: float) -> float:
    """Probability to decay between z_min and z_max, for a decay length along z (m)."""
    return -math.exp(-z_min / decay_length) * math.expm1(-(z_max - z_min) / decay_length)


@njit(cache=True, error_model="numpy")
def fill_event(
    out: Array,
    energy: float,
    px: float,
    py: float,
    pz: float,
    m_a: float,
    ctau: float,
    u: float,
    gx: float,
    gy: float,
    gz: float,
    box: Array,
) -> bool:
    """Decay an ALP and follow its photons; fill the columns of `out`, return whether it is seen.

    An ALP that flies backwards (pz <= 0) reaches no window: its weight is 0, and what needs a
    vertex is NaN.

    Args:
        out: Row of N_COLUMNS numbers.
        energy: Energy of the ALP, GeV.
        px: Momentum of the ALP, GeV.
        py: The same.
        pz: The same.
        m_a: Its mass, GeV.
        ctau: Its proper lifetime times c, m.
        u: Quantile of the decay length inside the window.
        gx: Unit vector of the first photon in the ALP's frame.
        gy: The same.
        gz: The same.
        box: The fields of `Geometry`.
    """
    z_min, z_max, z_cal = box[0], box[1], box[2]
    p = math.sqrt(px * px + py * py + pz * pz)
    out[0], out[1], out[2], out[3] = energy, px, py, pz

    half = 0.5 * m_a
    bx, by, bz, gamma = px / m_a, py / m_a, pz / m_a, energy / m_a
    e1, x1, y1, z1 = boosted(half, half * gx, half * gy, half * gz, bx, by, bz, gamma)
    e2, x2, y2, z2 = boosted(half, -half * gx, -half * gy, -half * gz, bx, by, bz, gamma)
    if e2 > e1:
        e1, x1, y1, z1, e2, x2, y2, z2 = e2, x2, y2, z2, e1, x1, y1, z1
    out[9], out[10], out[11], out[12] = e1, x1, y1, z1
    out[13], out[14], out[15], out[16] = e2, x2, y2, z2

    t1, t2 = math.sqrt(x1 * x1 + y1 * y1), math.sqrt(x2 * x2 + y2 * y2)
    theta1, theta2 = math.atan2(t1, z1), math.atan2(t2, z2)
    phi1, phi2 = math.atan2(y1, x1), math.atan2(y2, x2)
    half_theta, half_phi = math.sin(0.5 * (theta1 - theta2)), math.sin(0.5 * (phi1 - phi2))
    # sin^2 of half the opening angle: no digits are lost where photons are nearly parallel.
    s = half_theta * half_theta + math.sin(theta1) * math.sin(theta2) * half_phi * half_phi
    out[21] = 2.0 * math.sqrt(e1 * e2 * s)
    out[22] = 2.0 * math.atan2(math.sqrt(s), math.sqrt(max(1.0 - s, 0.0)))
    out[23], out[24], out[25], out[26] = theta1, phi1, theta2, phi2

    if not pz > 0.0:
        out[8] = 0.0
        out[4] = out[5] = out[6] = out[7] = math.nan
        out[17] = out[18] = out[19] = out[20] = out[27] = math.nan
        return False
    length = ctau * p / m_a
    l_min, l_max = p / pz * z_min, p / pz * z_max
    flight = l_min - length * math.log1p(u * math.expm1(-(l_max - l_min) / length))
    out[4] = flight
    out[8] = window_probability(ctau * pz / m_a, z_min, z_max)
    vx, vy, vz = flight / p * px, flight / p * py, flight / p * pz
    out[5], out[6], out[7] = vx, vy, vz
    left = z_cal - vz
    h1x, h1y = vx + left * x1 / z1, vy + left * y1 / z1
    h2x, h2y = vx + left * x2 / z2, vy + left * y2 / z2
    out[17], out[18], out[19], out[20] = h1x, h1y, h2x, h2y
    separation = math.sqrt((h1x - h2x) ** 2 + (h1y - h2y) ** 2)
    out[27] = separation

    if not (z1 > 0.0 and z2 > 0.0 and e1 >= box[11] and e2 >= box[11]):
        return False
    along = (vz - z_min) / (z_max - z_min)
    wall_low = box[7] + along * (box[9] - box[7])
    wall_high = box[8] + along * (box[10] - box[8])
    x_min, x_max, y_min, y_max = box[3], box[4], box[5], box[6]
    return bool(
        wall_low <= vx <= wall_high
        and y_min <= vy <= y_max
        and x_min <= h1x <= x_max
        and x_min <= h2x <= x_max
        and y_min <= h1y <= y_max
        and y_min <= h2y <= y_max
        and separation >= box[12]
    )


@njit(cache=True, error_model="numpy")
def decay_events(
    out: Array,
    accept: Flags,
    p3_b: Array,
    is_b0: Flags,
    m_a: Array,
    ctau: Array,
    n_a: Array,
    u_decay: Array,
    n_gamma: Array,
    box: Array,
) -> None:
    """Fill the rows of `out`, shape (n, N_COLUMNS), and of `accept`, shape (n,)."""
    for i in range(out.shape[0]):
        b, n, g = p3_b[i], n_a[i], n_gamma[i]
        energy, px, py, pz = alp_momentum(b[0], b[1], b[2], is_b0[i], m_a[i], n[0], n[1], n[2])
        accept[i] = fill_event(
            out[i], energy, px, py, pz, m_a[i], ctau[i], u_decay[i], g[0], g[1], g[2], box
        )
