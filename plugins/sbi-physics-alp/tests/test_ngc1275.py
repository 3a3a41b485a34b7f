"""The simulator `alp-ngc1275`: options, stages, observations."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from sbi_physics_alp.baseline import Baseline
from sbi_physics_alp.ebl import optical_depth
from sbi_physics_alp.embedded import embedded_response
from sbi_physics_alp.instruments import LogResiduals
from sbi_physics_alp.ngc1275 import REDSHIFT, AlpNgc1275, poisson_log_likelihood

from sbi_physics.errors import ContractError, DataFileError, ObservationError, OptionError

CHEAP = {
    "true_bins_per_decade": 25,
    "energy_min": "50 GeV",
    "energy_max": "5 TeV",
    "reco_bins": 40,
}


@pytest.fixture(scope="module")
def simulator():
    return AlpNgc1275(**CHEAP)


def test_the_defaults_are_those_of_the_published_study():
    default = AlpNgc1275()
    assert default.parameters.names == ("m_a", "g", "amplitude", "index", "e_cut")
    assert default.parameters.interest == ("m_a", "g")
    assert default.observable.shape == (200,)
    assert default.response.livetime_s == 180000.0
    assert default.observe_only == ("amplitude", "index", "e_cut")


def test_units_are_understood_by_astropy(simulator):
    from astropy import units

    by_name = {p.name: units.Unit(p.unit) for p in simulator.parameters}
    assert by_name["m_a"].is_equivalent("eV")
    assert by_name["g"].to("1/GeV") == pytest.approx(1e-11)
    assert by_name["amplitude"].is_equivalent("cm-2 s-1 TeV-1")
    assert by_name["e_cut"].is_equivalent("TeV")


def test_without_coupling_the_latent_is_the_absorption(simulator, rng):
    theta = simulator.theta("no-alp")[None]
    survival = simulator.simulate_latent(theta, rng)["survival"]
    expected = np.exp(-optical_depth(simulator.conversion.energy_gev, REDSHIFT))
    np.testing.assert_allclose(survival[0], expected, rtol=1e-6)
    assert survival.dtype == np.float32


def test_survival_is_a_probability_and_differs_between_fields(simulator, rng):
    theta = np.repeat(simulator.theta("m30-g2")[None], 5, axis=0)
    survival = simulator.simulate_latent(theta, rng)["survival"]
    assert ((survival >= 0) & (survival <= 1)).all()
    assert (np.abs(np.diff(survival, axis=0)).max(axis=1) > 0.05).all()


def test_counts_follow_the_expected_counts(simulator, rng):
    theta = np.repeat(simulator.theta("no-alp")[None], 400, axis=0)
    latent = simulator.simulate_latent(theta[:1], rng)["survival"]
    z = {"survival": np.repeat(latent, 400, axis=0)}
    mu = simulator.expected_counts(latent, theta[:1])[0]
    x = simulator.observe(z, theta, rng)
    pulls = (x.mean(axis=0) - mu) / np.sqrt(mu / 400)
    assert np.abs(pulls).max() < 5.0
    assert np.mean(x.var(axis=0, ddof=1) / mu) == pytest.approx(1.0, abs=0.06)


def test_the_flare_has_the_counts_of_the_response(rng):
    default = AlpNgc1275()
    x = default.simulate(default.theta("no-alp")[None], rng)
    # 288,000 signal counts in 50 h, a few per cent less with absorption, and 18,600 of background.
    assert 2.6e5 < x.sum() < 3.1e5


def test_expected_counts_grow_with_the_exposure(simulator, rng):
    longer = AlpNgc1275(exposure="100 h", **CHEAP)
    theta = simulator.theta("no-alp")[None]
    z = simulator.simulate_latent(theta, rng)["survival"]
    once, twice = (s.expected_counts(z, theta) for s in (simulator, longer))
    np.testing.assert_allclose(twice, 2.0 * once, rtol=1e-12)


def test_a_fixed_realisation_makes_the_latent_a_function_of_mass_and_coupling(rng):
    fixed = AlpNgc1275(realisation=3, **CHEAP)
    theta = np.repeat(fixed.theta("m30-g2")[None], 2, axis=0)
    first, second = fixed.simulate_latent(theta, rng)["survival"]
    np.testing.assert_array_equal(first, second)
    other = AlpNgc1275(realisation=4, **CHEAP).simulate_latent(theta[:1], rng)["survival"][0]
    assert np.abs(other - first).max() > 0.05


def test_the_likelihood_of_a_fixed_field_is_poisson(rng):
    fixed = AlpNgc1275(realisation=3, **CHEAP)
    theta = np.repeat(fixed.theta("m30-g2")[None], 200, axis=0)
    survival = fixed.simulate_latent(theta[:1], rng)["survival"]
    expected = fixed.expected_counts(survival, theta[:1])
    x = fixed.simulate(theta, rng).astype(np.float64)
    log_p = poisson_log_likelihood(x, expected)
    # Twice the log likelihood ratio to the saturated model is nearly chi2 of 40 bins.
    deviance = 2.0 * (poisson_log_likelihood(x, np.maximum(x, 1e-12)) - log_p)
    assert deviance.mean() == pytest.approx(40.0, abs=4.0)


def test_the_high_mass_cut_can_be_switched_off(rng):
    theta = AlpNgc1275().theta({"m_a": 300.0, "g": 10.0, **FLARE})[None]
    cut, free = (
        AlpNgc1275(
            realisation=3, high_mass_cut=value, cell_mode="compat", energy_max="1 TeV"
        ).simulate_latent(theta, rng)["survival"]
        for value in (True, False)
    )
    # 124 GeV is where cells of 1/9 kpc convert by mistake.
    assert np.abs(cut - free).max() > 0.05


FLARE = {"amplitude": 1.54e-9, "index": 2.11, "e_cut": 562.0}


def test_a_copy_in_another_process_would_be_the_same(simulator, rng):
    again = pickle.loads(pickle.dumps(simulator))
    theta = simulator.prior.sample(3, rng)
    first = simulator.simulate(theta, np.random.default_rng(5))
    np.testing.assert_array_equal(first, again.simulate(theta, np.random.default_rng(5)))


def test_counts_are_read_from_an_npz_file(simulator, tmp_path):
    counts = np.arange(40.0)
    path = tmp_path / "counts.npz"
    np.savez(path, counts=counts, edges_gev=simulator.response.reco_edges_gev)
    np.testing.assert_array_equal(simulator.read_observation(path), counts)


def test_an_observation_with_other_bins_is_refused(simulator, tmp_path):
    path = tmp_path / "counts.npz"
    np.savez(path, counts=np.zeros(40), edges_gev=np.geomspace(10.0, 1e3, 41))
    with pytest.raises(ObservationError, match="has 40 bins from 10 to 1000 GeV; the simulator"):
        simulator.read_observation(path)
    np.savez(path, counts=np.zeros(7))
    with pytest.raises(ObservationError, match=r"shape \(7,\); expected \(40,\)"):
        simulator.read_observation(path)
    np.savez(path, other=np.zeros(7))
    with pytest.raises(ObservationError, match=r"has no array 'counts'; it has \['other'\]"):
        simulator.read_observation(path)
    with pytest.raises(DataFileError, match="there is no file"):
        simulator.read_observation(tmp_path / "none.npz")


def test_data_can_be_residuals_to_the_expectation_without_alps(tmp_path):
    counting, residual = (AlpNgc1275(data=data, **CHEAP) for data in ("counts", "log-residual"))
    null = counting.theta("no-alp")[None]
    absorbed = np.exp(-counting.conversion.tau)[None]
    expected = counting.expected_counts(absorbed, null)[0]
    z = {"survival": np.repeat(absorbed, 3, axis=0).astype(np.float32)}
    theta = np.repeat(null, 3, axis=0)
    theta[1, 2], theta[2, 2] = 1e-8, 0.0  # brighter, and no source at all
    n, x = (s.observe(z, theta, np.random.default_rng(2)) for s in (counting, residual))
    plenty = n > 0.08 * expected
    ratio = n[plenty] / np.broadcast_to(expected, n.shape)[plenty]
    np.testing.assert_allclose(x[plenty], np.log10(ratio), atol=1e-6)
    assert x.min() == pytest.approx(-1.15)
    assert not plenty.all()
    assert x[1].mean() == pytest.approx(np.log10(1e-8 / 1.54e-9), abs=0.1)
    path = tmp_path / "counts.npz"
    np.savez(path, counts=n[0], edges_gev=counting.response.reco_edges_gev)
    np.testing.assert_allclose(residual.read_observation(path), x[0], atol=1e-6)
    with pytest.raises(ContractError, match="make the simulator with data=counts"):
        Baseline(residual, x[0])


def test_where_nothing_is_expected_residuals_are_zero():
    response = embedded_response("embedded-south", livetime_s=3600.0)
    expected = np.where(np.arange(response.background.size) < 5, 0.0, 10.0)
    found = LogResiduals(response, expected).residuals(np.full((2, expected.size), 20.0))
    np.testing.assert_array_equal(found[:, :5], 0.0)
    np.testing.assert_allclose(found[:, 5:], np.log10(2.0))


def test_a_saved_response_can_be_used(tmp_path, rng):
    path = embedded_response("embedded-south", livetime_s=3600.0).save(tmp_path / "mine.npz")
    simulator = AlpNgc1275(response=str(path), exposure="2 h")
    assert simulator.response.livetime_s == 7200.0
    assert simulator.simulate(simulator.theta("no-alp")[None], rng).shape == (1, 200)
    again = AlpNgc1275(**simulator.identity.options)  # all options given
    assert again.identity == simulator.identity
    with pytest.raises(OptionError, match="reco_bins cannot be set: .*mine.npz holds a response"):
        AlpNgc1275(response=str(path), reco_bins=20)


def test_a_missing_response_file_says_how_to_get_it(monkeypatch):
    monkeypatch.delenv("GAMMAPY_DATA", raising=False)
    with pytest.raises(DataFileError, match="gammapy download datasets --src cta-caldb"):
        AlpNgc1275(response="cta-prod5-north-20deg-50h")


@pytest.mark.filterwarnings("ignore")  # third parties
def test_a_response_file_drops_the_energies_it_does_not_see(gammapy_data, rng):
    simulator = AlpNgc1275(response="cta-prod5-north-20deg-50h", true_bins_per_decade=25)
    assert simulator.response.true_edges_gev[0] > 10.0
    assert simulator.response.true_edges_gev[-1] < 2e5
    assert simulator.simulate(simulator.prior.sample(2, rng), rng).shape == (2, 200)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exposure": "50 kg"}, "'50 kg' is not a number with a unit that converts to h"),
        ({"exposure": "0 s"}, "accepted is 1 min to 10000 h"),
        ({"exposure": "50"}, "'50' is not a number with a unit"),
        ({"energy_min": "1 TeV", "energy_max": "1 TeV"}, "must be above energy_min, 1 TeV"),
        ({"energy_max": "1 PeV"}, "accepted is 5 GeV to 200 TeV"),
        ({"response": "embeded"}, "accepted is a path or one of embedded, embedded-south, cta-"),
        ({"region": "map2deg"}, "needs a response file"),
        ({"realisation": -1}, "accepted is 'random' or an integer from 0"),
        ({"cell_mode": "coarse"}, "'compat' or 'fine'"),
        ({"true_bins_per_decade": 1}, "greater than or equal to 25"),
        ({"expsure": "1 h"}, "Did you mean 'exposure'"),
    ],
)
def test_a_wrong_option_is_refused_with_what_is_accepted(options, message):
    with pytest.raises(OptionError, match=message):
        AlpNgc1275(**options)
