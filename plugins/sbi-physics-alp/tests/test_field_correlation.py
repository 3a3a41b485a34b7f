"""Statistics of the turbulence in space, and the field as an object."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sbi_physics_alp.field import Cluster, FieldSampler
from sbi_physics_alp.realisation import FieldRealisation
from sbi_physics_alp.turbulence import correlation, integral_length, modes, power_spectrum

DEFAULT = (10.0, 0.18, 9.0, -2.8)  # b0, k_l, k_h, q


@pytest.mark.parametrize("parameters", [DEFAULT, (3.0, 1 / 35, 1 / 0.7, -11 / 3), (5.0, 1, 8, 0)])
def test_the_correlation_at_zero_is_a_third_of_the_variance(parameters):
    found = correlation(np.array([0.0, 50.0]), *parameters)[0]
    assert found == pytest.approx(parameters[0] ** 2 / 3.0, rel=1e-7)


def test_the_correlation_is_the_integral_by_brute_force():
    # F(k) = (4 / (pi B0^2)) eps(k); C(z) = (B0^2 / 4) int F cos.
    k = np.linspace(0.0, 9.0, 2_000_001)
    eps = power_spectrum(k, *DEFAULT)
    for z in (0.3, 1.0, 7.0, 60.0):
        expected = np.trapezoid(eps * np.cos(k * z), k) / np.pi
        assert correlation(np.array([z]), *DEFAULT)[0] == pytest.approx(expected, abs=1e-6)


def test_half_correlation_and_integral_length_are_the_published_ones():
    z = np.linspace(0.0, 3.0, 3001)
    c = correlation(z, *DEFAULT)
    # Elsewhere read off as 0.70 kpc; the integral above says 0.666.
    assert z[np.argmax(c < 0.5 * c[0])] == pytest.approx(0.70, abs=0.04)
    z = np.linspace(15.0, 20.0, 501)
    long = (10.0, 1 / 35, 1 / 0.7, -11 / 3)
    c = correlation(z, *long)
    assert z[np.argmax(c < 50.0 / 3.0)] == pytest.approx(18.0, abs=0.1)
    assert integral_length(0.18, 9.0, -2.8) == pytest.approx(1.3, abs=0.05)
    assert integral_length(1 / 35, 1 / 0.7, -11 / 3) == pytest.approx(18.0, abs=0.5)


def test_the_integral_length_is_the_integral_of_the_correlation():
    z = np.linspace(0.0, 200.0, 4001)
    c = correlation(z, *DEFAULT)
    found = np.trapezoid(c, z) / c[0]
    assert found == pytest.approx(integral_length(0.18, 9.0, -2.8), rel=0.01)


def test_drawn_fields_are_correlated_as_they_should_be(rng):
    n = 400
    cells = FieldSampler(Cluster(eta=0.0)).sample(n, rng)
    spacing = cells.length_kpc[0, 0]
    k, sigma = modes(*DEFAULT)
    for lag in (0, 3, 6, 20, 60):
        per_field = np.mean(cells.b_x[:, : -lag or None] * cells.b_x[:, lag:], axis=1)
        error = per_field.std(ddof=1) / np.sqrt(n)
        discrete = np.sum(sigma**2 * np.cos(k * lag * spacing))
        assert abs(per_field.mean() - discrete) < 4.0 * error
        # The sum over left edges exceeds the integral by 2.5 %.
        continuous = correlation(np.array([lag * spacing]), *DEFAULT)[0]
        assert discrete == pytest.approx(continuous, abs=0.026 * 100.0 / 3.0)


def test_a_realisation_is_the_field_of_its_seed():
    cluster = Cluster(r_abell=50.0, b0=4.0)
    field = FieldRealisation(cluster, seed=5)
    for mode in ("compat", "fine"):
        sampler = FieldSampler(cluster, mode)
        cells = field.cells(mode)
        drawn = sampler.sample(1, np.random.default_rng(5))
        np.testing.assert_array_equal(cells.b_x, drawn.b_x)
        at_cells = field.components(sampler.r_kpc[0])
        np.testing.assert_allclose(at_cells[0], cells.b_x[0], rtol=0, atol=1e-11)
        np.testing.assert_allclose(at_cells[1], cells.b_y[0], rtol=0, atol=1e-11)


def test_a_realisation_comes_back_from_json():
    field = FieldRealisation(Cluster(b0=4.0), seed=5)
    assert FieldRealisation.from_dict(json.loads(json.dumps(field.to_dict()))) == field


def test_a_realisation_of_many_clusters_or_a_negative_seed_is_refused():
    with pytest.raises(ValueError, match="one cluster; got arrays of 2 values"):
        FieldRealisation(Cluster(b0=np.ones(2)), 1)
    with pytest.raises(ValueError, match="an integer from 0; got -1"):
        FieldRealisation(Cluster(), -1)
