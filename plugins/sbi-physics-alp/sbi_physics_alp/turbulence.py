"""Isotropic Gaussian turbulence: spectrum and random modes of one transverse field component.

Divergence-free field with power spectrum k^q between k_l and k_h (arXiv:1406.5972, section 4):

    F(k) = A { k_h^(q+2) [(1 - x^(q+2))/(q+2) + x^2 (1 - x^q)/q],  x = k/k_h        for k >= k_l
             { (k_h^(q+2) - k_l^(q+2))/(q+2) + (k^2/q)(k_h^q - k_l^q)               for k < k_l
    A = (q+3) / (k_h^(q+3) - k_l^(q+3)),    eps(k) = (pi/4) B0^2 F(k)
    B(z) = sum_n sigma_n (u_n cos(k_n z) - v_n sin(k_n z)),    sigma_n^2 = eps(k_n) dk_n / pi
    C(z) = <B(z') B(z' + z)> = (1/pi) int_0^k_h eps(k) cos(k z) dk,    C(0) = B0^2 / 3

with standard normals u_n, v_n: the same process as a Rayleigh amplitude and a uniform phase for
each mode. Every bracket is an integral of a power of k, written with expm1 so that it stays
finite at q = 0, -2 and -3.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]

K_MIN_FRACTION = 1e-3
"""Smallest wavenumber of the modes, in units of k_l."""


def _power_integral(p: float, low: Array | float, high: float) -> Array:
    """Integral of k^(p-1) from ``low`` to ``high``: (high^p - low^p)/p, finite at p = 0."""
    log_ratio = np.log(np.asarray(low, dtype=np.float64) / high)
    if abs(p) < 1e-300:
        return np.asarray(-log_ratio)
    return np.asarray(-(high**p) * np.expm1(p * log_ratio) / p)


def power_spectrum(k_kpc: Array, b0_ug: float, k_l_kpc: float, k_h_kpc: float, q: float) -> Array:
    """The spectrum eps(k) in muG^2 kpc.

    Args:
        k_kpc: Wavenumbers in kpc^-1, at most ``k_h_kpc``.
        b0_ug: Root mean square of the three-dimensional field in muG.
        k_l_kpc: Lower end of the turbulence spectrum in kpc^-1.
        k_h_kpc: Upper end in kpc^-1.
        q: Spectral index (negative for a falling spectrum).
    """
    low = np.maximum(k_kpc, k_l_kpc)
    bracket = _power_integral(q + 2.0, low, k_h_kpc) + k_kpc**2 * _power_integral(q, low, k_h_kpc)
    normalisation = 1.0 / _power_integral(q + 3.0, k_l_kpc, k_h_kpc)
    return np.asarray(0.25 * np.pi * b0_ug**2 * normalisation * bracket)


def modes(b0_ug: float, k_l_kpc: float, k_h_kpc: float, q: float) -> tuple[Array, Array]:
    """Wavenumbers k_n in kpc^-1 and standard deviations sigma_n in muG of the random modes.

    The modes are the left edges of ceil(10 log10(k_h / k_min)^2) - 1 logarithmic steps from
    k_min = 1e-3 k_l to k_h, as in gammaALPs. The sum of sigma_n^2 is then not B0^2 / 3 but, for
    the default field, 1.0247 times that.

    Args:
        b0_ug: Root mean square of the three-dimensional field in muG.
        k_l_kpc: Lower end of the turbulence spectrum in kpc^-1.
        k_h_kpc: Upper end in kpc^-1.
        q: Spectral index.
    """
    k_min = K_MIN_FRACTION * k_l_kpc
    n = int(np.ceil(10.0 * (np.log10(k_h_kpc) - np.log10(k_min)) ** 2))
    k = np.logspace(np.log10(k_min), np.log10(k_h_kpc), n)
    eps = power_spectrum(k[:-1], b0_ug, k_l_kpc, k_h_kpc, q)
    return k[:-1], np.sqrt(eps * np.diff(k) / np.pi)


def correlation(z_kpc: Array, b0_ug: float, k_l_kpc: float, k_h_kpc: float, q: float) -> Array:
    """Spatial correlation C(z) of one component in muG^2, of the continuous spectrum.

    Args:
        z_kpc: Distances in kpc, shape (n,).
        b0_ug: Root mean square of the three-dimensional field in muG.
        k_l_kpc: Lower end of the turbulence spectrum in kpc^-1.
        k_h_kpc: Upper end in kpc^-1.
        q: Spectral index.

    Example:
        >>> float(correlation(np.array([0.0]), 3.0, 0.18, 9.0, -2.8).round(6)[0])
        3.0
    """
    distance = np.abs(np.atleast_1d(np.asarray(z_kpc, dtype=np.float64)))
    edges = _panels(k_l_kpc, k_h_kpc, np.pi / max(float(distance.max(initial=0.0)), 1e-300))
    node, weight = np.polynomial.legendre.leggauss(8)
    half, centre = 0.5 * np.diff(edges), 0.5 * (edges[1:] + edges[:-1])
    k = (centre[:, None] + half[:, None] * node).ravel()
    density = power_spectrum(k, b0_ug, k_l_kpc, k_h_kpc, q) * (half[:, None] * weight).ravel()
    return np.array([np.dot(density, np.cos(k * z)) for z in distance]) / np.pi


def integral_length(k_l_kpc: float, k_h_kpc: float, q: float) -> float:
    """Integral of C(z) / C(0) over positive z, in kpc: half the spectrum at k = 0 over C(0)."""
    zero = float(power_spectrum(np.array([0.0]), 1.0, k_l_kpc, k_h_kpc, q)[0])
    return 0.5 * zero * 3.0


def _panels(k_l: float, k_h: float, longest: float) -> Array:
    """Edges of panels over (0, k_h) on which spectrum and cosine are smooth."""
    growing = np.geomspace(k_l, k_h, max(2, int(np.ceil(np.log(k_h / k_l) / 0.2)) + 1))
    coarse = np.concatenate([np.linspace(0.0, k_l, 9)[:-1], growing])
    parts = np.ceil(np.diff(coarse) / longest).astype(np.int64)
    pieces = [
        np.linspace(a, b, n, endpoint=False)
        for a, b, n in zip(coarse[:-1], coarse[1:], parts, strict=True)
    ]
    return np.append(np.concatenate(pieces), k_h)
