"""Ensembles: the mixture of their members, drawn from and evaluated as one posterior."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import special, stats

sys.path.insert(0, str(Path(__file__).parent))
from sample_engines import BoxRatio, LinearPosterior

from sbi_physics.distributions import Uniform
from sbi_physics.ensemble import EnsemblePosterior, RatioEnsemble, ensemble_of
from sbi_physics.errors import ContractError
from sbi_physics.observables import Observable
from sbi_physics.parameters import Parameter
from sbi_physics.posterior import PosteriorContext
from sbi_physics.priors import Prior
from sbi_physics.training import TrainingHistory

OBSERVABLE = Observable("vector", (1,), transform=())
PRIOR = Prior([Parameter("a", Uniform(-5.0, 5.0)), Parameter("b", Uniform(0.0, 1.0))])
X = np.array([[0.3], [-1.0], [2.0]], np.float32)


def member(
    shift: float, *, width: float = 0.2, prior: Prior = PRIOR, **context
) -> LinearPosterior:
    """q(u|x) normal around x + shift in both parameters."""
    transform = OBSERVABLE.fit_transform([[0.0], [1.0]])
    full = PosteriorContext("linear", prior, OBSERVABLE, transform=transform, **context)
    return LinearPosterior(full, np.array([[shift] * 2, [1.0, 1.0]]), width * np.eye(2))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_the_density_is_the_mean_of_the_members():
    members = [member(-1.0), member(0.0, width=0.5), member(2.0)]
    points = PRIOR.sample(20, rng())
    parts = np.stack([m.log_prob(points, X) for m in members])
    expected = special.logsumexp(parts, axis=0) - np.log(3)
    assert np.allclose(EnsemblePosterior(members).log_prob(points, X), expected)


def test_draws_follow_the_mixture():
    # Two members far apart, one twice as wide: half of the draws belong to each.
    mixture = EnsemblePosterior([member(-3.0), member(3.0, width=0.4)])
    u = PRIOR.to_unconstrained(mixture.sample(X[:1], 8000, rng(1)))[0]
    left = u[:, 0] < 0.3
    assert abs(left.mean() - 0.5) < 5 * 0.5 / np.sqrt(8000)
    assert stats.kstest(u[left, 0], stats.norm(0.3 - 3, 0.2).cdf).pvalue > 1e-4
    assert stats.kstest(u[~left, 0], stats.norm(0.3 + 3, 0.4).cdf).pvalue > 1e-4


def test_draws_are_independent_of_each_other_and_of_their_place():
    # Members in blocks or in turn would show here; coverage tests rank draws by their place.
    mixture = EnsemblePosterior([member(-3.0), member(3.0)])
    u = PRIOR.to_unconstrained(mixture.sample(np.zeros((400, 1)), 60, rng(2)))[..., 0]
    left = u < 0
    assert abs(np.corrcoef(left[:, :-1].ravel(), left[:, 1:].ravel())[0, 1]) < 5 / np.sqrt(23_600)
    counts = left.sum(axis=1)
    assert abs(counts.var() / (60 * 0.25) - 1) < 5 * np.sqrt(2 / 400)  # binomial, not fixed
    by_place = left.mean(axis=0)
    assert np.abs(by_place - 0.5).max() < 5 * 0.5 / np.sqrt(400)
    values = np.where(left, u + 3, u - 3)
    assert abs(np.corrcoef(values[:, :-1].ravel(), values[:, 1:].ravel())[0, 1]) < 0.033
    assert len(np.unique(u)) == u.size


def test_densities_of_draws_and_at_points_come_in_one_pass():
    mixture = EnsemblePosterior([member(-1.0), member(1.0)])
    points = PRIOR.sample(3 * 4, rng()).reshape(3, 4, 2)
    for log_prob, at in [(True, points), (True, None), (False, points), (True, points[:, :0])]:
        draws = mixture.draw(X, 6, rng(3), log_prob=log_prob, at=at)
        if log_prob:
            assert np.allclose(draws.log_prob, mixture.log_prob(draws.theta, X))
        else:
            assert draws.log_prob is None
        if at is None:
            assert draws.log_prob_at is None
        else:
            assert draws.log_prob_at.shape == at.shape[:2]
            assert np.allclose(draws.log_prob_at, mixture.log_prob(at, X))


def test_a_single_member_is_itself():
    alone = member(0.5)
    points = PRIOR.sample(9, rng())
    assert np.allclose(EnsemblePosterior([alone]).log_prob(points, X), alone.log_prob(points, X))
    assert EnsemblePosterior([alone]).draw(X, 5, rng()).ess is None


def test_rare_members_may_have_no_draw_at_all():
    mixture = EnsemblePosterior([member(float(k)) for k in range(6)])
    assert mixture.sample(X[:1], 1, rng(4)).shape == (1, 1, 2)


def test_histories_are_kept_together():
    histories = [TrainingHistory((1.0,), (2.0 + k,), 0, 3.0, "converged") for k in range(2)]
    mixture = EnsemblePosterior([member(0.0, history=h) for h in histories])
    assert mixture.context.history.members == tuple(histories)
    assert mixture.context.history.best_loss == 2.5
    assert EnsemblePosterior([member(0.0), member(1.0)]).context.history is None


def test_members_of_another_problem_are_refused():
    other = Prior([Parameter("a", Uniform(-5.0, 5.0)), Parameter("b", Uniform(0.0, 2.0))])
    with pytest.raises(ContractError, match="share prior and observable"):
        EnsemblePosterior([member(0.0), member(0.0, prior=other)])
    with pytest.raises(ContractError, match="at least one member"):
        EnsemblePosterior([])
    with pytest.raises(ContractError, match="at least one member"):
        ensemble_of([])


def test_the_mixture_is_normalised_only_if_all_members_are():
    constrained = Prior(PRIOR.parameters, ["a < b + 4"])
    assert EnsemblePosterior([member(0.0)]).normalized
    assert not EnsemblePosterior([member(0.0, prior=constrained)]).normalized


# Ratios ------------------------------------------------------------------


def test_the_kind_of_ensemble_follows_the_members():
    ratios = [BoxRatio(1, 0.3), BoxRatio(1, 0.4)]
    assert isinstance(ensemble_of(ratios), RatioEnsemble)
    assert isinstance(ensemble_of([member(0.0)]), EnsemblePosterior)


def test_ratios_are_averaged_before_they_are_normalised():
    ratios = [BoxRatio(1, 0.2), BoxRatio(1, 0.5)]
    mixture = ensemble_of(ratios)
    points = np.linspace(-0.9, 0.9, 7)[:, None]
    x = np.array([[0.1], [-0.4]])
    expected = np.logaddexp(*[r.log_ratio(points, x) for r in ratios]) - np.log(2)
    assert np.allclose(mixture.log_ratio(points, x), expected)
    density = np.exp(mixture.log_prob(np.linspace(-1, 1, 2001)[:, None], x))
    assert np.allclose(np.trapezoid(density, np.linspace(-1, 1, 2001), axis=1), 1.0, atol=2e-3)
    truth = [r.truth([[0.1]]).pdf(points.T) for r in ratios]
    assert np.allclose(np.exp(mixture.log_prob(points, x))[0], np.mean(truth, axis=0), rtol=0.02)


def test_ratio_members_must_share_their_transform_and_pool():
    other = BoxRatio(1, 0.3)
    rescaled = other.observable.fit_transform([[0.0], [9.0]])
    other.context = replace(other.context, transform=rescaled)
    with pytest.raises(ContractError, match="share the data transform"):
        RatioEnsemble([BoxRatio(1, 0.3), other])
    assert RatioEnsemble([BoxRatio(1, 0.3, pool_size=512)] * 2).pool_size == 512
