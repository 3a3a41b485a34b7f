"""Ratio posteriors: draws, densities and normalisation against closed forms."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import special, stats

sys.path.insert(0, str(Path(__file__).parent))
from sample_engines import BoxRatio

from sbi_physics.distributions import Normal, Uniform
from sbi_physics.errors import ContractError
from sbi_physics.observables import Observable
from sbi_physics.parameters import Parameter
from sbi_physics.posterior import PosteriorContext
from sbi_physics.priors import Prior
from sbi_physics.ratio import RatioPosterior, _Kernels, _raised


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def pairs(posterior: BoxRatio, n: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    generator = rng(seed)
    theta = posterior.prior.sample(n, generator)
    return theta, posterior.observable.check(
        theta + posterior.sd * generator.standard_normal(theta.shape)
    )


class Square(RatioPosterior):
    """x = theta^2 + noise, theta standard normal: two modes, one for each sign."""

    def __init__(self, sd):
        prior = Prior([Parameter("t", Normal(0.0, 1.0))])
        observable = Observable("vector", (1,), transform=())
        transform = observable.fit_transform(np.array([[0.0], [1.0]]))
        super().__init__(PosteriorContext("exact", prior, observable, transform=transform))
        self.sd = sd

    def _log_ratio(self, u, xt):
        theta = self.prior.from_unconstrained(u)
        theta = theta[None] if theta.ndim == 2 else theta
        return -0.5 * ((xt[:, None, 0] - theta[..., 0] ** 2) / self.sd) ** 2


# From a quarter of the prior to 1/50000 of it; most live on pools of their own.
WIDTHS = [(1, 0.5), (1, 0.004), (2, 0.3), (2, 4e-5), (5, 0.3), (5, 0.01), (8, 0.1)]


@pytest.mark.parametrize(("d", "sd"), WIDTHS)
def test_draws_follow_the_exact_posterior_however_narrow(d, sd):
    posterior = BoxRatio(d, sd)
    _, x = pairs(posterior, 8)
    draws = posterior.draw(x, 2000, rng(2))
    truth = posterior.truth(x)
    error = truth.std() * np.sqrt(1 / 2000 + 1 / draws.ess)[:, None]
    pull = (draws.theta.mean(axis=1) - truth.mean()) / error
    assert np.abs(pull).max() < 5
    assert 0.5 < np.std(pull) < 1.6
    assert abs((draws.theta.std(axis=1) / truth.std()).mean() - 1) < 0.03
    assert posterior.prior.contains(draws.theta).all()


@pytest.mark.parametrize(("d", "sd"), WIDTHS)
def test_densities_are_normalised_however_narrow(d, sd):
    posterior = BoxRatio(d, sd)
    theta, x = pairs(posterior, 8)
    found = posterior.log_prob(theta[:, None], x)[:, 0]
    assert np.allclose(found, posterior.truth(x).logpdf(theta).sum(axis=1), atol=0.1)


@pytest.mark.parametrize(("d", "sd"), [(2, 0.3), (2, 0.01), (5, 0.1)])
def test_enough_effective_points_stand_behind_the_draws(d, sd):
    posterior = BoxRatio(d, sd)
    draws = posterior.draw(pairs(posterior, 10)[1], 100, rng())
    assert draws.ess.shape == (10,)
    assert draws.ess.min() > 1000
    assert draws.ess.max() <= posterior.pool_size


def test_density_at_points_is_that_of_log_prob_and_of_the_draws():
    for sd in (0.4, 0.01):
        posterior = BoxRatio(2, sd)
        theta, x = pairs(posterior, 5)
        points = np.stack([theta, theta + 0.5 * sd, np.full((5, 2), 3.0)], axis=1)
        draws = posterior.draw(x, 50, rng(), log_prob=True, at=points)
        assert np.array_equal(draws.log_prob_at, posterior.log_prob(points, x))
        assert np.allclose(draws.log_prob, posterior.log_prob(draws.theta, x), atol=1e-6)
        assert (draws.log_prob_at[:, 2] == -np.inf).all()


def test_a_constant_in_the_ratio_changes_neither_draws_nor_densities():
    # Classifiers learn the ratio up to such errors; the pool takes them out.
    right, wrong = BoxRatio(2, 0.3), BoxRatio(2, 0.3, scale=4.0)
    theta, x = pairs(right, 4)
    assert np.allclose(right.sample(x, 20, rng()), wrong.sample(x, 20, rng()))
    assert np.allclose(right.log_prob(theta, x), wrong.log_prob(theta, x))
    assert np.allclose(right.log_ratio(theta, x) + 4.0, wrong.log_ratio(theta, x))


def test_log_ratio_is_what_was_learned():
    posterior = BoxRatio(1, 0.2)
    x = np.array([[0.3]])
    expected = stats.norm.logpdf(0.3, [0.1, 0.3], 0.2) - np.log(
        0.5 * (stats.norm.cdf(1, 0.3, 0.2) - stats.norm.cdf(-1, 0.3, 0.2))
    )
    assert np.allclose(posterior.log_ratio([[0.1], [0.3]], x)[0], expected, atol=1e-5)


@pytest.mark.parametrize("sd", [0.3, 0.002])
def test_both_modes_are_found_and_weighted(sd):
    posterior = Square(sd)
    draws = posterior.draw([[1.0], [2.25]], 4000, rng()).theta[..., 0]
    for row, centre in zip(draws, (1.0, 1.5), strict=True):
        assert abs((row > 0).mean() - 0.5) < 0.06
        # For small noise the modes are normal of width sd / (2 theta).
        if sd < 0.01:
            assert abs(np.abs(row).mean() - centre) < 1e-3
            assert abs(np.abs(row).std() / (sd / (2 * centre)) - 1) < 0.08


@pytest.mark.parametrize("sd", [0.4, 0.02])
def test_constraints_hold_for_draws_and_densities(sd):
    posterior = BoxRatio(2, sd, constraints=("t0 < t1",))
    x = np.array([[0.1, 0.1], [0.1, 0.12]])
    draws = posterior.draw(x, 3000, rng(), log_prob=True)
    assert (draws.theta[..., 0] < draws.theta[..., 1]).all()
    free = BoxRatio(2, sd).truth(x[:, None]).rvs((2, 40_000, 2), random_state=rng(3))
    for i in range(2):
        expected = free[i][free[i, :, 0] < free[i, :, 1]]
        share = len(expected) / 40_000
        for k in range(2):
            # Pool points repeat, so compare quantiles, not a test that assumes they do not.
            quantiles = np.linspace(0.05, 0.95, 19)
            difference = np.quantile(draws.theta[i, :, k], quantiles) - np.quantile(
                expected[:, k], quantiles
            )
            assert np.abs(difference).max() < 0.12 * sd
        inside = BoxRatio(2, sd).truth(x[i]).logpdf([0.05, 0.15]).sum() - np.log(share)
        assert np.allclose(posterior.log_prob([[0.05, 0.15]], x)[i], inside, atol=0.1)
    assert (posterior.log_prob([[0.2, 0.1]], x) == -np.inf).all()


def test_memory_stays_bounded_however_few_draws_are_asked_for():
    posterior = BoxRatio(2, 0.5)
    _, x = pairs(posterior, 40)
    largest = []
    kernel = posterior._log_ratio

    def watched(u, xt):
        largest.append(len(xt) * u.shape[-2])
        return kernel(u, xt)

    posterior._log_ratio = watched
    posterior.sample(x, 1, rng())
    posterior.log_prob(np.zeros((1, 2)), x)
    assert max(largest) <= 100_000


def test_pools_depend_on_the_seed_of_the_posterior_alone():
    one, two = BoxRatio(2, 0.01), BoxRatio(2, 0.01)
    theta, x = pairs(one, 3)
    one.sample(x, 10, rng(5))  # whatever was asked before
    assert np.array_equal(one.log_prob(theta, x), two.log_prob(theta, x))
    assert np.array_equal(one.log_prob(theta, x)[1:], two.log_prob(theta, x[1:]))


def test_a_small_pool_of_any_size_works():
    posterior = BoxRatio(2, 0.3, pool_size=1000)
    theta, x = pairs(posterior, 5)
    assert posterior.draw(x, 50, rng()).ess.min() > 50
    truth = posterior.truth(x).logpdf(theta).sum(axis=1)
    assert np.allclose(posterior.log_prob(theta[:, None], x)[:, 0], truth, atol=0.3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_ratios_that_are_not_finite_are_an_error_not_a_posterior(value):
    posterior = BoxRatio(1, 0.3)
    posterior._log_ratio = lambda u, xt: np.full((len(xt), u.shape[-2]), value)
    with pytest.raises(ContractError, match="log ratios must be finite"):
        posterior.sample([[0.0]], 5, rng())


def test_a_ratio_posterior_needs_its_transform():
    context = BoxRatio(1, 0.3).context
    with pytest.raises(ContractError, match="needs the fitted data transform"):
        type("R", (BoxRatio,), {"__init__": RatioPosterior.__init__})(
            PosteriorContext("exact", context.prior, context.observable)
        )


# The pieces of the adaptive pool -----------------------------------------


@pytest.mark.parametrize("d", [1, 2, 3, 5])
def test_kernels_draw_what_their_density_says(d):
    centres = rng(6).normal(size=(500, d)) * np.arange(1, d + 1)
    kernels = _Kernels.around(centres, np.zeros(500), rng(7))
    u = kernels.sample(20_000, rng(8))
    # Importance weights towards a normal inside the mixture average to one.
    log_weights = stats.norm.logpdf(u, 0, np.arange(1, d + 1)).sum(axis=1) - kernels.log_density(u)
    weights = np.exp(log_weights)
    assert abs(weights.mean() - 1) < 5 * weights.std() / np.sqrt(len(u))
    assert 1 / np.mean((weights / weights.mean()) ** 2) > 0.5


def test_kernels_on_one_line_do_not_break():
    kernels = _Kernels.around(
        np.repeat(rng(9).normal(size=(300, 1)), 2, axis=1), np.zeros(300), rng()
    )
    assert np.isfinite(kernels.log_density(kernels.sample(10, rng()))).all()


def test_the_ratio_is_raised_as_far_as_enough_points_remain():
    ratios = -0.5 * (rng(10).normal(size=5000) / 1e-4) ** 2
    flat = np.zeros(5000)
    power = _raised(1e-12, ratios, flat)
    weights = special.softmax(power * ratios)
    assert 0 < power < 1e-4
    assert 128 <= 1 / (weights**2).sum() < 140
    assert _raised(power, 1e-3 * ratios / ratios.min(), flat) == 1.0
    # Never back: points too poor for the power they were made for are used as they are.
    assert _raised(0.5, ratios, flat) == 0.5


def test_uniform_ratios_give_back_the_prior():
    posterior = BoxRatio(2, 0.3)
    posterior._log_ratio = lambda u, xt: np.zeros((len(xt), u.shape[-2]))
    draws = posterior.draw([[0.0, 0.0]], 4000, rng(), log_prob=True)
    assert np.isclose(draws.ess, posterior.pool_size)
    assert np.allclose(draws.log_prob, -np.log(4))
    assert Prior([Parameter("t", Uniform(-1.0, 1.0))]).contains(draws.theta[0, :, :1]).all()
    assert stats.kstest(draws.theta[0, :, 0], stats.uniform(-1, 2).cdf).pvalue > 1e-4
