"""Compiled propagation of one state vector through many cells: the inner loop of the package.

A cell of length L mixes (A_perp, A_par, a) - polarisations across and along the transverse
field, and the ALP - by exp(-i M L) (arXiv:1406.5972, eq. 3). With the two dimensionless numbers

    h = L (D_par - D_a) / 2,      d = L D_ag,      u = h^2 + d^2,

and up to a phase common to all three amplitudes, which no probability depends on,

    A_perp -> exp(-i (h - 3/2 L D_QED)) A_perp
    A_par  -> (C - i h S) A_par - i d S a           C = cos(sqrt u)
    a      -> -i d S A_par + (C + i h S) a          S = sin(sqrt u) / sqrt u

C and S are entire functions of u. Where u stays below about 1 throughout a block of energies they
are plain polynomials: no square root, no division, no range reduction. That covers every energy
of a cluster whose cells resolve the field and whose conversion is cut above its largest
wavenumber. Other blocks take the general branch.

Energies are the inner, contiguous axis, so that the compiler vectorises the whole body; one flat
scratch array with rows at a constant distance spares it all run-time overlap checks. No
reassociation is allowed (the range reduction relies on it), and every simulation is
computed alone: neither the batch nor the number of threads changes a bit of the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import numba
import numpy as np
from numba import njit, prange

from sbi_physics_alp import constants

Array = np.ndarray[Any, np.dtype[np.float64]]
Indices = np.ndarray[Any, np.dtype[np.int64]]

BLOCK: Final = 128
"""Energies a block: eight rows of it, the working set, fill a quarter of a 32 kB L1 cache."""

_MOST: Final = 64  # cells joined at most

MAX_PHASE: Final = 3.0e6
"""Largest phase (rad) of a cell: beyond it the range reduction is no longer exact."""

_FLAGS: Final = {"contract", "nnan", "ninf", "nsz"}

# Rows of the scratch array: real and imaginary parts of the state, then E and 1/E.
_QR, _QI, _PR, _PI, _AR, _AI, _E, _IE = (row * BLOCK for row in range(8))

_MIXING, _MASS, _PLASMA = constants.MIXING, constants.MASS, constants.PLASMA
_CMB, _QED = constants.CMB, constants.QED
_PARALLEL = constants.QED_PARALLEL
_DIFFERENCE = constants.QED_PARALLEL - constants.QED_PERPENDICULAR

# pi in three parts of 33 significant bits (Cody and Waite): k times each is exact for k < 2^20.
_PI_1: Final = 3.14159265346825122833
_PI_2: Final = 1.21542010126079319532e-10
_PI_3: Final = 4.04453249742233291160e-21
_INVERSE_PI: Final = 1.0 / math.pi

# Degree n of the series sum_k (-u)^k / (2k)! and the largest u where its first omitted term is
# below 1e-15: (1e-15 (2n + 2)!)^(1/(n + 1)).
_LIMITS: Final = {n: (1e-15 * math.factorial(2 * n + 2)) ** (1 / (n + 1)) for n in (2, 3, 5, 8)}
_UP_TO_2, _UP_TO_3, _UP_TO_5, _UP_TO_8 = _LIMITS.values()
_COSINE = tuple((-1.0) ** k / math.factorial(2 * k) for k in range(11))
_SINE = tuple((-1.0) ** k / math.factorial(2 * k + 1) for k in range(11))


@njit(inline="always")
def _series(u: float, c: tuple[float, ...], degree: int) -> float:
    """Sum of c[k] u^k up to ``degree``; the unused branches vanish at compile time."""
    total = 0.0
    if degree >= 10:
        total = c[10]
    if degree >= 9:
        total = total * u + c[9]
    if degree >= 8:
        total = total * u + c[8]
    if degree >= 7:
        total = total * u + c[7]
    if degree >= 6:
        total = total * u + c[6]
    if degree >= 5:
        total = total * u + c[5]
    if degree >= 4:
        total = total * u + c[4]
    if degree >= 3:
        total = total * u + c[3]
    return ((total * u + c[2]) * u + c[1]) * u + c[0]


@njit(inline="always")
def _cosine_and_sine(x: float) -> tuple[float, float]:
    """cos(x), sin(x) without branches for abs(x) < 3e6: reduction by pi, then the series."""
    turns = np.rint(x * _INVERSE_PI)
    rest = ((x - turns * _PI_1) - turns * _PI_2) - turns * _PI_3
    sign = 1.0 - 2.0 * (turns - 2.0 * np.floor(0.5 * turns))
    cosine = sign * _series(rest * rest, _COSINE, 10)
    sine = sign * rest * _series(rest * rest, _SINE, 10)
    return cosine, sine


def _make_cells(mixing_degree: int, phase_degree: int) -> Callable[..., None]:
    """Compile the loop over cells for one pair of series degrees (0: phases of any size)."""

    @njit(cache=True, fastmath=_FLAGS, error_model="numpy")
    def cells(work: Array, n: int, cell: Array, n_cells: int) -> None:
        for j in range(n_cells):
            inverse, linear, qed, d = cell[j, 0], cell[j, 1], cell[j, 2], cell[j, 3]
            cos_psi, sin_psi = cell[j, 4], cell[j, 5]
            d_squared = d * d
            for i in range(n):
                energy = work[_E + i]
                h = inverse * work[_IE + i] + linear * energy
                phase = h - qed * energy
                u = h * h + d_squared
                if mixing_degree > 0:
                    c = _series(u, _COSINE, mixing_degree)
                    s = _series(u, _SINE, mixing_degree)
                else:
                    w = math.sqrt(u)
                    c, s = _cosine_and_sine(w)
                    # w = 0 means h = d = 0, and s only ever appears multiplied by h or d.
                    s = s / max(w, 1e-300)
                if phase_degree > 0:
                    square = phase * phase
                    cos_phase = _series(square, _COSINE, phase_degree)
                    sin_phase = phase * _series(square, _SINE, phase_degree)
                else:
                    cos_phase, sin_phase = _cosine_and_sine(phase)
                hs = h * s
                ds = d * s
                q_re, q_im, p_re, p_im = work[_QR + i], work[_QI + i], work[_PR + i], work[_PI + i]
                a_re, a_im = work[_AR + i], work[_AI + i]
                perp_re = cos_psi * q_re - sin_psi * p_re
                perp_im = cos_psi * q_im - sin_psi * p_im
                par_re = sin_psi * q_re + cos_psi * p_re
                par_im = sin_psi * q_im + cos_psi * p_im
                work[_QR + i] = cos_phase * perp_re + sin_phase * perp_im
                work[_QI + i] = cos_phase * perp_im - sin_phase * perp_re
                work[_PR + i] = c * par_re + hs * par_im + ds * a_im
                work[_PI + i] = c * par_im - hs * par_re - ds * a_re
                work[_AR + i] = c * a_re - hs * a_im + ds * par_im
                work[_AI + i] = c * a_im + hs * a_re - ds * par_re

    return cells


_cells_3_2 = _make_cells(3, 2)
_cells_5_2 = _make_cells(5, 2)
_cells_5_5 = _make_cells(5, 5)
_cells_8_8 = _make_cells(8, 8)
_cells_any = _make_cells(0, 0)


@njit(cache=True, fastmath=_FLAGS, error_model="numpy")
def _fill_cells(
    cell: Array, b_x: Array, b_y: Array, n_e: Array, length: Array, m: float, g: float, back: bool
) -> tuple[int, float, float, float, float, float]:
    """Energy-independent factors of every cell of non-zero length, in the order of travel.

    Returns the number of cells, their largest length (kpc), squared field, density and
    D_ag L, and the direction (rad) of the last field, measured from the y axis.
    """
    count, n_cells = 0, length.shape[0]
    max_length = max_b_squared = max_density = max_d = 0.0
    cos_last, sin_last = 1.0, 0.0
    for k in range(n_cells):
        j = n_cells - 1 - k if back else k
        if length[j] == 0.0:
            continue
        b_squared = b_x[j] * b_x[j] + b_y[j] * b_y[j]
        b = math.sqrt(b_squared)
        cos_psi, sin_psi = cos_last, sin_last
        if b > 0.0:
            cos_psi, sin_psi = b_y[j] / b, b_x[j] / b
        half = 0.5 * length[j]
        cell[count, 0] = half * (_MASS * m * m - _PLASMA * n_e[j])
        cell[count, 1] = half * (_CMB + _PARALLEL * _QED * b_squared)
        cell[count, 2] = length[j] * _DIFFERENCE * _QED * b_squared
        cell[count, 3] = length[j] * _MIXING * g * b
        cell[count, 4] = cos_psi * cos_last + sin_psi * sin_last
        cell[count, 5] = sin_psi * cos_last - cos_psi * sin_last
        max_length = max(max_length, length[j])
        max_b_squared = max(max_b_squared, b_squared)
        max_density = max(max_density, n_e[j])
        max_d = max(max_d, cell[count, 3])
        cos_last, sin_last = cos_psi, sin_psi
        count += 1
    return count, max_length, max_b_squared, max_density, max_d, math.atan2(sin_last, cos_last)


@njit(cache=True, fastmath=_FLAGS, error_model="numpy")
def _merge_cells(
    many: int, b_x: Array, b_y: Array, n_e: Array, length: Array
) -> tuple[Array, Array, Array, Array]:
    """Mean field and density of every ``many`` cells of non-zero length in a row, total length."""
    size = (length.shape[0] + many - 1) // many
    x, y, n, total = np.zeros(size), np.zeros(size), np.zeros(size), np.zeros(size)
    count = 0
    for j in range(length.shape[0]):
        if length[j] == 0.0:
            continue
        k = count // many
        x[k] += length[j] * b_x[j]
        y[k] += length[j] * b_y[j]
        n[k] += length[j] * n_e[j]
        total[k] += length[j]
        count += 1
    for k in range(size):
        if total[k] > 0.0:
            x[k], y[k], n[k] = x[k] / total[k], y[k] / total[k], n[k] / total[k]
    return x, y, n, total


@njit(cache=True, fastmath=_FLAGS, error_model="numpy")
def _one_simulation(
    out: Array,
    energy: Array,
    first: int,
    b_x: Array,
    b_y: Array,
    n_e: Array,
    length: Array,
    m: float,
    g: float,
    back: bool,
    merge: float,
) -> None:
    n_energy = energy.shape[0]
    out[:4, :], out[4, :], out[5, :] = 0.0, 1.0, 0.0
    if first >= n_energy:
        return
    cell = np.empty((length.shape[0], 6))
    n_cells, max_length, max_b_squared, max_density, max_d, psi = _fill_cells(
        cell, b_x, b_y, n_e, length, m, g, back
    )
    mass_term = max(_MASS * m * m, _PLASMA * max_density)
    linear_term = _CMB + _PARALLEL * _QED * max_b_squared
    cos_psi, sin_psi = math.cos(psi), math.sin(psi)
    whole, n_whole, many = cell, n_cells, 1

    n_blocks = (n_energy - first + BLOCK - 1) // BLOCK
    size = (n_energy - first + n_blocks - 1) // n_blocks
    size = (size + 3) // 4 * 4
    work = np.empty(8 * BLOCK)
    for start in range(first, n_energy, size):
        n = min(size, n_energy - start)
        for i in range(n):
            work[_QR + i] = work[_QI + i] = work[_PR + i] = work[_PI + i] = 0.0
            work[_AR + i], work[_AI + i] = 1.0, 0.0
            work[_E + i], work[_IE + i] = energy[start + i], 1.0 / energy[start + i]
        phase = (
            0.5 * max_length * (mass_term / energy[start] + linear_term * energy[start + n - 1])
        )
        d = max_d
        if merge > 0.0:
            wanted = 1
            while wanted < _MOST and 2 * wanted * max(2.0 * phase, d) <= merge:
                wanted *= 2
            if wanted != many:
                many, cell, n_cells = wanted, whole, n_whole
                if many > 1:
                    x, y, n_mean, total = _merge_cells(many, b_x, b_y, n_e, length)
                    cell = np.empty((total.shape[0], 6))
                    n_cells, _, _, _, _, psi = _fill_cells(cell, x, y, n_mean, total, m, g, back)
                else:
                    n_cells, _, _, _, _, psi = _fill_cells(cell, b_x, b_y, n_e, length, m, g, back)
                cos_psi, sin_psi = math.cos(psi), math.sin(psi)
            phase *= many
            d *= many
        square = phase * phase
        u = square + d * d
        if u < _UP_TO_3 and square < _UP_TO_2:
            _cells_3_2(work, n, cell, n_cells)
        elif u < _UP_TO_5 and square < _UP_TO_2:
            _cells_5_2(work, n, cell, n_cells)
        elif u < _UP_TO_5:
            _cells_5_5(work, n, cell, n_cells)
        elif u < _UP_TO_8:
            _cells_8_8(work, n, cell, n_cells)
        else:
            _cells_any(work, n, cell, n_cells)
        for i in range(n):
            q_re, q_im, p_re, p_im = work[_QR + i], work[_QI + i], work[_PR + i], work[_PI + i]
            out[0, start + i] = cos_psi * q_re + sin_psi * p_re
            out[1, start + i] = cos_psi * q_im + sin_psi * p_im
            out[2, start + i] = cos_psi * p_re - sin_psi * q_re
            out[3, start + i] = cos_psi * p_im - sin_psi * q_im
            out[4, start + i] = work[_AR + i]
            out[5, start + i] = work[_AI + i]


@njit(cache=True, error_model="numpy")
def _serial(
    out: Array,
    energy: Array,
    first: Indices,
    b_x: Array,
    b_y: Array,
    n_e: Array,
    length: Array,
    m: Array,
    g: Array,
    back: bool,
    merge: float,
) -> None:
    for i in range(out.shape[0]):
        f, d, s = i % b_x.shape[0], i % n_e.shape[0], i % length.shape[0]
        _one_simulation(
            out[i], energy, first[i], b_x[f], b_y[f], n_e[d], length[s], m[i], g[i], back, merge
        )


@njit(cache=True, parallel=True, error_model="numpy")
def _threaded(
    out: Array,
    energy: Array,
    first: Indices,
    b_x: Array,
    b_y: Array,
    n_e: Array,
    length: Array,
    m: Array,
    g: Array,
    back: bool,
    merge: float,
) -> None:
    for i in prange(out.shape[0]):
        f, d, s = i % b_x.shape[0], i % n_e.shape[0], i % length.shape[0]
        _one_simulation(
            out[i], energy, first[i], b_x[f], b_y[f], n_e[d], length[s], m[i], g[i], back, merge
        )


def propagate_alp(
    energy_gev: Array,
    first: Indices,
    b_x: Array,
    b_y: Array,
    n_e: Array,
    length: Array,
    m_nev: Array,
    g11: Array,
    *,
    backwards: bool = False,
    merge_rad: float = 0.0,
) -> Array:
    """Send a pure ALP through cells; every photon probability follows from where it ends.

    Arrays of shape (1, n_cells) are shared by all simulations. Cells of zero length are skipped.

    Args:
        energy_gev: Local photon energies in GeV, increasing, shape (n_energy,).
        first: Index of the first energy that mixes at all, shape (n,). Below it the state stays
            a pure ALP.
        b_x: Field component in muG, shape (n or 1, n_cells).
        b_y: Field component in muG, shape (n or 1, n_cells).
        n_e: Electron density in cm^-3, shape (n or 1, n_cells).
        length: Cell lengths in kpc, shape (n or 1, n_cells).
        m_nev: ALP mass in neV, shape (n,).
        g11: Coupling in 1e-11 GeV^-1, shape (n,).
        backwards: Travel from the last cell to the first.
        merge_rad: In each block of energies, join 2, 4, ... neighbouring cells to their mean field
            as long as no phase in the joined cell exceeds this; 0: never.

    Returns:
        Real and imaginary parts of (A_x, A_y, a), shape (n, 6, n_energy), up to a phase common
        to the three amplitudes of one energy.
    """
    n = m_nev.shape[0]
    out = np.empty((n, 6, energy_gev.shape[0]))
    run = _serial if n == 1 or numba.get_num_threads() == 1 else _threaded
    run(out, energy_gev, first, b_x, b_y, n_e, length, m_nev, g11, backwards, merge_rad)
    return out
