"""Summary networks: shapes, kinds, invariances."""

from __future__ import annotations

import pytest
import torch

from sbi_physics import Observable
from sbi_physics.errors import OptionError
from sbi_physics.nn.embedding import (
    build_embedding,
    embedded,
    output_size,
    resolve_embedding,
    tapered,
)
from sbi_physics.nn.settings import NetworkSettings

pytestmark = pytest.mark.engine

SETTINGS = NetworkSettings(embedding_width=16, embedding_depth=2, n_features=5)
OBSERVABLES = {
    "vector": Observable("vector", (12,)),
    "small vector": Observable("vector", (3,)),
    "spectrum": Observable("spectrum", (40,)),
    "channels": Observable("spectrum", (2, 40)),
    "set": Observable("set", (6, 3)),
    "image": Observable("image", (9, 11)),
    "colours": Observable("image", (3, 9, 11)),
}


@pytest.mark.parametrize("name", OBSERVABLES)
def test_every_kind_has_a_default_network_of_the_declared_size(name):
    observable = OBSERVABLES[name]
    network = build_embedding(observable, SETTINGS).eval()
    expected = 3 if name == "small vector" else 5
    features = network(torch.randn(4, *observable.shape).abs().round())
    assert features.shape == (4, expected)
    assert output_size(network, observable.shape) == expected


@pytest.mark.parametrize(
    ("name", "embedding"),
    [
        ("spectrum", "conv"),
        ("channels", "conv"),
        ("image", "mlp"),
        ("image", "tapered"),
        ("vector", "none"),
    ],
)
def test_a_named_network_replaces_the_default(name, embedding):
    observable = OBSERVABLES[name]
    settings = SETTINGS.model_copy(update={"embedding": embedding})
    network = build_embedding(observable, settings).eval()
    assert network(torch.randn(4, *observable.shape)).shape == (4, 12 if name == "vector" else 5)


@pytest.mark.parametrize(
    ("name", "embedding"), [("set", "mlp"), ("set", "tapered"), ("vector", "conv")]
)
def test_a_network_that_does_not_fit_is_refused_with_those_that_do(name, embedding):
    with pytest.raises(OptionError, match=rf"{embedding}.*accepted: auto"):
        resolve_embedding(OBSERVABLES[name], embedding)


@pytest.mark.parametrize(
    ("n_in", "width", "depth", "n_out", "widths"),
    [
        (90, 256, 2, 64, [256, 128]),  # the published two
        (169, 256, 2, 4, [256, 32]),
        (10, 100, 3, 10, [100, 64, 32]),
        (10, 128, 3, 16, [128, 64, 32]),  # a step is exactly one power of two
        (10, 8, 1, 64, [8]),
    ],
)
def test_tapered_layers_go_from_the_width_to_the_output(n_in, width, depth, n_out, widths):
    layers = [m for m in tapered(n_in, width, depth, n_out, 0.0) if isinstance(m, torch.nn.Linear)]
    assert [m.out_features for m in layers] == [*widths, n_out]
    assert [m.in_features for m in layers] == [n_in, *widths]


def _sets(n: int) -> torch.Tensor:
    x = torch.randn(n, 6, 3, generator=torch.Generator().manual_seed(0))
    counts = torch.arange(n) % 7
    x[..., -1] = (torch.arange(6)[None] < counts[:, None]).float()
    return x * x[..., -1:]


def test_sets_ignore_order_and_padding():
    torch.manual_seed(0)
    network = build_embedding(OBSERVABLES["set"], SETTINGS).eval()
    x = _sets(8)
    shuffled = x[:, torch.randperm(6)]
    dirty = x.clone()
    dirty[..., :-1] += 100.0 * (1 - x[..., -1:])
    with torch.no_grad():
        torch.testing.assert_close(network(x), network(shuffled))
        torch.testing.assert_close(network(x), network(dirty))


def test_sets_of_other_sizes_give_other_features_and_empty_sets_finite_ones():
    torch.manual_seed(0)
    network = build_embedding(OBSERVABLES["set"], SETTINGS).eval()
    with torch.no_grad():
        features = network(_sets(7))
        twice = torch.zeros(1, 6, 3)
        twice[0, :2] = 1.0  # the same event twice: only the count differs from having it once
        once = twice.clone()
        once[0, 1] = 0.0
        assert not torch.allclose(network(once), network(twice))
    assert torch.isfinite(features).all()


def test_many_observations_are_embedded_in_pieces_with_equal_results():
    torch.manual_seed(0)
    network = build_embedding(OBSERVABLES["vector"], SETTINGS).eval()
    x = torch.randn(2500, 12)
    with torch.no_grad():
        torch.testing.assert_close(embedded(network, x.numpy()), network(x))
