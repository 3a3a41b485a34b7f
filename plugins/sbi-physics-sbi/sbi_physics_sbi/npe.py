r"""Engine `sbi-npe`: neural posterior estimation (arXiv:1605.06376, arXiv:1905.07488).

A conditional density :math:`q(\theta|x)` is trained on simulated pairs by minimising
:math:`-E_{p(\theta, x)} \log q(\theta|x)`, whose minimum is the posterior for every x at once. The
density is one of sbi's estimators on normal coordinates of the prior (`coordinates`), so that it
cannot put mass outside the prior.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from sbi_physics import Engine, Observable, TrainingData, TrainingSettings
from sbi_physics.nn.embedding import EMBEDDING_FIELDS, build_embedding, embedded, output_size
from sbi_physics.nn.loop import fit
from sbi_physics.nn.settings import NetworkSettings
from sbi_physics.nn.weights import load_arrays, to_arrays
from sbi_physics.posterior import NeuralPosterior, PosteriorContext
from sbi_physics.progress import Progress
from sbi_physics.types import AnyArray, DataArray, FloatArray
from sbi_physics_sbi import PACKAGES
from sbi_physics_sbi.density import ConditionalDensity, build_estimator

EstimatorName = Literal["zuko_nsf", "nsf", "maf", "maf_rqs", "zuko_maf", "zuko_nice", "mdn"]

ARCHITECTURE = (
    *EMBEDDING_FIELDS,
    "density_estimator",
    "hidden_features",
    "hidden_layers",
    "num_transforms",
    "num_bins",
    "num_components",
)
"""Settings that shape the network: what is needed to rebuild it."""

_CHUNK_ROWS = 16_384
"""Rows of one pass: splines make temporaries of some 100 floats a row, which stay in cache."""


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


class DensityPosterior(NeuralPosterior):
    """A trained conditional density.

    Args:
        context: What it was made from.
        network: The trained network.
        settings: The settings that shaped the network.
    """

    def __init__(
        self, context: PosteriorContext, network: ConditionalDensity, settings: DensitySettings
    ) -> None:
        super().__init__(context)
        self.network = network
        self._settings = settings

    def _sample_u(
        self, xt: DataArray, n: int, rng: np.random.Generator, log_prob: bool
    ) -> tuple[FloatArray, FloatArray | None]:
        u = np.empty((len(xt), n, self.prior.d))
        density = np.empty((len(xt), n)) if log_prob else None
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(int(rng.integers(2**63)))
            features = self._features(xt)
            for rows, draws in _chunks(len(xt), n):
                points = self.network.sample(draws.stop - draws.start, features[rows])
                u[rows, draws] = points.numpy()
                if density is not None:
                    density[rows, draws] = self.network.log_prob(points, features[rows]).numpy()
        return u, density

    def _log_prob_u(self, u: FloatArray, xt: DataArray) -> FloatArray:
        density = np.empty(u.shape[:2])
        with torch.no_grad():
            features = self._features(xt)
            for rows, draws in _chunks(u.shape[0], u.shape[1]):
                points = torch.from_numpy(np.ascontiguousarray(u[rows, draws]))
                density[rows, draws] = self.network.log_prob(points, features[rows]).numpy()
        return density

    def _features(self, xt: DataArray) -> Tensor:
        return embedded(self.network.embedding, xt)

    def _config(self) -> dict[str, Any]:
        return self._settings.model_dump(include=set(ARCHITECTURE), mode="json")

    def _weights(self) -> dict[str, AnyArray]:
        return to_arrays(self.network)


class NeuralPosteriorEngine(Engine):
    """Neural posterior estimation with sbi's conditional density estimators."""

    name: ClassVar[str] = "sbi-npe"
    summary: ClassVar[str] = "neural posterior estimation with a conditional density (sbi)"
    Settings: ClassVar[type[TrainingSettings]] = DensitySettings
    packages: ClassVar[tuple[str, ...]] = PACKAGES

    def supports(self, observable: Observable) -> str | None:
        """Every kind of observable is supported."""
        return None

    def _train(
        self,
        data: TrainingData,
        context: PosteriorContext,
        settings: DensitySettings,
        seed: int,
        progress: Progress,
    ) -> DensityPosterior:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = _build(context, settings)
        history = fit(network, network.loss, data, settings, seed=seed + 1, progress=progress)
        return DensityPosterior(replace(context, history=history), network, settings)

    def _rebuild(
        self, context: PosteriorContext, config: Mapping[str, Any], weights: Mapping[str, AnyArray]
    ) -> DensityPosterior:
        settings = DensitySettings(**config)
        with torch.random.fork_rng(devices=[]):  # initial weights are drawn, then overwritten
            network = _build(context, settings)
        load_arrays(network, weights)
        return DensityPosterior(context, network, settings)


def _build(context: PosteriorContext, settings: DensitySettings) -> ConditionalDensity:
    embedding = build_embedding(context.observable, settings)
    n_features = output_size(embedding, context.observable.shape)
    estimator = build_estimator(
        settings.density_estimator, context.prior.d, n_features, settings.model_dump()
    )
    return ConditionalDensity(embedding, estimator)


def _chunks(n_observations: int, n: int) -> Iterator[tuple[slice, slice]]:
    """Yield (observation, draw) blocks of at most `_CHUNK_ROWS` rows."""
    across = min(n, _CHUNK_ROWS)
    together = max(1, _CHUNK_ROWS // max(across, 1))
    for first in range(0, n_observations, together):
        rows = slice(first, min(first + together, n_observations))
        for start in range(0, n, max(across, 1)):
            yield rows, slice(start, min(start + across, n))
