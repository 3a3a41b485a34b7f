r"""A majorant of the cross section on a grid, from which candidates of events are drawn.

With u (ln s = ln s_min + (ln s_max - ln s_min) u^2), t = y/y_max and eta (cos theta = tanh eta)
the density of production factorises into a luminosity and a partonic part,

.. math:: \frac{d\sigma}{du\, dt\, d\eta} = L_c(u, t) \sum_{ab} v_a v_b P^c_{ab}(u, \eta)

for each charge c. Both are tabulated as their largest value in each cell, P for the diagonal
entries a = b only: by the Cauchy-Schwarz inequality, for any weights w_a > 0,

.. math:: v^T P v \le \Big(\sum_a w_a\Big) \sum_a \frac{v_a^2}{w_a} P_{aa} .

With :math:`w_a = |v_a| \sqrt{\Sigma_{aa}}` the bound integrates to :math:`(\sum_a w_a)^2`, so one
table draws events at any coefficients with an efficiency :math:`\sigma(\theta)/(\sum_a w_a)^2`
times that of the cells, and the result is exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numba import njit

from sbi_physics.types import FloatArray
from sbi_physics_smeft.cross_section import ETA_MAX, partonic_factor, sigma_gram
from sbi_physics_smeft.kernels import gram_of_tensor, tensor
from sbi_physics_smeft.model import THRESHOLD
from sbi_physics_smeft.parton_densities import N_CHANNELS, luminosities

CELLS: Final = (192, 48, 128)
"""Cells in u, t and eta."""
_SUBDIVISIONS: Final = 4
_MARGIN: Final = 1.02
"""Between the points where a cell's largest value is looked for; tests/test_generator.py counts
the candidates above it."""


@dataclass(frozen=True, slots=True)
class PhaseSpace:
    """The tables; first axis is the charge (W+, W-), component axis (SM, HWB, W, Hq3).

    Attributes:
        beam_energy: Centre-of-mass energy of the beams, GeV.
        log_s: Ends of ln s.
        sigma: Integrated Gram matrices in pb, shape (2, 4, 4).
        luminosity: Largest luminosity factor of each cell, shape (2, n_u, n_t).
        luminosity_sum: Running sum over t, shape (2, n_u, n_t).
        partonic: Largest partonic factor, shape (2, 4, n_u, n_eta).
        partonic_sum: Running sum over eta, shape (2, 4, n_u, n_eta).
        mass_sum: For each component, running sum over charge and u, shape (4, 2 n_u).
        integral: Integral of each component's majorant in pb, shape (4,).
    """

    beam_energy: float
    log_s: tuple[float, float]
    sigma: FloatArray
    luminosity: FloatArray
    luminosity_sum: FloatArray
    partonic: FloatArray
    partonic_sum: FloatArray
    mass_sum: FloatArray
    integral: FloatArray


@lru_cache(maxsize=8)
def phase_space(beam_energy: float, max_mass: float) -> PhaseSpace:
    """Make the tables, in a third of a second.

    Args:
        beam_energy: Centre-of-mass energy of the beams, GeV.
        max_mass: Largest invariant mass of the pair, GeV.
    """
    sigma = np.stack([sigma_gram(c, beam_energy=beam_energy, max_mass=max_mass) for c in (1, -1)])
    log_s = (2 * math.log(THRESHOLD), 2 * math.log(max_mass))
    u, t, eta = (
        np.linspace(low, 1.0, n * _SUBDIVISIONS + 1)
        for low, n in zip((0.0, -1.0, -1.0), CELLS, strict=True)
    )
    fine_l = np.empty((2, len(u), len(t)))
    fine_p = np.empty((2, 4, len(u), len(eta)))
    _evaluate(beam_energy, log_s[0], log_s[1], u, t, ETA_MAX * eta, fine_l, fine_p)
    luminosity = _MARGIN * _cell_maximum(fine_l)
    partonic = _MARGIN * _cell_maximum(fine_p)
    volume = (1 / CELLS[0]) * (2 / CELLS[1]) * (2 * ETA_MAX / CELLS[2])
    by_mass = luminosity.sum(-1)[:, None] * partonic.sum(-1) * volume
    mass_sum = by_mass.transpose(1, 0, 2).reshape(4, -1).cumsum(axis=1)
    return PhaseSpace(
        beam_energy=beam_energy,
        log_s=log_s,
        sigma=sigma,
        luminosity=luminosity,
        luminosity_sum=luminosity.cumsum(axis=-1),
        partonic=partonic,
        partonic_sum=partonic.cumsum(axis=-1),
        mass_sum=mass_sum,
        integral=np.ascontiguousarray(mass_sum[:, -1]),
    )


@njit(cache=True, nogil=True)
def mass_of(u: float, low: float, high: float) -> float:
    """Invariant mass of the pair in GeV at the first coordinate."""
    return math.exp(0.5 * (low + (high - low) * u * u))


@njit(cache=True, nogil=True)
def luminosity_factor(
    charge: int,
    beam_energy: float,
    mass: float,
    u: float,
    t: float,
    width: float,
    channels: np.ndarray,
) -> float:
    """The factor L(u, t); channels get the parts of it up to a common factor."""
    root_tau = mass / beam_energy
    y_max = -math.log(root_tau)
    boost = math.exp(y_max * t)
    total = luminosities(charge, root_tau * boost, root_tau / boost, channels)
    return total * y_max * 2.0 * width * u


@njit(cache=True, nogil=True)
def _evaluate(
    beam_energy: float,
    low: float,
    high: float,
    u: np.ndarray,
    t: np.ndarray,
    eta: np.ndarray,
    luminosity: np.ndarray,
    partonic: np.ndarray,
) -> None:
    r, gram, channels = np.empty((3, 3, 4)), np.empty((4, 4)), np.empty(N_CHANNELS)
    for c in range(2):
        charge = 1 - 2 * c
        for i in range(len(u)):
            mass = mass_of(u[i], low, high)
            for j in range(len(t)):
                luminosity[c, i, j] = luminosity_factor(
                    charge, beam_energy, mass, u[i], t[j], high - low, channels
                )
            factor = partonic_factor(mass * mass)
            for k in range(len(eta)):
                tensor(mass, math.tanh(eta[k]), charge, r)
                gram_of_tensor(r, gram)
                for a in range(4):
                    partonic[c, a, i, k] = factor * gram[a, a] / math.cosh(eta[k]) ** 2


def _cell_maximum(fine: FloatArray) -> FloatArray:
    """Largest of the points in and on each cell of the last two axes."""
    n = _SUBDIVISIONS
    for axis in (-2, -1):
        values = np.moveaxis(fine, axis, -1)
        blocks = values[..., :-1].reshape(*values.shape[:-1], -1, n).max(axis=-1)
        fine = np.moveaxis(np.maximum(blocks, values[..., n::n]), -1, axis)
    return np.ascontiguousarray(fine)
