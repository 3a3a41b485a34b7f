r"""Engine `sbi-npe`: neural posterior estimation (arXiv:1605.06376, arXiv:1905.07488).

A conditional density :math:`q(\theta|x)` is trained on simulated pairs by minimising
:math:`-E_{p(\theta, x)} \log q(\theta|x)`, whose minimum is the posterior for every x at once. The
density is one of sbi's estimators on normal coordinates of the prior (`coordinates`), so that it
cannot put mass outside the prior.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from sbi_physics import TrainingSettings
from sbi_physics.nn.density import DensityPosterior
from sbi_physics.nn.embedding import EMBEDDING_FIELDS, build_embedding, output_size
from sbi_physics.nn.engine import TorchEngine
from sbi_physics.nn.loop import Loss
from sbi_physics.nn.settings import NetworkSettings
from sbi_physics.posterior import PosteriorContext
from sbi_physics_sbi import PACKAGES
from sbi_physics_sbi.density import EstimatorDensity, build_estimator

EstimatorName = Literal["zuko_nsf", "nsf", "maf", "maf_rqs", "zuko_maf", "zuko_nice", "mdn"]


PRESETS: Mapping[str, Mapping[str, Any]] = {
    # The schedule of arXiv:2308.01353 for a network that, unlike the published one, does not
    # depend on the order of the events.
    "beamdump": {
        "density_estimator": "zuko_nsf",
        "num_transforms": 4,
        "hidden_features": 64,
        "num_bins": 8,
        "embedding": "set",
        "embedding_width": 64,
        "embedding_depth": 3,
        "n_features": 16,
        "dropout": 0.0,
        "max_epochs": 500,
        "batch_size": 512,
        "learning_rate": 2e-3,
        "weight_decay": 0.0,
        "schedule": "step",
        "decay_factor": 0.9,
        "decay_epochs": 10,
        "stop_after_epochs": 50,
        "min_improvement": 1e-3,
        "validation_fraction": 0.2,
    },
}
"""Settings of published analyses, by preset."""


class DensitySettings(NetworkSettings):
    """Settings of `sbi-npe`."""

    density_estimator: EstimatorName = Field(
        "zuko_nsf",
        description="Density estimator of sbi: a spline flow (nsf, rqs), an affine one or mdn.",
    )
    hidden_features: int = Field(64, ge=1, description="Width of the estimator's networks.")
    hidden_layers: int = Field(2, ge=1, le=8, description="Hidden layers (blocks) in each.")
    num_transforms: int = Field(3, ge=1, le=20, description="Transforms of a flow.")
    num_bins: int = Field(8, ge=2, le=64, description="Bins of a spline.")
    num_components: int = Field(10, ge=1, le=100, description="Components of a mixture (mdn).")


class NeuralPosteriorEngine(TorchEngine):
    """Neural posterior estimation with sbi's conditional density estimators."""

    name: ClassVar[str] = "sbi-npe"
    summary: ClassVar[str] = "neural posterior estimation with a conditional density (sbi)"
    Settings: ClassVar[type[TrainingSettings]] = DensitySettings
    packages: ClassVar[tuple[str, ...]] = PACKAGES
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS
    architecture: ClassVar[tuple[str, ...]] = (
        *EMBEDDING_FIELDS,
        "density_estimator",
        "hidden_features",
        "hidden_layers",
        "num_transforms",
        "num_bins",
        "num_components",
    )

    def _build(
        self, context: PosteriorContext, settings: DensitySettings, seed: int
    ) -> EstimatorDensity:
        embedding = build_embedding(context.observable, settings, context.transform)
        n_features = output_size(embedding, context.observable.shape)
        estimator = build_estimator(
            settings.density_estimator, context.prior.d, n_features, settings.model_dump()
        )
        return EstimatorDensity(embedding, estimator)

    def _losses(self, network: EstimatorDensity, settings: DensitySettings) -> tuple[Loss, Loss]:
        return network.loss, network.loss

    def _posterior(
        self, context: PosteriorContext, network: EstimatorDensity, settings: DensitySettings
    ) -> DensityPosterior:
        return DensityPosterior(context, network, self.config(settings))
