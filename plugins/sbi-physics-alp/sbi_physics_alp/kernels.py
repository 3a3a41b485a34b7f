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

Every simulation is computed alone: neither the batch nor the number of threads changes a bit of
the result. In single precision, which is an option, 4500 cells of a cluster move a probability
by a few 1e-5; blocks of energies with large phases stay in double precision.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numba
import numpy as np
from numba import njit, prange

from sbi_physics_alp import constants
from sbi_physics_alp.cell_loops import AI, AR, BLOCK, FLAGS, IE, PI, PR, QI, QR, E, pass_cells

Array = np.ndarray[Any, np.dtype[np.float64]]
Indices = np.ndarray[Any, np.dtype[np.int64]]

_MOST: Final = 64  # cells joined at most

MAX_PHASE: Final = 3.0e6
"""Largest phase (rad) of a cell: beyond it the range reduction is no longer exact."""

_MIXING, _MASS, _PLASMA = constants.MIXING, constants.MASS, constants.PLASMA
_CMB, _QED = constants.CMB, constants.QED
_PARALLEL, _PERPENDICULAR = constants.QED_PARALLEL, constants.QED_PERPENDICULAR
_DIFFERENCE = _PARALLEL - _PERPENDICULAR


@njit(cache=True, fastmath=FLAGS, error_model="numpy")
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


@njit(cache=True, fastmath=FLAGS, error_model="numpy")
def _join_cells(
    cell: Array,
    many: int,
    b_x: Array,
    b_y: Array,
    n_e: Array,
    length: Array,
    m: float,
    g: float,
    back: bool,
) -> tuple[int, float]:
    """Fill ``cell`` with the mean of every ``many`` cells of non-zero length in a row.

    Mixing goes with the mean field, vacuum polarisation with the mean of its square.

    Returns the number of cells and the direction (rad) of the last field.
    """
    size = (length.shape[0] + many - 1) // many
    # Total length, means of B_x, B_y, n_e, B_x^2, B_y^2 and B_x B_y.
    mean = np.zeros((7, size))
    count = 0
    for j in range(length.shape[0]):
        if length[j] == 0.0:
            continue
        k = count // many
        x, y = b_x[j], b_y[j]
        mean[0, k] += length[j]
        mean[1, k] += length[j] * x
        mean[2, k] += length[j] * y
        mean[3, k] += length[j] * n_e[j]
        mean[4, k] += length[j] * x * x
        mean[5, k] += length[j] * y * y
        mean[6, k] += length[j] * x * y
        count += 1
    n_cells = (count + many - 1) // many
    for k in range(n_cells):
        for row in range(1, 7):
            mean[row, k] /= mean[0, k]
    total, x_mean, y_mean = mean[0], mean[1], mean[2]
    n_cells, _, _, _, _, psi = _fill_cells(cell, x_mean, y_mean, mean[3], total, m, g, back)
    for k in range(n_cells):
        # What the square of the mean field lacks, along it and across.
        x, y = x_mean[k], y_mean[k]
        xx, yy, xy = mean[4, k] - x * x, mean[5, k] - y * y, mean[6, k] - x * y
        squared = x * x + y * y
        along = (x * x * xx + y * y * yy + 2.0 * x * y * xy) / max(squared, 1e-300)
        across = xx + yy - along
        j = n_cells - 1 - k if back else k
        cell[j, 1] += 0.5 * total[k] * _QED * (_PARALLEL * along + _PERPENDICULAR * across)
        cell[j, 2] += total[k] * _QED * _DIFFERENCE * (along - across)
    return n_cells, psi


@njit(cache=True, fastmath=FLAGS, error_model="numpy")
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
    single: bool,
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
    whole, n_whole, whole_psi, many = cell, n_cells, psi, 1

    n_blocks = (n_energy - first + BLOCK - 1) // BLOCK
    size = (n_energy - first + n_blocks - 1) // n_blocks
    lanes = 8 if single else 4
    size = (size + lanes - 1) // lanes * lanes
    work = np.empty(8 * BLOCK)
    for start in range(first, n_energy, size):
        n = min(size, n_energy - start)
        for i in range(n):
            work[QR + i] = work[QI + i] = work[PR + i] = work[PI + i] = 0.0
            work[AR + i], work[AI + i] = 1.0, 0.0
            work[E + i], work[IE + i] = energy[start + i], 1.0 / energy[start + i]
        phase = (
            0.5 * max_length * (mass_term / energy[start] + linear_term * energy[start + n - 1])
        )
        d = max_d
        if merge > 0.0:
            wanted = 1
            while wanted < _MOST and 2 * wanted * max(2.0 * phase, d) <= merge:
                wanted *= 2
            if wanted != many:
                many = wanted
                if many > 1:
                    cell = np.empty(((length.shape[0] + many - 1) // many, 6))
                    n_cells, psi = _join_cells(cell, many, b_x, b_y, n_e, length, m, g, back)
                else:
                    cell = whole
                    n_cells, psi = n_whole, whole_psi
                cos_psi, sin_psi = math.cos(psi), math.sin(psi)
            phase *= many
            d *= many
        pass_cells(work, n, cell, n_cells, phase, d, single)
        for i in range(n):
            q_re, q_im, p_re, p_im = work[QR + i], work[QI + i], work[PR + i], work[PI + i]
            out[0, start + i] = cos_psi * q_re + sin_psi * p_re
            out[1, start + i] = cos_psi * q_im + sin_psi * p_im
            out[2, start + i] = cos_psi * p_re - sin_psi * q_re
            out[3, start + i] = cos_psi * p_im - sin_psi * q_im
            out[4, start + i] = work[AR + i]
            out[5, start + i] = work[AI + i]


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
    single: bool,
) -> None:
    for i in range(out.shape[0]):
        _one_simulation(
            out[i],
            energy,
            first[i],
            b_x[i % b_x.shape[0]],
            b_y[i % b_y.shape[0]],
            n_e[i % n_e.shape[0]],
            length[i % length.shape[0]],
            m[i],
            g[i],
            back,
            merge,
            single,
        )


@njit(cache=True, parallel=True, error_model="numpy")
def _threaded(
    order: Indices,
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
    single: bool,
) -> None:
    for k in prange(out.shape[0]):
        i = order[k]
        _one_simulation(
            out[i],
            energy,
            first[i],
            b_x[i % b_x.shape[0]],
            b_y[i % b_y.shape[0]],
            n_e[i % n_e.shape[0]],
            length[i % length.shape[0]],
            m[i],
            g[i],
            back,
            merge,
            single,
        )


def _fair_order(cost: Array, threads: int) -> Indices:
    """Order of simulations whose cuts into ``threads`` equal runs take about the same time.

    Threads get runs of equal length, whatever the simulations in them cost.
    """
    by_cost = np.argsort(-cost, kind="stable")
    # Dealt back and forth: in one direction, the first thread would get the dearest of every turn.
    turn, seat = np.divmod(np.arange(cost.size), threads)
    back = (turn % 2 == 1) & (turn < cost.size // threads)
    thread = np.where(back, threads - 1 - seat, seat)
    return by_cost[np.argsort(thread, kind="stable")]


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
    single: bool = False,
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
        single: In single precision where phases are small.

    Returns:
        Real and imaginary parts of (A_x, A_y, a), shape (n, 6, n_energy), up to a phase common
        to the three amplitudes of one energy.
    """
    n, threads = m_nev.shape[0], numba.get_num_threads()
    out = np.empty((n, 6, energy_gev.shape[0]))
    arguments = (out, energy_gev, first, b_x, b_y, n_e, length, m_nev, g11)
    if n == 1 or threads == 1:
        _serial(*arguments, backwards, merge_rad, single)
        return out
    # Time goes with mixing energies times cells; joining pays most at low masses.
    cells = np.broadcast_to((length > 0.0).sum(axis=1), (n,))
    cost = cells * (energy_gev.shape[0] - first) * (1.0 + 1e-6 * m_nev)
    _threaded(_fair_order(cost, threads), *arguments, backwards, merge_rad, single)
    return out
