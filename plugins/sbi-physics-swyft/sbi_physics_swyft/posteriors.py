"""Posteriors of a trained ratio network: joint, or one for each block of parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self

from sbi_physics import Posterior
from sbi_physics.marginal import Block, MarginalPosterior
from sbi_physics.nn.device import device_of, resolve_device
from sbi_physics.nn.ratio import log_ratios
from sbi_physics.nn.weights import to_arrays
from sbi_physics.posterior import PosteriorContext
from sbi_physics.ratio import RatioPosterior
from sbi_physics.types import AnyArray, DataArray, FloatArray
from sbi_physics_swyft.channels import Channel
from sbi_physics_swyft.ratio_network import RatioNetwork

_CHUNK_ROWS = 16_384
_MARGINAL_POOL = 4
_ENOUGH = 4096  # a starved observation's own pool then keeps over 300 effective draws


def trained_posterior(
    context: PosteriorContext, network: RatioNetwork, config: Mapping[str, Any], pool_size: int
) -> Posterior:
    """Return the posterior that a trained network stands for.

    Args:
        context: What it was made from.
        network: The trained network, in evaluation mode.
        config: What is needed to rebuild it.
        pool_size: Prior points of a joint posterior; blocks of one or two parameters use a
            quarter, but as many as 4096 if there are so many.
    """
    channels = network.channels()
    if tuple(channels) == (context.prior.names,):
        (channel,) = channels.values()
        return JointPosterior(context, network, channel, pool_size, config)
    smaller = max(pool_size // _MARGINAL_POOL, min(pool_size, _ENOUGH))
    parts = {
        block: BlockPosterior(
            replace(context, prior=context.prior.select(block)), network, channel, smaller
        )
        for block, channel in channels.items()
    }
    return NetworkMarginals(context, network, parts, config)


class BlockPosterior(RatioPosterior):
    """The posterior of the parameters of one block.

    Args:
        context: What it was made from; its prior is that of the block.
        network: Summarises the data.
        channel: Log ratios of the block.
        pool_size: Number of prior points in the shared pool.
    """

    def __init__(
        self, context: PosteriorContext, network: RatioNetwork, channel: Channel, pool_size: int
    ) -> None:
        super().__init__(context, pool_size=pool_size)
        self.network = network
        self.channel = channel

    def _log_ratio(self, u: FloatArray, xt: DataArray) -> FloatArray:
        device = device_of(self.network)
        embedding = self.network.embedding
        return log_ratios(self.channel, embedding, u, xt, rows=_CHUNK_ROWS, device=device)

    def to(self, device: str) -> Self:
        self.network.to(resolve_device(device))
        self.channel = self.network.channels()[self.prior.names]
        return super().to(device)


class JointPosterior(BlockPosterior):
    """The joint posterior of all parameters.

    Args:
        context: What it was made from.
        network: The trained network.
        channel: Its only channel.
        pool_size: Number of prior points in the shared pool.
        config: What is needed to rebuild it.
    """

    def __init__(
        self,
        context: PosteriorContext,
        network: RatioNetwork,
        channel: Channel,
        pool_size: int,
        config: Mapping[str, Any],
    ) -> None:
        super().__init__(context, network, channel, pool_size)
        self._configuration = dict(config)

    def _config(self) -> dict[str, Any]:
        return self._configuration

    def _weights(self) -> dict[str, AnyArray]:
        return to_arrays(self.network)


class NetworkMarginals(MarginalPosterior):
    """Marginal posteriors of every parameter and every pair.

    Args:
        context: What it was made from.
        network: The trained network, shared by all parts.
        parts: The posterior of each block.
        config: What is needed to rebuild it.
    """

    def __init__(
        self,
        context: PosteriorContext,
        network: RatioNetwork,
        parts: Mapping[Block, BlockPosterior],
        config: Mapping[str, Any],
    ) -> None:
        super().__init__(context, parts)
        self.network = network
        self._configuration = dict(config)

    def _config(self) -> dict[str, Any]:
        return self._configuration

    def _weights(self) -> dict[str, AnyArray]:
        return to_arrays(self.network)
