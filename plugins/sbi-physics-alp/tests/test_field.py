"""The cluster: published profile, statistics of the turbulent field, synthesis, cells."""

from __future__ import annotations

import numpy as np
import pytest
from sbi_physics_alp.field import Cluster, FieldSampler
from sbi_physics_alp.propagation import photon_survival
from sbi_physics_alp.turbulence import modes, power_spectrum

R_KPC = np.array([0.0, 10.0, 30.0, 80.0, 200.0, 500.0])


def direct_sum(k, sigma, normals, z):
    """The field by its definition, one cosine at a time; normals have shape (2, n_modes)."""
    phase = np.multiply.outer(z, k)
    return np.cos(phase) @ (sigma * normals[0]) - np.sin(phase) @ (sigma * normals[1])


def test_density_and_field_follow_the_published_perseus_profile():
    # Four digits of the double beta model with the parameters of arXiv:1603.06978.
    density = [0.04305, 0.04197, 0.03479, 0.01498, 0.003932, 0.0012156]
    field = [10.0, 9.874, 8.989, 5.899, 3.022, 1.680]
    cluster = Cluster()
    np.testing.assert_allclose(cluster.density_cm3(R_KPC)[0], density, rtol=3e-4)
    np.testing.assert_allclose(10.0 * cluster.field_profile(R_KPC)[0], field, rtol=3e-4)


def test_the_turbulence_spectrum_agrees_with_gammaalps(reference):
    b0, k_h, k_l, q = reference["turb_par"]
    k, sigma = modes(b0, k_l, k_h, q)
    np.testing.assert_allclose(k, reference["turb_k_kpc"], rtol=1e-12)
    eps = power_spectrum(k, b0, k_l, k_h, q)
    np.testing.assert_allclose(eps, reference["turb_corr"], rtol=1e-12)
    np.testing.assert_allclose(sigma**2, eps * reference["turb_dk_kpc"] / np.pi, rtol=1e-12)


def test_a_field_component_agrees_with_gammaalps(reference):
    b0, k_h, k_l, q = reference["turb_par"]
    k, sigma = modes(b0, k_l, k_h, q)
    radius = np.sqrt(2.0 * np.log(1.0 / reference["turb_U"]))
    angle = 2.0 * np.pi * reference["turb_V"]
    normals = np.stack([radius * np.cos(angle), radius * np.sin(angle)])
    b = direct_sum(k, sigma, normals, reference["turb_z_kpc"])
    np.testing.assert_allclose(b, reference["turb_B_uG"], rtol=0, atol=1e-10)


def test_fast_synthesis_equals_the_direct_sum(rng):
    sampler = FieldSampler(Cluster(eta=0.0))
    normals = rng.standard_normal((2, *sampler.n_normals))
    cells = sampler.from_normals(normals)
    k, sigma = modes(10.0, 0.18, 9.0, -2.8)
    for i in range(2):
        for component, b in enumerate((cells.b_x, cells.b_y)):
            expected = direct_sum(k, sigma, normals[i, component], sampler.r_kpc[0])
            np.testing.assert_allclose(b[i], expected, rtol=0, atol=1e-10)


def test_default_cells_are_those_of_gammaalps(reference):
    sampler = FieldSampler(Cluster())
    cells = sampler.sample(1, np.random.default_rng(0))
    np.testing.assert_allclose(sampler.r_kpc[0], reference["icm0_r_kpc"], rtol=1e-12)
    np.testing.assert_allclose(cells.length_kpc[0], reference["icm0_dL_kpc"], rtol=1e-9)
    np.testing.assert_allclose(cells.n_e_cm3[0], reference["icm0_nel_cm3"], rtol=1e-12)


def test_the_variance_of_a_component_is_the_mode_sum():
    _, sigma = modes(10.0, 0.18, 9.0, -2.8)
    assert np.sum(sigma**2) == pytest.approx(1.0247 * 10.0**2 / 3.0, rel=1e-4)


def test_drawn_fields_have_the_variance_of_the_modes(rng):
    n = 300
    cells = FieldSampler(Cluster(eta=0.0)).sample(n, rng)
    for b in (cells.b_x, cells.b_y):
        per_field = (b**2).mean(axis=1)
        error = per_field.std() / np.sqrt(n)
        assert abs(per_field.mean() - 1.0247 * 100.0 / 3.0) < 4.0 * error


def test_components_and_realisations_are_independent(rng):
    cells = FieldSampler(Cluster(eta=0.0)).sample(40, rng)
    fields = np.concatenate([cells.b_x, cells.b_y])
    correlation = np.corrcoef(fields) - np.eye(80)
    # About 500 kpc / 2.6 kpc = 190 independent pieces: six standard deviations are 0.44.
    assert np.abs(correlation).max() < 0.5


def test_the_continuous_spectrum_integrates_to_a_third_of_the_variance():
    k = np.geomspace(1e-6, 9.0, 200001)
    eps = power_spectrum(k, 10.0, 0.18, 9.0, -2.8)
    assert np.trapezoid(eps, k) / np.pi == pytest.approx(100.0 / 3.0, rel=1e-4)


@pytest.mark.parametrize("q", [0.0, -2.0, -3.0])
def test_the_spectrum_is_continuous_at_its_removable_singularities(q):
    k = np.array([0.01, 0.18, 1.0, 8.0])
    at, near = (power_spectrum(k, 10.0, 0.18, 9.0, value) for value in (q, q + 1e-7))
    assert np.isfinite(at).all()
    np.testing.assert_allclose(at, near, rtol=1e-5)


def test_one_parameter_set_for_each_simulation_gives_the_same_fields(rng):
    ends, k_h = np.array([300.0, 450.0]), np.array([5.0, 9.0])
    both = FieldSampler(Cluster(r_abell=ends, k_h=k_h))
    normals = rng.standard_normal((2, *both.n_normals))
    cells = both.from_normals(normals)
    for i in range(2):
        alone = FieldSampler(Cluster(r_abell=ends[i], k_h=k_h[i]))
        own = alone.from_normals(normals[i : i + 1, :, :, : alone.n_normals[2]])
        n = own.b_x.shape[1]
        assert np.count_nonzero(cells.length_kpc[i]) == n
        np.testing.assert_allclose(cells.b_x[i, :n], own.b_x[0], rtol=0, atol=1e-11)
        p, q = (
            photon_survival([100.0, 1e3], c, m_nev=30.0, g11=1.0, k_cut_kpc=k_h[i])[row]
            for c, row in ((cells, i), (own, 0))
        )
        np.testing.assert_allclose(p, q, rtol=0, atol=1e-10)


def test_taking_some_clusters_keeps_their_values():
    some = Cluster(b0=np.array([1.0, 2.0, 3.0])).take(slice(1, 3))
    np.testing.assert_array_equal(some.b0, [2.0, 3.0])
    assert some.k_h == 9.0
    assert some.rows == 2


def test_fine_cells_are_half_as_long(rng):
    compat, fine = (FieldSampler(Cluster(), mode).sample(1, rng) for mode in ("compat", "fine"))
    assert fine.length_kpc[0, 0] == pytest.approx(compat.length_kpc[0, 0] / 2.0)
    assert fine.b_x.shape[1] == pytest.approx(2 * compat.b_x.shape[1], abs=2)


def test_a_cut_removes_the_grating_artefact_of_equal_cells(rng):
    # At E = MASS m^2 h / (2 pi), 124 GeV in the cluster for m = 300 neV and h = 1/9 kpc, equal
    # cells convert although the field has no power at the wavenumber that needs.
    normals = rng.standard_normal((1, 2, 2, 220))
    energy = np.geomspace(100.0, 150.0, 60)
    found = {}
    for mode in ("compat", "fine"):
        sampler = FieldSampler(Cluster(), mode)
        cells = sampler.from_normals(normals)
        for k_cut in (None, 9.0):
            p = photon_survival(energy, cells, m_nev=300.0, g11=10.0, k_cut_kpc=k_cut)
            found[mode, k_cut] = float(p.min())
    assert found["compat", None] < 0.9
    assert found["fine", None] > 0.99
    assert found["compat", 9.0] == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k_l": 10.0}, "k_l must be below k_h; got k_l = 10.0, k_h = 9.0"),
        ({"r_core": 0.0}, "r_core must be positive; the smallest is 0.0"),
        ({"b0": -1.0}, "b0 must not be negative; got -1.0"),
        ({"b0": np.ones(2), "n0": np.ones(3)}, "arrays of different lengths"),
        ({"n0": 0.0, "n2": 0.0}, r"n0 \+ n2 must be positive"),
        ({"q": np.inf}, "q must be finite"),
    ],
)
def test_an_impossible_cluster_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Cluster(**change)


def test_wrong_normals_and_modes_are_refused(rng):
    with pytest.raises(ValueError, match=r"expected \(n, \*\(2, 2, 220\)\)"):
        FieldSampler(Cluster()).from_normals(np.zeros((1, 2, 2, 3)))
    with pytest.raises(ValueError, match="cell_mode is 'coarse'; expected one of"):
        FieldSampler(Cluster(), "coarse")
    with pytest.raises(ValueError, match="2 rows of parameters; got normals for 3"):
        FieldSampler(Cluster(b0=np.ones(2))).sample(3, rng)
