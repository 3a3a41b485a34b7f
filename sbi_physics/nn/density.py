"""Conditional densities in normal coordinates of the prior, and the posterior made of one.

A plugin's network says how it evaluates and draws normal coordinates given features; the loss, the
change of coordinates, seeding and blocks of many observations are the same for all of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from sbi_physics.nn.blocks import blocks
from sbi_physics.nn.coordinates import from_normal, log_normal, log_slope, to_normal
from sbi_physics.nn.device import device_of, resolve_device, seeded
from sbi_physics.nn.embedding import embedded
from sbi_physics.nn.weights import to_arrays
from sbi_physics.posterior import NeuralPosterior, PosteriorContext
from sbi_physics.types import AnyArray, DataArray, FloatArray

BLOCK_ROWS = 16_384
"""Rows of one pass: splines make temporaries of some 100 floats a row, which stay in cache."""


class ConditionalDensity(nn.Module, ABC):
    """A density q(z|x) of normal coordinates z, with the data summarised once per observation.

    Args:
        embedding: Summary network, (batch, *shape) -> (batch, n_features).
    """

    def __init__(self, embedding: nn.Module) -> None:
        super().__init__()
        self.embedding = embedding

    @abstractmethod
    def log_q(self, z: Tensor, features: Tensor) -> Tensor:
        """Return log densities of z, (batch, d) or (batch, k, d), given features (batch, f)."""

    @abstractmethod
    def draw(self, n: int, features: Tensor) -> Tensor:
        """Draw n points z for each row of features, shape (batch, n, d)."""

    def loss(self, u: Tensor, x: Tensor, weight: Tensor | None) -> Tensor:
        """Return minus the mean of log q(theta|x)/p(theta), in nats.

        Args:
            u: Unconstrained parameters, shape (batch, d).
            x: Transformed data, shape (batch, *shape).
            weight: Importance weights, shape (batch,), or None.
        """
        z = to_normal(u)
        gain = self.log_q(z, self.embedding(x)) - log_normal(z).sum(dim=-1)
        return -gain.mean() if weight is None else -(gain * weight).sum() / weight.sum()

    def log_prob(self, u: Tensor, features: Tensor) -> Tensor:
        """Return log densities at u (batch, k, d) and features (batch, f), shape (batch, k).

        The points are on the processor, as the result is; features are where the network is.
        """
        z = to_normal(u)
        log_q = self.log_q(z.float().to(features.device), features)
        return log_q.cpu().double() + log_slope(z)

    def sample(self, n: int, features: Tensor) -> Tensor:
        """Draw n unconstrained points u for each row of features, shape (batch, n, d), float64."""
        return from_normal(self.draw(n, features).cpu().double())


class DensityPosterior(NeuralPosterior):
    """A trained conditional density.

    Args:
        context: What it was made from.
        network: The trained network.
        config: The settings that shaped the network, JSON-ready.
        rows: Largest number of (observation, point) pairs in one pass.
    """

    def __init__(
        self,
        context: PosteriorContext,
        network: ConditionalDensity,
        config: Mapping[str, Any],
        rows: int = BLOCK_ROWS,
    ) -> None:
        super().__init__(context)
        self.network = network
        self._settings, self._rows = dict(config), rows

    def _sample_u(
        self, xt: DataArray, n: int, rng: np.random.Generator, log_prob: bool
    ) -> tuple[FloatArray, FloatArray | None]:
        u = np.empty((len(xt), n, self.prior.d))
        density = np.empty((len(xt), n)) if log_prob else None
        device = device_of(self.network)
        with seeded(int(rng.integers(2**63)), device), torch.no_grad():
            features = embedded(self.network.embedding, xt, device)
            for rows, draws in blocks(len(xt), n, self._rows):
                points = self.network.sample(draws.stop - draws.start, features[rows])
                u[rows, draws] = points.numpy()
                if density is not None:
                    density[rows, draws] = self.network.log_prob(points, features[rows]).numpy()
        return u, density

    def _log_prob_u(self, u: FloatArray, xt: DataArray) -> FloatArray:
        density = np.empty(u.shape[:2])
        with torch.no_grad():
            features = embedded(self.network.embedding, xt, device_of(self.network))
            for rows, draws in blocks(u.shape[0], u.shape[1], self._rows):
                points = torch.from_numpy(np.ascontiguousarray(u[rows, draws]))
                density[rows, draws] = self.network.log_prob(points, features[rows]).numpy()
        return density

    def to(self, device: str) -> Self:
        self.network.to(resolve_device(device))
        return super().to(device)

    def _config(self) -> dict[str, Any]:
        return dict(self._settings)

    def _weights(self) -> dict[str, AnyArray]:
        return to_arrays(self.network)
