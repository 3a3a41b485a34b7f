"""The classical analysis: statistics against gammapy's, fits against truth and errors."""

from __future__ import annotations

import numpy as np
import pytest
from sbi_physics_alp.baseline import Baseline, combine_fields, excluded
from sbi_physics_alp.instruments import Counts, OnAndOff
from sbi_physics_alp.ngc1275 import AlpNgc1275
from sbi_physics_alp.on_off import hess_like_response
from sbi_physics_alp.pks2155 import AlpPks2155

from sbi_physics.errors import ContractError

CHEAP = {
    "true_bins_per_decade": 50,
    "energy_min": "50 GeV",
    "energy_max": "5 TeV",
    "reco_bins": 60,
}


@pytest.fixture(scope="module")
def simulator():
    return AlpNgc1275(exposure="10 h", r_abell=100.0, cell_mode="compat", **CHEAP)


def observed(simulator, point, seed=1, realisation=3):
    fixed = type(simulator)(**{**simulator.options.model_dump(), "realisation": realisation})
    return fixed.simulate(fixed.theta(point)[None], np.random.default_rng(seed))[0]


@pytest.mark.filterwarnings("ignore")  # third parties
def test_cash_and_w_are_those_of_gammapy(simulator, rng):
    from gammapy.stats import cash, wstat

    counts = simulator.observation_model
    assert isinstance(counts, Counts)
    signal = rng.gamma(2.0, 5.0, size=(4, 60))
    x = rng.poisson(signal[0] + counts.response.background).astype(float)
    mu = signal + counts.response.background
    # gammapy's cash leaves out what does not depend on mu; ours is relative to the data.
    theirs = (cash(x, mu) - cash(x, np.maximum(x, 1e-25))).sum(axis=1)
    np.testing.assert_allclose(counts.statistic(x, signal), theirs, rtol=1e-9)
    model = OnAndOff(hess_like_response(), sub_bins=1)
    n_on, n_off = rng.poisson([[3], [20]], size=(2, 8)).astype(float)
    n_off[0] = n_on[1] = 0.0
    signal = rng.gamma(2.0, 1.0, size=(5, 8))
    theirs = wstat(n_on, n_off, np.full(8, 1 / 12), signal).sum(axis=1)
    found = model.statistic(np.stack([n_on, n_off]), signal)
    np.testing.assert_allclose(found, theirs, rtol=1e-8)


def test_the_fit_finds_the_spectrum_with_its_errors(simulator):
    truth = simulator.theta("no-alp")[2:5]
    pulls = []
    for seed in range(8):
        baseline = Baseline(simulator, observed(simulator, "no-alp", seed))
        fit = baseline.fit(baseline.without_alps)
        assert fit.converged
        pulls.append((fit.values - truth) / fit.errors)
        assert fit.statistic < 60 + 5 * np.sqrt(120)
    # 8 observations, 3 correlated pulls of unit variance each.
    assert np.abs(pulls).max() < 4.0
    assert 0.4 < np.std(pulls) < 1.7


def test_the_likelihood_prefers_the_field_and_coupling_that_made_the_data(simulator):
    baseline = Baseline(simulator, observed(simulator, "m30-g2", realisation=3))
    found = baseline.profile([30.0], [0.0, 2.0], seeds=[3, 4])
    assert found.shape == (2, 1, 2)
    assert found[0, 0, 1] < 60 + 5 * np.sqrt(120)
    assert found[0, 0, 0] - found[0, 0, 1] > 50.0  # no ALPs
    assert found[1, 0, 1] - found[0, 0, 1] > 50.0  # another field
    assert found[1, 0, 0] == pytest.approx(found[0, 0, 0], abs=0.05)  # no coupling, no field


def test_on_and_off_counts_have_a_baseline_too():
    simulator = AlpPks2155(exposure="100 h")
    x = simulator.simulate(simulator.theta("no-alp")[None], np.random.default_rng(1))[0]
    baseline = Baseline(simulator, x)
    fit = baseline.fit(baseline.without_alps)
    assert fit.converged
    assert np.abs((fit.values - simulator.theta("no-alp")[2:5]) / fit.errors).max() < 4.0


def test_fields_are_combined_by_the_best_of_them():
    statistic = np.arange(21.0)[:, None, None] * np.ones((1, 2, 2))
    np.testing.assert_allclose(combine_fields(statistic, 0.95), 1.0)
    np.testing.assert_allclose(combine_fields(statistic, 1.0), 0.0)
    assert excluded(np.array([[0.0, 5.9, 6.1]])).tolist() == [[False, False, True]]
    with pytest.raises(ContractError, match="quantile is a probability; got 95"):
        combine_fields(statistic, 95)
    for shape in ((0, 2, 2), (2, 2)):
        with pytest.raises(ContractError, match=r"accepted is \(n_fields, n_m, n_g\) with"):
            combine_fields(np.zeros(shape))


def test_a_negative_seed_is_refused(simulator):
    baseline = Baseline(simulator, np.zeros(60))
    for call in (
        lambda: baseline.survival(30.0, 1.0, -1),
        lambda: baseline.profile([30.0], [1.0], seeds=[0, -1]),
        lambda: baseline.sample_spectrum(10, seed=-1),
    ):
        with pytest.raises(ContractError, match="the seed is -1; accepted is an integer from 0"):
            call()


def test_a_varied_cluster_has_no_baseline():
    simulator = AlpNgc1275(free=["b0"], **CHEAP)
    with pytest.raises(ContractError, match="fixed cluster; b0 vary"):
        Baseline(simulator, np.zeros(60))


def test_chains_agree_with_the_fit_where_data_are_plenty(simulator):
    pytest.importorskip("emcee", reason="emcee makes the chains")
    baseline = Baseline(simulator, observed(simulator, "no-alp"))
    fit = baseline.fit(baseline.without_alps)
    draws = baseline.sample_spectrum(1600, seed=1, burn_in=150, thin=5)
    # A few hundred independent draws: means to 0.1, widths to 5 % or so of themselves.
    shift = (draws.mean(axis=0) - fit.values) / fit.errors
    assert np.abs(shift).max() < 0.3
    np.testing.assert_allclose(draws.std(axis=0), fit.errors, rtol=0.2)
    again = [baseline.sample_spectrum(64, seed=1, burn_in=5, thin=1) for _ in range(2)]
    np.testing.assert_array_equal(*again)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(3))
def test_truncated_rounds_without_coupling_agree_with_the_chains(seed):
    pytest.importorskip("emcee", reason="emcee makes the chains")
    pytest.importorskip("sbi_physics_sbi", reason="the engine compared is sbi-npe")
    import sbi_physics as sp

    # 50 h of the flare: a quarter of a million counts, a posterior hundreds of times thinner than
    # the prior.
    simulator = AlpNgc1275(cell_mode="compat", **CHEAP)
    truth = dict(zip(simulator.parameters.names, simulator.theta("m30-g2"), strict=True))
    x = simulator.simulate(simulator.theta({**truth, "g": 0.0})[None], np.random.default_rng(seed))
    exact = np.log(Baseline(simulator, x[0]).sample_spectrum(32_000, seed=seed, thin=5))
    posterior = sp.truncate(
        simulator,
        x,
        "sbi-npe",
        rounds=5,
        simulations=8_000,
        final_simulations=64_000,
        epsilon=1e-4,
        infer=["amplitude", "index", "e_cut"],
        prior=sp.Prior(simulator.parameters.fix({"m_a": 30.0, "g": 0.0})),
        # Redrawn data cannot be overfitted; in so small a box posteriors are nearly normal.
        settings={
            "density_estimator": "zuko_maf",
            "max_epochs": 30,
            "learning_rate": 2e-3,
            "dropout": 0.0,
        },
        seed=1,
    )
    found = np.log(posterior.sample(x, 32_000, np.random.default_rng(5))[0])
    low, median, high = np.quantile(exact, [0.16, 0.5, 0.84], axis=0)
    quantiles = np.quantile(found, [0.16, 0.5, 0.84], axis=0)
    assert np.abs((quantiles[1] - median) / exact.std(axis=0)).max() < 0.1
    # The chains know widths to 1 %.
    assert (quantiles[2] - quantiles[0]) / (high - low) == pytest.approx(np.ones(3), abs=0.05)
