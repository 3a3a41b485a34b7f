"""Compiled sums of random modes at equally spaced points.

A stretch of 2 T points around its middle z_b needs, for the offsets t > 0 of its upper half,

    even(t) = sum_n p_n cos(k_n t),    odd(t) = sum_n q_n sin(k_n t),    B(z_b +- t) = even -+ odd,

where p_n + i q_n = sigma_n (u_n + i v_n) exp(i k_n z_b) turns by the same angle from one stretch
to the next. cos(k_n t) and sin(k_n t) are tables shared by all stretches, both field
components and, when the turbulence parameters are fixed, all simulations; two multiplications
and additions for a mode and a pair of points remain. The turning accumulates a rounding error of
about 1e-14 of the field over a whole line of sight.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numba
import numpy as np
from numba import njit, prange

Array = np.ndarray[Any, np.dtype[np.float64]]
Counts = np.ndarray[Any, np.dtype[np.int64]]

_HALF: Final = 32  # points of half a stretch
_FLAGS: Final = {"contract", "nnan", "ninf", "nsz"}


@njit(cache=True, fastmath=_FLAGS, error_model="numpy")
def _fill_table(table: Array, k: Array, spacing: float) -> None:
    """Row 0: cos(k t), row 1: sin(k t), flat over (mode, point) at t = (1/2, 3/2, ...) spacing."""
    for n in range(k.shape[0]):
        for i in range(_HALF):
            angle = k[n] * spacing * (i + 0.5)
            table[0, n * _HALF + i], table[1, n * _HALF + i] = math.cos(angle), math.sin(angle)


@njit(cache=True, fastmath=_FLAGS, error_model="numpy")
def _add_modes(total: Array, x: Array, y: Array, table: Array) -> None:
    """Set total to (sum_n x[n] table[n], sum_n y[n] table[n]), flat, four modes at a time."""
    total[:] = 0.0
    for n in range(0, x.shape[0], 4):
        x0, x1, x2, x3 = x[n], x[n + 1], x[n + 2], x[n + 3]
        y0, y1, y2, y3 = y[n], y[n + 1], y[n + 2], y[n + 3]
        four = table[n * _HALF : (n + 4) * _HALF]
        for i in range(_HALF):
            t0, t1, t2, t3 = four[i], four[_HALF + i], four[2 * _HALF + i], four[3 * _HALF + i]
            total[i] += x0 * t0 + x1 * t1 + x2 * t2 + x3 * t3
            total[_HALF + i] += y0 * t0 + y1 * t1 + y2 * t2 + y3 * t3


@njit(cache=True, fastmath=_FLAGS, error_model="numpy")
def _turn(p: Array, q: Array, turn_cos: Array, turn_sin: Array) -> None:
    """Multiply p + i q by exp(i angle)."""
    for n in range(p.shape[0]):
        old_p, old_q = p[n], q[n]
        p[n] = old_p * turn_cos[n] - old_q * turn_sin[n]
        q[n] = old_p * turn_sin[n] + old_q * turn_cos[n]


@njit(cache=True, fastmath=_FLAGS, error_model="numpy")
def _one_line(
    b: Array,
    k: Array,
    sigma: Array,
    normals: Array,
    spacing: float,
    n_points: int,
    table: Array,
) -> None:
    """Fill ``b`` (2, at least n_points) from ``normals`` (2, 2, n_modes)."""
    p, q = sigma * normals[:, 0], sigma * normals[:, 1]
    cos_half, sin_half = np.cos(k * spacing * _HALF), np.sin(k * spacing * _HALF)
    cos_full, sin_full = np.cos(k * spacing * 2 * _HALF), np.sin(k * spacing * 2 * _HALF)
    for c in range(2):
        _turn(p[c], q[c], cos_half, sin_half)
    even, odd = np.empty(2 * _HALF), np.empty(2 * _HALF)
    for begin in range(0, n_points, 2 * _HALF):
        _add_modes(even, p[0], p[1], table[0])
        _add_modes(odd, q[0], q[1], table[1])
        for c in range(2):
            for i in range(_HALF):
                above, below = begin + _HALF + i, begin + _HALF - 1 - i
                if above < n_points:
                    b[c, above] = even[c * _HALF + i] - odd[c * _HALF + i]
                if below < n_points:
                    b[c, below] = even[c * _HALF + i] + odd[c * _HALF + i]
            _turn(p[c], q[c], cos_full, sin_full)


@njit(cache=True, error_model="numpy")
def _serial_lines(
    b: Array, k: Array, sigma: Array, normals: Array, spacing: Array, n_points: Counts
) -> None:
    table = np.empty((2, k.shape[1] * _HALF))
    for i in range(b.shape[0]):
        row = i % k.shape[0]
        if i == 0 or k.shape[0] > 1:
            _fill_table(table, k[row], spacing[row])
        _one_line(b[i], k[row], sigma[row], normals[i], spacing[row], n_points[row], table)


@njit(cache=True, parallel=True, error_model="numpy")
def _threaded_lines(
    b: Array, k: Array, sigma: Array, normals: Array, spacing: Array, n_points: Counts
) -> None:
    shared = np.empty((2, k.shape[1] * _HALF))
    _fill_table(shared, k[0], spacing[0])
    for i in prange(b.shape[0]):
        row = i % k.shape[0]
        table = shared
        if k.shape[0] > 1:
            table = np.empty((2, k.shape[1] * _HALF))
            _fill_table(table, k[row], spacing[row])
        _one_line(b[i], k[row], sigma[row], normals[i], spacing[row], n_points[row], table)


def sum_modes(
    k_kpc: Array, sigma_ug: Array, normals: Array, spacing_kpc: Array, n_points: Counts
) -> Array:
    """Both transverse components of random fields at the points (j + 1/2) spacing.

    A first axis of length 1 in every argument but ``normals`` is shared by all simulations.

    Args:
        k_kpc: Wavenumbers in kpc^-1, shape (n or 1, n_modes).
        sigma_ug: Standard deviations of the modes in muG, shape (n or 1, n_modes).
        normals: Standard normals (u, v) of each component, shape (n, 2, 2, n_modes).
        spacing_kpc: Distance between points in kpc, shape (n or 1,).
        n_points: Number of points, shape (n or 1,).

    Returns:
        Field in muG, shape (n, 2, max(n_points)); 0 beyond the last point of a simulation.
    """
    # The kernel adds four modes at a time: fill up with modes of no amplitude.
    missing = -k_kpc.shape[1] % 4
    k, sigma, filled = (
        np.pad(a, [(0, 0)] * (a.ndim - 1) + [(0, missing)]) for a in (k_kpc, sigma_ug, normals)
    )
    # Views that cannot be written are another type to the compiler, which would start again.
    spacing = np.require(spacing_kpc, requirements=("C", "W"))
    points = np.require(n_points, requirements=("C", "W"))
    # Each component contiguous: propagation wants them so.
    b = np.zeros((2, normals.shape[0], int(n_points.max(initial=0)))).swapaxes(0, 1)
    run = _serial_lines if b.shape[0] <= 1 or numba.get_num_threads() == 1 else _threaded_lines
    run(b, k, sigma, filled, spacing, points)
    return b
