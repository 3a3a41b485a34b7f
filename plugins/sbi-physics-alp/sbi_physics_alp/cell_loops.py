"""Compiled loops over cells and energies, one for each pair of series degrees and precision.

Energies are the inner, contiguous axis, so that the compiler vectorises the whole body; one flat
scratch array with rows at a constant distance spares it all run-time overlap checks. No
reassociation is allowed: the range reduction relies on it.

Numba's cache of compiled `kernels` does not notice changes here: delete ``__pycache__`` after one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numba import njit

Array = np.ndarray[Any, np.dtype[np.float64]]
AnyArray = np.ndarray[Any, np.dtype[Any]]

BLOCK: Final = 128
"""Energies a block: eight rows of it, the working set, fill a quarter of a 32 kB L1 cache."""

FLAGS: Final = {"contract", "nnan", "ninf", "nsz"}
"""What the compiler may assume of floating-point numbers."""

# Rows of the scratch array: real and imaginary parts of the state, then E and 1/E.
QR, QI, PR, PI, AR, AI, E, IE = (row * BLOCK for row in range(8))

# pi in three parts of 33 significant bits (Cody and Waite): k times each is exact for k < 2^20.
_PI_1: Final = 3.14159265346825122833
_PI_2: Final = 1.21542010126079319532e-10
_PI_3: Final = 4.04453249742233291160e-21
_INVERSE_PI: Final = 1.0 / math.pi

_COSINE = tuple((-1.0) ** k / math.factorial(2 * k) for k in range(11))
_SINE = tuple((-1.0) ** k / math.factorial(2 * k + 1) for k in range(11))


def series_limit(degree: int, error: float) -> float:
    """Largest u where the first term left out of sum_k (-u)^k / (2k)! is below ``error``."""
    return float((error * math.factorial(2 * degree + 2)) ** (1 / (degree + 1)))


@njit(inline="always")
def _series(u: Any, c: tuple[Any, ...], zero: Any, degree: int) -> Any:
    """Sum of c[k] u^k up to ``degree``; the unused branches vanish at compile time."""
    total = zero
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
def cosine_and_sine(x: float) -> tuple[float, float]:
    """cos(x), sin(x) without branches for abs(x) < 3e6: reduction by pi, then the series."""
    turns = np.rint(x * _INVERSE_PI)
    rest = ((x - turns * _PI_1) - turns * _PI_2) - turns * _PI_3
    sign = 1.0 - 2.0 * (turns - 2.0 * np.floor(0.5 * turns))
    cosine = sign * _series(rest * rest, _COSINE, 0.0, 10)
    sine = sign * rest * _series(rest * rest, _SINE, 0.0, 10)
    return cosine, sine


def _make_cells(
    mixing_degree: int, phase_degree: int, number: type[np.floating[Any]] = np.float64
) -> Callable[..., None]:
    """Compile the loop over cells.

    Args:
        mixing_degree: Degree of the series in u.
        phase_degree: Degree of the series in the square of the phase of A_perp.
        number: Precision of the arrays and of every operation.
    """
    cosine, sine = (tuple(number(x) for x in c) for c in (_COSINE, _SINE))
    zero = number(0.0)

    @njit(cache=True, fastmath=FLAGS, error_model="numpy")
    def cells(work: AnyArray, n: int, cell: AnyArray, n_cells: int) -> None:
        for j in range(n_cells):
            inverse, linear, qed, d = cell[j, 0], cell[j, 1], cell[j, 2], cell[j, 3]
            cos_psi, sin_psi = cell[j, 4], cell[j, 5]
            d_squared = d * d
            for i in range(n):
                energy = work[E + i]
                h = inverse * work[IE + i] + linear * energy
                phase = h - qed * energy
                u = h * h + d_squared
                if mixing_degree > 0:
                    c = _series(u, cosine, zero, mixing_degree)
                    s = _series(u, sine, zero, mixing_degree)
                else:
                    w = math.sqrt(u)
                    c, s = cosine_and_sine(w)
                    # w = 0 means h = d = 0, and s only ever appears multiplied by h or d.
                    s = s / max(w, 1e-300)
                if phase_degree > 0:
                    square = phase * phase
                    cos_phase = _series(square, cosine, zero, phase_degree)
                    sin_phase = phase * _series(square, sine, zero, phase_degree)
                else:
                    cos_phase, sin_phase = cosine_and_sine(phase)
                hs = h * s
                ds = d * s
                q_re, q_im, p_re, p_im = work[QR + i], work[QI + i], work[PR + i], work[PI + i]
                a_re, a_im = work[AR + i], work[AI + i]
                perp_re = cos_psi * q_re - sin_psi * p_re
                perp_im = cos_psi * q_im - sin_psi * p_im
                par_re = sin_psi * q_re + cos_psi * p_re
                par_im = sin_psi * q_im + cos_psi * p_im
                work[QR + i] = cos_phase * perp_re + sin_phase * perp_im
                work[QI + i] = cos_phase * perp_im - sin_phase * perp_re
                work[PR + i] = c * par_re + hs * par_im + ds * a_im
                work[PI + i] = c * par_im - hs * par_re - ds * a_re
                work[AR + i] = c * a_re - hs * a_im + ds * par_im
                work[AI + i] = c * a_im + hs * a_re - ds * par_re

    return cells


_cells_3_2 = _make_cells(3, 2)
_cells_5_2 = _make_cells(5, 2)
_cells_5_5 = _make_cells(5, 5)
_cells_8_8 = _make_cells(8, 8)
_cells_any = _make_cells(0, 0)
_single_3_2 = _make_cells(3, 2, np.float32)
_single_3_3 = _make_cells(3, 3, np.float32)
_single_5_5 = _make_cells(5, 5, np.float32)

_UP_TO_2, _UP_TO_3, _UP_TO_5, _UP_TO_8 = (series_limit(n, 1e-15) for n in (2, 3, 5, 8))
_SINGLE_2, _SINGLE_3, _SINGLE_5 = (series_limit(n, 3e-8) for n in (2, 3, 5))


@njit(cache=True, fastmath=FLAGS, error_model="numpy")
def pass_cells(
    work: Array, n: int, cell: Array, n_cells: int, phase: float, d: float, single: bool
) -> None:
    """Send the states of one block of energies through cells.

    Args:
        work: Scratch array, its rows states and energies.
        n: Number of energies.
        cell: Factors of each cell, shape (at least n_cells, 6).
        n_cells: Number of cells.
        phase: Largest h of a cell in this block.
        d: Largest d of a cell.
        single: In single precision, where no phase is larger than 1.25 rad.
    """
    square = phase * phase
    u = square + d * d
    if single and u < _SINGLE_5:
        _in_single_precision(work, n, cell, n_cells, u, square)
    elif u < _UP_TO_3 and square < _UP_TO_2:
        _cells_3_2(work, n, cell, n_cells)
    elif u < _UP_TO_5 and square < _UP_TO_2:
        _cells_5_2(work, n, cell, n_cells)
    elif u < _UP_TO_5:
        _cells_5_5(work, n, cell, n_cells)
    elif u < _UP_TO_8:
        _cells_8_8(work, n, cell, n_cells)
    else:
        _cells_any(work, n, cell, n_cells)


@njit(cache=True, fastmath=FLAGS, error_model="numpy")
def _in_single_precision(
    work: Array, n: int, cell: Array, n_cells: int, u: float, square: float
) -> None:
    small_work, small_cell = work.astype(np.float32), cell[:n_cells].astype(np.float32)
    if u < _SINGLE_3 and square < _SINGLE_2:
        _single_3_2(small_work, n, small_cell, n_cells)
    elif u < _SINGLE_3:
        _single_3_3(small_work, n, small_cell, n_cells)
    else:
        _single_5_5(small_work, n, small_cell, n_cells)
    for i in range(n):
        norm = 0.0
        for row in range(6):
            value = np.float64(small_work[row * BLOCK + i])
            work[row * BLOCK + i] = value
            norm += value * value
        # The cells are unitary, thousands of their rounded products not quite.
        scale = 1.0 / math.sqrt(norm)
        for row in range(6):
            work[row * BLOCK + i] *= scale
