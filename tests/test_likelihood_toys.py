"""Pools, toys, coverage and critical values, at known laws of the statistic."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import integrate, stats

sys.path.insert(0, str(Path(__file__).parent))
from sample_likelihoods import (
    ALPHA,
    B,
    GaussianModel,
    S,
    box,
    gaussian_model,
    peak_model,
    peak_pool,
    peak_ratio,
)

from sbi_physics.errors import ValidationError
from sbi_physics.likelihood import (
    EventPool,
    LikelihoodRatio,
    QuadraticModel,
    ToyStatistics,
    interval,
    run_toys,
)

N_TOYS = 400
BINOMIAL = 5  # standard deviations: a false alarm in 2e6 comparisons
SURE = 0.9999  # joint confidence of coverage intervals: a false alarm in 1e4 tests


def density(x, theta):
    return (stats.norm.pdf(x, 0, B) + theta**2 * stats.norm.pdf(x, ALPHA, S)) / (1 + theta**2)


def gaussian_pool(events_expected=20.0, n=20_000, seed=1, d=1):
    """Unit Gaussian events with unknown mean and a constant rate, and their model."""
    model = GaussianModel(np.eye(d), events=events_expected)
    x = np.random.default_rng(seed).normal(0, 1, (n, d))
    return model, EventPool(model, x, min_ess_ratio=20)


def test_pools_stand_for_other_parameters():
    pool, x = peak_pool(40_000, 1)
    for theta in (0.0, 0.7, 2.0):
        w = pool.weights(theta)
        assert w.sum() == pytest.approx(200 * (1 + theta**2))
        below = w[x < 1].sum() / w.sum()
        exact = integrate.quad(density, -20, 1, args=(theta,))[0]
        # weights of a ratio estimate: at least the effective size's binomial error
        error = np.sqrt(exact * (1 - exact) / pool.effective_size(theta))
        assert below == pytest.approx(exact, abs=BINOMIAL * error)


def test_asimov_sets_give_the_expected_statistic():
    # t_A = 2 int [lambda_a - lambda_0 + lambda_0 ln(lambda_0/lambda_a)], arXiv:1007.1727
    model = peak_model()
    pool, _ = peak_pool(200_000, 2, model)
    truth, theta = 0.5, np.array([[0.0], [0.3], [1.0]])
    found = LikelihoodRatio(model).statistic(theta, pool.asimov(truth))
    nu = 200 * (1 + truth**2)

    def mean_log(t):
        def integrand(x):
            return density(x, truth) * np.log(
                (1 + t**2 * peak_ratio(x)) / (1 + truth**2 * peak_ratio(x))
            )

        return integrate.quad(integrand, -12, 12, limit=200)[0]

    exact = [2 * (200 * (1 + t[0] ** 2) - nu - nu * mean_log(t[0])) for t in theta]
    # The mean of ln R over 2e5 events: its spread is below 1, so 2 nu / sqrt(n_eff) = 1.3 at most,
    # but rate and shape of one sample fluctuate together; 3 % holds with room (measured 0.6 %).
    np.testing.assert_allclose(found, exact, rtol=0.03, atol=0.05)


def test_toys_have_poisson_sizes_and_the_right_mean():
    pool, _ = peak_pool(40_000, 3)
    toys = list(pool.toys(1.0, 300, np.random.default_rng(1)))
    sizes = np.array([toy.total for toy in toys])
    assert sizes.mean() == pytest.approx(400, abs=BINOMIAL * 20 / np.sqrt(300))
    assert sizes.std() == pytest.approx(20, rel=BINOMIAL / np.sqrt(600))
    mean = np.concatenate([toy.events[:, 2] for toy in toys]).mean()
    exact = integrate.quad(lambda x: density(x, 1.0) * peak_ratio(x), -12, 12)[0]
    n = pool.effective_size(1.0)  # the pool itself fluctuates
    assert mean == pytest.approx(exact, abs=BINOMIAL * 3.0 / np.sqrt(min(n, sizes.sum())))


def test_a_starved_pool_is_refused():
    # Narrow signals far away: a sample of background hardly has any.
    model = peak_model()
    x = np.random.default_rng(1).normal(0, B, 30_000)
    far = np.stack(
        [np.ones_like(x), np.zeros_like(x), stats.norm.pdf(x, 4, 0.2) / stats.norm.pdf(x, 0, B)],
        axis=1,
    )
    pool = EventPool(model, far)
    next(pool.toys(0.0, 1, np.random.default_rng(1)))
    with pytest.raises(ValidationError, match=r"effective pool of 50 times as many.*mixture"):
        next(pool.toys(2.0, 1, np.random.default_rng(1)))


def test_asymptotic_regions_cover_where_wilks_holds():
    for d in (1, 2):
        model, pool = gaussian_pool(d=d)
        toys = run_toys(LikelihoodRatio(model), pool, np.zeros((1, d)), n_toys=200, seed=1)
        found = toys.coverage((0.683, 0.954), confidence=SURE)
        assert not found.undercovers.any()
        assert not found.overcovers.any()
        # t is chi2 exactly, whatever the number of events
        assert stats.kstest(toys.statistic[0], stats.chi2(d).cdf).pvalue > 1e-4


def test_profiling_leaves_one_degree_of_freedom():
    model, pool = gaussian_pool(d=2)
    toys = run_toys(
        LikelihoodRatio(model), pool, np.zeros((1, 2)), interest=["mu_1"], n_toys=100, seed=2
    )
    assert toys.names == ("mu_1",)
    assert stats.kstest(toys.statistic[0], stats.chi2(1).cdf).pvalue > 1e-4
    held = run_toys(
        LikelihoodRatio(model), pool, np.zeros((1, 2)), held={"mu_2": 0.0}, n_toys=100, seed=2
    )
    assert stats.kstest(held.statistic[0], stats.chi2(1).cdf).pvalue > 1e-4


def test_wilks_over_covers_where_only_the_square_matters_and_neyman_does_not():
    # At theta = 0 the estimate of theta^2 sits at its bound in half of the toys:
    # t is 0 or chi2_1, each with probability 1/2.
    model = peak_model(events=400.0)
    pool, _ = peak_pool(80_000, 4, model)
    ratio = LikelihoodRatio(model)
    toys = run_toys(ratio, pool, [[0.0]], n_toys=N_TOYS, seed=3)
    found = toys.coverage((0.683,), confidence=SURE)
    assert found.overcovers.all()
    exact = 0.5 + 0.5 * 0.683
    # the normal limit at a few dozen effective signal events: 0.03 beside the binomial error
    error = np.sqrt(exact * (1 - exact) / N_TOYS)
    assert found.coverage[0, 0] == pytest.approx(exact, abs=BINOMIAL * error + 0.03)
    limit = toys.quantile(0.683)[0][0]
    assert limit < 0.6  # chi2: 1.0
    fresh = run_toys(ratio, pool, [[0.0]], n_toys=N_TOYS, seed=4)
    inside = (fresh.statistic[0] <= limit).mean()
    error = np.sqrt(0.683 * 0.317 * 2 / N_TOYS)  # both samples
    assert inside == pytest.approx(0.683, abs=BINOMIAL * error)


def test_an_uncertain_normalisation_keeps_its_coverage():
    # A rate of 1000 known to 5 %: without the nuisance a 3 % sharp rate would miss the truth.
    prior = box("theta", half=2.0)
    model = QuadraticModel(prior, [1.0, 0.3, 0.2], 1000.0)
    events = np.tile([1.0, 0.3, 0.2], (60_000, 1))
    pool = EventPool(model, events)
    ratio = LikelihoodRatio(model, normalisation_sd=0.05)
    toys = run_toys(ratio, pool, [[0.2]], n_toys=200, seed=5)
    found = toys.coverage((0.683,), confidence=SURE)
    assert not found.undercovers.any()
    assert not found.overcovers.any()
    # width from the constraint: sd of theta is 5 % / slope, sqrt(0.05^2 + 1/1000)
    slope = (2 * 0.3 + 2 * 0.2 * 0.2) / (1 + 0.6 * 0.2 + 0.2 * 0.04)
    expected = np.hypot(0.05, 1 / np.sqrt(1128)) / slope
    assert toys.best[0].std() == pytest.approx(expected, rel=BINOMIAL / np.sqrt(2 * 200))


def test_critical_values_of_several_points_make_a_threshold():
    model, pool = gaussian_pool(n=40_000)
    points = np.array([[-0.4], [0.0], [0.4]])
    toys = run_toys(LikelihoodRatio(model), pool, points, n_toys=200, seed=6)
    quantile, low, high = toys.quantile(0.9)
    exact = stats.chi2(1).ppf(0.9)
    assert ((low <= quantile) & (quantile <= high)).all()
    # order statistics of 200 toys: sd sqrt(q (1 - q) / n) / f
    sd = np.sqrt(0.09 / 200) / stats.chi2(1).pdf(exact)
    np.testing.assert_allclose(quantile, exact, atol=4 * sd)
    at = toys.threshold(0.9)
    np.testing.assert_allclose(at(points), quantile)
    x = np.random.default_rng(7).normal(0.1, 1, (20, 1))
    found = interval(LikelihoodRatio(model), x, "mu_1", threshold=at, level=0.9)
    half = np.sqrt(at(np.array([[found.high]]))[0] / 20)
    assert found.high == pytest.approx(x.mean() + half, abs=1e-5)
    fitted = toys.threshold(0.9, degree=0)(points)
    np.testing.assert_allclose(fitted, exact, atol=4 * sd)


def test_records_survive_json_and_seeds_repeat():
    model, pool = gaussian_pool()
    ratio = LikelihoodRatio(model)
    toys = run_toys(ratio, pool, [[0.1]], n_toys=20, seed=8)
    again = ToyStatistics.from_dict(json.loads(toys.to_json()))
    np.testing.assert_array_equal(again.statistic, toys.statistic)
    assert again.names == toys.names
    np.testing.assert_array_equal(
        run_toys(ratio, pool, [[0.1]], n_toys=20, seed=8).statistic, toys.statistic
    )
    assert run_toys(ratio, pool, [[0.1]], n_toys=1).seed >= 0


def test_bad_pools_and_toys_are_refused():
    model, pool = gaussian_pool()
    ratio = LikelihoodRatio(model)
    with pytest.raises(ValidationError, match="as many labels, events and weights"):
        EventPool(model, np.zeros((3, 1)), weight=np.ones(2))
    with pytest.raises(ValidationError, match="not negative"):
        EventPool(model, np.zeros((3, 1)), weight=-np.ones(3))
    with pytest.raises(ValidationError, match="give the truth a rate"):
        EventPool(gaussian_model(np.eye(1)), np.zeros((3, 1))).weights(0.0)
    with pytest.raises(ValidationError, match=r"held at 0\.5, but points"):
        run_toys(ratio, pool, [[0.1]], held={"mu_1": 0.5})
    with pytest.raises(ValidationError, match="outside the box"):
        run_toys(ratio, pool, [[4.0]])
    with pytest.raises(ValidationError, match="20 toys cannot give the 0.99 quantile"):
        run_toys(ratio, pool, [[0.0]], n_toys=20, seed=1).quantile(0.99)
