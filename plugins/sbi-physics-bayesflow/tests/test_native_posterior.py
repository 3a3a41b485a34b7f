"""Approximators trained with BayesFlow, wrapped: the same distribution, many observations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sbi_physics_bayesflow.backend import seeded
from sbi_physics_bayesflow.native_posterior import native_posterior

import sbi_physics as sp
from sbi_physics.errors import ContractError, ObservationError
from sbi_physics.guard import quiet
from sbi_physics.testing import ToyGaussian

pytestmark = [
    pytest.mark.engine,
    # how keras copies tensors to NumPy; here BayesFlow is called directly
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

TOY = ToyGaussian()
NAMES = TOY.parameters.names


def _approximator(backend, adapter):
    bayesflow = backend.bayesflow
    return bayesflow.ContinuousApproximator(
        inference_network=bayesflow.networks.CouplingFlow(
            depth=2, subnet_kwargs={"widths": (32, 32), "dropout": None}
        ),
        adapter=adapter,
    )


def _trained(adapter=None, epochs=8):
    """A small network of BayesFlow, trained by BayesFlow."""
    simulations = sp.simulate(TOY, 1500, seed=1)
    view = TOY.native("bayesflow")
    with seeded(3) as backend, quiet(["bayesflow"]), torch.enable_grad():
        if adapter is not None:
            view = view._replace(adapter=adapter(backend.bayesflow))
        approximator = _approximator(backend, view.adapter)
        dataset = view.dataset(simulations, batch_size=64)
        approximator.compile(optimizer=backend.keras.optimizers.Adam(3e-3))
        approximator.fit(dataset=dataset, epochs=epochs, verbose=0)
    return approximator


@pytest.fixture(scope="module")
def constrained():
    return _trained()


@pytest.fixture(scope="module")
def leaking():
    def adapter(bayesflow):
        return (
            bayesflow.Adapter()
            .concatenate(list(NAMES), into="inference_variables")
            .rename("x", "inference_conditions")
            .convert_dtype("float64", "float32")
        )

    return _trained(adapter, epochs=1)


@pytest.fixture(scope="module")
def pairs():
    rng = np.random.default_rng(5)
    theta = TOY.prior.sample(12, rng)
    return theta, TOY.simulate(theta, rng)


def _grid():
    side = np.linspace(-1, 1, 81)
    side = 0.5 * (side[1:] + side[:-1])
    return np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2), 0.025**2


@pytest.mark.parametrize("which", ["constrained", "leaking"])
def test_draws_are_inside_and_the_density_is_normalised(which, pairs, request):
    posterior = native_posterior(request.getfixturevalue(which), TOY.prior)
    draws = posterior.sample(pairs[1], 300, np.random.default_rng(1))
    assert draws.shape == (12, 300, 2)
    assert TOY.prior.contains(draws).all()
    grid, area = _grid()
    mass = np.exp(posterior.log_prob(grid, pairs[1][:3])).sum(axis=1) * area
    # The leakage factor comes from 2000 draws: its error is a few per cent at a third accepted.
    np.testing.assert_allclose(mass, 1.0, atol=0.1)
    assert (posterior.log_prob(np.array([[1.5, 0.0]]), pairs[1]) == -np.inf).all()


def test_the_unconstrained_network_does_leak(leaking, pairs):
    with quiet(["bayesflow"]):
        raw = leaking.sample(num_samples=300, conditions={"x": pairs[1]}, seed=1)
    theta = np.concatenate([raw[name] for name in NAMES], axis=-1)
    assert not TOY.prior.contains(theta).all()


def test_densities_are_those_of_bayesflow(constrained, pairs):
    theta, x = pairs
    posterior = native_posterior(constrained, TOY.prior)
    with quiet(["bayesflow"]):
        theirs = constrained.log_prob({NAMES[0]: theta[:, :1], NAMES[1]: theta[:, 1:], "x": x})
    ours = posterior.log_prob(theta[:, None], x)[:, 0]
    np.testing.assert_allclose(ours, theirs, atol=0.1)  # leakage estimate of a net that has none
    raw = posterior._raw(theta[:, None], x)[:, 0]
    np.testing.assert_allclose(raw, theirs, rtol=1e-5, atol=1e-5)


def test_draws_follow_the_distribution_of_bayesflow(constrained, pairs):
    posterior = native_posterior(constrained, TOY.prior)
    ours = posterior.sample(pairs[1][:3], 4000, np.random.default_rng(1))
    with quiet(["bayesflow"]):
        raw = constrained.sample(num_samples=4000, conditions={"x": pairs[1][:3]}, seed=2)
    theirs = np.concatenate([raw[name] for name in NAMES], axis=-1)
    sd = theirs.std(axis=1)
    # Standard error of a difference of means of 4000 draws: 0.022 sd; of widths: 0.016 sd.
    assert (np.abs(ours.mean(axis=1) - theirs.mean(axis=1)) < 0.1 * sd).all()
    assert (np.abs(ours.std(axis=1) / sd - 1) < 0.08).all()


def test_draws_are_decided_by_the_generator_and_leave_the_process_alone(constrained, pairs):
    posterior = native_posterior(constrained, TOY.prior)
    state = torch.get_rng_state()
    first, again, other = (
        posterior.sample(pairs[1], 20, np.random.default_rng(s)) for s in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_one_array_of_parameters_under_any_name_is_taken_in_the_order_of_the_prior(pairs):
    with seeded(1) as backend, quiet(["bayesflow"]), torch.enable_grad():
        adapter = (
            backend.bayesflow.Adapter()
            .rename("parameters", "inference_variables")
            .rename("counts", "inference_conditions")
            .convert_dtype("float64", "float32")
        )
        approximator = _approximator(backend, adapter)
        data = {"parameters": pairs[0], "counts": pairs[1]}
        dataset = backend.bayesflow.OfflineDataset(data, 6, adapter)
        approximator.compile(optimizer="adam")
        approximator.fit(dataset=dataset, epochs=1, verbose=0)
    posterior = native_posterior(approximator, TOY.prior)
    assert posterior.sample(pairs[1], 5, np.random.default_rng(1)).shape == (12, 5, 2)
    with pytest.raises(ContractError, match=r"infers parameters \(2\); the prior has"):
        native_posterior(approximator, ToyGaussian(dimension=3).prior)


def test_other_objects_and_untrained_ones_are_refused():
    view = TOY.native("bayesflow")
    with pytest.raises(ContractError, match="Adapter of BayesFlow; accepted are"):
        native_posterior(view.adapter, TOY.prior)
    with seeded(1) as backend:
        fresh = _approximator(backend, view.adapter)
    with pytest.raises(ContractError, match="call its fit first"):
        native_posterior(fresh, TOY.prior)


def test_nan_in_an_observation_is_refused(constrained, pairs):
    x = pairs[1].copy()
    x[3, 1] = np.nan
    with pytest.raises(ObservationError, match=r"\(3, 1\)"):
        native_posterior(constrained, TOY.prior).sample(x, 5, np.random.default_rng(1))


def test_the_validator_takes_approximators(constrained):
    pairs = sp.simulate(TOY, 60, seed=1, purpose="pairs")
    coverage = sp.validate(constrained, pairs, n_draws=99, seed=1)
    assert coverage.counts.pairs == 60
