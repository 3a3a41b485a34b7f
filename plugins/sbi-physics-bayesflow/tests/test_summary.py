"""Summary networks: shapes by kind of data, and sets whose padding does not matter."""

from __future__ import annotations

import pytest
import torch
from sbi_physics_bayesflow.backend import seeded
from sbi_physics_bayesflow.settings import CouplingSettings
from sbi_physics_bayesflow.summary import (
    build_summary,
    masked_deep_set,
    masked_set_transformer,
    resolve_summary,
)

from sbi_physics import Observable
from sbi_physics.errors import OptionError
from sbi_physics.nn.weights import load_arrays, to_arrays

pytestmark = pytest.mark.engine

CASES = [
    ("vector", (3,), "none", 3),
    ("vector", (30,), "mlp", 5),
    ("spectrum", (24,), "mlp", 5),
    ("spectrum", (24,), "time_series", 5),
    ("spectrum", (2, 24), "time_series", 5),
    ("set", (6, 4), "deep_set", 6),
    ("set", (6, 4), "set_transformer", 6),
    ("set", (6, 4), "mlp", 5),
    ("image", (8, 8), "conv", 5),
    ("image", (2, 9, 7), "conv", 5),
]
SETS = ("deep_set", "set_transformer")


def _summary(kind, shape, name, seed=1, **values):
    settings = CouplingSettings(summary=name, summary_dim=5, summary_widths=(16, 8), **values)
    with seeded(seed) as backend:
        return build_summary(backend, Observable(kind, shape), settings)


def _set(counts, events=6, columns=3):
    x = torch.randn(len(counts), events, columns + 1, generator=torch.Generator().manual_seed(1))
    mask = torch.arange(events)[None] < torch.tensor(counts)[:, None]
    x[..., -1] = 1.0
    return x * mask[..., None]


@pytest.mark.parametrize(("kind", "shape", "name", "features"), CASES)
def test_shapes_gradients_and_stored_weights(kind, shape, name, features):
    network = _summary(kind, shape, name)
    x = _set([2, 6, 1]) if kind == "set" else torch.randn(3, *shape)
    out = network(x)
    assert out.shape == (3, features)
    assert torch.isfinite(out).all()
    if name == "none":
        return
    out.sum().backward()
    without = [n for n, p in network.named_parameters() if p.grad is None]
    assert without == []
    other = _summary(kind, shape, name, seed=2)  # a later network of this process
    assert not torch.allclose(other(x), out)
    load_arrays(other, to_arrays(network))
    torch.testing.assert_close(other(x), out)


@pytest.mark.parametrize("name", SETS)
def test_padding_and_order_do_not_matter(name):
    network = _summary("set", (6, 4), name)
    x = _set([3, 1, 6, 0])
    out = network(x)
    shuffled = x[:, torch.tensor([5, 2, 0, 4, 1, 3])]  # events are no longer in front
    torch.testing.assert_close(network(shuffled), out, rtol=1e-4, atol=1e-5)
    junk = x.clone()
    junk[0, 3:, :-1] = 7.0
    junk[1, 1:, :-1] = -3.0
    torch.testing.assert_close(network(junk), out, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SETS)
def test_the_number_of_events_and_their_values_matter(name):
    network = _summary("set", (6, 4), name)
    x = _set([3, 3])
    x[1, :3, :-1] = x[0, 0, :-1]
    x[0] = 0.0
    x[0, 0] = x[1, 0]  # one event, and the same event three times
    out = network(x)
    assert (out[0] - out[1]).abs().max() > 1e-2
    assert torch.isfinite(network(torch.zeros(2, 6, 4))).all()
    moved = _set([3, 3])
    moved[1] = moved[0]
    moved[1, 2, 0] += 1.0
    out = network(moved)
    assert (out[0] - out[1]).abs().max() > 1e-3


@pytest.mark.parametrize("name", SETS)
def test_whole_sets_give_what_bayesflow_gives(name):
    network = _summary("set", (6, 4), name)
    (theirs,) = network._layers
    events = _set([6, 6])[..., :-1]
    everything = torch.ones(2, 6, dtype=torch.bool)
    masked = masked_deep_set if name == "deep_set" else masked_set_transformer
    ours = masked(theirs, events, everything, False)
    torch.testing.assert_close(ours, theirs(events, training=False), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["mlp", "deep_set", "set_transformer", "time_series", "conv"])
def test_dropout_acts_in_training_only_and_is_off_by_default(name):
    kind, shape = next((k, s) for k, s, n, _ in CASES if n == name)
    x = _set([2, 6, 1]) if kind == "set" else torch.randn(3, *shape)
    plain, dropping = _summary(kind, shape, name), _summary(kind, shape, name, dropout=0.5)
    for network in (plain.train(), dropping.eval()):
        torch.testing.assert_close(network(x), network(x))
    dropping.train()
    with torch.no_grad():  # some layers start at zero, which would hide what is dropped
        for parameter in dropping.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    assert not torch.allclose(dropping(x), dropping(x))


def test_the_network_follows_the_kind_of_data_and_misfits_are_refused():
    found = {k: resolve_summary(Observable(k, s), "auto") for k, s, _, _ in CASES[1:]}
    assert found == {
        "vector": "mlp",
        "spectrum": "mlp",
        "set": "deep_set",
        "image": "conv",
    }
    assert resolve_summary(Observable("vector", (3,)), "auto") == "none"
    with pytest.raises(OptionError, match="deep_set.*vector.*accepted: auto, none, mlp"):
        resolve_summary(Observable("vector", (3,)), "deep_set")
