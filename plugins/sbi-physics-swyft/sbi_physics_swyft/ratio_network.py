"""A summary network with swyft's ratio estimators behind it, one channel for each block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, cast

import torch
from torch import Tensor, nn

from sbi_physics.marginal import Block
from sbi_physics.nn.contrast import rolled
from sbi_physics.nn.coordinates import to_normal
from sbi_physics_swyft.backend import swyft
from sbi_physics_swyft.channels import Channel, accelerate

MAX_JOINT = 6
"""Largest number of parameters with a joint head."""


@dataclass(frozen=True, slots=True)
class Head:
    """The blocks that one of swyft's estimators answers for, all of one size.

    Attributes:
        name: Name of the estimator in the network.
        blocks: Parameter names of its channels, in order.
    """

    name: str
    blocks: tuple[Block, ...]


def joint_heads(names: Sequence[str]) -> tuple[Head, ...]:
    """One head, one channel: all parameters together."""
    return (Head("joint", (tuple(names),)),)


def marginal_heads(names: Sequence[str]) -> tuple[Head, ...]:
    """Every parameter by itself, and every pair."""
    singles = Head("singles", tuple((name,) for name in names))
    pairs = Head("pairs", tuple(combinations(names, 2)))
    return (singles, pairs) if pairs.blocks else (singles,)


class RatioNetwork(nn.Module):
    """Log ratios of several blocks of parameters, in normal coordinates, from shared features.

    Parameters are standard normal under the prior, so swyft's own online standardisation, which
    its estimator of several parameters lacks, is not needed.

    Args:
        embedding: Summary network, (batch, *shape) -> (batch, n_features).
        n_features: Number of features.
        names: All parameter names, in the order of theta's columns.
        heads: What to estimate.
        width: Width of the estimators.
        blocks: Residual blocks of the estimators.
        dropout: Dropout rate inside them.
        batch_norm: Whether they normalise activations over the batch.
    """

    def __init__(
        self,
        embedding: nn.Module,
        n_features: int,
        names: Sequence[str],
        heads: Sequence[Head],
        *,
        width: int,
        blocks: int,
        dropout: float,
        batch_norm: bool,
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.n_features = n_features
        self.names, self.heads = tuple(names), tuple(heads)
        self.estimators = nn.ModuleDict(
            {head.name: _estimator(head, n_features, self.names) for head in heads}
        )
        for head in heads:
            # swyft's estimator of several parameters has no option for the normalisation.
            self.estimators[head.name].classifier = swyft.networks.MarginalClassifier(
                len(head.blocks),
                n_features + len(head.blocks[0]),
                hidden_features=width,
                num_blocks=blocks,
                dropout_probability=dropout,
                use_batch_norm=batch_norm,
            )
        accelerate(self.estimators)

    def columns(self, block: Block) -> list[int]:
        """Columns of theta that a block is about."""
        return [self.names.index(name) for name in block]

    def logits(self, u: Tensor, x: Tensor, shifts: Tensor) -> Tensor:
        """Return log ratios of joint and shifted pairs, shape (batch, 1 + K, channels).

        Args:
            u: Unconstrained parameters, shape (batch, d).
            x: Transformed data, shape (batch, *shape).
            shifts: K cyclic shifts that make contrastive pairs.
        """
        z = rolled(to_normal(u), shifts)
        features = self.embedding(x).repeat_interleave(z.shape[1], dim=0)
        rows = z.flatten(0, 1)
        parts = [self._of_head(head, rows, features) for head in self.heads]
        return torch.cat(parts, dim=1).reshape(*z.shape[:2], -1)

    def channels(self) -> Mapping[Block, Channel]:
        """Return the trained channel of every block, for evaluation at many points."""
        return {
            block: Channel(self._classifier(head), index, self.n_features)
            for head in self.heads
            for index, block in enumerate(head.blocks)
        }

    def _of_head(self, head: Head, z: Tensor, features: Tensor) -> Tensor:
        index = torch.tensor([self.columns(block) for block in head.blocks]).to(z.device)
        out: Tensor = self._classifier(head)(features, z[:, index])
        return out

    def _classifier(self, head: Head) -> Any:
        return cast("Any", self.estimators[head.name]).classifier


def _estimator(head: Head, n_features: int, names: Sequence[str]) -> nn.Module:
    """Return swyft's untrained estimator for a head."""
    if len(head.blocks[0]) == 1:
        one: nn.Module = swyft.LogRatioEstimator_1dim(
            num_features=n_features,
            num_params=len(head.blocks),
            varnames=[block[0] for block in head.blocks],
            ptrans_online_z_score=False,
        )
        return one
    several: nn.Module = swyft.LogRatioEstimator_Ndim(
        num_features=n_features,
        marginals=tuple(tuple(names.index(n) for n in block) for block in head.blocks),
        varnames=[list(block) for block in head.blocks],
    )
    return several
