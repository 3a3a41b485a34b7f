r"""swyft's channelised networks with one matrix product a channel instead of one a row.

A channel c is the network of one marginal. swyft's linear layer

.. math:: y_{bc} = W_c x_{bc} + b_c

multiplies one small matrix with one vector for every row b. The same sum as one product of
matrices for each channel is several times faster in training and more than ten times in evaluation
(`benchmarks/bench_swyft.py`). Only instances that belong to us are changed, and each change is
compared with the original on random input first; where they disagree the original stays.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from sbi_physics.nn.device import device_of
from sbi_physics_swyft.backend import swyft

logger = logging.getLogger(__name__)

_CHECK_ROWS = 16
_TOLERANCE = 1e-4


def accelerate(module: nn.Module) -> int:
    """Give the channelised linear layers of a module their fast forward.

    Returns:
        How many layers were changed.
    """
    kind = swyft.networks.channelized.LinearWithChannel
    layers = [layer for layer in module.modules() if type(layer) is kind]
    return sum(_swapped(layer) for layer in layers)


def _swapped(layer: Any) -> bool:
    fast = MethodType(_batched, layer)
    channels, _, n_in = layer.weights.shape
    x = torch.randn(_CHECK_ROWS, channels, n_in, generator=torch.Generator().manual_seed(0))
    if not agrees(lambda: fast(x), lambda: layer(x), type(layer).__name__):
        return False
    layer.forward = fast
    return True


def _batched(layer: Any, x: Tensor) -> Tensor:
    if x.ndim != 3:
        out: Tensor = type(layer).forward(layer, x)
        return out
    by_channel = torch.baddbmm(
        layer.bias[:, None], x.transpose(0, 1), layer.weights.transpose(1, 2)
    )
    return by_channel.transpose(0, 1)


class Channel:
    """One channel of a trained network, for many points at many observations.

    The features of an observation enter the first layer once, not once for each point, and the
    normalisations are folded into factors.

    Args:
        classifier: swyft's `MarginalClassifier`, trained.
        index: Which channel.
        n_features: Number of features.
    """

    def __init__(self, classifier: Any, index: int, n_features: int) -> None:
        self._classifier, self._index = classifier, index
        d = classifier.n_combined_features - n_features
        generator = torch.Generator().manual_seed(0)
        device = device_of(classifier)
        z = torch.randn(_CHECK_ROWS, d, generator=generator).to(device)
        features = torch.randn(3, n_features, generator=generator).to(device)
        self._fast: Callable[[Tensor, Tensor], Tensor] | None = None
        with torch.no_grad():
            fast = _fused(classifier.net, index, n_features)
            if agrees(lambda: fast(z, features), lambda: self(z, features), "Channel"):
                self._fast = fast

    def __call__(self, z: Tensor, features: Tensor) -> Tensor:
        """Return log ratios (batch, k).

        Args:
            z: Parameters of this block, shape (k, d) or (batch, k, d).
            features: Shape (batch, n_features).
        """
        if self._fast is not None:
            return self._fast(z, features)
        k = z.shape[-2]
        points = z.expand(len(features), k, z.shape[-1]).flatten(0, 1)
        block = points[:, None].expand(-1, self._classifier.n_marginals, -1)
        out: Tensor = self._classifier(features.repeat_interleave(k, dim=0), block)
        return out[:, self._index].reshape(len(features), k)


def _fused(net: Any, c: int, n_features: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Return channel c of swyft's residual network as a function of points and features."""
    first = net.initial_layer
    of_x, of_z = first.weights[c, :, :n_features].T, first.weights[c, :, n_features:].T
    blocks = []
    for block in net.blocks:
        norms = [_affine(block, k, c) for k in (0, 1)]
        inner, outer = block.linear_layers
        # The second normalisation follows a linear layer, which absorbs it.
        weight = norms[1][0][:, None] * inner.weights[c]
        bias = norms[1][0] * inner.bias[c] + norms[1][1]
        blocks.append(
            (block.activation, *norms[0], weight.T, bias, outer.weights[c].T, outer.bias[c])
        )
    last = net.final_layer

    def log_ratio(z: Tensor, features: Tensor) -> Tensor:
        h = (z @ of_z) + (features @ of_x + first.bias[c])[:, None]
        shape = h.shape[:2]
        h = h.flatten(0, 1)
        for act, scale, shift, w_in, b_in, w_out, b_out in blocks:
            inside = act(torch.addmm(b_in, act(torch.addcmul(shift, h, scale)), w_in))
            h = torch.addmm(h, inside, w_out).add_(b_out)
        out: Tensor = h @ last.weights[c, 0] + last.bias[c, 0]
        return out.reshape(shape)

    return log_ratio


def _affine(block: Any, k: int, c: int) -> tuple[Tensor, Tensor]:
    """Scale and shift of a residual block's k-th normalisation in evaluation, each (width,)."""
    width = block.linear_layers[0].weights.shape[-1]
    if not block.use_batch_norm:
        like = block.linear_layers[0].weights
        return like.new_ones(width), like.new_zeros(width)
    norm = block.batch_norm_layers[k]
    part = slice(c * width, (c + 1) * width)
    scale = norm.weight[part] / torch.sqrt(norm.running_var[part] + norm.eps)
    return scale, norm.bias[part] - norm.running_mean[part] * scale


def agrees(fast: Callable[[], Tensor], original: Callable[[], Tensor], what: str) -> bool:
    """Whether two ways to compute the same thing agree; a warning says so if not."""
    with torch.no_grad():
        expected = original()
        try:
            difference = float((fast() - expected).abs().max())
        except RuntimeError as error:  # shapes of another version of swyft
            logger.warning("the fast %s of swyft fails (%s); using the original", what, error)
            return False
    if difference <= _TOLERANCE * max(1.0, float(expected.abs().max())):
        return True
    logger.warning("the fast %s of swyft is off by %g; using the original", what, difference)
    return False
