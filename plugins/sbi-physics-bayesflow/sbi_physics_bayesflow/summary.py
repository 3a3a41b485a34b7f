"""Summary networks of BayesFlow for every kind of observable, with presence masks for sets.

BayesFlow's `DeepSet` takes no mask and its `SetTransformer` does not hand the mask to its pooling.
Here their layers are called one by one, so that padding takes part in no mean and no attention;
without padding the result is that of BayesFlow's own call. The number of events, which a mean
forgets, is a summary of its own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sbi_physics import Observable
from sbi_physics.errors import OptionError
from sbi_physics.nn.embedding import SMALL_VECTOR
from sbi_physics_bayesflow.backend import Backend
from sbi_physics_bayesflow.flow import keras_activation
from sbi_physics_bayesflow.settings import CouplingSettings

_ALLOWED = {
    "vector": ("none", "mlp"),
    "spectrum": ("none", "mlp", "time_series"),
    "set": ("deep_set", "set_transformer", "mlp"),
    "image": ("conv", "mlp", "none"),
}
_COUNTER = re.compile(r"_\d+$")
_HEADS = 4
_KERNEL, _STRIDE = 3, 2

Summarise = Callable[[Tensor, bool], Tensor]
"""(data, training) -> summaries, on keras layers."""


def resolve_summary(observable: Observable, name: str) -> str:
    """Return the network that `name` means for an observable.

    Raises:
        OptionError: If the network does not fit the kind of data.
    """
    kind = observable.kind
    if name == "auto":
        small = math.prod(observable.shape) <= SMALL_VECTOR
        return {
            "vector": "none" if small else "mlp",
            "spectrum": "mlp",
            "set": "deep_set",
            "image": "conv",
        }[kind]
    if name not in _ALLOWED[kind]:
        allowed = ", ".join(("auto", *_ALLOWED[kind]))
        raise OptionError(f"summary {name!r} does not fit {kind} data; accepted: {allowed}")
    return name


def build_summary(
    backend: Backend, observable: Observable, settings: CouplingSettings
) -> nn.Module:
    """Return an untrained summary network, (batch, *observable.shape) -> (batch, features)."""
    name = resolve_summary(observable, settings.summary)
    shape = observable.shape
    if name == "none":
        return nn.Flatten()
    builders = {
        "mlp": _perceptron,
        "deep_set": _deep_set,
        "set_transformer": _set_transformer,
        "time_series": _time_series,
        "conv": _convolutional,
    }
    layers, summarise = builders[name](backend, shape, settings)
    return KerasSummary(backend, layers, summarise)


class KerasSummary(nn.Module):
    """Keras layers as one torch module, their weights named by their place.

    Keras numbers the layers of a process, so that its own names differ between two networks of
    one architecture and cannot be used in files.

    Args:
        backend: keras, for the device.
        layers: The layers that hold the weights.
        summarise: What calls them.
    """

    def __init__(self, backend: Backend, layers: Sequence[Any], summarise: Summarise) -> None:
        super().__init__()
        self._device, self._summarise = backend.keras.device, summarise
        self._layers = tuple(layers)  # not registered: keras modules bring keras's names
        variables = {id(v): v for layer in layers for v in layer.variables}
        for i, variable in enumerate(variables.values()):
            name = f"w{i:03d}_{_COUNTER.sub('', variable.name)}"
            if variable.trainable:
                self.register_parameter(name, variable.value)
            else:
                self.register_buffer(name, variable.value.detach())

    def forward(self, x: Tensor) -> Tensor:
        """Summarise, (batch, *shape) -> (batch, features)."""
        with self._device(x.device.type):
            return self._summarise(x, self.training)


Built = tuple[Sequence[Any], Summarise]


def _perceptron(backend: Backend, shape: tuple[int, ...], settings: CouplingSettings) -> Built:
    hidden = backend.bayesflow.networks.MLP(
        settings.summary_widths,
        activation=keras_activation(backend, settings.summary_activation),
        residual=settings.summary_residual,
        dropout=settings.dropout,
    )
    last = backend.keras.layers.Dense(settings.summary_dim)
    hidden.build((None, math.prod(shape)))
    last.build((None, settings.summary_widths[-1]))
    return (hidden, last), lambda x, training: last(hidden(x.flatten(1), training=training))


def _deep_set(backend: Backend, shape: tuple[int, ...], settings: CouplingSettings) -> Built:
    width = settings.summary_widths[0]
    network = backend.bayesflow.networks.DeepSet(
        summary_dim=settings.summary_dim,
        embed_dim=width,
        depth=len(settings.summary_widths),
        mlp_widths=(width,),
        num_heads=_heads(width),
        activation=keras_activation(backend, settings.summary_activation),
        dropout=settings.dropout,
    )
    network.build((2, shape[0], shape[1] - 1))

    def summarise(x: Tensor, training: bool) -> Tensor:
        events, present = x[..., :-1], _present(x)
        return torch.cat([masked_deep_set(network, events, present, training), _count(x)], dim=1)

    return (network,), summarise


def _set_transformer(
    backend: Backend, shape: tuple[int, ...], settings: CouplingSettings
) -> Built:
    widths = settings.summary_widths
    network = backend.bayesflow.networks.SetTransformer(
        summary_dim=settings.summary_dim,
        embed_dims=widths,
        num_heads=tuple(_heads(width) for width in widths),
        dropout=settings.dropout,
    )
    network.build((2, shape[0], shape[1] - 1))

    def summarise(x: Tensor, training: bool) -> Tensor:
        events, present = x[..., :-1], _present(x)
        summary = masked_set_transformer(network, events, present, training)
        return torch.cat([summary, _count(x)], dim=1)

    return (network,), summarise


def _time_series(backend: Backend, shape: tuple[int, ...], settings: CouplingSettings) -> Built:
    stages = len(settings.summary_widths)
    network = backend.bayesflow.networks.TimeSeriesNetwork(
        summary_dim=settings.summary_dim,
        filters=settings.summary_widths,
        kernel_sizes=(_KERNEL,) * stages,
        strides=(_STRIDE,) * stages,
        activation=keras_activation(backend, settings.summary_activation),
        recurrent_dim=settings.summary_widths[-1],
        dropout=settings.dropout,
    )
    network.build((2, shape[-1], shape[0] if len(shape) == 2 else 1))
    return (network,), lambda x, training: network(_channels_last(x, 1), training=training)


def _convolutional(backend: Backend, shape: tuple[int, ...], settings: CouplingSettings) -> Built:
    network = backend.bayesflow.networks.ConvolutionalNetwork(
        summary_dim=settings.summary_dim,
        widths=settings.summary_widths,
        blocks_per_stage=1,
        residual=settings.summary_residual,
        activation=keras_activation(backend, settings.summary_activation),
        dropout=settings.dropout,
        pool_head="flatten",  # an average over the image would forget positions
    )
    network.build((2, *shape[-2:], shape[0] if len(shape) == 3 else 1))
    return (network,), lambda x, training: network(_channels_last(x, 2), training=training)


def masked_deep_set(network: Any, events: Tensor, present: Tensor, training: bool) -> Tensor:
    """Evaluate BayesFlow's `DeepSet` on the events that are present.

    Args:
        network: The built network.
        events: Shape (batch, events, columns).
        present: Boolean, shape (batch, events); at least one event of each set.
        training: Whether dropout is on.
    """
    x = events
    for module in network.equivariant_modules:
        h = module.input_projector(x)
        normed = h if module.ln is None else module.ln(h)
        shared = _masked_invariant(module.invariant_module, normed, present, training)
        joined = torch.cat([normed, shared[:, None].expand(-1, x.shape[1], -1)], dim=-1)
        joined = joined if module.ln_fc is None else module.ln_fc(joined)
        x = h + module.equivariant_fc(joined, training=training)
    return _pooled(network, x, present, training)


def masked_set_transformer(
    network: Any, events: Tensor, present: Tensor, training: bool
) -> Tensor:
    """Evaluate BayesFlow's `SetTransformer` on the events that are present, as above."""
    x = events
    mask = present[:, None, :].expand(-1, x.shape[1], -1)
    for block in network.attention_blocks:
        x = block(x, training=training, attention_mask=mask)
    return _pooled(network, x, present, training)


def _masked_invariant(module: Any, x: Tensor, present: Tensor, training: bool) -> Tensor:
    x = x if module.ln_inner is None else module.ln_inner(x)
    x = module.inner_fc(x, training=training)
    weight = present[..., None].to(x.dtype)
    x = (x * weight).sum(dim=1) / weight.sum(dim=1)
    x = x if module.ln_outer is None else module.ln_outer(x)
    result: Tensor = module.outer_fc(x, training=training)
    return result


def _pooled(network: Any, x: Tensor, present: Tensor, training: bool) -> Tensor:
    pooling = network.pooling_by_attention
    refined = pooling.feedforward(x, training=training)
    seeds = pooling.seed_vector.value[None].expand(len(x), -1, -1)
    mask = present[:, None, :].expand(-1, seeds.shape[1], -1)
    summaries = pooling.mab(seeds, refined, training=training, attention_mask=mask)
    result: Tensor = network.output_projector(summaries.flatten(1))
    return result


def _present(x: Tensor) -> Tensor:
    """Which rows are events; of an empty set the first row, which is zero, stands for none."""
    present = x[..., -1] > 0
    empty = ~present.any(dim=1)
    return torch.cat([present[:, :1] | empty[:, None], present[:, 1:]], dim=1)


def _count(x: Tensor) -> Tensor:
    """The number of events on a logarithmic scale from 0 to 1, shape (batch, 1)."""
    return torch.log1p(x[..., -1].sum(dim=1, keepdim=True)) / math.log1p(x.shape[1])


def _channels_last(x: Tensor, axes: int) -> Tensor:
    return x[..., None] if x.dim() == axes + 1 else x.movedim(1, -1)


def _heads(width: int) -> int:
    return math.gcd(_HEADS, width)
