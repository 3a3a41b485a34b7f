"""The simulator: published features, both smearings, options, sets of any size."""

from __future__ import annotations

import numpy as np
import pytest
from sbi_physics_beamdump.estimators import SUMMARIES
from sbi_physics_beamdump.simulator import BeamdumpAlp

import sbi_physics as sp
from sbi_physics.errors import ContractError, DataFileError, ObservationError, OptionError

# Mean and sd of each training feature, published with arXiv:2308.01353: 250 000 sets of 3.
PUBLISHED = {
    "ln_E1": (3.9248, 0.4619),
    "ln_E2": (2.6156, 0.8851),
    "x1": (0.0, 0.6488),
    "y1": (0.0, 0.6488),
    "x2": (0.0, 0.6611),
    "y2": (0.0, 0.6611),
    "ln_theta1": (-3.7198, 0.5937),
    "ln_theta2": (-3.4608, 0.7080),
    "phi1": (0.0, 1.81),
    "phi2": (0.0, 1.81),
}


@pytest.fixture(scope="module")
def simulator():
    return BeamdumpAlp()


def latents_at(simulator, m_a, n, rng):
    theta = np.tile([m_a, 1.0], (n, 1))
    return theta, simulator.simulate_latent(theta, rng)


def test_published_feature_means(simulator, rng):
    theta = simulator.prior.sample(100_000, rng)
    x = simulator.simulate(theta, rng)[..., :-1].reshape(-1, 10).astype(np.float64)
    for name, values in zip(simulator.observable.names, x.T, strict=True):
        mean, sd = PUBLISHED[name]
        assert abs(values.mean() - mean) < 0.01, name
        assert abs(values.std() - sd) < 0.01, name


def test_smearing_has_the_stated_widths(rng):
    exact = BeamdumpAlp(sigma_e=0, sigma_hit=0, sigma_angle=0)
    smeared = BeamdumpAlp(sigma_e=0.05, sigma_hit=0.002, sigma_angle="5mrad")
    theta, z = latents_at(exact, 4.0, 4000, rng)
    truth = exact.observe(z, theta, rng)[..., :-1].astype(np.float64)
    np.testing.assert_allclose(np.exp(truth[..., :2]), z["energy"], rtol=1e-5)
    np.testing.assert_allclose(truth[..., 2:6], z["hit"].reshape(*truth.shape[:2], 4), rtol=1e-5)
    slope = z["slope"].astype(np.float64)
    tangent = np.tan(np.exp(truth[..., 6:8]))
    np.testing.assert_allclose(tangent * np.cos(truth[..., 8:]), slope[..., 0], atol=2e-6)
    np.testing.assert_allclose(tangent * np.sin(truth[..., 8:]), slope[..., 1], atol=2e-6)

    x = smeared.observe(z, theta, rng)[..., :-1].astype(np.float64)
    tolerance = 4 / np.sqrt(2 * 12_000)
    for i in range(2):
        assert np.std(np.exp(x[..., i] - truth[..., i])) == pytest.approx(0.05, rel=tolerance)
        inside = np.abs(truth[..., 2 + i]) < 1.2
        hits = (x - truth)[..., 2 + i][inside]
        assert hits.std() == pytest.approx(0.002, rel=tolerance)
        far = np.exp(truth[..., 6 + i]) > 0.03  # five sigma from the cut at sigma
        angles = (np.exp(x[..., 6 + i]) - np.exp(truth[..., 6 + i]))[far]
        assert angles.std() == pytest.approx(0.005, rel=4 / np.sqrt(2 * far.sum()))
        turned = np.abs(truth[..., 8 + i]) < 3.0
        azimuths = (x - truth)[..., 8 + i][turned]
        assert azimuths.std() == pytest.approx(0.005, rel=tolerance)
    assert np.exp(x[..., 6:8]).min() == pytest.approx(0.005, rel=1e-5)
    assert np.abs(x[..., 8:]).max() <= np.float32(np.pi)
    assert np.abs(x[..., 2:6]).max() <= 1.25


def test_tangent_smearing_is_that_of_slopes(rng):
    simulator = BeamdumpAlp(angle_smearing="tangent", sigma_angle=0.01)
    theta, z = latents_at(simulator, 1.0, 4000, rng)
    x = simulator.observe(z, theta, rng).astype(np.float64)
    tangent = np.tan(np.exp(x[..., 6:8]))
    for axis, turn in enumerate((np.cos, np.sin)):
        error = tangent * turn(x[..., 8:10]) - z["slope"][..., axis]
        assert error.std() == pytest.approx(0.01, rel=4 / np.sqrt(2 * error.size))
        assert abs(error.mean()) < 4 * 0.01 / np.sqrt(error.size)


def test_cut_angles_are_as_frequent_as_in_an_independent_code(rng):
    # Polar angles cut at sigma = 10 mrad: 12 % of the photons at 0.2 GeV, 12 to 16 % at 1 GeV.
    simulator = BeamdumpAlp(sigma_angle="10mrad")
    for m_a, low, high in ((0.2, 0.115, 0.125), (1.0, 0.115, 0.165)):
        theta, z = latents_at(simulator, m_a, 10_000, rng)
        x = simulator.observe(z, theta, rng)
        cut = (x[..., 6:8] <= np.log(np.float32(0.01)) + 1e-6).mean(axis=(0, 1))
        error = 4 * np.sqrt(0.12 * 0.88 / 30_000)
        assert (cut > low - error).all()
        assert (cut < high + error).all()


def test_sets_of_variable_size(rng):
    simulator = BeamdumpAlp(events=5, min_events=2)
    x = simulator.simulate(simulator.prior.sample(2000, rng), rng)
    counts = simulator.observable.counts(x)
    frequency = np.bincount(counts, minlength=6) / 2000
    assert frequency[:2].sum() == 0
    np.testing.assert_allclose(frequency[2:], 0.25, atol=4 * np.sqrt(0.25 * 0.75 / 2000))
    assert (x[x[..., -1] == 0] == 0).all()


def test_rows_do_not_depend_on_how_they_are_simulated():
    whole = sp.simulate(BeamdumpAlp(), 600, seed=3)
    parts = sp.simulate(BeamdumpAlp(), 300, seed=3)
    np.testing.assert_array_equal(whole.x[:300], parts.x[:])
    np.testing.assert_array_equal(whole.theta[:300], parts.theta[:])


def test_a_table_of_mesons_is_used(tmp_path, rng):
    (tmp_path / "b.csv").write_text("pdg,px,py,pz\n521,0,0,60\n")
    slow = BeamdumpAlp(production=str(tmp_path / "b.csv"))
    _, z = latents_at(slow, 4.0, 200, rng)
    # An ALP of 4 GeV takes most of the meson's momentum: at most E_B (E* + p*) / m_B.
    assert (z["energy"].sum(axis=-1) < 60.24 * (4.204 + 1.296) / 5.279).all()
    with pytest.raises(DataFileError, match="accepted is 'parametric'"):
        BeamdumpAlp(production=str(tmp_path / "missing.csv"))


def test_amortized_detectors_stand_in_the_data(rng):
    simulator = BeamdumpAlp(detector="amortized")
    assert simulator.parameters.interest == ("m_a", "ctau")
    theta = simulator.prior.sample(2000, rng)
    x = simulator.simulate(theta, rng)
    np.testing.assert_allclose(np.exp(x[:, 0, 10:12]), theta[:, 2:], rtol=1e-5)
    # Rows of the best and of the worst detector are smeared by their own resolutions.
    z = simulator.simulate_latent(theta, rng)
    x = simulator.observe(z, theta, rng).astype(np.float64)
    pull = (np.exp(x[..., 0]) / z["energy"][..., 0] - 1) / theta[:, None, 2]
    for rows in (theta[:, 2] < 0.01, theta[:, 2] > 0.05):
        assert pull[rows].std() == pytest.approx(1.0, rel=4 / np.sqrt(2 * pull[rows].size))


def test_derived_features_follow_from_the_measured_ones(rng):
    simulator = BeamdumpAlp(derived=True, events=2, min_events=1)
    theta = simulator.prior.sample(200, rng)
    x = simulator.simulate(theta, rng)
    s = BeamdumpAlp(events=2, min_events=1).summary_statistics(x[..., [*range(10), -1]])
    one = x[:, 1, -1] == 0
    assert one.any()
    np.testing.assert_allclose(x[one, 0, 10] / np.log(10), s[one, 0], atol=1e-4)
    assert (x[one, 1] == 0).all()


def test_options_take_units():
    simulator = BeamdumpAlp(sigma_angle="5mrad", sigma_hit="0.1 cm", e_min="500 MeV", sigma_e="5%")
    options = simulator.options
    assert (options.sigma_angle, options.sigma_hit, options.e_min) == (0.005, 0.001, 0.5)
    assert options.sigma_e == 0.05
    assert simulator.identity == BeamdumpAlp(sigma_angle=0.005, e_min=0.5, sigma_e=0.05).identity


def test_geometries_can_be_changed():
    wide = BeamdumpAlp(x_max="2 m", z_cal=40).geometry
    assert (wide.x_max, wide.end_x_max, wide.entrance_x_max, wide.z_cal) == (2.0, 2.0, 2.0, 40.0)
    ship = BeamdumpAlp(geometry="ship-like", x_max=2.5).geometry
    assert (ship.x_max, ship.end_x_max) == (2.5, 1.95)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma_angle": "1 m"}, r"'sigma_angle'.*\[rad\].*'1 m'"),
        ({"sigma_angle": 2.0}, r"accepted: \[0, 0.5\]"),
        ({"z_cal": 20.0}, "z_max = 35, z_cal = 20"),
        ({"x_min": 2.0}, "x_min < x_max"),
        ({"min_events": 4}, "min_events = 4 is above events = 3"),
        ({"geometry": "offaxis"}, "'off-axis'"),
        ({"sigma_energy": 0.1}, "Did you mean 'sigma_e'"),
    ],
)
def test_bad_options_are_explained(options, message):
    with pytest.raises(OptionError, match=message):
        BeamdumpAlp(**options)


def test_observations_are_read(tmp_path, rng):
    simulator = BeamdumpAlp()
    x = simulator.simulate(simulator.theta("m1")[None], rng)[0]
    names = "E1,E2,x1,y1,x2,y2,theta1,theta2,phi1,phi2"
    values = x[:, :10].astype(float)
    values[:, [0, 1, 6, 7]] = np.exp(values[:, [0, 1, 6, 7]])
    lines = [names, *(",".join(f"{v:.9g}" for v in row) for row in values)]
    file = tmp_path / "events.csv"
    file.write_text("\n".join(lines))
    np.testing.assert_allclose(simulator.read_observation(file), x, rtol=1e-6)
    derived = BeamdumpAlp(derived=True).read_observation(file)
    assert derived.shape == (3, 18)
    np.testing.assert_allclose(derived[:, :10], x[:, :10], rtol=1e-6)

    file.write_text("\n".join(lines[:3]))
    with pytest.raises(ObservationError, match="has 2 events, .* at least 3"):
        simulator.read_observation(file)
    with pytest.raises(ObservationError, match="has 2 events, .* at most 1; set the option"):
        BeamdumpAlp(events=1).read_observation(file)
    assert BeamdumpAlp(min_events=1).read_observation(file)[:, -1].tolist() == [1, 1, 0]
    with pytest.raises(ContractError, match="amortized"):
        BeamdumpAlp(detector="amortized").read_observation(file)
    file.write_text("E1,E2\n1,2\n")
    with pytest.raises(ObservationError, match="missing: x1"):
        simulator.read_observation(file)
    file.write_text("\n".join([names, "-1" + lines[1][lines[1].index(",") :]]))
    with pytest.raises(ObservationError, match="event 1 .*: E1 = -1; it must be positive"):
        BeamdumpAlp(events=1).read_observation(file)


def test_summaries_are_named(simulator, rng):
    x = simulator.simulate(simulator.prior.sample(10, rng), rng)
    assert simulator.summary_statistics(x).shape == (10, len(SUMMARIES))
