"""Separations of hypotheses, against closed forms and toys."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from sample_likelihoods import GaussianModel, counting_model, peak_model, peak_pool

from sbi_physics.errors import ContractError, ValidationError
from sbi_physics.likelihood import EventPool, FunctionModel, LikelihoodRatio, separation


def gaussian_pool(n=200_000, events=50.0):
    model = GaussianModel(np.eye(1), events=events)
    return model, EventPool(model, np.random.default_rng(1).normal(size=(n, 1)))


def test_a_gaussian_mean_is_separated_by_the_mean_over_its_error():
    model, pool = gaussian_pool()
    points = np.array([[0.02], [-0.05], [0.3]])
    mu, n = points[:, 0], 50.0
    # d = mu x - mu^2/2: moments under mu of the sum over a Poisson number of events
    exact = np.sqrt(n) * mu**2 / np.sqrt(mu**2 + mu**4 / 4)
    found = separation(LikelihoodRatio(model), pool, [0.0], points)[0]
    # slope of the pool's mean: relative error 1/sqrt(2e5) of mu's unit, 0.0022 in the variance
    np.testing.assert_allclose(found, exact, rtol=5 * 0.0022)


def test_rates_alone_are_separated_as_numbers_are():
    model = counting_model()
    pool = EventPool(model, np.zeros((10, 1)))
    found = separation(LikelihoodRatio(model, terms="rate"), pool, [0.0], [[1.0], [2.0]])[0]
    np.testing.assert_allclose(found, [10 / np.sqrt(30), 20 / np.sqrt(40)])
    extended = separation(LikelihoodRatio(model), pool, [0.0], [[1.0], [2.0]])[0]
    np.testing.assert_allclose(extended, found)
    shape = separation(LikelihoodRatio(model, terms="shape"), pool, [0.0], [[1.0]])[0]
    np.testing.assert_allclose(shape, 0.0, atol=1e-12)


def test_the_value_is_that_of_toys():
    model = peak_model()
    pool, _ = peak_pool(100_000, 4, model)
    likelihood, theta, n = LikelihoodRatio(model), np.array([0.5]), 400
    means, spread = [], 0.0
    for point in ([0.0], theta):
        toys = pool.toys(point, n, np.random.default_rng(5))
        sums = np.array([model.summed(theta[None], toy.events, None)[0] for toy in toys])
        means.append(sums.mean())
        spread = sums.std(ddof=1)
    found = separation(likelihood, pool, [0.0], theta[None])[0, 0]
    # two means of n toys and a spread: errors sqrt(2/n) and Z/sqrt(2n)
    error = np.sqrt(2 / n + found**2 / (2 * n))
    assert found == pytest.approx((means[1] - means[0]) / spread, abs=4 * error)


def test_scaled_logarithms_are_as_good_and_noisy_ones_are_worse():
    model, pool = gaussian_pool(40_000)

    def with_logs(change):
        wrong = FunctionModel(
            model.prior,
            lambda theta, x: change(model.log_ratio(theta, x), theta, x),
            model.expected,
        )
        return separation(LikelihoodRatio(wrong), pool, [0.0], [[0.1]])[0, 0]

    exact = separation(LikelihoodRatio(model), pool, [0.0], [[0.1]])[0, 0]
    assert with_logs(lambda log, theta, x: 3 * log) == pytest.approx(exact)
    # a part that knows nothing of theta, as large as the right one: variance doubles
    noise = np.random.default_rng(2).normal(size=len(pool))
    noisy = with_logs(lambda log, theta, x: log + 0.1 * (theta != 0) * noise)
    assert noisy == pytest.approx(exact / np.sqrt(2), rel=0.05)


def test_resamples_scatter_as_independent_pools_do():
    model = peak_model()
    values, errors = [], []
    for seed in range(30):
        pool, _ = peak_pool(2000, 100 + seed, model)
        found = separation(LikelihoodRatio(model), pool, [0.0], [[0.6]], resamples=100)[:, 0]
        values.append(found[0])
        errors.append(found[1:].std(ddof=1))
    # thirty values know their spread to 13 %
    assert np.mean(errors) == pytest.approx(np.std(values, ddof=1), rel=4 * 0.13)


def test_floating_nuisances_are_refused():
    model, pool = gaussian_pool(10)
    with pytest.raises(ContractError, match="simple hypotheses"):
        separation(LikelihoodRatio(model, normalisation_sd=0.1), pool, [0.0], [[0.1]])
    with pytest.raises(ValidationError, match="got -1"):
        separation(LikelihoodRatio(model), pool, [0.0], [[0.1]], resamples=-1)
