r"""Summary networks: transformed data of one kind to a few features, shape (batch, n_features).

`vector` and `spectrum` use a residual perceptron, or a one-dimensional residual convolution,
`image` a two-dimensional one. A `set` of events uses a deep set (arXiv:1703.06114) with a presence
mask,

.. math:: f(x) = \rho\left(\operatorname{mean}_i \phi(x_i),\ \max_i \phi(x_i),\ \log(1 + n)\right),

where the mean and the maximum run over the n real events only. Features of the power spectrum of a
`spectrum` can be joined to those of its network (`power`).
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from sbi_physics import Observable
from sbi_physics.errors import OptionError
from sbi_physics.nn.device import CPU
from sbi_physics.nn.power import PowerSpectrum, power_spectrum
from sbi_physics.transforms import Transform
from sbi_physics.types import DataArray

SMALL_VECTOR = 8
"""Vectors of at most this many entries go to the estimator as they are under `auto`."""

EMBEDDING_FIELDS = (
    "embedding",
    "embedding_width",
    "embedding_depth",
    "n_features",
    "power_features",
    "power_length",
    "power_cutoff",
    "dropout",
)
"""Settings that shape a summary network."""

_EMBED_ROWS = 1024
_POOLED = {1: 8, 2: 4}
_ALLOWED = {
    "vector": ("none", "mlp", "tapered"),
    "spectrum": ("none", "mlp", "tapered", "conv"),
    "set": ("set",),
    "image": ("conv", "mlp", "tapered", "none"),
}


class EmbeddingSettings(Protocol):
    """The fields of `NetworkSettings` that shape a summary network."""

    @property
    def embedding(self) -> str: ...
    @property
    def embedding_width(self) -> int: ...
    @property
    def embedding_depth(self) -> int: ...
    @property
    def n_features(self) -> int: ...
    @property
    def power_features(self) -> int: ...
    @property
    def power_length(self) -> int | None: ...
    @property
    def power_cutoff(self) -> float | None: ...
    @property
    def dropout(self) -> float: ...


def resolve_embedding(observable: Observable, name: str) -> str:
    """Return the network that `name` means for an observable.

    Raises:
        OptionError: If the network does not fit the kind of data.
    """
    kind = observable.kind
    if name == "auto":
        entries = math.prod(observable.shape)
        if kind == "vector":
            return "none" if entries <= SMALL_VECTOR else "mlp"
        return {"spectrum": "mlp", "set": "set", "image": "conv"}[kind]
    if name not in _ALLOWED[kind]:
        allowed = ", ".join(("auto", *_ALLOWED[kind]))
        raise OptionError(f"embedding {name!r} does not fit {kind} data; accepted: {allowed}")
    return name


def build_embedding(
    observable: Observable, settings: EmbeddingSettings, transform: Transform | None = None
) -> nn.Module:
    """Return an untrained summary network, (batch, *observable.shape) -> (batch, features).

    Args:
        observable: What the data are.
        settings: Which network, and whether their power spectrum is looked at beside it.
        transform: The fitted transform of the data that the network will see; needed for the power
            spectrum.

    Raises:
        OptionError: If the network does not fit the kind of data.
        ContractError: If a power spectrum is asked for without a transform.
    """
    network = _of_data(observable, settings)
    if settings.power_features == 0:
        return network
    power = power_spectrum(
        observable, transform, length=settings.power_length, cutoff=settings.power_cutoff
    )
    features = tapered(
        power.n_out,
        settings.embedding_width,
        settings.embedding_depth,
        settings.power_features,
        settings.dropout,
    )
    return WithPowerSpectrum(network, power, features)


def _of_data(observable: Observable, settings: EmbeddingSettings) -> nn.Module:
    name = resolve_embedding(observable, settings.embedding)
    shape = observable.shape
    width, depth = settings.embedding_width, settings.embedding_depth
    if name == "none":
        return nn.Flatten()
    if name == "mlp":
        return ResidualPerceptron(
            math.prod(shape), width, depth, settings.n_features, settings.dropout
        )
    if name == "tapered":
        n_in = math.prod(shape)
        perceptron = tapered(n_in, width, depth, settings.n_features, settings.dropout)
        return nn.Sequential(nn.Flatten(), perceptron)
    if name == "set":
        return DeepSet(shape[-1] - 1, width, depth, settings.n_features, settings.dropout)
    axes = 1 if observable.kind == "spectrum" else 2
    return ConvolutionalEmbedding(shape, axes, width, depth, settings.n_features, settings.dropout)


def output_size(embedding: nn.Module, shape: tuple[int, ...]) -> int:
    """Return the number of features of a summary network for one event shape."""
    # Running statistics must not keep what these zeros do to them. (A copy could be tried instead,
    # but networks that build themselves at the first call must be built, and copying may warn.)
    before = {name: buffer.clone() for name, buffer in embedding.named_buffers()}
    with torch.no_grad():
        size = int(embedding(torch.zeros(2, *shape)).shape[1])
        for name, buffer in embedding.named_buffers():
            if name in before:
                buffer.copy_(before[name])
    return size


def embedded(embedding: nn.Module, xt: DataArray, device: torch.device = CPU) -> Tensor:
    """Return the features of many observations, shape (batch, features), without gradients.

    Args:
        embedding: Summary network.
        xt: Transformed observations, shape (batch, *shape).
        device: Where the network is.
    """
    with torch.no_grad():
        parts = [
            embedding(torch.from_numpy(np.ascontiguousarray(xt[i : i + _EMBED_ROWS])).to(device))
            for i in range(0, len(xt), _EMBED_ROWS)
        ]
        return torch.cat(parts)


def perceptron(n_in: int, widths: list[int], n_out: int, dropout: float) -> nn.Sequential:
    """Return a perceptron with SiLU activations and dropout behind every hidden layer."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Linear(n_in, width), nn.SiLU()]
        if dropout > 0:
            layers.append(nn.Dropout(dropout))
        n_in = width
    return nn.Sequential(*layers, nn.Linear(n_in, n_out))


def tapered(n_in: int, width: int, depth: int, n_out: int, dropout: float) -> nn.Sequential:
    r"""Return a perceptron whose hidden layers go from a width W to the size F of its output.

    Layer i of D has :math:`2^{\lceil\log_2 W + (i/D)(\log_2 F - \log_2 W)\rceil}` units, the first
    W. With D = 2 these are the widths of the public code behind arXiv:2509.20578.
    """
    start, slope = math.log2(width), (math.log2(n_out) - math.log2(width)) / depth
    # Rounding must not raise a whole exponent to the next one.
    later = [2 ** math.ceil(start + i * slope - 1e-9) for i in range(1, depth)]
    return perceptron(n_in, [width, *later], n_out, dropout)


class WithPowerSpectrum(nn.Module):
    """Features of spectra, and features of their power spectra behind them.

    Args:
        data: Network of the data, (batch, *shape) -> (batch, f).
        power: Power spectrum of the data, (batch, *shape) -> (batch, entries).
        features: Network of the power spectrum, (batch, entries) -> (batch, g).
    """

    def __init__(self, data: nn.Module, power: PowerSpectrum, features: nn.Module) -> None:
        super().__init__()
        self.data, self.power, self.features = data, power, features

    def forward(self, x: Tensor) -> Tensor:
        """Summarise, (batch, *shape) -> (batch, f + g)."""
        return torch.cat([self.data(x), self.features(self.power(x))], dim=1)


class ResidualPerceptron(nn.Module):
    """Perceptron of pre-normalised residual blocks on flattened data.

    Args:
        n_in: Entries of an event.
        width: Width of the blocks.
        depth: Number of blocks, of two layers each.
        n_features: Size of the output.
        dropout: Dropout rate inside the blocks.
    """

    def __init__(self, n_in: int, width: int, depth: int, n_features: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Linear(n_in, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width),
                nn.Linear(width, width),
                nn.GELU(),
                nn.Dropout(dropout),
                nn.Linear(width, width),
            )
            for _ in range(depth)
        )
        self.last = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, n_features))

    def forward(self, x: Tensor) -> Tensor:
        """Summarise, (batch, *shape) -> (batch, features)."""
        h: Tensor = self.first(x.flatten(1))
        for block in self.blocks:
            h = h + block(h)
        features: Tensor = self.last(h)
        return features


class DeepSet(nn.Module):
    """Permutation-invariant summary of events; the last input column marks real events.

    Args:
        n_columns: Columns of an event without the mask.
        width: Width of all hidden layers.
        depth: Hidden layers before and after pooling.
        n_features: Size of the output.
        dropout: Dropout rate.
    """

    def __init__(
        self, n_columns: int, width: int, depth: int, n_features: int, dropout: float
    ) -> None:
        super().__init__()
        self.event = _WithLinear(n_columns, [width] * depth, width, dropout)
        self.pooled = _WithLinear(2 * width + 1, [width] * depth, n_features, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Summarise sets, (batch, events, columns + 1) -> (batch, features)."""
        mask = x[..., -1:]
        events = self.event(x[..., :-1])
        count = mask.sum(dim=1)
        mean = (events * mask).sum(dim=1) / count.clamp(min=1.0)
        largest = events.masked_fill(mask == 0, -torch.inf).amax(dim=1)
        largest = torch.where(count > 0, largest, torch.zeros_like(largest))
        features: Tensor = self.pooled(torch.cat([mean, largest, torch.log1p(count)], dim=1))
        return features


class ConvolutionalEmbedding(nn.Module):
    """Residual convolutions with stride two, pooled to a coarse grid that keeps positions.

    Args:
        shape: Event shape, with or without a leading channel axis.
        axes: 1 for spectra, 2 for images.
        width: Channels of every stage.
        depth: Number of stages; each halves the resolution.
        n_features: Size of the output.
        dropout: Dropout rate before the last layer.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        axes: int,
        width: int,
        depth: int,
        n_features: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.axes = axes
        convolution: type[nn.Module] = nn.Conv1d if axes == 1 else nn.Conv2d
        channels = shape[0] if len(shape) > axes else 1
        self.stem = convolution(channels, width, 5, padding=2)
        self.stages = nn.ModuleList(_Stage(convolution, width) for _ in range(depth))
        pool: nn.Module = nn.AdaptiveAvgPool1d(_POOLED[1])
        if axes == 2:
            pool = nn.AdaptiveAvgPool2d(_POOLED[2])
        cells = _POOLED[axes] ** axes
        self.pool = nn.Sequential(pool, nn.Flatten())
        self.head = _WithLinear(width * cells, [2 * n_features], n_features, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Summarise spectra (batch, [channels,] bins) or images (batch, [channels,] h, w)."""
        if x.dim() == self.axes + 1:
            x = x.unsqueeze(1)
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        features: Tensor = self.head(self.pool(x))
        return features


class _WithLinear(nn.Module):
    """A perceptron beside a linear map: what is linear in the data need not be learnt by bends."""

    def __init__(self, n_in: int, widths: list[int], n_out: int, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(n_in, n_out)
        self.bent = perceptron(n_in, widths, n_out, dropout)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x) + self.bent(x)
        return out


class _Stage(nn.Module):
    """Downsample by two, then one residual block."""

    def __init__(self, convolution: type[nn.Module], width: int) -> None:
        super().__init__()
        self.down = convolution(width, width, 3, stride=2, padding=1)
        self.one = convolution(width, width, 3, padding=1)
        self.two = convolution(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(nn.functional.silu(x))
        residual: Tensor = self.two(nn.functional.silu(self.one(nn.functional.silu(x))))
        return x + residual
