r"""Engine `sbi-nre`: neural ratio estimation (arXiv:1903.04057, arXiv:2002.03712).

A classifier that tells pairs :math:`(\theta, x) \sim p(\theta, x)` from pairs
:math:`p(\theta) p(x)` learns :math:`\log p(x|\theta)/p(x)`. Draws come from a pool of prior points
shared by all observations (`sbi_physics.ratio`), not from a Markov chain for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field
from torch import Tensor

from sbi_physics import TrainingSettings
from sbi_physics.nn.contrast import rolled
from sbi_physics.nn.device import device_of, resolve_device
from sbi_physics.nn.embedding import EMBEDDING_FIELDS, build_embedding, output_size
from sbi_physics.nn.engine import TorchEngine
from sbi_physics.nn.loop import Loss
from sbi_physics.nn.ratio import ContrastiveLoss, ContrastSettings, log_ratios
from sbi_physics.nn.weights import to_arrays
from sbi_physics.posterior import PosteriorContext
from sbi_physics.ratio import RatioPosterior
from sbi_physics.types import AnyArray, DataArray, FloatArray
from sbi_physics_sbi import PACKAGES
from sbi_physics_sbi.ratio_network import RatioNetwork, build_classifier

_CHUNK_ROWS = 32_768


class RatioSettings(ContrastSettings):
    """Settings of `sbi-nre`."""

    classifier: Literal["resnet", "mlp"] = Field("resnet", description="Classifier of sbi.")
    hidden_features: int = Field(64, ge=1, description="Width of the classifier.")
    num_blocks: int = Field(2, ge=1, le=12, description="Residual blocks of the classifier.")
    dropout: float = Field(
        0.02, ge=0, lt=1, description="Dropout rate in the summary network and the classifier."
    )


class NetworkRatioPosterior(RatioPosterior):
    """A trained ratio network.

    Args:
        context: What it was made from.
        network: The trained network.
        pool_size: Prior points that draws come from.
        config: What is needed to rebuild it.
    """

    def __init__(
        self,
        context: PosteriorContext,
        network: RatioNetwork,
        pool_size: int,
        config: Mapping[str, Any],
    ) -> None:
        super().__init__(context, pool_size=pool_size)
        self.network = network
        self._configuration = dict(config)

    def _log_ratio(self, u: FloatArray, xt: DataArray) -> FloatArray:
        network = self.network
        return log_ratios(
            network, network.embedding, u, xt, rows=_CHUNK_ROWS, device=device_of(network)
        )

    def to(self, device: str) -> Self:
        self.network.to(resolve_device(device))
        return super().to(device)

    def _config(self) -> dict[str, Any]:
        return self._configuration

    def _weights(self) -> dict[str, AnyArray]:
        return to_arrays(self.network)


class NeuralRatioEngine(TorchEngine):
    """Neural ratio estimation with sbi's classifiers."""

    name: ClassVar[str] = "sbi-nre"
    summary: ClassVar[str] = "neural ratio estimation with a classifier, no MCMC (sbi)"
    Settings: ClassVar[type[TrainingSettings]] = RatioSettings
    packages: ClassVar[tuple[str, ...]] = PACKAGES
    architecture: ClassVar[tuple[str, ...]] = (
        *EMBEDDING_FIELDS,
        "classifier",
        "hidden_features",
        "num_blocks",
        "pool_size",
    )

    def _build(
        self, context: PosteriorContext, settings: RatioSettings, seed: int
    ) -> RatioNetwork:
        embedding = build_embedding(context.observable, settings, context.transform)
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

    def _losses(self, network: RatioNetwork, settings: RatioSettings) -> tuple[Loss, Loss]:
        def logits(u: Tensor, x: Tensor, shifts: Tensor) -> Tensor:
            return network.logits(u, x, lambda z: rolled(z, shifts))

        training, validation = (
            ContrastiveLoss(logits, settings, random=random) for random in (True, False)
        )
        return training, validation

    def _posterior(
        self, context: PosteriorContext, network: RatioNetwork, settings: RatioSettings
    ) -> NetworkRatioPosterior:
        return NetworkRatioPosterior(context, network, settings.pool_size, self.config(settings))
