r"""Integrated Gram matrices of pp -> W Z: sigma(theta) = v^T Sigma v, exact to 1e-4.

.. math:: \Sigma_{ab} = \int d\ln\hat s\, dy\, d\cos\theta \sum_{q}
    x_1 f\, x_2 f' \frac{1}{2\hat s}\frac{1}{12}\frac{\beta}{16\pi}\, G_{ab}(\hat s, \cos\theta)

Trap: exchange of a light quark peaks at 1 - abs(cos theta) of 2 m^4/s^2, 4e-7 at 4 TeV. Uniform
nodes in theta miss it (-27 % at 2 - 3 TeV); cos theta = tanh(eta) with uniform eta resolves it.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final

import numpy as np
from numba import njit

from sbi_physics.errors import ContractError
from sbi_physics.types import FloatArray
from sbi_physics_smeft.kernels import gram_of_tensor, momentum, tensor
from sbi_physics_smeft.model import PB, THRESHOLD
from sbi_physics_smeft.parton_densities import N_CHANNELS, luminosities

BEAM_ENERGY: Final = 13_600.0
"""Default centre-of-mass energy of the beams, GeV."""
MAX_MASS: Final = 8_000.0
"""Default largest invariant mass of the pair, GeV; above it are 1e-6 of the cross section."""
ETA_MAX: Final = 11.0
"""cos theta reaches tanh of this; the forward peak is flat in eta long before."""

_NODES: Final = (160, 96, 240)


@njit(cache=True, nogil=True)
def partonic_factor(s: float) -> float:
    """Flux, averages and phase space, dsigma/dcos(theta) over v^T G v, in pb."""
    beta = 2.0 * momentum(s) / math.sqrt(s)
    return PB * beta / (2.0 * s * 12.0 * 16.0 * math.pi)


def sigma_gram(
    charge: int,
    *,
    beam_energy: float = BEAM_ENERGY,
    min_mass: float = THRESHOLD,
    max_mass: float = MAX_MASS,
) -> FloatArray:
    """Integrated Gram matrix of W+ Z or W- Z in pb, before branching ratios, shape (4, 4).

    Args:
        charge: 1 or -1.
        beam_energy: Centre-of-mass energy of the beams, GeV.
        min_mass: Smallest invariant mass of the pair, GeV.
        max_mass: Largest invariant mass of the pair, GeV.

    Raises:
        ContractError: If the charge or the order of the energies is wrong.
    """
    if charge not in (1, -1):
        raise ContractError(f"charge = {charge}; accepted: 1 and -1")
    if not THRESHOLD <= min_mass < max_mass <= beam_energy:
        raise ContractError(
            f"energies must be ordered {THRESHOLD:g} <= min_mass < max_mass <= beam_energy, got "
            f"{min_mass:g}, {max_mass:g} and {beam_energy:g} GeV"
        )
    return _sigma_gram(charge, float(beam_energy), float(min_mass), float(max_mass)).copy()


@lru_cache(maxsize=64)
def _sigma_gram(charge: int, beam_energy: float, min_mass: float, max_mass: float) -> FloatArray:
    # ln s grows with the square of the first variable: smooth at threshold, where beta vanishes.
    u, du = _gauss(_NODES[0], 0.0, 1.0)
    low, high = 2 * math.log(min_mass), 2 * math.log(max_mass)
    log_s, weight = low + (high - low) * u**2, du * 2 * (high - low) * u
    gram: FloatArray = np.zeros((4, 4))
    _integrate(
        charge,
        beam_energy,
        np.exp(log_s / 2),
        weight,
        *_gauss(_NODES[1], -1.0, 1.0),
        *_gauss(_NODES[2], -ETA_MAX, ETA_MAX),
        gram,
    )
    return gram


@njit(cache=True, nogil=True)
def _integrate(
    charge: int,
    beam_energy: float,
    mass: np.ndarray,
    mass_weight: np.ndarray,
    t: np.ndarray,
    t_weight: np.ndarray,
    eta: np.ndarray,
    eta_weight: np.ndarray,
    total: np.ndarray,
) -> None:
    r, gram, channels = np.empty((3, 3, 4)), np.empty((4, 4)), np.empty(N_CHANNELS)
    for i in range(len(mass)):
        root_tau = mass[i] / beam_energy
        y_max = -math.log(root_tau)
        luminosity = 0.0
        for j in range(len(t)):
            boost = math.exp(y_max * t[j])
            luminosity += t_weight[j] * luminosities(
                charge, root_tau * boost, root_tau / boost, channels
            )
        scale = mass_weight[i] * y_max * luminosity * partonic_factor(mass[i] ** 2)
        for k in range(len(eta)):
            tensor(mass[i], math.tanh(eta[k]), charge, r)
            gram_of_tensor(r, gram)
            factor = scale * eta_weight[k] / math.cosh(eta[k]) ** 2
            for a in range(4):
                for b in range(4):
                    total[a, b] += factor * gram[a, b]


def _gauss(n: int, low: float, high: float) -> tuple[FloatArray, FloatArray]:
    node, weight = np.polynomial.legendre.leggauss(n)
    return low + (high - low) * (node + 1) / 2, weight * (high - low) / 2
