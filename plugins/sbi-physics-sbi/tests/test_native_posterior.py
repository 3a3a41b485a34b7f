"""Posteriors trained with sbi, wrapped: the same distribution, many observations at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sbi.inference import NPE, NRE_A
from sbi.neural_nets import posterior_nn
from sbi.utils import BoxUniform
from sbi_physics_sbi.native_posterior import native_posterior

import sbi_physics as sp
from sbi_physics.errors import ContractError, ObservationError
from sbi_physics.testing import ToyGaussian

pytestmark = [
    pytest.mark.engine,
    pytest.mark.filterwarnings("ignore:Maximum number of epochs:UserWarning"),
]


class NoTracker:
    """Keeps sbi from writing logs into the working folder."""

    log_dir = None

    def log_metric(self, *args, **kwargs): ...
    def log_metrics(self, *args, **kwargs): ...
    def log_params(self, *args, **kwargs): ...
    def add_figure(self, *args, **kwargs): ...
    def flush(self): ...


TOY = ToyGaussian()


@pytest.fixture(scope="module")
def data():
    simulator, prior = TOY.native("sbi")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        theta = prior.sample((2000,))
        return prior, theta, simulator(theta)


def _trained(method, data, epochs):
    prior, theta, x = data
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(2)
        inference = method(prior, show_progress_bars=False, tracker=NoTracker())
        inference.append_simulations(theta, x).train(max_num_epochs=epochs)
        return inference.build_posterior()


@pytest.fixture(scope="module")
def direct(data):
    # A few epochs only: the flow still leaks out of the prior, which is what is tested.
    return _trained(lambda *a, **k: NPE(*a, density_estimator="maf", **k), data, 6)


@pytest.fixture(scope="module")
def ratio(data):
    return _trained(NRE_A, data, 30)


@pytest.fixture(scope="module")
def pairs():
    rng = np.random.default_rng(5)
    theta = TOY.prior.sample(12, rng)
    return theta, TOY.simulate(theta, rng)


def test_leaking_draws_are_masked_and_topped_up(direct, pairs):
    posterior = native_posterior(direct, TOY.prior)
    draws = posterior.sample(pairs[1], 700, np.random.default_rng(1))
    assert draws.shape == (12, 700, 2)
    assert TOY.prior.contains(draws).all()
    with torch.no_grad():
        raw = direct.posterior_estimator.sample((700,), condition=torch.from_numpy(pairs[1]))
    assert not TOY.prior.contains(raw.numpy()).all()  # it does leak


def test_draws_follow_the_distribution_of_sbi(direct, pairs):
    posterior = native_posterior(direct, TOY.prior)
    ours = posterior.sample(pairs[1][:3], 4000, np.random.default_rng(1))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        theirs = direct.sample_batched(
            (4000,), x=torch.from_numpy(pairs[1][:3]), show_progress_bars=False
        )
    theirs = theirs.numpy().swapaxes(0, 1)
    sd = theirs.std(axis=1)
    # Standard error of a difference of means of 4000 draws: 0.022 sd; of widths: 0.016 sd.
    assert (np.abs(ours.mean(axis=1) - theirs.mean(axis=1)) < 0.1 * sd).all()
    assert (np.abs(ours.std(axis=1) / sd - 1) < 0.08).all()


def test_the_density_is_normalised_over_the_prior(direct, pairs):
    posterior = native_posterior(direct, TOY.prior)
    side = np.linspace(-1, 1, 101)
    side = 0.5 * (side[1:] + side[:-1])
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    mass = np.exp(posterior.log_prob(grid, pairs[1][:4])).sum(axis=1) * (0.02**2)
    # The leakage factor comes from 2000 draws: its error is about 2 % at half acceptance.
    np.testing.assert_allclose(mass, 1.0, atol=0.1)
    assert (posterior.log_prob(np.array([[1.5, 0.0]]), pairs[1]) == -np.inf).all()


def test_densities_of_draws_and_of_points_agree(direct, pairs):
    posterior = native_posterior(direct, TOY.prior)
    draws = posterior.draw(
        pairs[1], 2000, np.random.default_rng(1), log_prob=True, at=pairs[0][:, None]
    )
    again = posterior.log_prob(draws.theta[:, :5], pairs[1])
    np.testing.assert_allclose(draws.log_prob[:, :5], again, atol=0.15)  # two leakage estimates
    at = posterior.log_prob(pairs[0][:, None], pairs[1])
    np.testing.assert_allclose(draws.log_prob_at, at, atol=0.15)


def test_a_bare_network_is_wrapped_too(direct, pairs):
    one = native_posterior(direct, TOY.prior)
    two = native_posterior(direct.posterior_estimator, TOY.prior)
    states = (np.random.default_rng(1), np.random.default_rng(1))
    assert np.array_equal(one.sample(pairs[1], 10, states[0]), two.sample(pairs[1], 10, states[1]))


def test_draws_are_decided_by_the_generator_and_leave_torch_alone(direct, pairs):
    posterior = native_posterior(direct, TOY.prior)
    state = torch.get_rng_state()
    first, again, other = (
        posterior.sample(pairs[1], 20, np.random.default_rng(s)) for s in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_hopelessly_leaking_network_is_an_error_not_a_hang(pairs):
    prior = sp.Prior(sp.ParameterSpace([sp.Parameter("a", sp.Uniform(1e4, 1e4 + 1))]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        estimator = posterior_nn("mdn")(torch.randn(100, 1), torch.randn(100, 2))
    posterior = native_posterior(estimator, prior)
    with pytest.raises(ContractError, match="lies inside the prior.*leaks"):
        posterior.sample(pairs[1], 10, np.random.default_rng(1))


def test_a_ratio_posterior_needs_no_chain_and_agrees_with_the_exact_one(ratio, pairs):
    posterior = native_posterior(ratio, TOY.prior)
    draws = posterior.sample(pairs[1], 1000, np.random.default_rng(1))
    exact = TOY.reference_posterior().sample(pairs[1], 1000, np.random.default_rng(2))
    assert draws.shape == exact.shape
    pull = (draws.mean(axis=1) - exact.mean(axis=1)) / exact.std(axis=1)
    assert np.abs(pull).mean() < 0.35  # 2000 simulations; an untrained one gives about 1
    ratios = draws.std(axis=1) / exact.std(axis=1)
    assert 0.8 < ratios.mean() < 1.35


def test_ratios_are_those_of_the_network(ratio, pairs):
    posterior = native_posterior(ratio, TOY.prior)
    theta = TOY.prior.sample(12 * 3, np.random.default_rng(3)).reshape(12, 3, 2)
    network = ratio.potential_fn.ratio_estimator
    with torch.no_grad():
        expected = network(
            torch.from_numpy(theta.reshape(-1, 2)).float(),
            torch.from_numpy(np.repeat(pairs[1], 3, axis=0)),
        )
    found = posterior.log_ratio(theta, pairs[1])
    np.testing.assert_allclose(found, expected.numpy().reshape(12, 3), rtol=1e-4, atol=1e-4)


def test_another_prior_is_refused_with_both_densities(data, direct):
    wrong = ToyGaussian(half_width=0.9).prior
    with pytest.raises(ContractError, match=r"another prior.*native\('sbi'\)"):
        native_posterior(direct, wrong)
    _, theta, x = data
    box = BoxUniform(-torch.ones(2), torch.ones(2))
    inference = NPE(box, density_estimator="mdn", show_progress_bars=False, tracker=NoTracker())
    inference.append_simulations(theta, x).train(max_num_epochs=2)
    native_posterior(inference.build_posterior(), TOY.prior)  # the same box, made by sbi


def test_another_number_of_parameters_is_refused(direct):
    with pytest.raises(ContractError, match=r"shape \(2,\).*the prior has 3"):
        native_posterior(direct, ToyGaussian(dimension=3).prior)


def test_other_objects_of_sbi_are_refused_with_what_is_accepted():
    with pytest.raises(ContractError, match=r"BoxUniform.*DirectPosterior"):
        native_posterior(BoxUniform(-torch.ones(2), torch.ones(2)), TOY.prior)


def test_nan_in_an_observation_is_refused(direct, pairs):
    x = pairs[1].copy()
    x[3, 1] = np.nan
    with pytest.raises(ObservationError, match=r"\(3, 1\)"):
        native_posterior(direct, TOY.prior).sample(x, 5, np.random.default_rng(1))


def test_the_validator_takes_native_posteriors(direct):
    pairs = sp.simulate(TOY, 100, seed=1, purpose="pairs")
    coverage = sp.validate(direct, pairs, n_draws=99, seed=1)
    assert coverage.counts.pairs == 100
