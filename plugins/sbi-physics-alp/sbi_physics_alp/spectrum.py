"""Source spectra and their integrals over energy bins.

    power law with cutoff:  phi(E) = amplitude (E/E0)^-index exp(-E/e_cut)
    log-parabola:           phi(E) = amplitude (E/E0)^-(index + curvature ln(E/E0))

Amplitudes are fluxes per energy at the reference energy E0, in cm^-2 s^-1 TeV^-1; an index is
positive when the spectrum falls.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

Array = np.ndarray[Any, np.dtype[np.float64]]

TEV_IN_GEV = 1e3


def cutoff_power_law(
    energy_gev: ArrayLike,
    amplitude: ArrayLike,
    index: ArrayLike,
    e_cut_gev: ArrayLike,
    *,
    reference_gev: float = 300.0,
) -> Array:
    """Flux of a power law with exponential cutoff in cm^-2 s^-1 TeV^-1, shape (n, n_energy).

    Args:
        energy_gev: Energies in GeV, shape (n_energy,).
        amplitude: Flux at the reference energy in cm^-2 s^-1 TeV^-1, scalar or shape (n,).
        index: Spectral index, positive when falling, scalar or shape (n,).
        e_cut_gev: Cutoff energy in GeV, scalar or shape (n,).
        reference_gev: Reference energy E0 in GeV.
    """
    energy = np.asarray(energy_gev, dtype=np.float64)
    a, i, c = (_column(value) for value in (amplitude, index, e_cut_gev))
    return np.asarray(a * np.exp(-i * np.log(energy / reference_gev) - energy / c))


def log_parabola(
    energy_gev: ArrayLike,
    amplitude: ArrayLike,
    index: ArrayLike,
    curvature: ArrayLike,
    *,
    reference_gev: float = 500.0,
) -> Array:
    """Flux of a log-parabola in cm^-2 s^-1 TeV^-1, shape (n, n_energy).

    Args:
        energy_gev: Energies in GeV, shape (n_energy,).
        amplitude: Flux at the reference energy in cm^-2 s^-1 TeV^-1, scalar or shape (n,).
        index: Spectral index at the reference energy, positive when falling, scalar or (n,).
        curvature: Growth of the index with each unit of ln E, scalar or shape (n,).
        reference_gev: Reference energy E0 in GeV.
    """
    x = np.log(np.asarray(energy_gev, dtype=np.float64) / reference_gev)
    a, i, c = (_column(value) for value in (amplitude, index, curvature))
    return np.asarray(a * np.exp(-(i + c * x) * x))


def bin_centres(edges_gev: ArrayLike) -> Array:
    """Geometric centres of bins in GeV, shape (n_bins,)."""
    edges = np.asarray(edges_gev, dtype=np.float64)
    return np.asarray(np.sqrt(edges[1:] * edges[:-1]))


def bin_fluxes(flux_per_tev: Array, edges_gev: ArrayLike) -> Array:
    """Fluxes in cm^-2 s^-1 of narrow bins: flux at the geometric centre times width.

    Relative error ((s - 1)^2 - 1) d^2 / 24 for the slope s and the logarithmic width d: 2e-4 for
    s = 4 and 100 bins a decade.

    Args:
        flux_per_tev: Flux at the `bin_centres` in cm^-2 s^-1 TeV^-1, shape (n, n_bins).
        edges_gev: Bin edges in GeV, shape (n_bins + 1,).
    """
    return np.asarray(flux_per_tev * (np.diff(np.asarray(edges_gev)) / TEV_IN_GEV))


def _column(value: ArrayLike) -> Array:
    return np.reshape(np.asarray(value, dtype=np.float64), (-1, 1))
