"""Ratio networks: a summary network and one of sbi's classifiers behind it, evaluated on pools.

The classifier's first layer acts on the concatenation of parameters and features. Split into its
two parts it is applied once per parameter point and once per observation, and the sums are
broadcast: for 1000 observations and a pool of 20 000 points most of the work of that layer
vanishes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from nflows.nn.nets import ResidualNet
from sbi.neural_nets import classifier_nn
from torch import Tensor, nn

from sbi_physics.nn.coordinates import to_normal

_BUILD_ROWS = 8


class RatioNetwork(nn.Module):
    """A classifier f(z, x) of normal coordinates z, with the data summarised once.

    Args:
        embedding: Summary network, (batch, *shape) -> (batch, n_features).
        classifier: Ratio estimator of sbi on (z, features).
        d: Number of parameters.
    """

    def __init__(self, embedding: nn.Module, classifier: nn.Module, d: int) -> None:
        super().__init__()
        self.embedding = embedding
        self.classifier = classifier
        self.d = d

    def forward(self, z: Tensor, features: Tensor) -> Tensor:
        """Return log ratios (batch, k) of z (k, d) or (batch, k, d) and features (batch, f)."""
        first, rest = _split(cast("nn.Module", self.classifier.net))
        of_z = z @ first.weight[:, : self.d].T
        of_x = features @ first.weight[:, self.d :].T + first.bias
        hidden = of_z + of_x[:, None, :]
        return rest(hidden.flatten(0, 1)).reshape(hidden.shape[:2])

    def logits(self, u: Tensor, x: Tensor, pairs: Callable[[Tensor], Tensor]) -> Tensor:
        """Return logits, shape (batch, k), for the points `pairs(z)` (batch, k, d) at each x."""
        out: Tensor = self(pairs(to_normal(u)), self.embedding(x))
        return out


def build_classifier(
    name: str, d: int, n_features: int, *, width: int, blocks: int, dropout: float
) -> nn.Module:
    """Build an untrained classifier (`mlp` or `resnet`) with sbi's own builder."""
    arguments: dict[str, Any] = {}
    if name == "resnet":
        arguments = {"num_blocks": blocks, "dropout_probability": dropout}
    builder = classifier_nn(
        name, z_score_theta="none", z_score_x="none", hidden_features=width, **arguments
    )
    classifier: nn.Module = builder(
        torch.zeros(_BUILD_ROWS, d), torch.zeros(_BUILD_ROWS, n_features)
    )
    return classifier


def _split(net: nn.Module) -> tuple[nn.Linear, Callable[[Tensor], Tensor]]:
    """Return the first linear layer of sbi's classifier and what follows it."""
    if isinstance(net, nn.Sequential):
        return cast("nn.Linear", net[0]), net[1:]
    if isinstance(net, ResidualNet):
        return cast("nn.Linear", net.initial_layer), lambda h: _after_first(net, h)
    raise TypeError(
        f"unexpected classifier {type(net).__name__}: this version of sbi is not supported"
    )


def _after_first(net: Any, hidden: Tensor) -> Tensor:
    for block in net.blocks:
        hidden = block(hidden, context=None)
    out: Tensor = net.final_layer(hidden)
    return out
