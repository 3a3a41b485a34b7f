"""Photon-ALP propagation against gammaALPs, closed forms, symmetries and limits."""

from __future__ import annotations

import dataclasses

import numba
import numpy as np
import pytest
from sbi_physics_alp import cell_loops, constants, kernels
from sbi_physics_alp.ebl import optical_depth
from sbi_physics_alp.field import Cluster, FieldSampler
from sbi_physics_alp.milky_way import milky_way_cells
from sbi_physics_alp.ngc1275 import AlpNgc1275
from sbi_physics_alp.propagation import Cells, Domains, photon_survival, state_probabilities
from sbi_physics_alp.realisation import FieldRealisation

REDSHIFT = 0.017559
ENERGY = np.geomspace(10.0, 1e5, 60)

# gammaALPs and this code sum 4500 rotations in another order: agreement is near 1e-11.
AGREEMENT = 1e-10


def domains_of(reference, prefix):
    names = ("B_uG", "psi", "nel_cm3", "dL_kpc")
    return Domains(*(np.atleast_1d(reference[f"{prefix}_{name}"]) for name in names))


def random_domains(rng, n_cells, *, length=(0.05, 0.3), rows=None):
    shape = (n_cells,) if rows is None else (rows, n_cells)
    return Domains(
        rng.uniform(0.0, 20.0, shape),
        rng.uniform(0.0, 2.0 * np.pi, shape),
        rng.uniform(1e-3, 5e-2, shape),
        rng.uniform(*length, shape),
    )


def mixing_matrix(energy, b, n_e, m, g):
    """The matrix M of one cell in the frame of its field (arXiv:1406.5972), shape (3, 3)."""
    d_qed = constants.QED * energy * b**2
    base = -constants.PLASMA * n_e / energy + constants.CMB * energy
    d_ag = constants.MIXING * g * b
    d_a = -constants.MASS * m**2 / energy
    return np.array(
        [[base + 2.0 * d_qed, 0.0, 0.0], [0.0, base + 3.5 * d_qed, d_ag], [0.0, d_ag, d_a]]
    )


def matrix_chain(energy, domains, m, g):
    """Transfer matrix of all cells at one energy by diagonalisation, an independent way."""
    total = np.eye(3, dtype=complex)
    for b, psi, n_e, length in zip(*dataclasses.astuple(domains), strict=True):
        values, vectors = np.linalg.eigh(mixing_matrix(energy, b, n_e, m, g))
        cell = (vectors * np.exp(-1j * values * length)) @ vectors.T
        c, s = np.cos(psi), np.sin(psi)
        to_field = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
        total = to_field.T @ cell @ to_field @ total
    return total


def polar(cells):
    """Cells of one line of sight by strength and angle."""
    b_x, b_y, n_e, length = (np.ravel(a) for a in dataclasses.astuple(cells))
    return Domains(np.hypot(b_x, b_y), np.arctan2(b_x, b_y), n_e, length)


@pytest.mark.parametrize("index", range(4))
def test_one_cell_agrees_with_gammaalps(reference, index):
    m, g = reference["single_mg"][index]
    p = photon_survival(reference["energy_gev"], domains_of(reference, "single"), m_nev=m, g11=g)
    np.testing.assert_allclose(p[0], reference["single_pgg"][index], rtol=0, atol=AGREEMENT)


@pytest.mark.parametrize("index", range(5))
def test_all_three_states_agree_with_gammaalps_after_100_cells(reference, index):
    m, g = reference["dom_mg"][index]
    found = state_probabilities(
        reference["energy_gev"], domains_of(reference, "dom"), m_nev=m, g11=g
    )
    for name, p in zip(("px", "py", "pa"), found, strict=True):
        np.testing.assert_allclose(p[0], reference[f"dom_{name}"][index], rtol=0, atol=AGREEMENT)


@pytest.mark.parametrize("realisation", [0, 1])
def test_a_perseus_field_agrees_with_gammaalps(reference, realisation):
    m, g = reference[f"icm{realisation}_mg"].T
    p = photon_survival(
        reference["energy_gev"],
        domains_of(reference, f"icm{realisation}"),
        m_nev=m,
        g11=g,
        redshift=REDSHIFT,
    )
    expected = reference[f"icm{realisation}_pgg_icm_only"]
    np.testing.assert_allclose(p, expected, rtol=0, atol=AGREEMENT)


@pytest.mark.parametrize("realisation", [0, 1])
def test_cluster_background_light_and_milky_way_agree_with_gammaalps(reference, realisation):
    m, g = reference[f"icm{realisation}_mg"].T
    p = photon_survival(
        reference["energy_gev"],
        domains_of(reference, f"icm{realisation}"),
        m_nev=m,
        g11=g,
        redshift=REDSHIFT,
        tau=reference["ebl_tau"],
        milky_way=domains_of(reference, "gmf"),
    )
    expected = reference[f"icm{realisation}_pgg_icm_ebl_gmf"]
    np.testing.assert_allclose(p, expected, rtol=0, atol=AGREEMENT)


@pytest.mark.parametrize(
    ("m", "g", "length"),
    [
        (0.01, 0.1, (0.05, 0.3)),  # every series of the kernel ...
        (1.0, 1.0, (0.05, 0.3)),
        (30.0, 10.0, (0.05, 0.3)),
        (100.0, 5.0, (0.05, 0.3)),
        (1e4, 10.0, (0.05, 0.3)),  # ... and phases up to 1e5 rad
        (0.0, 10.0, (5.0, 20.0)),
    ],
)
def test_any_phase_agrees_with_diagonalised_matrices(rng, m, g, length):
    domains = random_domains(rng, 12, length=length)
    energy = np.geomspace(5.0, 2e5, 37)
    p_x, p_y, p_a = state_probabilities(energy, domains, m_nev=m, g11=g)
    for k, e in enumerate(energy):
        squared = np.abs(matrix_chain(e, domains, m, g)) ** 2
        expected = 0.5 * squared[:, :2].sum(axis=1)
        # The phase itself is known to about 1e-16 of its value.
        np.testing.assert_allclose([p_x[0, k], p_y[0, k], p_a[0, k]], expected, atol=1e-9)


def test_one_cell_has_a_closed_form():
    b, n_e, length, m, g = 8.0, 0.02, 3.0, 40.0, 2.0
    cell = Domains(*np.array([[b], [0.7], [n_e], [length]]))
    p = photon_survival(ENERGY, cell, m_nev=m, g11=g)[0]
    d_ag = constants.MIXING * g * b
    matrices = [mixing_matrix(e, b, n_e, m, g) for e in ENERGY]
    w = np.hypot([0.5 * (x[1, 1] - x[2, 2]) for x in matrices], d_ag)
    expected = 1.0 - 0.5 * (d_ag / w) ** 2 * np.sin(w * length) ** 2
    np.testing.assert_allclose(p, expected, rtol=0, atol=1e-13)


def test_a_simulated_curve_is_the_product_of_all_matrices():
    few = {"true_bins_per_decade": 25, "energy_min": "100 GeV", "energy_max": "20 TeV"}
    simulator = AlpNgc1275(r_abell=20.0, realisation=3, cell_mode="compat", **few)
    energy, m, g = simulator.conversion.energy_gev[::6], 2.0, 10.0
    theta = simulator.theta({**simulator.fiducial["no-alp"], "m_a": m, "g": g})
    z = simulator.simulate_latent(theta[None], np.random.default_rng(1))
    cluster = polar(FieldRealisation(Cluster(r_abell=20.0), seed=3).cells("compat"))
    galaxy = polar(milky_way_cells())
    absorption = np.exp(-0.5 * optical_depth(energy, REDSHIFT))
    expected = []
    for e, a in zip(energy, absorption, strict=True):
        source = matrix_chain(e * (1.0 + REDSHIFT), cluster, m, g)
        total = matrix_chain(e, galaxy, m, g) @ np.diag([a, a, 1.0]) @ source
        expected.append(0.5 * (np.abs(total[:2, :2]) ** 2).sum())
    np.testing.assert_allclose(z["survival"][0, ::6], expected, rtol=0, atol=1e-6)  # float32


def test_without_coupling_only_the_background_light_absorbs(rng):
    tau = np.linspace(0.0, 30.0, ENERGY.size)
    galaxy = random_domains(rng, 9)
    p = photon_survival(
        ENERGY, random_domains(rng, 50), m_nev=[1.0, 300.0], g11=0.0, tau=tau, milky_way=galaxy
    )
    np.testing.assert_allclose(p, np.broadcast_to(np.exp(-tau), p.shape), rtol=1e-12)


def test_probabilities_add_to_one(rng):
    found = state_probabilities(ENERGY, random_domains(rng, 2000), m_nev=20.0, g11=5.0)
    np.testing.assert_allclose(sum(found), 1.0, rtol=0, atol=1e-10)


def test_turning_all_fields_by_one_angle_changes_nothing(rng):
    domains = random_domains(rng, 200)
    turned = dataclasses.replace(domains, psi_rad=domains.psi_rad + 1.234)
    p, q = (photon_survival(ENERGY, d, m_nev=20.0, g11=5.0) for d in (domains, turned))
    np.testing.assert_allclose(p, q, rtol=0, atol=1e-12)


def test_halving_every_cell_changes_nothing(rng):
    domains = random_domains(rng, 200)
    halves = Domains(*(np.repeat(a, 2) for a in dataclasses.astuple(domains)))
    halves = dataclasses.replace(halves, length_kpc=halves.length_kpc / 2.0)
    p, q = (photon_survival(ENERGY, d, m_nev=20.0, g11=5.0) for d in (domains, halves))
    np.testing.assert_allclose(p, q, rtol=0, atol=1e-11)


@pytest.fixture(scope="module")
def drawn():
    """Energies, fields, masses and couplings of the default prior, and their exact curves."""
    rng = np.random.default_rng(11)
    cells, energy = FieldSampler(Cluster(), "fine").sample(24, rng), np.geomspace(15.0, 5e4, 300)
    options = {"m_nev": 10 ** rng.uniform(0.0, 3.0, 24), "g11": 10 ** rng.uniform(-1.0, 1.0, 24)}
    options["k_cut_kpc"] = 9.0
    return (energy, cells), options, photon_survival(energy, cells, **options)


def test_joined_cells_are_as_good_as_stated(drawn):
    arguments, options, exact = drawn
    # Measured over 192 draws of the default prior, 459 energies: largest error, root mean square.
    stated = {0.1: (7e-4, 5e-5), 0.2: (5e-3, 2.1e-4), 0.4: (2.4e-2, 8.5e-4)}
    for merge, (largest, rms) in stated.items():
        p = photon_survival(*arguments, **options, merge_rad=merge)
        assert 0 < np.abs(p - exact).max() < 2.0 * largest
        assert np.sqrt(np.mean((p - exact) ** 2)) < 2.0 * rms


def test_single_precision_is_as_good_as_stated(drawn):
    arguments, options, exact = drawn
    p = photon_survival(*arguments, **options, single=True)
    # Measured as above: 3.4e-5, 4e-6.
    assert 1e-7 < np.abs(p - exact).max() < 1e-4
    assert np.sqrt(np.mean((p - exact) ** 2)) < 1e-5


def test_where_phases_are_large_single_precision_changes_no_bit(rng):
    domains = random_domains(rng, 20, length=(5.0, 20.0))
    p, q = (
        photon_survival(ENERGY, domains, m_nev=300.0, g11=10.0, single=single)
        for single in (False, True)
    )
    np.testing.assert_array_equal(p, q)


def test_threads_get_simulations_of_the_same_cost():
    rng = np.random.default_rng(3)
    cost = rng.gamma(2.0, size=64)
    for threads in (1, 2, 3, 5):
        order = kernels._fair_order(cost, threads)
        np.testing.assert_array_equal(np.sort(order), np.arange(64))
        # Runs as threads get them: equal numbers, the first ones one longer. Dealt in one
        # direction they would differ by 0.6 to 0.9 of the dearest simulation.
        runs = [cost[part].sum() for part in np.array_split(order, threads)]
        assert max(runs) - min(runs) <= 0.5 * cost.max()


def test_joining_equal_cells_changes_nothing(rng):
    few = random_domains(rng, 40)
    many = Domains(*(np.repeat(a, 8) for a in dataclasses.astuple(few)))
    many = dataclasses.replace(many, length_kpc=many.length_kpc / 8.0)
    exact, joined = (
        # All energies in one block whose phases allow to join exactly eight cells.
        photon_survival([300.0, 310.0], many, m_nev=1.0, g11=0.3, merge_rad=merge)
        for merge in (0.0, 0.03)
    )
    assert exact.min() < 0.9997
    np.testing.assert_allclose(joined, exact, rtol=0, atol=1e-12)
    padded = dataclasses.astuple(many)
    padded = Domains(*(np.append(np.full(3, 2.0), np.append(a, 2.0)) for a in padded))
    padded.length_kpc[[0, 1, 2, -1]] = 0.0
    again = photon_survival([300.0, 310.0], padded, m_nev=1.0, g11=0.3, merge_rad=0.03)
    np.testing.assert_array_equal(again, joined)


def test_cells_of_zero_length_change_no_bit(rng):
    domains = random_domains(rng, 100)
    padded = Domains(*(np.append(a, np.full(7, 3.0)) for a in dataclasses.astuple(domains)))
    padded.length_kpc[-7:] = 0.0
    p, q = (photon_survival(ENERGY, d, m_nev=20.0, g11=5.0) for d in (domains, padded))
    np.testing.assert_array_equal(p, q)


def test_a_cell_without_field_keeps_the_frame(rng):
    domains = random_domains(rng, 30)
    domains.b_ug[10] = 0.0
    p = photon_survival(ENERGY, domains, m_nev=20.0, g11=5.0)[0]
    expected = [
        0.5 * (np.abs(matrix_chain(e, domains, 20.0, 5.0)[:2, :2]) ** 2).sum() for e in ENERGY
    ]
    np.testing.assert_allclose(p, expected, rtol=0, atol=1e-11)


def test_the_cut_leaves_out_exactly_the_energies_below_it(rng):
    domains, m, k_h = random_domains(rng, 100), 100.0, 9.0
    energy = np.geomspace(5.0, 500.0, 41)
    free = photon_survival(energy, domains, m_nev=m, g11=5.0, redshift=REDSHIFT)[0]
    cut = photon_survival(energy, domains, m_nev=m, g11=5.0, redshift=REDSHIFT, k_cut_kpc=k_h)[0]
    below = constants.MASS * m**2 / (energy * (1.0 + REDSHIFT)) > 2.0 * k_h
    assert 0 < below.sum() < energy.size
    np.testing.assert_array_equal(cut[below], 1.0)
    np.testing.assert_allclose(cut[~below], free[~below], rtol=0, atol=1e-12)


def test_the_result_depends_neither_on_threads_nor_on_the_batch(rng):
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("one thread only")
    domains = random_domains(rng, 300, rows=6)
    m, g = np.geomspace(1.0, 1e3, 6), np.geomspace(0.1, 10.0, 6)
    tau, galaxy = np.linspace(0.0, 3.0, ENERGY.size), random_domains(rng, 20)
    options = {"tau": tau, "milky_way": galaxy, "k_cut_kpc": 9.0}
    kept = numba.get_num_threads()
    try:
        numba.set_num_threads(2)
        threaded = photon_survival(ENERGY, domains, m_nev=m, g11=g, **options)
        numba.set_num_threads(1)
        serial = photon_survival(ENERGY, domains, m_nev=m, g11=g, **options)
    finally:
        numba.set_num_threads(kept)
    np.testing.assert_array_equal(threaded, serial)
    for k in range(6):
        one = Domains(*(a[k] for a in dataclasses.astuple(domains)))
        alone = photon_survival(ENERGY, one, m_nev=m[k], g11=g[k], **options)
        np.testing.assert_array_equal(alone[0], serial[k])


def test_cosine_and_sine_are_exact_up_to_the_largest_accepted_phase(rng):
    for x in np.concatenate([rng.uniform(0.0, kernels.MAX_PHASE, 300), [0.0, 1e-9, np.pi / 2]]):
        cosine, sine = cell_loops.cosine_and_sine(x)
        assert abs(cosine - np.cos(x)) < 5e-16
        assert abs(sine - np.sin(x)) < 5e-16


def test_components_and_angles_describe_the_same_cells(rng):
    domains = random_domains(rng, 50)
    cells = domains.to_cells()
    assert isinstance(cells, Cells)
    p, q = (photon_survival(ENERGY, d, m_nev=20.0, g11=5.0) for d in (domains, cells))
    np.testing.assert_array_equal(p, q)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"m_nev": -1.0}, r"m_nev must be finite and not negative, in neV; got -1"),
        ({"g11": np.nan}, "g11 must be finite"),
        ({"m_nev": [1.0, 2.0, 3.0]}, r"m_nev has shape \(3,\); expected a scalar or \(2,\)"),
        ({"energy_gev": [10.0, 5.0]}, "increasing"),
        ({"energy_gev": [-1.0, 5.0]}, "energy_gev must be positive, in GeV; the smallest is -1"),
        ({"redshift": -0.1}, "redshift must not be negative; got -0.1"),
        ({"tau": [0.1]}, r"tau has shape \(1,\); expected \(2,\)"),
        ({"tau": [-0.1, 1.0]}, "non-negative"),
        ({"m_nev": 1e7}, "has a phase of .* rad at 10.0 GeV; accepted up to 3e"),
    ],
)
def test_a_wrong_argument_is_refused_with_its_value(rng, change, message):
    arguments = {
        "energy_gev": [10.0, 100.0],
        "domains": random_domains(rng, 5, rows=2),
        "m_nev": 1.0,
        "g11": 1.0,
        **change,
    }
    with pytest.raises(ValueError, match=message):
        photon_survival(**arguments)


def test_cells_that_do_not_fit_together_are_refused():
    one, two = np.ones(3), np.ones(4)
    with pytest.raises(ValueError, match=r"agree; got b_ug \(3,\), psi_rad \(4,\)"):
        Domains(one, two, one, one)
    with pytest.raises(ValueError, match="length_kpc must not be negative; its smallest"):
        Domains(one, one, one, -one)
    with pytest.raises(ValueError, match="psi_rad has non-finite values"):
        Domains(one, one * np.nan, one, one)
