r"""Unweighted events of pp -> W Z -> leptons at any Wilson coefficients.

Production is drawn from the majorant of `phase_space` and accepted with the exact cross section;
then decay angles are drawn isotropically and accepted with :math:`|M|^2` over its bound, 9 times
the share of left-handed leptons in Z decays times the mean over angles. Both steps are exact for
every row's own coefficients. With decays that do not follow the coefficients (label level
`production`), angles are those of the Standard Model at the same production point.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit

from sbi_physics.errors import ContractError
from sbi_physics.types import FloatArray, IntArray
from sbi_physics_smeft.cross_section import BEAM_ENERGY, ETA_MAX, MAX_MASS, partonic_factor
from sbi_physics_smeft.kernels import (
    current,
    decay_amplitudes,
    event_leptons,
    gram_of_amplitudes,
    gram_of_tensor,
    tensor,
)
from sbi_physics_smeft.model import Z_LEFT
from sbi_physics_smeft.parton_densities import N_CHANNELS
from sbi_physics_smeft.phase_space import (
    CELLS,
    PhaseSpace,
    luminosity_factor,
    mass_of,
    phase_space,
)


@dataclass(frozen=True, slots=True)
class Events:
    """Parton-level events.

    Attributes:
        charge: Charge of the W, shape (n,).
        channel: 0 and 1: u or d type quark of the first generation from beam 1, 2; 2 and 3: of
            the second. Shape (n,).
        sqrt_s: Invariant mass of the pair, GeV.
        rapidity: Rapidity of the pair.
        cos_theta: Cosine of the angle between W and quark in the centre-of-mass frame.
        decay: cos and phi of the W's charged lepton, cos and phi of the Z's negative lepton, in
            the frames of `amplitudes`, shape (n, 4).
        momenta: px, py, pz of l, nu, l-, l+ in the laboratory, GeV, shape (n, 4, 3).
        gram: Gram matrices relative to the Standard Model, shape (n, 4, 4), 00 entry 1.
        tries: Candidates that production took, summed.
        above: Those of them above the majorant; each is a bias of the order of its excess.
    """

    charge: IntArray
    channel: IntArray
    sqrt_s: FloatArray
    rapidity: FloatArray
    cos_theta: FloatArray
    decay: FloatArray
    momenta: FloatArray
    gram: FloatArray
    tries: int
    above: int


def generate(
    vectors: FloatArray,
    rng: np.random.Generator,
    *,
    beam_energy: float = BEAM_ENERGY,
    max_mass: float = MAX_MASS,
    decays_follow: bool = True,
) -> Events:
    """Draw one unweighted event for each row.

    Args:
        vectors: (1, C_HWB, C_W, C_Hq3) of each row, shape (n, 4).
        rng: Source of randomness.
        beam_energy: Centre-of-mass energy of the beams, GeV.
        max_mass: Largest invariant mass of the pair, GeV.
        decays_follow: Whether decay angles and Gram matrices include the decays' dependence on
            the coefficients; otherwise Gram matrices are those of production.

    Raises:
        ContractError: If vectors have another shape.
    """
    v = np.ascontiguousarray(vectors, dtype=np.float64)
    if v.ndim != 2 or v.shape[1] != 4:
        raise ContractError(f"vectors must have shape (n, 4), got {v.shape}")
    space, n = phase_space(float(beam_energy), float(max_mass)), len(v)
    integers, point = np.empty((n, 2), dtype=np.int64), np.empty((n, 3))
    decay, momenta, gram = np.empty((n, 4)), np.empty((n, 4, 3)), np.empty((n, 4, 4))
    tries, above = _generate(
        v,
        _bounds(v, space),
        rng,
        (space.beam_energy, *space.log_s),
        (space.luminosity, space.luminosity_sum),
        (space.partonic, space.partonic_sum, space.mass_sum, space.integral),
        decays_follow,
        integers,
        point,
        decay,
        momenta,
        gram,
    )
    return Events(
        charge=integers[:, 0].copy(),
        channel=integers[:, 1].copy(),
        sqrt_s=point[:, 0].copy(),
        rapidity=point[:, 1].copy(),
        cos_theta=point[:, 2].copy(),
        decay=decay,
        momenta=momenta,
        gram=gram,
        tries=tries,
        above=above,
    )


def _bounds(v: FloatArray, space: PhaseSpace) -> FloatArray:
    """Factor of each component's majorant in the Cauchy-Schwarz bound, shape (n, 4)."""
    root = np.sqrt(np.einsum("caa->a", space.sigma))
    total = (np.abs(v) * root).sum(axis=1)
    return np.ascontiguousarray(total[:, None] * np.abs(v) / root)


@njit(cache=True, nogil=True)
def _find(cumulative: np.ndarray, target: float) -> int:
    """First position whose running sum exceeds the target."""
    low, high = 0, len(cumulative) - 1
    while low < high:
        middle = (low + high) // 2
        if cumulative[middle] > target:
            high = middle
        else:
            low = middle + 1
    return low


@njit(cache=True, nogil=True)
def _generate(
    vectors: np.ndarray,
    bounds: np.ndarray,
    rng: np.random.Generator,
    energies: tuple[float, float, float],
    luminosity_tables: tuple[np.ndarray, np.ndarray],
    partonic_tables: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    decays_follow: bool,
    integers: np.ndarray,
    point: np.ndarray,
    decay: np.ndarray,
    momenta: np.ndarray,
    grams: np.ndarray,
) -> tuple[int, int]:
    beam_energy, log_low, log_high = energies
    luminosity, luminosity_sum = luminosity_tables
    partonic, partonic_sum, mass_sum, integral = partonic_tables
    n_u, n_t, n_eta = CELLS
    r, gram, channels = np.empty((3, 3, 4)), np.empty((4, 4)), np.empty(N_CHANNELS)
    amplitude, leptons = np.empty((2, 4, 2)), np.empty((4, 4))
    share = np.empty(4)
    tries = above = 0
    for n in range(len(vectors)):
        v = vectors[n]
        total = 0.0
        for a in range(4):
            total += bounds[n, a] * integral[a]
            share[a] = total
        while True:
            tries += 1
            a = _find(share, rng.random() * total)
            cell = _find(mass_sum[a], rng.random() * integral[a])
            c, i = cell // n_u, cell % n_u
            j = _find(luminosity_sum[c, i], rng.random() * luminosity_sum[c, i, n_t - 1])
            k = _find(partonic_sum[c, a, i], rng.random() * partonic_sum[c, a, i, n_eta - 1])
            u = (i + rng.random()) / n_u
            t = 2.0 * (j + rng.random()) / n_t - 1.0
            eta = ETA_MAX * (2.0 * (k + rng.random()) / n_eta - 1.0)
            charge = 1 - 2 * c
            mass, cos_theta = mass_of(u, log_low, log_high), math.tanh(eta)
            tensor(mass, cos_theta, charge, r)
            gram_of_tensor(r, gram)
            production = _quadratic(gram, v)
            bound = 0.0
            for b in range(4):
                bound += bounds[n, b] * partonic[c, b, i, k]
            bound *= luminosity[c, i, j]
            density = (
                luminosity_factor(charge, beam_energy, mass, u, t, log_high - log_low, channels)
                * partonic_factor(mass * mass)
                * production
                / math.cosh(eta) ** 2
            )
            if density > bound:
                above += 1
            if rng.random() * bound < density:
                break
        channel = _channel(channels, rng.random())
        production_sm = gram[0, 0]
        if not decays_follow:
            for a in range(4):
                for b in range(4):
                    grams[n, a, b] = gram[a, b] / production_sm
        mean = production if decays_follow else production_sm
        while True:
            for m in range(2):
                decay[n, 2 * m] = 2.0 * rng.random() - 1.0
                decay[n, 2 * m + 1] = 2.0 * math.pi * rng.random()
            w = current(cos_theta, 1.0, decay[n, 0], decay[n, 1])
            z = current(cos_theta, -1.0, decay[n, 2], decay[n, 3])
            decay_amplitudes(r, charge, w, z, amplitude)
            gram_of_amplitudes(amplitude, gram)
            value = _quadratic(gram, v) if decays_follow else gram[0, 0]
            if rng.random() * 9.0 * Z_LEFT * mean < value:
                break
        if decays_follow:
            for a in range(4):
                for b in range(4):
                    grams[n, a, b] = gram[a, b] / gram[0, 0]
        integers[n, 0], integers[n, 1] = charge, channel
        y = -math.log(mass / beam_energy) * t
        point[n, 0], point[n, 1], point[n, 2] = mass, y, cos_theta
        event_leptons(mass, cos_theta, decay[n, 0], decay[n, 1], decay[n, 2], decay[n, 3], leptons)
        _to_laboratory(leptons, channel % 2 == 1, y, 2.0 * math.pi * rng.random(), momenta[n])
    return tries, above


@njit(cache=True, nogil=True)
def _quadratic(gram: np.ndarray, v: np.ndarray) -> float:
    total = 0.0
    for a in range(4):
        row = 0.0
        for b in range(4):
            row += gram[a, b] * v[b]
        total += v[a] * row
    return total


@njit(cache=True, nogil=True)
def _channel(channels: np.ndarray, uniform: float) -> int:
    target = uniform * channels.sum()
    running = 0.0
    for m in range(N_CHANNELS - 1):
        running += channels[m]
        if target < running:
            return m
    return N_CHANNELS - 1


@njit(cache=True, nogil=True)
def _to_laboratory(
    leptons: np.ndarray, from_beam_2: bool, y: float, azimuth: float, out: np.ndarray
) -> None:
    """Turn about the y axis if the quark is from beam 2, rotate about the beam, boost."""
    flip = -1.0 if from_beam_2 else 1.0
    c, s = math.cos(azimuth), math.sin(azimuth)
    cosh, sinh = math.cosh(y), math.sinh(y)
    for m in range(len(leptons)):
        px, py = flip * leptons[m, 1], leptons[m, 2]
        out[m, 0] = c * px - s * py
        out[m, 1] = s * px + c * py
        out[m, 2] = cosh * flip * leptons[m, 3] + sinh * leptons[m, 0]
