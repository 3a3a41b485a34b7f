"""The coupling flow evaluated with torch against BayesFlow's own layers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from sbi_physics_bayesflow.backend import seeded
from sbi_physics_bayesflow.flow import (
    ACTIVATIONS,
    CouplingFlow,
    _native,
    build_flow,
    build_layers,
    check_against,
)
from sbi_physics_bayesflow.settings import CouplingSettings

from sbi_physics.errors import PluginError

pytestmark = pytest.mark.engine

TRANSFORMS = ("affine", "spline")


def _settings(**values):
    return CouplingSettings(**{"depth": 2, "widths": (16, 12), **values})


def _flow(d, seed=1, n_features=3, **values):
    settings = _settings(**values)
    with seeded(seed) as backend:
        layers = build_layers(backend, d, n_features, settings)
        return layers, CouplingFlow(layers, settings)


def _shaken(flow):
    """Weights away from their start, where output layers are zero."""
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=random)
    return flow


@pytest.mark.parametrize(("d", "transform"), list(itertools.product((1, 2, 3, 5), TRANSFORMS)))
def test_every_width_and_transform_agrees_with_bayesflow_and_inverts(d, transform):
    layers, flow = _flow(d, transform=transform)
    _shaken(flow)
    z = torch.randn(40, d, generator=torch.Generator().manual_seed(1))
    features = torch.randn(40, 3, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        latent, log_det = flow(z, features)
        expected, expected_det = _native(layers, z, features, inverse=False)
        back, back_det = flow.inverse(latent, features)
    torch.testing.assert_close(latent, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(log_det, expected_det, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(back, z, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(back_det, -log_det, rtol=1e-3, atol=1e-2)
    assert (latent - z).abs().max() > 0.1  # it does something


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_log_determinants_are_those_of_the_jacobian(transform):
    _, flow = _flow(3, transform=transform)
    _shaken(flow).double()
    z = torch.randn(6, 3, generator=torch.Generator().manual_seed(1)).double()
    features = torch.randn(6, 3, generator=torch.Generator().manual_seed(2)).double()
    log_det = flow(z, features)[1]
    for i in range(6):
        point, given = z[i : i + 1], features[i : i + 1]
        jacobian = torch.autograd.functional.jacobian(lambda p, g=given: flow(p, g)[0][0], point)
        exact = torch.linalg.slogdet(jacobian[:, 0])[1]
        assert log_det[i].item() == pytest.approx(exact.item(), abs=1e-6)


@pytest.mark.parametrize("d", [1, 3])
def test_many_points_of_one_observation_are_what_single_ones_are(d):
    _, flow = _flow(d)
    _shaken(flow)
    z = torch.randn(4, 7, d, generator=torch.Generator().manual_seed(1))
    features = torch.randn(4, 3, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        together = flow(z, features)
        alone = flow(z.reshape(28, d), features.repeat_interleave(7, dim=0))
    torch.testing.assert_close(together[0].reshape(28, d), alone[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(together[1].reshape(28), alone[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_is_that_of_keras(name):
    with seeded(1) as backend:
        build_flow(backend, 2, 3, _settings(activation=name))  # compares, and raises


@pytest.mark.parametrize("permutation", ["random", "swap", "none"])
def test_permutations_and_actnorm_are_those_of_bayesflow(permutation):
    with seeded(1) as backend:
        build_flow(backend, 3, 2, _settings(permutation=permutation, actnorm=False))


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_an_untrained_flow_is_nearly_the_identity(transform):
    # Output layers start at zero: an affine coupling is then the identity, a spline close to it.
    _, flow = _flow(2, transform=transform, permutation="none")
    z = torch.randn(500, 2, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        latent, log_det = flow(z, torch.zeros(500, 3))
    torch.testing.assert_close(latent, z, rtol=0, atol=1e-4)
    torch.testing.assert_close(log_det, torch.zeros(500), rtol=0, atol=1e-3)


def test_initial_weights_are_a_function_of_the_seed():
    weights = [
        [v.numpy().copy() for v in _flow(3, seed=s)[1].state_dict().values()] for s in (1, 1, 2)
    ]
    assert all(np.array_equal(a, b) for a, b in zip(*weights[:2], strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(weights[0], weights[2], strict=True))


def test_names_of_weights_do_not_depend_on_how_many_networks_there_are():
    assert list(_flow(2)[1].state_dict()) == list(_flow(2)[1].state_dict())


def test_the_comparison_puts_the_weights_back_and_notices_another_formula():
    layers, flow = _flow(2)
    before = {k: v.clone() for k, v in flow.state_dict().items()}
    check_against(layers, flow, 2, 3)
    assert all(torch.equal(v, before[k]) for k, v in flow.state_dict().items())
    flow.steps[-1].one.subnet.activation = torch.tanh
    with pytest.raises(PluginError, match=r"differs by.*2\.0\.12"):
        check_against(layers, flow, 2, 3)


def test_dropout_acts_in_training_only():
    _, flow = _flow(2, dropout=0.5)
    _shaken(flow)
    z, features = torch.ones(30, 2), torch.ones(30, 3)
    flow.train()
    assert not torch.equal(flow(z, features)[0], flow(z, features)[0])
    flow.eval()
    assert torch.equal(flow(z, features)[0], flow(z, features)[0])
