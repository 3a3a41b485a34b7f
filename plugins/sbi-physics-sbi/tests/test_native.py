"""The native view: what sbi itself does with our simulators and priors."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from sbi.inference import NPE, simulate_for_sbi
from sbi.utils import mcmc_transform
from sbi.utils.user_input_checks import check_sbi_inputs, process_prior, process_simulator
from sbi_physics_sbi.native import TorchPrior, native_simulator

import sbi_physics as sp
from sbi_physics import (
    Normal,
    Observable,
    Parameter,
    ParameterSpace,
    Simulator,
    Uniform,
)
from sbi_physics.testing import ToyGaussian, ToyMixed, ToyOrdered


class Unbounded(Simulator):
    """Two normal parameters."""

    name = "unbounded"

    @property
    def parameters(self):
        return ParameterSpace([Parameter("a", Normal(0.0, 1.0)), Parameter("b", Normal(1.0, 3.0))])

    @property
    def observable(self):
        return Observable("vector", (2,))

    def _simulate(self, theta, rng):
        return theta + 0.1 * rng.standard_normal(np.shape(theta))


SIMULATORS = {
    "gaussian": ToyGaussian,
    "mixed": ToyMixed,
    "ordered": ToyOrdered,
    "unbounded": Unbounded,
}


@pytest.fixture(params=SIMULATORS)
def view(request):
    return native_simulator(SIMULATORS[request.param]())


def test_sbi_accepts_simulator_and_prior(view):
    simulator, prior = view
    processed, d, returns_numpy = process_prior(prior)
    assert processed is prior  # no wrapper that would lose the bounds
    assert (d, returns_numpy) == (prior.prior.d, False)
    check_sbi_inputs(process_simulator(simulator, processed, returns_numpy), processed)


def test_draws_lie_in_the_support_and_have_the_density_of_the_core(view):
    _, prior = view
    theta = prior.sample((2000,))
    assert theta.dtype == torch.float32
    assert prior.support.check(theta).all()
    expected = prior.prior.log_prob(theta.double().numpy())
    np.testing.assert_allclose(prior.log_prob(theta).numpy(), expected, rtol=1e-5, atol=1e-5)
    assert np.isfinite(expected).all()


def test_points_outside_have_no_density_and_fail_the_support():
    _, prior = native_simulator(ToyMixed())
    outside = torch.tensor([[-1.1, 1.0, 2.0], [0.0, 11.0, 2.0], [0.0, 1e-4, 2.0]])
    assert not prior.support.check(outside).any()
    assert (prior.log_prob(outside) == -torch.inf).all()
    assert prior.support.check(torch.tensor([0.0, 1.0, 100.0]))


def test_constraints_between_parameters_are_part_of_the_support():
    _, prior = native_simulator(ToyOrdered())
    points = torch.tensor([[0.1, 0.5], [0.3, 0.5]])
    assert prior.support.check(points).tolist() == [True, False]
    # The allowed quarter of the unit square has four times the density.
    assert prior.log_prob(points)[0].item() == pytest.approx(np.log(4.0), abs=2e-3)
    assert prior.log_prob(points)[1] == -torch.inf


def test_the_transform_of_sbi_reaches_the_whole_support_and_comes_back(view):
    _, prior = view
    transform = mcmc_transform(prior)
    theta = prior.sample((100,))
    z = transform(theta)
    assert torch.isfinite(z).all()
    torch.testing.assert_close(transform.inv(z), theta, rtol=1e-3, atol=1e-4)
    assert transform.log_abs_det_jacobian(theta, z).shape == (100,)


def test_moments_match_the_distributions():
    _, prior = native_simulator(ToyMixed())
    theta = prior.prior.sample(200_000, np.random.default_rng(0))
    np.testing.assert_allclose(prior.mean.numpy(), theta.mean(axis=0), rtol=0.01)
    np.testing.assert_allclose(prior.stddev.numpy(), theta.std(axis=0), rtol=0.01)


def test_the_density_is_differentiable_as_gradient_samplers_need():
    _, prior = native_simulator(ToyMixed())
    theta = torch.tensor([[0.5, 2.0, 1.0], [-1.0, 1e-3, 4.0]], dtype=torch.float64)
    theta.requires_grad_()
    prior.log_prob(theta).sum().backward()
    b, c = theta.detach()[:, 1], theta.detach()[:, 2]
    expected = torch.stack([torch.zeros(2, dtype=torch.float64), -1 / b, -(c - 2.0) / 0.25], dim=1)
    torch.testing.assert_close(theta.grad, expected, rtol=1e-3, atol=1e-6)


def test_rounding_to_single_precision_never_leaves_the_prior():
    class Narrow(Unbounded):
        @property
        def parameters(self):
            # The next single-precision number is outside on both sides.
            low, high = 0.1 + 1e-9, 0.1 + 5e-9 + 1.5e-8
            return ParameterSpace([Parameter("a", Uniform(low, high))])

    _, prior = native_simulator(Narrow())
    theta = prior.sample((1000,)).double().numpy()
    assert prior.prior.contains(theta).all()


def test_torch_seeds_decide_draws_and_simulations(view):
    simulator, prior = view
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        theta = prior.sample((5,))
        results.append((theta, simulator(theta)))
    assert all(torch.equal(a, b) for a, b in zip(results[0], results[1], strict=True))
    assert not torch.equal(results[0][0], results[2][0])
    assert not torch.equal(results[0][1], results[2][1])


def test_single_points_and_numpy_points_are_simulated_too():
    simulator, prior = native_simulator(ToyGaussian())
    theta = prior.sample((3,))
    assert simulator(theta).shape == (3, 2)
    assert simulator(theta[0]).shape == (2,)
    assert simulator(theta.numpy()).dtype == torch.float32


def test_fixed_parameters_are_filled_in():
    simulator, prior = native_simulator(ToyMixed())
    assert prior.prior.names == ("a", "b", "c")
    x = simulator(prior.sample((500,)))
    assert x[:, 2].mean().item() == pytest.approx(5.0, abs=0.03)


def test_both_travel_to_worker_processes():
    simulator, prior = native_simulator(ToyGaussian())
    copies = pickle.loads(pickle.dumps((simulator, prior)))
    torch.manual_seed(3)
    first = simulator(prior.sample((4,)))
    torch.manual_seed(3)
    assert torch.equal(copies[0](copies[1].sample((4,))), first)


def test_the_prior_moves_and_has_no_batch():
    prior = TorchPrior(ToyGaussian().prior)
    assert prior.to("cpu") is prior
    assert prior.expand(()) is prior
    with pytest.raises(NotImplementedError):
        prior.expand((3,))


@pytest.mark.engine
@pytest.mark.filterwarnings("ignore:Maximum number of epochs:UserWarning")
def test_an_sbi_user_trains_and_samples_with_two_lines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    simulator, prior = sp.simulator("toy-gaussian").native("sbi")
    theta, x = simulate_for_sbi(
        simulator, prior, 400, simulation_batch_size=100, seed=1, show_progress_bar=False
    )
    assert theta.shape == (400, 2)
    assert x.shape == (400, 2)
    inference = NPE(prior, density_estimator="mdn", show_progress_bars=False)
    inference.append_simulations(theta, x).train(max_num_epochs=3)
    posterior = inference.build_posterior()
    draws = posterior.sample((50,), x=x[:1], show_progress_bars=False)
    assert prior.support.check(draws).all()
