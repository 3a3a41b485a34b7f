"""The problems of sbibm: the simulators do as published, and the reference draws are exact."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from sbi_physics.errors import ContractError
from sbi_physics.testing import (
    SIMULATOR_CHECKS,
    ReferencePoint,
    ToyMixture,
    ToySlcp,
    ToyTwoMoons,
    benchmark_posteriors,
    conformance,
)
from sbi_physics.testing.posterior_checks import (
    densities_are_normalised,
    densities_match_draws,
    one_pass_equals_separate_calls,
)

IN_PROCESS = [c for c in SIMULATOR_CHECKS if c.__name__ != "works_in_another_process"]
DENSITY = (densities_are_normalised, densities_match_draws, one_pass_equals_separate_calls)

TANH = np.tanh(0.6)


@conformance(IN_PROCESS, ToyTwoMoons)
def test_two_moons(check):
    check()


@conformance(
    IN_PROCESS,
    ToyMixture,
    # Variance of an equal mixture of sigma 1 and 0.1.
    reference_points=[ReferencePoint("centre", (0.0, 0.0), (0.505**0.5,) * 2, draws=4000)],
)
def test_mixture(check):
    check()


@conformance(
    # Its draws are slow to accept: fewer are ranked below.
    [c for c in IN_PROCESS if c.__name__ != "reference_posterior_fits_the_simulator"],
    ToySlcp,
    reference_points=[ReferencePoint("correlated", (0.7, -2.9) * 4, (1.0, 0.81) * 4, draws=2000)],
)
def test_slcp(check):
    check()


@conformance(DENSITY, lambda: ToyTwoMoons().reference_posterior())
def test_two_moons_posterior(check):
    check()


@conformance(DENSITY, lambda: ToyMixture().reference_posterior())
def test_mixture_posterior(check):
    check()


@pytest.mark.parametrize("toy", [ToyMixture(), ToySlcp()], ids=lambda toy: toy.name)
def test_posterior_is_proportional_to_the_likelihood(toy):
    rng = np.random.default_rng(1)
    posterior = toy.reference_posterior()
    x = toy.simulate(toy.prior.sample(50, rng), rng)
    constants = []
    for _ in range(2):
        theta = toy.prior.sample(50, rng)
        constants.append(
            toy.log_likelihood(x, theta) - posterior.log_prob(theta[:, None], x)[:, 0]
        )
    # Likelihoods span some 1e5 nats; they are sums of a few dozen rounded terms.
    np.testing.assert_allclose(constants[0], constants[1], rtol=1e-9, atol=1e-6)


def test_two_moons_noise_is_a_crescent_about_a_folded_rotation():
    toy, rng = ToyTwoMoons(), np.random.default_rng(2)
    theta = toy.prior.sample(4000, rng)
    centre = np.stack([-np.abs(theta.sum(axis=1)), theta[:, 1] - theta[:, 0]], axis=1) / 2**0.5
    noise = toy.simulate(theta, rng) - centre - (0.25, 0.0)
    radius, angle = np.hypot(*noise.T), np.arctan2(noise[:, 1], noise[:, 0])
    assert stats.kstest(radius, stats.norm(0.1, 0.01).cdf).pvalue > 1e-4
    assert stats.kstest(angle, stats.uniform(-np.pi / 2, np.pi).cdf).pvalue > 1e-4


def test_slcp_axes_are_correlated():
    toy, rng = ToySlcp(), np.random.default_rng(3)
    theta = np.tile([0.7, -2.9, -1.0, -0.9, 0.6], (4000, 1))
    points = toy.simulate(theta, rng).reshape(-1, 2)
    # The error of a correlation of 16 000 pairs is at most 1 / sqrt(16 000) = 0.008.
    assert np.corrcoef(points.T)[0, 1] == pytest.approx(TANH, abs=0.04)
    apart = toy.simulate(theta, rng)
    assert abs(np.corrcoef(apart[:, 0], apart[:, 2])[0, 1]) < 0.08


def test_slcp_truths_are_ranked_uniformly_among_the_draws():
    toy, rng = ToySlcp(), np.random.default_rng(6)
    theta = toy.prior.sample(400, rng)
    draws = toy.reference_posterior().sample(toy.simulate(theta, rng), 63, rng)
    # Ranks of theta, and of the products that two signs and a correlation decide.
    for pairs, points in (
        (theta, draws),
        (theta[:, 2:4] ** 2 * theta[:, 4:], draws[..., 2:4] ** 2 * draws[..., 4:]),
    ):
        rank = (points < pairs[:, None]).sum(axis=1)
        smooth = (rank + rng.random(rank.shape)) / 64
        assert stats.kstest(smooth, "uniform").pvalue.min() > 1e-4


def test_slcp_draws_agree_with_importance_sampling():
    """Moments of exact draws against prior points weighted by the likelihood."""
    toy, rng = ToySlcp(), np.random.default_rng(4)
    theta = np.array([[0.5, -0.5, 1.4, -1.2, 0.3]])
    x = toy.simulate(theta, rng)
    pool = toy.prior.quasi_sample(2**18, rng)
    log_weight = toy.reference_posterior().log_prob(pool, x)[0]
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    ess = 1 / (weight**2).sum()
    assert ess > 100
    draws = toy.reference_posterior().sample(x, 4000, rng)[0]

    def quantities(points):
        size = np.abs(points[:, 2:4])
        products = points[:, [0]] * points[:, [1]], size[:, [0]] * points[:, [4]]
        return np.hstack([points, size, size**2, *products])

    expected, values = quantities(pool), quantities(draws)
    mean = weight @ expected
    sd = np.sqrt(weight @ (expected - mean) ** 2)
    z = (values.mean(axis=0) - mean) / (sd * np.sqrt(1 / ess + 1 / len(draws)))
    assert np.abs(z).max() < 4.5  # eleven quantities; the pool is only more even than random
    assert (draws[:, 2] > 0).mean() == pytest.approx(0.5, abs=0.04)  # five binomial errors


def test_all_parameters_are_inferred_under_the_whole_prior():
    toy = ToySlcp()
    with pytest.raises(ContractError, match="not known"):
        toy.exact_posterior(toy.prior, ("theta_1",))


def test_an_impossible_observation_is_refused(monkeypatch):
    monkeypatch.setattr(benchmark_posteriors, "_MAX_PROPOSALS", 1000)
    with pytest.raises(ContractError, match="none lies inside the prior"):
        ToyTwoMoons().reference_posterior().sample([[0.0, 9.0]], 10, np.random.default_rng(5))
