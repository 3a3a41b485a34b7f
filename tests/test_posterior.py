"""The posterior contract: batches, densities in physical units, nothing outside the prior."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import integrate, stats

sys.path.insert(0, str(Path(__file__).parent))
from sample_engines import LinearPosterior

from sbi_physics import constrained_draws
from sbi_physics import posterior as posterior_module
from sbi_physics.distributions import LogUniform, Normal, Uniform
from sbi_physics.errors import ContractError, ObservationError
from sbi_physics.observables import Observable
from sbi_physics.parameters import Parameter
from sbi_physics.posterior import PosteriorContext
from sbi_physics.priors import Prior
from sbi_physics.progress import SILENT

PARAMETERS = [
    Parameter("m", LogUniform(0.1, 10.0), unit="neV"),
    Parameter("i", Normal(2.0, 0.5, 1.0, 3.0)),
]
OBSERVABLE = Observable("vector", (2,), transform=())
X = np.array([[0.3, -0.2], [1.5, 0.4], [-2.0, 1.0]], np.float32)


def linear(*constraints: str, parameters=PARAMETERS, sd: float = 0.7) -> LinearPosterior:
    """q(u|x) normal around x, one datum for each parameter."""
    d = len(parameters)
    observable = Observable("vector", (d,), transform=())
    transform = observable.fit_transform(np.eye(3)[:, :d])
    context = PosteriorContext(
        "linear", Prior(parameters, constraints), observable, transform=transform
    )
    matrix = np.vstack([np.zeros((1, d)), np.eye(d)])
    root = sd * np.eye(d) + (0.3 * np.eye(d, k=-1))
    return LinearPosterior(context, matrix, root)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# Shapes and batches ------------------------------------------------------


def test_one_call_answers_for_all_observations():
    posterior = linear()
    draws = posterior.draw(X, 50, rng(), log_prob=True, at=np.ones((3, 4, 2)))
    assert draws.theta.shape == (3, 50, 2)
    assert draws.log_prob.shape == (3, 50)
    assert draws.log_prob_at.shape == (3, 4)
    assert draws.ess is None
    assert draws.theta.dtype == draws.log_prob.dtype == np.float64


def test_sample_returns_densities_when_asked():
    posterior = linear()
    theta, log_prob = posterior.sample(X, 10, rng(), return_log_prob=True)
    assert np.array_equal(theta, posterior.sample(X, 10, rng()))
    assert np.allclose(log_prob, posterior.log_prob(theta, X))


def test_one_observation_is_a_batch_of_one():
    posterior = linear()
    assert posterior.sample(X[0], 10, rng()).shape == (1, 10, 2)
    assert posterior.log_prob(np.ones((5, 2)), X[0]).shape == (1, 5)


def test_no_observations_give_empty_arrays_of_the_right_shape():
    draws = linear().draw(X[:0], 7, rng(), log_prob=True, at=np.ones((0, 3, 2)))
    assert draws.theta.shape == (0, 7, 2)
    assert draws.log_prob.shape == (0, 7)
    assert draws.log_prob_at.shape == (0, 3)
    assert linear().draw(X[:0], 7, rng()).log_prob is None
    assert linear().log_prob(np.ones((0, 3, 2)), X[:0]).shape == (0, 3)


def test_points_for_all_observations_may_be_given_once():
    posterior, points = linear(), np.array([[1.0, 2.0], [3.0, 1.5]])
    everywhere = posterior.log_prob(points, X)
    assert np.array_equal(everywhere, posterior.log_prob(np.stack([points] * 3), X))


def test_large_batches_are_handled_in_chunks_without_a_trace(monkeypatch):
    posterior = linear()
    x = rng(1).normal(size=(50, 2))
    points = posterior.prior.sample(20, rng(2))
    whole = posterior.draw(x, 20, rng(3), log_prob=True, at=points)
    whole_density = posterior.log_prob(points, x)
    sizes = []
    kernel = LinearPosterior._draw

    def watched(self, x, n, generator, log_prob, at):
        sizes.append(len(x))
        return kernel(self, x, n, generator, log_prob, at)

    monkeypatch.setattr(LinearPosterior, "_draw", watched)
    monkeypatch.setattr(posterior_module, "_CHUNK_ROWS", 150)
    parts = posterior.draw(x, 20, rng(3), log_prob=True, at=points)
    assert sizes == [7] * 7 + [1]
    assert np.array_equal(parts.log_prob_at, whole.log_prob_at)
    assert np.array_equal(posterior.log_prob(points, x), whole_density)
    assert np.allclose(parts.log_prob, posterior.log_prob(parts.theta, x))
    # Each chunk has a stream of its own; none may repeat another's.
    assert len(np.unique(parts.theta)) == parts.theta.size


def test_draws_are_reproducible_and_move_on():
    posterior, one = linear(), rng(4)
    first, second = posterior.sample(X, 10, one), posterior.sample(X, 10, one)
    assert np.array_equal(first, posterior.sample(X, 10, rng(4)))
    assert not np.isin(first, second).any()


def test_progress_counts_observations():
    seen = []

    class Counting:
        def task(self, description, total, unit="it"):
            seen.append((total, unit))
            return SILENT.task(description, total, unit)

    linear().draw(X, 10, rng(), progress=Counting())
    assert seen == [(3, "obs")]


# Densities ---------------------------------------------------------------


@pytest.mark.parametrize("parameter", PARAMETERS, ids=lambda p: p.name)
def test_the_density_integrates_to_one_in_physical_units(parameter):
    posterior = linear(parameters=[parameter])
    low, high = parameter.bounds
    total, _ = integrate.quad(
        lambda t: float(np.exp(posterior.log_prob([[t]], [0.4])[0, 0])), low, high, limit=200
    )
    assert abs(total - 1) < 1e-6


@pytest.mark.parametrize("parameter", PARAMETERS, ids=lambda p: p.name)
def test_draws_follow_the_density(parameter):
    posterior = linear(parameters=[parameter])
    theta = posterior.sample([[0.4]], 5000, rng(5))[0, :, 0]
    edges = posterior.prior.from_unit(np.linspace(0, 1, 4001)[:, None])[:, 0]
    density = np.exp(posterior.log_prob(edges[:, None], [[0.4]])[0])
    cdf = integrate.cumulative_trapezoid(density, edges, initial=0.0)
    assert stats.kstest(theta, lambda t: np.interp(t, edges, cdf)).pvalue > 1e-4


def test_densities_of_draws_at_points_and_later_agree():
    posterior = linear()
    points = posterior.prior.sample(6, rng(6))[None].repeat(3, axis=0)
    draws = posterior.draw(X, 30, rng(7), log_prob=True, at=points)
    assert np.allclose(draws.log_prob, posterior.log_prob(draws.theta, X), atol=1e-6)
    assert np.array_equal(draws.log_prob_at, posterior.log_prob(points, X))


def test_nothing_leaks_out_of_the_prior():
    # A posterior far wider than the prior presses against its ends.
    posterior = linear(sd=30.0)
    draws = posterior.draw(X, 2000, rng(8), log_prob=True)
    assert posterior.prior.contains(draws.theta).all()
    assert np.isfinite(draws.log_prob).all()
    outside = np.array([[20.0, 2.0], [1.0, 3.5], [np.nan, 2.0]])
    assert (posterior.log_prob(outside, X) == -np.inf).all()


def test_draws_obey_the_constraints_and_their_density_says_it_lacks_a_constant():
    posterior = linear("i < m")
    assert not posterior.normalized
    assert linear().normalized
    draws = posterior.draw(X[:2], 500, rng(9), log_prob=True)
    assert (draws.theta[..., 1] < draws.theta[..., 0]).all()
    assert np.allclose(draws.log_prob, posterior.log_prob(draws.theta, X[:2]), atol=1e-6)
    assert (posterior.log_prob([[1.0, 2.0]], X) == -np.inf).all()


def test_rejected_draws_are_replaced_by_draws_of_the_same_posterior():
    posterior = linear("i < m * 0.5")
    free = linear().sample(X[:1], 60_000, rng(10))[0]
    expected = free[free[:, 1] < free[:, 0] * 0.5]
    assert len(expected) < 6000  # most draws of this network break the constraint
    theta = posterior.sample(X[:1], 4000, rng(11))[0]
    for k in range(2):
        assert stats.ks_2samp(theta[:, k], expected[:, k]).pvalue > 1e-4


def test_a_posterior_that_cannot_obey_gives_up_with_the_constraint(monkeypatch):
    monkeypatch.setattr(constrained_draws, "_MAX_TOP_UPS", 3)
    posterior = linear("m > 9.99", sd=0.01)
    with pytest.raises(ContractError, match=r"keep violating .* 'm > 9\.99'"):
        posterior.sample(X[2], 10, rng())


# Refusals ----------------------------------------------------------------


@pytest.mark.parametrize("n", [0, -3])
def test_a_number_of_draws_below_one_is_refused(n):
    with pytest.raises(ContractError, match=f"at least 1, got {n}"):
        linear().draw(X, n, rng())


@pytest.mark.parametrize(
    "ask",
    [
        lambda p, x: p.sample(x, 3, rng()),
        lambda p, x: p.log_prob(np.ones((1, 2)), x),
    ],
)
def test_a_bad_observation_is_named(ask):
    with pytest.raises(ObservationError, match=r"1 entries.*index \(1, 0\)"):
        ask(linear(), [[0.0, 1.0], [np.nan, 2.0]])
    with pytest.raises(ObservationError, match=r"shape \(1, 3\), expected \(2,\) or"):
        ask(linear(), [[0.0, 1.0, 2.0]])


@pytest.mark.parametrize("shape", [(2,), (5, 3), (2, 5, 2), (3, 5, 3), (1, 3, 5, 2)])
def test_points_of_another_shape_are_refused_with_the_names(shape):
    with pytest.raises(ContractError, match=r"expected \(3, k, 2\) or \(k, 2\) for m, i"):
        linear().log_prob(np.ones(shape), X)


def test_a_network_without_its_transform_says_so():
    bare = linear()
    bare.context = PosteriorContext("linear", bare.prior, bare.observable)
    with pytest.raises(ContractError, match="no fitted transform"):
        bare.sample(X, 3, rng())


def test_a_posterior_introduces_itself():
    posterior = linear()
    assert repr(posterior) == "LinearPosterior(linear: m, i)"
    assert posterior.blocks == (("m", "i"),)
    assert posterior.parameters.names == ("m", "i")
    assert posterior.observable == OBSERVABLE


def test_bounded_and_unbounded_priors_both_work():
    posterior = linear(
        parameters=[Parameter("a", Uniform(0.0, 1.0)), Parameter("b", Normal(0, 1))]
    )
    draws = posterior.draw(1e3 * X, 50, rng(), log_prob=True)
    assert np.isfinite(draws.theta).all()
