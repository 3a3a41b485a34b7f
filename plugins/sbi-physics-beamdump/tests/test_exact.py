"""The numerical likelihood: pieces against simulation, the whole against brute force and ranks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sbi_physics_beamdump import constants, efficiency
from sbi_physics_beamdump.exact import BilinearDensity
from sbi_physics_beamdump.geometry import GEOMETRIES
from sbi_physics_beamdump.set_likelihood import SetLikelihood
from sbi_physics_beamdump.simulator import BeamdumpAlp
from sbi_physics_beamdump.spectrum import alp_density
from scipy import stats

import sbi_physics as sp
from sbi_physics.errors import ContractError

N_DRAWS = 199
LEVELS = (0.5, 0.68, 0.9, 0.95)


def alp_momenta(m_a, n, rng):
    """(p_z, p_T) of ALPs from B mesons drawn here, with boosts of the matrix form."""
    neutral = rng.random(n) < 0.5
    m_b, m_k = (
        np.where(neutral, *pair)
        for pair in ((constants.M_B0, constants.M_BPLUS), (constants.M_K0, constants.M_KPLUS))
    )
    p_cm = 0.1879 * rng.standard_normal(n) * constants.SQRT_S / 2
    p_t = np.sqrt(5.6 * rng.standard_exponential(n))
    e_cm = np.sqrt(m_b**2 + p_t**2 + p_cm**2)
    p_b = constants.GAMMA_CM * (p_cm + constants.BETA_CM * e_cm)
    energy = np.sqrt(m_b**2 + p_t**2 + p_b**2)
    # Azimuth zero: only p_z and p_T are looked at.
    beta = np.stack([p_t, np.zeros(n), p_b], axis=1) / energy[:, None]
    gamma = energy / m_b
    p_star = np.sqrt((m_b**2 - (m_k + m_a) ** 2) * (m_b**2 - (m_k - m_a) ** 2)) / (2 * m_b)
    n_a = rng.standard_normal((n, 3))
    p = p_star[:, None] * n_a / np.linalg.norm(n_a, axis=1, keepdims=True)
    e = np.sqrt(p_star**2 + m_a**2)
    along = (p * beta).sum(axis=1)
    factor = (gamma - 1) * along / (beta**2).sum(axis=1) + gamma * e
    p = p + factor[:, None] * beta
    return p[:, 2], np.hypot(p[:, 0], p[:, 1])


@pytest.mark.parametrize("m_a", [0.1, 1.0, 4.4])
def test_density_of_alp_momenta_is_that_of_simulated_ones(m_a, rng):
    n = 300_000
    p_z, p_t = alp_momenta(m_a, n, rng)
    edges_z, edges_t = np.log([5, 10, 20, 40, 60, 80, 120, 200]), np.array([0, 0.5, 1, 2, 3, 5])
    seen = np.histogram2d(np.log(np.maximum(p_z, 1e-9)), p_t, bins=[edges_z, edges_t])[0]
    share = np.empty(seen.shape)
    nodes, weights = np.polynomial.legendre.leggauss(8)
    for i, a in enumerate(0.5 * np.diff(edges_z)):
        for j, b in enumerate(0.5 * np.diff(edges_t)):
            z = np.exp(edges_z[i] + a * (1 + nodes))[:, None]
            t = edges_t[j] + b * (1 + nodes)
            energy = np.sqrt(z**2 + t**2 + m_a**2)
            integrand = alp_density(np.array(m_a), z, t) / energy * 2 * math.pi * t * z
            share[i, j] = a * b * weights @ integrand @ weights
    expected = n * share
    filled = expected > 20
    assert filled.sum() > 20
    chi2 = ((seen - expected)[filled] ** 2 / expected[filled]).sum()
    assert stats.chi2.sf(chi2, filled.sum()) > 1e-4


# Probability to decay in the window and be accepted at ctau = 1 m, from an independent code, whose
# errors are below 1 %; ours are 2 % at a mass before smoothing.
EFFICIENCIES = {
    "on-axis": {0.2: 0.00666, 1.0: 0.0460, 4.0: 0.1015},
    "off-axis": {0.2: 0.00265, 1.0: 0.0106, 4.0: 0.00266},
}


@pytest.mark.parametrize("name", EFFICIENCIES)
def test_efficiencies_are_those_of_an_independent_code(name):
    table = efficiency.efficiency_table(GEOMETRIES[name])
    for m_a, expected in EFFICIENCIES[name].items():
        at_mass = [np.interp(math.log(m_a), efficiency.MASSES, column) for column in table.T]
        found = math.exp(np.interp(0.0, efficiency.LIFETIMES, at_mass))
        assert found == pytest.approx(expected, rel=0.05)


def brute_force(x, m_a, ctau, options, geometry, n, rng):
    """Likelihood of one event, shape (mass, lifetime, batch): draws around the measured values.

    Energies and hits are drawn from their errors; each mass then fixes the vertex, which is
    looked for by halving. The measure is that of small angles.
    """
    energy = np.exp(x[:2]) / (1 + options.sigma_e * rng.standard_normal((n, 2)))
    # Drawn with density ~ E_m / E^2 N; wanted is N / E.
    weight = (energy.prod(axis=1) / np.exp(x[:2].sum())) * (energy[:, 0] > energy[:, 1])
    hits = x[2:6].reshape(2, 2) + options.sigma_hit * rng.standard_normal((n, 2, 2))
    apart = np.linalg.norm(hits[:, 0] - hits[:, 1], axis=1)
    weight = weight * (apart > geometry.separation_min) * (energy > geometry.e_min).all(axis=1)
    theta_m, phi_m = np.exp(x[6:8]), x[8:10]
    out = []
    for m in m_a:
        low, high = np.full(n, 0.05), np.full(n, geometry.z_cal - geometry.z_min)
        for _ in range(32):
            middle = 0.5 * (low + high)
            heavier = mass(energy, hits, middle, geometry.z_cal)[0] > m
            low, high = np.where(heavier, middle, low), np.where(heavier, high, middle)
        distance = 0.5 * (low + high)
        found, slope, p_z = mass(energy, hits, distance, geometry.z_cal)
        ok = np.abs(found / m - 1) < 1e-6
        theta = np.arctan(np.linalg.norm(slope, axis=-1))
        phi = np.arctan2(slope[..., 1], slope[..., 0])
        sigma = options.sigma_angle
        if options.angle_smearing == "tangent":
            unit = np.stack([np.cos(phi_m), np.sin(phi_m)], axis=-1)
            miss = np.tan(theta_m)[:, None] * unit - slope
            angles = np.exp(-0.5 * (miss**2).sum(axis=(1, 2)) / sigma**2)
        else:
            cut = theta_m <= sigma * (1 + 1e-5)
            polar = np.where(
                cut,
                stats.norm.cdf((sigma - theta) / sigma) * math.sqrt(2 * math.pi),
                np.exp(-0.5 * ((theta_m - theta) / sigma) ** 2),
            )
            angles = polar.prod(axis=1) * np.exp(
                -0.5 * ((phi_m - phi) ** 2).sum(axis=1) / sigma**2
            )
        z = geometry.z_cal - distance
        total = energy.sum(axis=1)
        momentum = np.sqrt(total**2 - m**2)
        p_t = np.sqrt(np.maximum(momentum**2 - p_z**2, 0.0))
        density = alp_density(np.array(m), p_z, p_t) * momentum / total  # per dE d^2t, / E_a
        common = weight * ok * angles * density * np.sqrt(energy.prod(axis=1)) / m / apart
        rows = []
        for life in ctau:
            flight = life * p_z / m
            rows.append((common * np.exp(-z / flight) / flight).reshape(20, -1).mean(axis=1))
        out.append(rows)
    return np.array(out)


def mass(energy, hits, distance, z_cal):
    """Invariant mass, slopes of the photons and p_z of the ALP for a given vertex."""
    p_z = energy
    for _ in range(3):
        along = (p_z[..., None] * hits).sum(axis=1) / p_z.sum(axis=1)[:, None] / z_cal
        slope = (hits - (z_cal - distance)[:, None, None] * along[:, None]) / distance[
            :, None, None
        ]
        p_z = energy / np.sqrt(1 + (slope**2).sum(axis=-1))
    direction = np.concatenate([slope, np.ones((len(slope), 2, 1))], axis=-1)
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    difference = ((direction[:, 0] - direction[:, 1]) ** 2).sum(axis=-1)
    return np.sqrt(energy.prod(axis=1) * difference), slope, p_z.sum(axis=1)


@pytest.mark.parametrize(
    ("values", "point"),
    [
        ({"sigma_e": 0.05, "sigma_angle": "10mrad"}, "m1"),
        ({"sigma_e": 0.1, "sigma_angle": "5mrad"}, "m02"),
        ({"sigma_e": 0.05, "sigma_angle": "10mrad", "angle_smearing": "tangent"}, "m1"),
        ({"sigma_e": 0.05, "sigma_angle": "5mrad", "geometry": "off-axis"}, "m4"),
    ],
)
def test_likelihood_of_one_event_by_brute_force(values, point, rng):
    simulator = BeamdumpAlp(**values, events=1)
    options, geometry = simulator.options, simulator.geometry
    x = simulator.simulate(simulator.theta(point)[None], rng)[0, 0].astype(np.float64)
    likelihood = SetLikelihood(geometry, options.sigma_hit, options.angle_smearing == "tangent")
    log_m, log_ctau, grid = likelihood.grid(x[None, :10], options.sigma_e, options.sigma_angle)
    # Without the efficiency, relative to the middle; where it is above e^-3 of its best.
    table = efficiency.efficiency_table(geometry)
    seen = [np.interp(log_m, efficiency.MASSES, column) for column in table.T]
    bare = grid + np.array(seen).T
    inside = np.flatnonzero(grid.max(axis=1) > grid.max() - 3)
    rows = inside[np.linspace(0, len(inside) - 1, 5).astype(int)]
    columns = [20, 40, 60]
    estimate = brute_force(
        x[:10], np.exp(log_m[rows]), np.exp(log_ctau[columns]), options, geometry, 60_000, rng
    )
    centre, error = estimate.mean(axis=-1), estimate.std(axis=-1) / math.sqrt(19)
    found = bare[np.ix_(rows, columns)]
    ratio = np.exp(found - found[2, 1]) / (centre / centre[2, 1])
    relative = np.hypot(error / centre, (error / centre)[2, 1])
    # 2 % for the tables, and the squares of angles that the brute force neglects.
    square = math.exp(2 * x[6:8].max())
    assert relative.max() < 0.2
    assert np.abs(ratio - 1).max() < 4 * relative.max() + 0.02 + 3 * square
    assert (np.abs(ratio - 1) < 4 * relative + 0.02 + 3 * square).all()


def test_draws_follow_their_density(rng):
    a, b = np.linspace(-1, 2, 8), np.linspace(0, 3, 11)
    values = np.exp(-2 * (a[:, None] - 0.4 * b) ** 2) * (0.1 + b)
    density = BilinearDensity(a, b, values)
    points = density.sample(40_000, rng)
    # In a cell, the mean of the density at the corners; the cells are a partition.
    cells = 0.25 * (values[:-1, :-1] + values[1:, :-1] + values[:-1, 1:] + values[1:, 1:])
    seen = np.histogram2d(*points.T, bins=[a, b])[0]
    expected = len(points) * cells / cells.sum()
    good = expected > 10
    chi2 = ((seen - expected)[good] ** 2 / expected[good]).sum()
    assert stats.chi2.sf(chi2, good.sum()) > 1e-4
    # Inside of cells: densities of draws average to the integral of the squared density.
    fine = (
        np.stack(
            np.meshgrid(np.linspace(-1, 2, 702)[:-1], np.linspace(0, 3, 702)[:-1]), axis=-1
        ).reshape(-1, 2)
        + np.array([3 / 701, 3 / 701]) / 2
    )
    at_draws, everywhere = density(points), density(fine)
    assert everywhere.mean() * 9 == pytest.approx(1, abs=1e-4)
    assert at_draws.mean() == pytest.approx(
        (everywhere**2).mean() * 9, abs=4 * at_draws.std() / math.sqrt(len(points))
    )
    assert density(np.array([[5.0, 1.0]]))[0] == 0


def coverage_is_nominal(simulator, n, seed):
    """Central intervals of both parameters cover as often as binomial errors allow."""
    rng = np.random.default_rng(seed)
    posterior = simulator.reference_posterior()
    theta = simulator.prior.sample(n, rng)
    draws = posterior.sample(simulator.simulate(theta, rng), N_DRAWS, rng)
    truth = theta[:, simulator.parameters.indices(posterior.prior.names)]
    rank = (draws < truth[:, None]).sum(axis=1)
    found = {}
    for j, name in enumerate(posterior.prior.names):
        for level in LEVELS:
            width = round(level * (N_DRAWS + 1))
            low = (N_DRAWS + 1 - width) // 2
            inside = (rank[:, j] >= low) & (rank[:, j] < low + width)
            p = stats.binomtest(int(inside.sum()), n, width / (N_DRAWS + 1)).pvalue
            found[name, level] = (inside.mean(), p)
        # Ranks, which see a shift that central intervals hide.
        u = (rank[:, j] + rng.random(n)) / (N_DRAWS + 1)
        found[name, "ranks"] = (u.mean(), stats.kstest(u, "uniform").pvalue)
    # Ten tests: one false alarm in ten thousand.
    bad = {key: value for key, value in found.items() if value[1] < 1e-5}
    assert not bad, found


def test_coverage_of_the_published_detector():
    coverage_is_nominal(BeamdumpAlp(sigma_e=0.05, sigma_angle="10mrad"), 120, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "values",
    [
        {},
        {"sigma_e": 0.1, "sigma_angle": "10mrad"},
        {"sigma_e": 0.05, "sigma_angle": "10mrad", "angle_smearing": "tangent"},
        {"sigma_e": 0.05, "sigma_angle": "5mrad", "geometry": "off-axis"},
        {"detector": "amortized", "geometry": "ship-like", "events": 4, "min_events": 1},
    ],
)
def test_coverage_of_many_sets(values):
    coverage_is_nominal(BeamdumpAlp(**values), 1000, 2)


def test_more_draws_than_the_grid_has_mass(rng):
    simulator = BeamdumpAlp(events=2, derived=True)
    posterior = simulator.reference_posterior()
    x = simulator.simulate(simulator.prior.sample(2, rng), rng)
    theta, density = posterior.sample(x, 500, rng, return_log_prob=True)
    assert np.isfinite(density).all()
    assert posterior.prior.contains(theta).all()
    np.testing.assert_allclose(posterior.log_prob(theta, x), density, atol=1e-9)
    far = np.array([[[0.1, 0.1]], [[4.5, 100.0]]])
    assert np.isfinite(posterior.log_prob(far, x)).all()  # a billionth of the prior
    assert (posterior.log_prob(np.full((2, 1, 2), 200.0), x) == -np.inf).all()


def test_the_engine_exact_uses_it():
    simulator = BeamdumpAlp(events=1)
    posterior = sp.train(sp.simulate(simulator, 50, seed=1), "exact", seed=1)
    x = sp.simulate(simulator, 3, seed=2).x
    theta = np.tile(simulator.theta("m1"), (3, 1, 1))
    expected = simulator.reference_posterior().log_prob(theta, x)
    np.testing.assert_array_equal(posterior.log_prob(theta, x), expected)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sigma_e": 0.0}, "sigma_e from 0.002 to 0.2, got 0"),
        ({"sigma_angle": 0.0}, "sigma_angle"),
        ({"sigma_hit": "5cm"}, "sigma_hit"),
    ],
)
def test_what_the_likelihood_cannot_treat_is_refused(values, message):
    with pytest.raises(ContractError, match=message):
        BeamdumpAlp(**values).reference_posterior()


def test_a_table_of_mesons_is_refused(tmp_path):
    file = tmp_path / "b.csv"
    file.write_text("pdg,px,py,pz\n511,0.1,0.2,90\n")
    with pytest.raises(ContractError, match="accepted is 'parametric'"):
        BeamdumpAlp(production=str(file)).reference_posterior()
