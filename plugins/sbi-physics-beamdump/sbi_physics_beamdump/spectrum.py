r"""Momentum density of ALPs from B -> K a, by quadrature instead of simulation.

In the ALP's rest frame the B mesons that can have made it lie on a sphere of momentum
:math:`P = m_B p^*/m_a`, isotropically. So the invariant density of ALPs is an average of that of
B mesons, :math:`h = E_B\, dN/d^3p_B`, over that sphere:

.. math:: H(p_a) = E_a \frac{dN}{d^3p_a}
          = \left(\frac{m_B}{m_a}\right)^2 \int \frac{d\Omega}{4\pi}\, h(p_B(\Omega)) .

Along the direction of the ALP the energy of the B is linear in the polar angle on the sphere,
which makes the integral one over the energy and an azimuth. Neutral and charged mesons are
replaced by one of their mean mass: p* changes by less than 0.3 % up to 4.5 GeV.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, Final

import numpy as np
from numba import njit

from sbi_physics.types import FloatArray
from sbi_physics_beamdump import constants

_M_B: Final = 0.5 * (constants.M_B0 + constants.M_BPLUS)
_M_K: Final = 0.5 * (constants.M_K0 + constants.M_KPLUS)
_HALF_SQRT_S = 0.5 * constants.SQRT_S
_GAMMA, _BETA, _E_BEAM = constants.GAMMA_CM, constants.BETA_CM, constants.E_BEAM
_SIGMA, _MEAN_PT2 = constants.SIGMA_X_F, constants.MEAN_PT2
_MAX_X_F = constants.MAX_X_F
_NORM: Final = (
    math.erf(_MAX_X_F / (_SIGMA * math.sqrt(2.0)))
    * _SIGMA
    * math.sqrt(2.0 * math.pi)
    * _MEAN_PT2
    * math.pi
    * _HALF_SQRT_S
)
"""Of E_cm exp(-x_F^2 / 2 sigma^2 - p_T^2 / mean) / norm = E dN/d^3p, 1/GeV^2."""

LOWEST: Final = -400.0
"""ln H where there are no ALPs."""


@njit(cache=True, error_model="numpy")
def _b_density(energy: float, p_z: float, p_t2: float) -> float:
    p_cm = _GAMMA * (p_z - _BETA * energy)
    x_f = p_cm / _HALF_SQRT_S
    if abs(x_f) > _MAX_X_F:
        return 0.0
    e_cm = _GAMMA * (energy - _BETA * p_z)
    return e_cm * math.exp(-0.5 * (x_f / _SIGMA) ** 2 - p_t2 / _MEAN_PT2) / _NORM


@njit(cache=True, error_model="numpy")
def _alp_density(
    m_a: float, p_z: float, p_t: float, nodes: Any, weights: Any, cosines: Any
) -> float:
    """H(p_a), 1/GeV^2."""
    plus, minus = _M_K + m_a, _M_K - m_a
    p_star = math.sqrt((_M_B - plus) * (_M_B + plus) * (_M_B - minus) * (_M_B + minus)) / 2 / _M_B
    p = math.hypot(p_z, p_t)
    e = math.hypot(p, m_a)
    gamma, boost = e / m_a, p / m_a
    radius = _M_B * p_star / m_a
    e_b = math.hypot(radius, _M_B)
    # gamma e_b - boost radius without the cancellation of a light, fast ALP.
    low = gamma * (_M_B * _M_B / (e_b + radius)) + radius / (gamma + boost)
    high = gamma * e_b + boost * radius
    width = math.log(min(high, _E_BEAM) / low)
    if not width > 0.0:
        return 0.0
    sin_a, cos_a = p_t / p, p_z / p
    total = 0.0
    for i in range(len(nodes)):
        energy = low * math.exp(width * nodes[i])
        # The same boost as for energies, of the component along the ALP.
        cos_chi = max(-1.0, min(1.0, (energy - gamma * e_b) / (boost * radius)))
        p_b2 = energy * energy - _M_B * _M_B
        along = boost * e_b + gamma * radius * cos_chi
        across = math.sqrt(max(p_b2 - along * along, 0.0))
        inner = 0.0
        for j in range(len(cosines)):
            p_bz = along * cos_a - across * cosines[j, 0] * sin_a
            inner += cosines[j, 1] * _b_density(energy, p_bz, max(p_b2 - p_bz * p_bz, 0.0))
        total += weights[i] * energy * inner
    total *= width / (2.0 * boost * radius)
    return (_M_B / m_a) ** 2 * total


@njit(cache=True, error_model="numpy")
def _fill(out: Any, m_a: Any, p_z: Any, p_t: Any, nodes: Any, weights: Any, cosines: Any) -> None:
    for i in range(len(m_a)):
        out[i] = _alp_density(m_a[i], p_z[i], p_t[i], nodes, weights, cosines)


def alp_density(m_a: FloatArray, p_z: FloatArray, p_t: FloatArray) -> FloatArray:
    """Invariant momentum density E dN/d^3p of ALPs, 1/GeV^2, normalised to one ALP.

    Of the parametric source; arguments are broadcast against one another.

    Args:
        m_a: Masses, GeV, below 4.75.
        p_z: Momenta along the beam, GeV, positive.
        p_t: Transverse momenta, GeV.
    """
    m, z, t = np.broadcast_arrays(*(np.asarray(v, dtype=np.float64) for v in (m_a, p_z, p_t)))
    out = np.empty(m.size)
    points, weights = np.polynomial.legendre.leggauss(64)
    # phi = pi s^2: where both momenta are large, only B mesons near phi = 0 have a small p_T.
    s, w = np.polynomial.legendre.leggauss(16)
    s = 0.5 * (s + 1.0)
    cosines = np.stack([np.cos(math.pi * s**2), s * w], axis=1)
    points, weights = 0.5 * (points + 1.0), 0.5 * weights
    _fill(out, m.ravel(), z.ravel(), t.ravel(), points, weights, cosines)
    return out.reshape(m.shape)


MASSES: Final = np.linspace(math.log(0.1), math.log(4.5), 40)
"""ln m_a of `spectrum_table`."""

MOMENTA: Final = np.linspace(math.log(1.0), math.log(400.0), 112)
"""ln p_z of `spectrum_table`."""

TRANSVERSE: Final = np.linspace(0.0, 15.0, 61)
"""p_T of `spectrum_table`, GeV."""


@cache
def spectrum_table() -> FloatArray:
    """Return ln H on the grid `MASSES` x `MOMENTA` x `TRANSVERSE`; takes seconds, once."""
    h = alp_density(
        np.exp(MASSES)[:, None, None], np.exp(MOMENTA)[None, :, None], TRANSVERSE[None, None, :]
    )
    with np.errstate(divide="ignore"):
        return np.maximum(np.log(h), LOWEST)
