r"""Engine `sbi-nre`: neural ratio estimation (arXiv:1903.04057, arXiv:2002.03712).

A classifier that tells pairs :math:`(\theta, x) \sim p(\theta, x)` from pairs
:math:`p(\theta) p(x)` learns :math:`\log p(x|\theta)/p(x)`. Draws come from a pool of prior points
shared by all observations (`sbi_physics.ratio`), not from a Markov chain for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from sbi_physics import Engine, Observable, TrainingData, TrainingSettings
from sbi_physics.nn.contrast import contrastive_loss, pair_weights, rolled, shifts
from sbi_physics.nn.coordinates import to_normal
from sbi_physics.nn.embedding import EMBEDDING_FIELDS, build_embedding, embedded, output_size
from sbi_physics.nn.loop import fit
from sbi_physics.nn.settings import NetworkSettings
from sbi_physics.nn.weights import load_arrays, to_arrays
from sbi_physics.posterior import PosteriorContext
from sbi_physics.progress import Progress
from sbi_physics.ratio import POOL_SIZE, RatioPosterior
from sbi_physics.types import AnyArray, DataArray, FloatArray
from sbi_physics_sbi import PACKAGES
from sbi_physics_sbi.ratio_network import RatioNetwork, build_classifier

ARCHITECTURE = (*EMBEDDING_FIELDS, "classifier", "hidden_features", "num_blocks", "pool_size")
"""Settings that shape the posterior: what is needed to rebuild it."""

_CHUNK_ROWS = 32_768


class RatioSettings(NetworkSettings):
    """Settings of `sbi-nre`."""

    classifier: Literal["resnet", "mlp"] = Field("resnet", description="Classifier of sbi.")
    hidden_features: int = Field(64, ge=1, description="Width of the classifier.")
    num_blocks: int = Field(2, ge=1, le=12, description="Residual blocks of the classifier.")
    dropout: float = Field(
        0.02, ge=0, lt=1, description="Dropout rate in the summary network and the classifier."
    )
    variant: Literal["A", "B", "C"] = Field(
        "B",
        description="Loss: A binary cross-entropy, B one of K + 1, C one of K + 1 or none. B "
        "learns narrow posteriors best; its log ratio is known up to a function of the data only.",
    )
    contrasts: int = Field(32, ge=1, description="Other parameter points K for each simulation.")
    gamma: float = Field(1.0, gt=0, description="Odds of one against none (variant C).")
    balance: float = Field(0.0, ge=0, description="Balance regulariser (BNRE); 100 is usual.")
    pool_size: int = Field(POOL_SIZE, ge=256, description="Prior points that draws come from.")

    @model_validator(mode="after")
    def _enough_rows(self) -> RatioSettings:
        if self.contrasts >= self.batch_size:
            raise ValueError(
                f"contrasts={self.contrasts} needs a larger batch_size than {self.batch_size}"
            )
        return self


class NetworkRatioPosterior(RatioPosterior):
    """A trained ratio network.

    Args:
        context: What it was made from.
        network: The trained network.
        settings: The settings that shaped the network.
    """

    def __init__(
        self, context: PosteriorContext, network: RatioNetwork, settings: RatioSettings
    ) -> None:
        super().__init__(context, pool_size=settings.pool_size)
        self.network = network
        self._settings = settings

    def _log_ratio(self, u: FloatArray, xt: DataArray) -> FloatArray:
        out = np.empty((len(xt), u.shape[-2]))
        with torch.no_grad():
            z = to_normal(torch.from_numpy(np.ascontiguousarray(u))).float()
            features = embedded(self.network.embedding, xt)
            together = max(1, _CHUNK_ROWS // max(u.shape[-2], 1))
            for i in range(0, len(xt), together):
                rows = slice(i, i + together)
                points = z if u.ndim == 2 else z[rows]
                out[rows] = self.network(points, features[rows]).numpy()
        return out

    def _config(self) -> dict[str, Any]:
        return self._settings.model_dump(include=set(ARCHITECTURE), mode="json")

    def _weights(self) -> dict[str, AnyArray]:
        return to_arrays(self.network)


class NeuralRatioEngine(Engine):
    """Neural ratio estimation with sbi's classifiers."""

    name: ClassVar[str] = "sbi-nre"
    summary: ClassVar[str] = "neural ratio estimation with a classifier, no MCMC (sbi)"
    Settings: ClassVar[type[TrainingSettings]] = RatioSettings
    packages: ClassVar[tuple[str, ...]] = PACKAGES

    def supports(self, observable: Observable) -> str | None:
        """Every kind of observable is supported."""
        return None

    def _train(
        self,
        data: TrainingData,
        context: PosteriorContext,
        settings: RatioSettings,
        seed: int,
        progress: Progress,
    ) -> NetworkRatioPosterior:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = _build(context, settings)
        history = fit(
            network,
            _Loss(network, settings, random=True),
            data,
            settings,
            seed=seed + 1,
            progress=progress,
            validation_loss=_Loss(network, settings, random=False),
        )
        return NetworkRatioPosterior(replace(context, history=history), network, settings)

    def _rebuild(
        self, context: PosteriorContext, config: Mapping[str, Any], weights: Mapping[str, AnyArray]
    ) -> NetworkRatioPosterior:
        settings = RatioSettings(**config)
        with torch.random.fork_rng(devices=[]):  # initial weights are drawn, then overwritten
            network = _build(context, settings)
        load_arrays(network, weights)
        return NetworkRatioPosterior(context, network, settings)


class _Loss:
    """Contrastive loss; random pairs for training, always the same ones for validation."""

    def __init__(self, network: RatioNetwork, settings: RatioSettings, *, random: bool) -> None:
        self.network, self.settings, self.random = network, settings, random

    def __call__(self, u: Tensor, x: Tensor, weight: Tensor | None) -> Tensor:
        rolls = shifts(len(u), self.settings.contrasts, random=self.random)
        logits = self.network.logits(u, x, lambda z: rolled(z, rolls))
        weights = None if weight is None else pair_weights(weight, rolls)
        return contrastive_loss(
            logits,
            self.settings.variant,
            gamma=self.settings.gamma,
            balance=self.settings.balance,
            weights=weights,
        )


def _build(context: PosteriorContext, settings: RatioSettings) -> RatioNetwork:
    embedding = build_embedding(context.observable, settings)
    n_features = output_size(embedding, context.observable.shape)
    classifier = build_classifier(
        settings.classifier,
        context.prior.d,
        n_features,
        width=settings.hidden_features,
        blocks=settings.num_blocks,
        dropout=settings.dropout,
    )
    return RatioNetwork(embedding, classifier, context.prior.d)
