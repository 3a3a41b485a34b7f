r"""Engine `sbi-fmpe`: flow matching posterior estimation (arXiv:2305.17161).

A network learns the velocity that carries noise to the posterior (`vector_field`). Training is a
regression, without invertible layers or determinants, so that the network may have any form;
drawing and evaluating solve a differential equation and cost tens of passes where `sbi-npe` needs
one.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal

from pydantic import Field

from sbi_physics import TrainingSettings
from sbi_physics.nn.density import DensityPosterior
from sbi_physics.nn.embedding import EMBEDDING_FIELDS, build_embedding, output_size
from sbi_physics.nn.engine import TorchEngine
from sbi_physics.nn.loop import Loss
from sbi_physics.nn.settings import NetworkSettings
from sbi_physics.posterior import PosteriorContext
from sbi_physics_sbi import PACKAGES
from sbi_physics_sbi.vector_field import VelocityDensity, build_velocity

_BLOCK_ROWS = 2048
"""Rows of one pass: activations of the usual widths then stay in the cache of one core."""


class FlowMatchingSettings(NetworkSettings):
    """Settings of `sbi-fmpe`."""

    vector_field: Literal["mlp", "ada_mlp"] = Field(
        "mlp",
        description="Network of sbi for the velocity: mlp, or ada_mlp (normalised by the data).",
    )
    hidden_features: int = Field(64, ge=1, description="Width of the velocity network.")
    num_layers: int = Field(4, ge=1, le=20, description="Layers (blocks) of the velocity network.")
    time_features: int = Field(
        32, ge=2, multiple_of=2, description="Features that time enters the network with."
    )
    learning_rate: float = Field(2e-3, gt=0, le=1, description="Peak learning rate.")
    warmup_epochs: float = Field(
        10.0,
        ge=0,
        description="Epochs over which the learning rate rises to its peak, in schedules that "
        "have no rise of their own. Without it, networks that see images may learn little.",
    )
    time_power: float = Field(
        3.0,
        ge=1,
        le=100,
        description="Times of the loss, in training and held out, are uniform numbers to this "
        "power: narrow posteriors are learned near the data, t = 0. 1: all times alike.",
    )
    ode_steps: int = Field(
        12,
        ge=2,
        le=1000,
        description="Runge-Kutta steps between noise and posterior, four passes each.",
    )


class FlowMatchingEngine(TorchEngine):
    """Flow matching posterior estimation with sbi's velocity networks."""

    name: ClassVar[str] = "sbi-fmpe"
    summary: ClassVar[str] = "flow matching posterior estimation with a velocity network (sbi)"
    Settings: ClassVar[type[TrainingSettings]] = FlowMatchingSettings
    packages: ClassVar[tuple[str, ...]] = PACKAGES
    architecture: ClassVar[tuple[str, ...]] = (
        *EMBEDDING_FIELDS,
        "vector_field",
        "hidden_features",
        "num_layers",
        "time_features",
        "ode_steps",
    )

    def _build(
        self, context: PosteriorContext, settings: FlowMatchingSettings, seed: int
    ) -> VelocityDensity:
        embedding = build_embedding(context.observable, settings, context.transform)
        n_features = output_size(embedding, context.observable.shape)
        d = context.prior.d
        estimator = build_velocity(d, n_features, settings.model_dump())
        return VelocityDensity(embedding, estimator, d, settings.ode_steps)

    def _losses(
        self, network: VelocityDensity, settings: FlowMatchingSettings
    ) -> tuple[Loss, Loss]:
        training, held_out = (
            partial(loss, power=settings.time_power)
            for loss in (network.training_loss, network.held_out_loss)
        )
        return training, held_out

    def _posterior(
        self, context: PosteriorContext, network: VelocityDensity, settings: FlowMatchingSettings
    ) -> DensityPosterior:
        return DensityPosterior(context, network, self.config(settings), rows=_BLOCK_ROWS)
