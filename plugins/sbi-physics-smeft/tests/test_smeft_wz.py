"""The WZ simulator: labels, selection, rates and options."""

from __future__ import annotations

import numpy as np
import pytest
from sbi_physics_smeft import detector
from sbi_physics_smeft.conventions import pack, ratio, sampling_ratio
from sbi_physics_smeft.smeft_wz import SmeftWz
from scipy import stats

from sbi_physics.errors import ContractError, ObservationError, OptionError

N = 60_000
SM = np.zeros((N, 3))


@pytest.fixture(scope="module")
def wz():
    return SmeftWz()


def test_labels_at_parton_level_follow_from_the_data_alone():
    for level in ("full", "production"):
        simulator = SmeftWz(level="parton", label_level=level)
        rng = np.random.default_rng(1)
        theta = simulator.prior.sample(2000, rng)
        z = simulator.simulate_latent(theta, rng)
        x = simulator.observe(z, theta, rng)
        gram = simulator.labels(z)["gram"]
        # Data are float32: 1e-6 of the largest amplitude, far more where the SM one vanishes.
        scale = np.sqrt(np.einsum("naa->na", gram))
        difference = np.abs(simulator.exact_gram(x) - gram) / scale[:, :, None] / scale[:, None]
        assert np.quantile(difference, 0.99) < 1e-3
        assert np.median(difference) < 1e-5
    with pytest.raises(ContractError, match="parton"):
        SmeftWz().exact_gram(np.ones((1, 20)))


def test_acceptance_is_the_documented_one_and_selected_events_have_its_mean_labels(wz):
    # 0.339 from 160 000 events of another implementation; ours from 400 000.
    assert wz.acceptance() == pytest.approx(0.339, abs=0.004)
    rng = np.random.default_rng(2)
    raw = wz._draw(np.tile([1.0, 0, 0, 0], (N, 1)), rng)
    passed = detector.passes(raw["momenta"], rng)
    error = np.sqrt(0.34 * 0.66 / N)
    assert passed.mean() == pytest.approx(wz.acceptance(), abs=4.5 * error + 1e-3)
    # Linear labels of selected events have light enough tails.
    z = wz.simulate_latent(SM, rng)
    gram = wz.labels(z)["gram"]
    for entry in ((0, 1), (0, 3)):
        values = gram[:, entry[0], entry[1]]
        assert values.mean() == pytest.approx(
            wz.fiducial_gram()[entry], abs=4.5 * values.std() / np.sqrt(N)
        )
    # Selected events drawn directly and by rejecting unselected ones are the same.
    assert stats.ks_2samp(z["sqrt_s"], raw["sqrt_s"][passed]).pvalue > 1e-4
    assert stats.ks_2samp(z["sqrt_s"], raw["sqrt_s"]).pvalue < 1e-6


def test_observing_again_is_exact_although_events_are_selected(wz):
    # Data made the plain way: draw, smear once, keep what passes.
    rng = np.random.default_rng(3)
    raw = wz._draw(np.tile([1.0, 0, 0, 0], (N, 1)), rng)
    features = detector.observe(raw["momenta"], raw["charge"], rng, selection=False)
    pt, eta = np.exp(features[:, [1, 5, 9]]), features[:, [2, 6, 10]]
    kept = (pt[:, 0] > 20) & (pt[:, 1:].min(1) > 15) & (np.abs(eta).max(1) < 2.5)
    kept &= np.abs(features[:, 16]) * 91.2 < 10
    kept &= np.exp(features[:, 18]) - 1 > 30
    z = wz.simulate_latent(SM[:20_000], rng)
    for _ in range(2):
        x = wz.observe(z, SM[:20_000], rng)
        assert np.isfinite(x).all()
        for column in range(1, 20):
            assert stats.ks_2samp(x[:, column], features[kept, column]).pvalue > 1e-5


def test_features_scatter_around_those_of_the_true_event():
    momenta = np.array([[[40.0, 0, 10], [-30, 5, 0], [0, 35, -20], [-5, -45, 3]]])
    noisy = detector.observe(
        np.repeat(momenta, 4000, axis=0), np.ones(4000), np.random.default_rng(0), selection=False
    )
    named = dict(zip(detector.FEATURES, np.median(noisy, axis=0), strict=True))
    z = momenta[0, 2] + momenta[0, 3]
    e = np.linalg.norm(momenta[0, 2]) + np.linalg.norm(momenta[0, 3])
    phi_z = np.arctan2(z[1], z[0])
    assert named["ln_pt_l"] == pytest.approx(np.log(40), abs=1e-3)
    assert named["eta_lm"] == pytest.approx(np.arcsinh(-20 / 35), abs=1e-3)
    assert named["cos_lp"] == pytest.approx(np.cos(np.arctan2(-45, -5) - phi_z), abs=0.02)
    assert named["m_ll"] == pytest.approx(np.sqrt(e**2 - z @ z) / 91.2 - 1, abs=2e-3)
    assert named["ln_pt_z"] == pytest.approx(np.log(np.hypot(*z[:2]) + 1), abs=0.02)
    met = np.exp(noisy[:, 13]) - 1
    assert np.sqrt(np.mean(met**2)) == pytest.approx(np.sqrt(925 + 2 * 144), rel=0.03)
    assert named["charge"] == 1


def test_expected_events_are_the_quadratic_in_the_coefficients(wz):
    free = SmeftWz(selection=False)
    assert free.expected_events(np.zeros((1, 3)))[0] == pytest.approx(131_588, rel=5e-4)
    theta = np.array([[0.5, 0.05, 0.02], [-1, 0, 0]])
    assert free.expected_events(theta) == pytest.approx(
        131_588 * ratio(free.inclusive_gram(), theta), rel=5e-4
    )
    half = SmeftWz(luminosity=150.0, k_factor=1.8)
    assert half.expected_events(theta) == pytest.approx(0.9 * wz.expected_events(theta))


@pytest.mark.parametrize("proposal", ["theta", "mixture"])
def test_the_sampling_matrix_holds_after_selection(wz, proposal):
    simulator = SmeftWz(proposal=proposal)
    rng = np.random.default_rng(4)
    z = simulator.simulate_latent(simulator.prior.sample(N, rng), rng)
    q = sampling_ratio(simulator.labels(z)["gram"], simulator.sampling_matrix())
    labels = z["gram"] / q[:, None]
    assert (1 / q).max() < 2.1
    expected = pack(simulator.fiducial_gram())
    error = labels.std(axis=0) / np.sqrt(N) + 3e-3 * np.abs(expected)  # that of `expected`
    pull = (labels.mean(axis=0) - expected) / error
    # SM, and the entries that the sample covers: in `theta`, large coefficients are rare.
    assert np.abs(pull).max() < 4.5


def test_a_data_set_is_drawn_at_its_own_coefficients():
    simulator = SmeftWz(luminosity=80.0, proposal="sm")
    rng = np.random.default_rng(5)
    theta = np.array([0.0, 0.2, 0.2])
    expected = simulator.expected_events(theta[None])[0]
    x = simulator.event_set(theta, rng)
    assert len(x) == pytest.approx(expected, abs=5 * np.sqrt(expected))
    own = SmeftWz().simulate(np.tile(theta, (len(x), 1)), rng)
    assert stats.ks_2samp(x[:, 19], own[:, 19]).pvalue > 1e-4
    assert stats.ks_2samp(x[:, 19], SmeftWz().simulate(SM, rng)[:, 19]).pvalue < 1e-4


def test_the_summary_is_the_transverse_mass(wz):
    x = wz.simulate(SM[:50], np.random.default_rng(6))
    summary = wz.summary_statistics(x)
    assert summary.shape == (50, 1)
    assert summary[:, 0] == pytest.approx(x[:, 19])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_mass": 20_000.0}, ContractError, "max_mass < max_mass|ordered"),
        ({"label_level": "fulll"}, OptionError, "'full' or 'production'"),
        ({"luminosity": 0.0}, OptionError, r"luminosity.*accepted: \(0"),
        ({"mixture_points": ((1.0,),)}, OptionError, "3 .*C_HWB"),
        ({"mixture_points": ((50.0, 0.0, 0.0),)}, ContractError, "C_HWB"),
    ],
)
def test_wrong_options_are_explained(options, error, message):
    with pytest.raises(error, match=message):
        SmeftWz(**options)


def test_wrong_parton_data_are_refused():
    with pytest.raises(ObservationError, match="shape"):
        SmeftWz(level="parton").exact_gram(np.ones((2, 4)))
