"""Fast forms of swyft's channelised networks: the same numbers, on our instances only."""

from __future__ import annotations

import copy
import logging

import pytest
import torch
from sbi_physics_swyft.backend import swyft
from sbi_physics_swyft.channels import Channel, accelerate, agrees

pytestmark = pytest.mark.engine


def linear(channels=3, n_in=5, n_out=4):
    torch.manual_seed(1)
    return swyft.networks.channelized.LinearWithChannel(channels, n_in, n_out)


def classifier(channels=3, d=2, features=7, **settings):
    """A marginal classifier whose normalisations have seen data."""
    torch.manual_seed(2)
    net = swyft.networks.MarginalClassifier(
        channels, features + d, hidden_features=16, num_blocks=2, **settings
    )
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        for _ in range(20):
            net(torch.randn(64, features), torch.randn(64, channels, d))
    return net.eval()


@pytest.fixture(autouse=True)
def no_global_draws():
    with torch.random.fork_rng(devices=[]):
        yield


@pytest.mark.parametrize("channels", [1, 3])
def test_the_fast_layer_gives_the_same_values_and_gradients(channels):
    original, fast = linear(channels), linear(channels)
    assert accelerate(fast) == 1
    x = torch.randn(11, channels, 5)
    for layer in (original, fast):
        layer(x).square().sum().backward()
    torch.testing.assert_close(fast(x), original(x), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(fast.weights.grad, original.weights.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fast.bias.grad, original.bias.grad, rtol=1e-4, atol=1e-5)


def test_other_shapes_take_the_original_way():
    original, fast = linear(), linear()
    accelerate(fast)
    x = torch.randn(2, 6, 3, 5)
    torch.testing.assert_close(fast(x), original(x), rtol=0, atol=0)


def test_only_the_instances_given_are_changed():
    kind = swyft.networks.channelized.LinearWithChannel
    before = kind.forward
    mine, theirs = linear(), linear()
    accelerate(mine)
    assert "forward" in vars(mine)
    assert "forward" not in vars(theirs)
    assert kind.forward is before


def test_a_copy_of_a_fast_layer_uses_its_own_weights():
    fast = linear()
    accelerate(fast)
    twin = copy.deepcopy(fast)
    with torch.no_grad():
        twin.weights.zero_()
        twin.bias.zero_()
    x = torch.randn(4, 3, 5)
    assert (twin(x) == 0).all()
    assert (fast(x) != 0).all()


def test_a_layer_that_computes_something_else_keeps_its_forward(monkeypatch, caplog):
    kind = swyft.networks.channelized.LinearWithChannel
    original = kind.forward
    monkeypatch.setattr(kind, "forward", lambda self, x: 2 * original(self, x))
    layer = linear()
    with caplog.at_level(logging.WARNING):
        assert accelerate(layer) == 0
    assert "using the original" in caplog.text
    assert "forward" not in vars(layer)


def test_a_failing_shortcut_is_no_error(caplog):
    def fails():
        raise RuntimeError("shapes differ")

    with caplog.at_level(logging.WARNING):
        assert not agrees(fails, lambda: torch.zeros(2), "layer")
    assert "shapes differ" in caplog.text


@pytest.mark.parametrize("norm", [True, False])
def test_a_channel_gives_what_the_whole_network_gives_for_it(norm):
    net = classifier(use_batch_norm=norm)
    z, features = torch.randn(9, 2), torch.randn(4, 7)
    with torch.no_grad():
        whole = net(
            features.repeat_interleave(9, dim=0), z.repeat(4, 1)[:, None].expand(-1, 3, -1)
        )
        for index in range(3):
            channel = Channel(net, index, 7)
            assert channel._fast is not None
            expected = whole[:, index].reshape(4, 9)
            torch.testing.assert_close(channel(z, features), expected, rtol=1e-4, atol=1e-5)
            own = channel(z.expand(4, 9, 2), features)
            torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-5)


def test_a_network_of_another_form_is_evaluated_as_it_is(monkeypatch, caplog):
    net = classifier()
    z, features = torch.randn(9, 2), torch.randn(4, 7)
    with torch.no_grad():
        expected = Channel(net, 1, 7)(z, features)
    original = type(net.net).forward
    monkeypatch.setattr(type(net.net), "forward", lambda self, x: original(self, x) + 1.0)
    with caplog.at_level(logging.WARNING):
        channel = Channel(net, 1, 7)
    assert "using the original" in caplog.text
    with torch.no_grad():
        torch.testing.assert_close(channel(z, features), expected + 1.0, rtol=1e-4, atol=1e-5)
