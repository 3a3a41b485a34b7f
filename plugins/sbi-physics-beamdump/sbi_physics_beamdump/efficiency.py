r"""Probability that an ALP is seen, for every mass and lifetime at once.

.. math:: \epsilon(m, c\tau) = \int dz\, \Big\langle \frac{e^{-z/\lambda}}{\lambda}\,
          1[\text{accepted}] \Big\rangle, \qquad \lambda = c\tau\, p_z / m ,

with ALPs, vertices (uniform in the decay volume) and photons simulated once for each mass: the
lifetime enters the weight only. Sets have a fixed number of accepted events, so that their density
is divided by a power of it.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numba import njit

from sbi_physics.errors import ContractError
from sbi_physics.types import FloatArray
from sbi_physics_beamdump.geometry import Geometry
from sbi_physics_beamdump.kernels import N_COLUMNS, VERTEX, alp_momentum, fill_event
from sbi_physics_beamdump.production import parametric
from sbi_physics_beamdump.sampler import _b_meson, _isotropic

MASSES: Final = np.linspace(math.log(0.1), math.log(4.5), 24)
"""ln m_a of the simulated points."""

LIFETIMES: Final = np.linspace(math.log(0.1), math.log(100.0), 61)
"""ln ctau of `efficiency_table`."""

WANTED: Final = 6000
"""Accepted ALPs at each mass."""

_CAP: Final = 4_000_000
_DEGREE: Final = 7
_SEED: Final = 20240808


@njit(cache=True, error_model="numpy")
def _accepted(
    m_a: float,
    box: Any,
    azimuths: tuple[float, float],
    wanted: int,
    cap: int,
    table: Any,
    rng: np.random.Generator,
) -> tuple[Any, Any, int]:
    """Accepted ALPs: z m / p_z (z / lambda is this over ctau) and p_z / m; and the trials."""
    place, speed = np.empty(wanted), np.empty(wanted)
    scratch = np.empty(N_COLUMNS)
    middle, half_width = azimuths
    found = trials = 0
    while found < wanted and trials < cap:
        trials += 1
        is_b0, bx, by, bz = _b_meson(rng, table)
        nx, ny, nz = _isotropic(rng)
        energy, px, py, pz = alp_momentum(bx, by, bz, is_b0, m_a, nx, ny, nz)
        phi = middle + half_width * (2.0 * rng.random() - 1.0)
        u = rng.random()
        gx, gy, gz = _isotropic(rng)
        if not pz > 0.0:
            continue
        if half_width < math.pi:
            pt = math.sqrt(px * px + py * py)
            px, py = pt * math.cos(phi), pt * math.sin(phi)
        # So long a lifetime that the vertex is uniform in the window.
        if fill_event(scratch, energy, px, py, pz, m_a, 1e9, u, gx, gy, gz, box):
            place[found] = scratch[VERTEX + 2] * m_a / pz
            speed[found] = pz / m_a
            found += 1
    return place[:found], speed[:found], trials


@lru_cache(maxsize=8)
def efficiency_table(geometry: Geometry) -> FloatArray:
    """Return ln efficiency on `MASSES` x `LIFETIMES`, smooth in the mass; takes seconds, once.

    Of the parametric source. The statistical error is about 2 % at one mass before smoothing.

    Raises:
        ContractError: If hardly any ALP is seen.
    """
    rows = []
    box, azimuths = geometry.array, geometry.azimuths
    for log_m in MASSES:
        # The same random numbers for every mass, for smoothness.
        rng = np.random.default_rng(_SEED)
        place, speed, trials = _accepted(
            math.exp(log_m), box, azimuths, WANTED, _CAP, parametric(), rng
        )
        if len(place) < 100:
            raise ContractError(
                f"{len(place)} of {trials} ALPs of {math.exp(log_m):.3g} GeV are seen in this "
                "geometry, too few for its efficiency"
            )
        ctau = np.exp(LIFETIMES)[:, None]
        window = geometry.z_max - geometry.z_min
        weight = window * np.exp(-place / ctau) / (speed * ctau)
        rows.append(np.log(weight.sum(axis=1) * azimuths[1] / math.pi / trials))
    x = 2.0 * (MASSES - MASSES[0]) / (MASSES[-1] - MASSES[0]) - 1.0
    basis = np.polynomial.chebyshev.chebvander(x, _DEGREE)
    smooth: FloatArray = basis @ np.linalg.lstsq(basis, np.array(rows), rcond=None)[0]
    return smooth
