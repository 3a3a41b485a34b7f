r"""Engine `bayesflow-cinn`: conditional invertible neural networks (arXiv:2003.06281).

A normalising flow of coupling layers :math:`z \to \epsilon`, conditioned on learned summaries of
the data, gives the density :math:`q(z|x) = N(\epsilon) |d\epsilon/dz|` of the parameters in normal
coordinates of their prior. It is trained on simulated pairs by minimising
:math:`-E_{p(\theta, x)} \log q(\theta|x)`, and drawn in one pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sbi_physics import TrainingSettings
from sbi_physics.nn.coordinates import log_normal
from sbi_physics.nn.density import ConditionalDensity, DensityPosterior
from sbi_physics.nn.embedding import output_size
from sbi_physics.nn.engine import TorchEngine
from sbi_physics.nn.loop import Loss
from sbi_physics.posterior import PosteriorContext
from sbi_physics_bayesflow import PACKAGES
from sbi_physics_bayesflow.backend import seeded
from sbi_physics_bayesflow.flow import CouplingFlow, build_flow
from sbi_physics_bayesflow.settings import ARCHITECTURE, PRESETS, CouplingSettings
from sbi_physics_bayesflow.summary import build_summary

_BLOCK_ROWS = 4096
"""Rows of one pass: activations of the usual widths then stay in the cache of one core."""


class InvertibleDensity(ConditionalDensity):
    """A coupling flow behind a summary network.

    Args:
        embedding: Summary network, (batch, *shape) -> (batch, n_features).
        flow: The flow, conditioned on the features.
        d: Number of parameters.
    """

    def __init__(self, embedding: nn.Module, flow: CouplingFlow, d: int) -> None:
        super().__init__(embedding)
        self.flow = flow
        self._d = d

    def log_q(self, z: Tensor, features: Tensor) -> Tensor:
        latent, log_det = self.flow.forward(z, features)
        return log_normal(latent).sum(dim=-1) + log_det

    def draw(self, n: int, features: Tensor) -> Tensor:
        latent = torch.randn(len(features), n, self._d, device=features.device)
        return self.flow.inverse(latent, features)[0]


class CouplingEngine(TorchEngine):
    """Conditional invertible networks with BayesFlow's coupling layers and summary networks."""

    name: ClassVar[str] = "bayesflow-cinn"
    summary: ClassVar[str] = "conditional invertible network of coupling layers (BayesFlow)"
    Settings: ClassVar[type[TrainingSettings]] = CouplingSettings
    packages: ClassVar[tuple[str, ...]] = PACKAGES
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        name: {"preset": name, **values} for name, values in PRESETS.items()
    }
    architecture: ClassVar[tuple[str, ...]] = ARCHITECTURE

    def _build(
        self, context: PosteriorContext, settings: CouplingSettings, seed: int
    ) -> InvertibleDensity:
        d = context.prior.d
        with seeded(seed) as backend:
            embedding = build_summary(backend, context.observable, settings)
            n_features = output_size(embedding, context.observable.shape)
            flow = build_flow(backend, d, n_features, settings)
        return InvertibleDensity(embedding, flow, d)

    def _losses(self, network: InvertibleDensity, settings: CouplingSettings) -> tuple[Loss, Loss]:
        return network.loss, network.loss

    def _posterior(
        self, context: PosteriorContext, network: InvertibleDensity, settings: CouplingSettings
    ) -> DensityPosterior:
        return DensityPosterior(context, network, self.config(settings), rows=_BLOCK_ROWS)
