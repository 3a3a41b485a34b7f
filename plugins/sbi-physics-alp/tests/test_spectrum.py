"""Source spectra and their bin integrals."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from sbi_physics_alp.response import true_energy_edges
from sbi_physics_alp.spectrum import bin_centres, bin_fluxes, cutoff_power_law, log_parabola
from scipy.integrate import quad


def test_amplitudes_are_fluxes_at_the_reference_energy():
    assert cutoff_power_law(300.0, 2e-9, 2.5, 1e9)[0, 0] == pytest.approx(2e-9, rel=1e-6)
    assert log_parabola(500.0, 3e-11, 2.5, 0.7)[0, 0] == pytest.approx(3e-11)


def test_a_log_parabola_without_curvature_is_a_power_law():
    energy = np.geomspace(10.0, 1e4, 20)
    expected = cutoff_power_law(energy, 1e-10, 3.0, 1e15, reference_gev=500.0)
    np.testing.assert_allclose(log_parabola(energy, 1e-10, 3.0, 0.0), expected, rtol=1e-10)


def test_one_row_for_each_simulation():
    energy = np.geomspace(10.0, 1e4, 20)
    both = cutoff_power_law(energy, [1e-9, 2e-9], [2.0, 3.0], [500.0, 900.0])
    np.testing.assert_allclose(both[1], cutoff_power_law(energy, 2e-9, 3.0, 900.0)[0])


@pytest.mark.parametrize("index", [1.0, 2.11, 4.0])
def test_midpoint_fluxes_are_the_integrals_over_bins(index):
    edges = true_energy_edges(50.0, 1000.0)
    centres = bin_centres(edges)
    flux = cutoff_power_law(centres, 1e-9, index, 562.0)
    found = bin_fluxes(flux, edges)[0]
    expected = [
        quad(lambda e: cutoff_power_law(e, 1e-9, index, 562.0)[0, 0] / 1e3, low, high)[0]
        for low, high in itertools.pairwise(edges)
    ]
    # Midpoint rule in ln E with bin width d: d^2 / 24 times (E phi)'' / (E phi) - 1.
    slope = index + centres / 562.0
    error = ((slope - 1.0) ** 2 - centres / 562.0 - 1.0) * np.log(edges[1] / edges[0]) ** 2 / 24.0
    np.testing.assert_allclose(found * (1.0 + error), expected, rtol=1e-6)
    np.testing.assert_allclose(found, expected, rtol=6e-4)
