r"""Exactly N accepted, unweighted events for each parameter point.

An event is kept with probability w / w_max, where w is the probability to decay in the window and
w_max its largest value for the momenta that occur:

.. math:: w(\lambda) = e^{-z_{min}/\lambda} - e^{-z_{max}/\lambda}, \qquad
          \lambda = c\tau\, p_z / m_a,

which peaks at (z_max - z_min) / ln(z_max / z_min). Decay and photons are drawn only for ALPs that
survive this, and each slot is tried until it is filled: efficiency never reshapes the prior.

The parametric source knows no azimuth, so ALPs are drawn only under azimuths at which the decay
volume is seen; a constant factor of all efficiencies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numba import njit

from sbi_physics.errors import ContractError
from sbi_physics.types import FloatArray, IntArray, Latents
from sbi_physics_beamdump import constants, kernels
from sbi_physics_beamdump.geometry import Geometry
from sbi_physics_beamdump.kernels import N_COLUMNS, alp_momentum, fill_event, window_probability
from sbi_physics_beamdump.production import highest_energy, parametric

MAX_PROPOSALS: Final = 20_000_000
"""Proposals for one event before giving up; the worst corner of the prior needs about 1e4."""

_LOWEST_P_Z: Final = 0.2
"""Lower end (GeV) of the p_z for which w_max holds, where e_min does not give one."""

_SIGMA_X_F, _MAX_X_F = constants.SIGMA_X_F, constants.MAX_X_F
_MEAN_PT2 = constants.MEAN_PT2
_HALF_SQRT_S = 0.5 * constants.SQRT_S
_GAMMA, _BETA = constants.GAMMA_CM, constants.BETA_CM
_M_B0, _M_BPLUS = constants.M_B0, constants.M_BPLUS
_TWO_PI = 2.0 * math.pi


@njit(cache=True, error_model="numpy")
def _isotropic(rng: np.random.Generator) -> tuple[float, float, float]:
    """A random unit vector."""
    z = 2.0 * rng.random() - 1.0
    phi = _TWO_PI * rng.random()
    r = math.sqrt(1.0 - z * z)
    return r * math.cos(phi), r * math.sin(phi), z


@njit(cache=True, error_model="numpy")
def _b_meson(rng: np.random.Generator, table: Any) -> tuple[bool, float, float, float]:
    """Species (whether B0) and laboratory momentum of a B meson."""
    n = table.shape[0]
    if n > 0:
        i = min(int(rng.random() * n), n - 1)
        return table[i, 0] > 0.5, table[i, 1], table[i, 2], table[i, 3]
    is_b0 = rng.random() < 0.5
    x_f = _SIGMA_X_F * rng.standard_normal()
    while abs(x_f) > _MAX_X_F:
        x_f = _SIGMA_X_F * rng.standard_normal()
    pt2 = _MEAN_PT2 * rng.standard_exponential()
    phi = _TWO_PI * rng.random()
    m_b = _M_B0 if is_b0 else _M_BPLUS
    p_z = x_f * _HALF_SQRT_S
    energy = math.sqrt(m_b * m_b + pt2 + p_z * p_z)
    pt = math.sqrt(pt2)
    return is_b0, pt * math.cos(phi), pt * math.sin(phi), _GAMMA * (p_z + _BETA * energy)


@njit(cache=True, error_model="numpy")
def _largest_weight(box: Any, m_a: float, ctau: float, p_low: float, p_high: float) -> float:
    z_min, z_max = box[0], box[1]
    best = (z_max - z_min) / math.log(z_max / z_min)
    best = min(max(best, ctau * p_low / m_a), ctau * p_high / m_a)
    return window_probability(best, z_min, z_max)


@njit(cache=True, error_model="numpy")
def _fill_sets(
    out: Any,
    m_a: Any,
    ctau: Any,
    count: Any,
    table: Any,
    box: Any,
    p_low: float,
    p_high: float,
    azimuths: tuple[float, float],
    cap: int,
    rng: np.random.Generator,
) -> tuple[int, int]:
    """Fill out[i, :count[i]]; return the proposals made and the first row that was given up."""
    scratch = np.empty(N_COLUMNS)
    proposals = 0
    middle, half_width = azimuths
    for i in range(out.shape[0]):
        m, life = m_a[i], ctau[i]
        largest = _largest_weight(box, m, life, p_low, p_high)
        for k in range(count[i]):
            tries = 0
            while True:
                if tries >= cap or not largest > 0.0:
                    return proposals, i
                tries += 1
                is_b0, bx, by, bz = _b_meson(rng, table)
                nx, ny, nz = _isotropic(rng)
                energy, px, py, pz = alp_momentum(bx, by, bz, is_b0, m, nx, ny, nz)
                if not pz > 0.0:
                    continue
                if half_width < math.pi:
                    phi = middle + half_width * (2.0 * rng.random() - 1.0)
                    pt = math.sqrt(px * px + py * py)
                    px, py = pt * math.cos(phi), pt * math.sin(phi)
                weight = window_probability(life * pz / m, box[0], box[1])
                if rng.random() * largest >= weight:
                    continue
                u = rng.random()
                gx, gy, gz = _isotropic(rng)
                if fill_event(scratch, energy, px, py, pz, m, life, u, gx, gy, gz, box):
                    out[i, k] = scratch
                    break
            proposals += tries
    return proposals, -1


@dataclass(frozen=True, eq=False)
class EventSampler:
    """Draws sets of accepted events.

    Attributes:
        geometry: The detector.
        table: B mesons to draw from, shape (n, 4) as `production.read_table` gives them;
            empty for the parametric source.
    """

    geometry: Geometry
    table: FloatArray = field(default_factory=parametric)

    def columns(
        self, m_a: FloatArray, ctau: FloatArray, count: IntArray, rng: np.random.Generator
    ) -> tuple[FloatArray, int]:
        """Draw whole events.

        Args:
            m_a: Masses, GeV, shape (n,).
            ctau: Lifetimes times c, m, shape (n,).
            count: Events of each set, shape (n,).
            rng: Source of randomness.

        Returns:
            Events, shape (n, max(count), N_COLUMNS), columns as in `kernels`, zero beyond the
            count; and the number of proposals it took.

        Raises:
            ContractError: If a point gives hardly any event that could be seen.
        """
        out = np.zeros((len(m_a), int(count.max(initial=0)), N_COLUMNS))
        proposals, failed = _fill_sets(
            out,
            np.ascontiguousarray(m_a),
            np.ascontiguousarray(ctau),
            count,
            self.table,
            self.geometry.array,
            # Two photons of e_min that fly forward; w above this bound is cut at w_max.
            max(2.0 * self.geometry.e_min, _LOWEST_P_Z),
            highest_energy(self.table),
            self.geometry.azimuths if not len(self.table) else (0.0, math.pi),
            MAX_PROPOSALS,
            rng,
        )
        if failed >= 0:
            raise ContractError(
                f"no event can be seen at m_a = {m_a[failed]:.4g} GeV, ctau = "
                f"{ctau[failed]:.4g} m: none of {MAX_PROPOSALS} ALPs decays between "
                f"{self.geometry.z_min:g} and {self.geometry.z_max:g} m with both photons "
                "accepted. Narrow the prior or change the geometry"
            )
        return out, proposals

    def latents(
        self,
        m_a: FloatArray,
        ctau: FloatArray,
        count: IntArray,
        size: int,
        rng: np.random.Generator,
    ) -> Latents:
        """Draw true kinematics, float32, zero for absent events.

        Args:
            m_a: Masses, GeV, shape (n,).
            ctau: Lifetimes times c, m, shape (n,).
            count: Events of each set, shape (n,), at most `size`.
            size: Slots of a set.
            rng: Source of randomness.

        Returns:
            `energy` (n, size, 2) GeV; `hit` (n, size, 2, 2) m and `slope` (n, size, 2, 2), the
            tangents p_x/p_z and p_y/p_z, of photon 1 and 2 (last axis x, y); `vertex`
            (n, size, 3) m; `present` (n, size), 1 for an event.
        """
        drawn, _ = self.columns(m_a, ctau, count, rng)
        events = np.zeros((len(m_a), size, N_COLUMNS))
        events[:, : drawn.shape[1]] = drawn
        present = np.arange(size) < count[:, None]
        return {
            name: values.astype(np.float32) for name, values in _truth(events, present).items()
        }


def _truth(events: FloatArray, present: Any) -> Mapping[str, Any]:
    k = kernels
    p1, p2 = events[..., k.P4_G1 : k.P4_G1 + 4], events[..., k.P4_G2 : k.P4_G2 + 4]
    p_z = np.where(present, np.stack([p1[..., 3], p2[..., 3]]), 1.0)
    return {
        "energy": np.stack([p1[..., 0], p2[..., 0]], axis=-1),
        "hit": events[..., k.HIT1 : k.HIT2 + 2].reshape(*present.shape, 2, 2),
        "slope": np.stack(
            [p1[..., 1:3] / p_z[0, ..., None], p2[..., 1:3] / p_z[1, ..., None]], -2
        ),
        "vertex": events[..., k.VERTEX : k.VERTEX + 3],
        "present": present,
    }
