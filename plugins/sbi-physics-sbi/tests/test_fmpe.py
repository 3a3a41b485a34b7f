"""Engine `sbi-fmpe`: the velocity field, its integrals, and how close the density comes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sbi.samplers.ode_solvers import build_neural_ode
from sbi_physics_sbi.fmpe import FlowMatchingEngine, FlowMatchingSettings
from sbi_physics_sbi.vector_field import VelocityDensity, _times, build_velocity
from torch import nn

import sbi_physics as sp
from sbi_physics.errors import OptionError
from sbi_physics.testing import ToyGaussian

pytestmark = pytest.mark.engine


class GaussianVelocity(nn.Module):
    """The exact velocity for z ~ N(m, s^2) in every parameter, m being the condition."""

    def __init__(self, width):
        super().__init__()
        self.width = width

    def forward(self, z, condition, time):
        variance = ((1 - time) * self.width) ** 2 + time**2
        pull = (time - (1 - time) * self.width**2) / variance
        return pull * (z - (1 - time) * condition) - condition


@pytest.fixture(scope="module")
def toy():
    return ToyGaussian()


@pytest.fixture(scope="module")
def posterior(toy):
    return FlowMatchingEngine().train(
        sp.simulate(toy, 4096, seed=1), {"max_epochs": 25, "ode_steps": 6}, seed=1
    )


@pytest.fixture(scope="module")
def pairs(toy):
    return sp.simulate(toy, 200, seed=1, purpose="pairs")


@pytest.mark.parametrize("width", [1.0, 0.3, 0.03])
def test_exact_velocities_give_exact_densities_and_draws(width):
    density = VelocityDensity(nn.Flatten(), GaussianVelocity(width), 2, steps=12)
    mean = torch.tensor([[0.5, -1.0], [0.0, 2.0]])
    exact = torch.distributions.Normal(mean[:, None], width)
    points = mean[:, None] + width * torch.linspace(-2, 2, 9)[None, :, None]
    expected = exact.log_prob(points).sum(-1)
    # Error of 12 steps of fourth order; at 0.03 of the prior the paths bend within the first two.
    tolerance = 2e-3 if width > 0.1 else 2e-2
    torch.testing.assert_close(density.log_q(points, mean), expected, atol=tolerance, rtol=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        draws = (density.draw(20_000, mean) - mean[:, None]) / width
    assert draws.mean(1).abs().max() < 4 / np.sqrt(20_000) + 0.005
    # The error of a standard deviation is 1 / sqrt(2 n).
    assert (draws.std(1) - 1).abs().max() < 4 / np.sqrt(40_000) + 0.01


def test_the_density_agrees_with_the_adaptive_solver_of_sbi(posterior, pairs):
    network = posterior.network
    features = torch.from_numpy(posterior.transform(pairs.x[:20])).flatten(1)
    z = 0.5 * torch.randn(20, 2, generator=torch.Generator().manual_seed(1))
    ode = build_neural_ode(
        network.estimator.ode_fn,
        network.estimator.net,
        mean_base=torch.zeros(1, 2),
        std_base=torch.ones(1, 2),
        condition_shape=features.shape[1:],
    )
    expected = ode(features).log_prob(z).detach()
    fine = VelocityDensity(network.embedding, network.estimator, 2, steps=24).eval()
    with torch.no_grad():
        torch.testing.assert_close(fine.log_q(z, features), expected, atol=2e-3, rtol=0)
        coarse = network.log_q(z, features)
    assert (coarse - expected).abs().max() < 0.05


def test_an_untrained_network_is_the_prior():
    estimator = build_velocity(2, 3, FlowMatchingSettings().model_dump())
    with torch.no_grad():
        estimator.net.output_layer.bias.zero_()  # its weights start at zero
        density = VelocityDensity(nn.Flatten(), estimator, 2, steps=6)
        z = torch.linspace(-2, 2, 10).reshape(1, 5, 2)
        log_q = density.log_q(z, torch.zeros(1, 3))
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1)
    torch.testing.assert_close(log_q, expected, atol=1e-3, rtol=0)


def test_the_density_is_close_to_the_exact_one(toy, posterior, pairs):
    points = pairs.theta[:, None]
    exact = toy.reference_posterior().log_prob(points, pairs.x)
    assert (exact - posterior.log_prob(points, pairs.x)).mean() < 0.1


def test_an_observation_does_not_depend_on_its_batch(posterior, pairs):
    theta = pairs.theta[:20, None]
    together = posterior.log_prob(theta, pairs.x[:20])[:4]
    alone = [posterior.log_prob(theta[i : i + 1], pairs.x[i])[0] for i in range(4)]
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_the_held_out_loss_is_always_the_same_number(posterior, pairs):
    u = torch.from_numpy(posterior.prior.to_unconstrained(pairs.theta)).float()
    x = torch.from_numpy(posterior.transform(pairs.x))
    network = posterior.network
    state = torch.get_rng_state()
    with torch.no_grad():
        values = [network.held_out_loss(u, x, None, power=3).item() for _ in range(2)]
        halves = [network.held_out_loss(u, x, torch.ones(len(u)), power=3).item()]
    assert values[0] == values[1] == pytest.approx(halves[0], rel=1e-5)
    assert torch.equal(torch.get_rng_state(), state)


class Times(nn.Module):
    """An estimator whose loss is the time it is asked for."""

    def loss(self, z, condition, times):
        return times


@pytest.mark.parametrize("power", [1.0, 3.0])
def test_the_power_draws_times_to_the_data(power):
    # The mean of u^p is 1 / (p + 1), its variance 1 / (2 p + 1) - 1 / (p + 1)^2.
    n = 20_000
    u, x = torch.zeros(n, 2), torch.zeros(n, 1)
    density = VelocityDensity(nn.Flatten(), Times(), 2, steps=2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        mean = density.training_loss(u, x, None, power=power).item()
    sd = np.sqrt((1 / (2 * power + 1) - 1 / (power + 1) ** 2) / n)
    assert mean == pytest.approx(1 / (power + 1), abs=4 * sd)
    held_out = density.held_out_loss(u, x, None, power=power).item()
    assert held_out == pytest.approx(1 / (power + 1), abs=sd)


@pytest.mark.parametrize("name", ["mlp", "ada_mlp"])
def test_stored_weights_rebuild_the_same_density(name, toy, tmp_path, pairs):
    trained = FlowMatchingEngine().train(
        sp.simulate(toy, 200, seed=1), {"max_epochs": 1, "vector_field": name}, seed=1
    )
    loaded = sp.load_posterior(trained.save(tmp_path / "posterior"))
    points = pairs.theta[:20, None]
    assert np.array_equal(
        trained.log_prob(points, pairs.x[:20]), loaded.log_prob(points, pairs.x[:20])
    )


def test_the_grid_is_finer_towards_the_data():
    steps = _times(8, torch.device("cpu")).diff()
    assert (steps.diff() > 0).all()
    assert steps.sum() == pytest.approx(1)


def test_an_odd_number_of_time_features_is_refused():
    with pytest.raises(OptionError, match="time_features"):
        FlowMatchingEngine().settings(time_features=3)


def test_the_loss_is_computed_where_the_network_is(toy, posterior):
    # Meta tensors hold no numbers, but mixing them with others fails as on an accelerator.
    engine = FlowMatchingEngine()
    settings = engine.settings()
    network = engine._build(posterior.context, settings, 0).to("meta")
    network.estimator._compose_standardization = torch.tensor(False)  # sbi asks for its value
    u, x = torch.zeros(64, toy.prior.d, device="meta"), torch.zeros(64, 2, device="meta")
    for loss in engine._losses(network, settings):
        assert loss(u, x, torch.ones(64, device="meta")).device.type == "meta"
