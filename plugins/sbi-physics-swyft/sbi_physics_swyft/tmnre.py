r"""Engine `swyft-tmnre`: marginal ratio estimation with swyft's networks (arXiv:2107.01214).

A classifier that tells pairs :math:`(\theta_B, x) \sim p(\theta_B, x)` from pairs
:math:`p(\theta_B) p(x)` learns :math:`\log p(x|\theta_B)/p(x)` for a block B of parameters; all
other parameters are marginalised by the simulations. Up to six parameters one block holds them all
and the posterior is joint; beyond, every parameter and every pair is a block of its own.

By default the classifier picks the true one among K + 1 parameter points (variant B). swyft's own
loss (variant A) is binary cross-entropy minus that of knowing nothing,

.. math:: L = E_{joint}[\zeta(-f)] + E_{other}[\zeta(f)] - 2\ln 2, \quad \zeta(f) = \ln(1 + e^f),

between 0 (nothing learned) and :math:`-2\ln 2`; several blocks are averaged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from sbi_physics import Posterior, TrainingSettings
from sbi_physics.errors import TrainingError
from sbi_physics.nn.embedding import EMBEDDING_FIELDS, build_embedding, output_size
from sbi_physics.nn.engine import TorchEngine
from sbi_physics.nn.loop import Loss
from sbi_physics.nn.ratio import ContrastiveLoss, ContrastSettings
from sbi_physics.posterior import PosteriorContext
from sbi_physics.ratio import POOL_SIZE
from sbi_physics_swyft import PACKAGES
from sbi_physics_swyft.posteriors import trained_posterior
from sbi_physics_swyft.ratio_network import MAX_JOINT, RatioNetwork, joint_heads, marginal_heads


class MarginalRatioSettings(ContrastSettings):
    """Settings of `swyft-tmnre`."""

    heads: Literal["auto", "joint", "marginals"] = Field(
        "auto",
        description="What is estimated: joint (all parameters together, at most six), marginals "
        "(every parameter and every pair); auto: joint where possible.",
    )
    hidden_features: int = Field(64, ge=1, description="Width of swyft's estimators.")
    num_blocks: int = Field(2, ge=1, le=12, description="Residual blocks of swyft's estimators.")
    batch_norm: bool = Field(
        False,
        description="Normalise activations over the batch, as swyft's estimators do on their own; "
        "thin posteriors come out wider.",
    )
    contrasts: int = Field(
        16,
        ge=1,
        description="Other parameter points for each simulation; swyft uses one, and variant A.",
    )
    pool_size: int = Field(
        POOL_SIZE,
        ge=256,
        description="Prior points that joint draws come from; marginals of one or two parameters "
        "use a quarter, but not below 4096.",
    )


class SwyftLoss(ContrastiveLoss):
    """The contrastive loss of all blocks; variant A on swyft's scale, 0 for nothing learned.

    Args:
        network: The network with all blocks.
        settings: Variant, number of contrasts and regulariser.
        random: Whether pairs are drawn anew for every batch.
    """

    def __init__(
        self, network: RatioNetwork, settings: MarginalRatioSettings, *, random: bool
    ) -> None:
        super().__init__(network.logits, settings, random=random)

    def __call__(self, u: Tensor, x: Tensor, weight: Tensor | None) -> Tensor:
        value = super().__call__(u, x, weight)
        return 2 * (value - math.log(2)) if self.settings.variant == "A" else value


class MarginalRatioEngine(TorchEngine):
    """Marginal neural ratio estimation with swyft's estimators."""

    name: ClassVar[str] = "swyft-tmnre"
    summary: ClassVar[str] = "marginal neural ratio estimation, joint up to six parameters (swyft)"
    Settings: ClassVar[type[TrainingSettings]] = MarginalRatioSettings
    packages: ClassVar[tuple[str, ...]] = PACKAGES
    # The public analysis code behind arXiv:2509.20578, whose networks also see the power spectrum
    # (169 entries of its 90 bins). What it leaves to swyft and torch has their defaults: the rate
    # falls to a tenth after more than three epochs without improvement, the decay is 0.01.
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "alps": {
            "embedding": "tapered",
            "embedding_width": 256,
            "embedding_depth": 2,
            "n_features": 64,
            "power_features": 4,
            "power_length": 2048,
            "power_cutoff": 3.0,
            "heads": "marginals",
            "hidden_features": 128,
            "num_blocks": 2,
            "batch_norm": True,
            "variant": "A",
            "contrasts": 1,
            "dropout": 0.1,
            "batch_size": 512,
            "learning_rate": 5e-3,
            "weight_decay": 0.01,
            "max_epochs": 3000,
            "schedule": "plateau",
            "plateau_factor": 0.1,
            "plateau_epochs": 4,
            "stop_after_epochs": 30,
        }
    }
    architecture: ClassVar[tuple[str, ...]] = (
        *EMBEDDING_FIELDS,
        "heads",
        "hidden_features",
        "num_blocks",
        "batch_norm",
        "pool_size",
    )

    def _resolved(
        self, settings: MarginalRatioSettings, context: PosteriorContext
    ) -> MarginalRatioSettings:
        """Decide between joint and marginal heads."""
        d = context.prior.d
        if settings.heads == "joint" and d > MAX_JOINT:
            raise TrainingError(
                f"a joint ratio of {d} parameters cannot be sampled well; at most {MAX_JOINT} "
                "can. Set heads to 'marginals', or infer fewer parameters"
            )
        if settings.heads == "auto":
            heads: Literal["joint", "marginals"] = "joint" if d <= MAX_JOINT else "marginals"
            settings = settings.model_copy(update={"heads": heads})
        if settings.heads == "marginals" and context.prior.constraints:
            rules = ", ".join(repr(c.expression) for c in context.prior.constraints)
            raise TrainingError(
                f"the prior's constraints {rules} tie parameters together, so their marginal "
                "priors are no products; set heads to 'joint'"
            )
        return settings

    def _build(
        self, context: PosteriorContext, settings: MarginalRatioSettings, seed: int
    ) -> RatioNetwork:
        embedding = build_embedding(context.observable, settings, context.transform)
        names = context.prior.names
        return RatioNetwork(
            embedding,
            output_size(embedding, context.observable.shape),
            names,
            joint_heads(names) if settings.heads == "joint" else marginal_heads(names),
            width=settings.hidden_features,
            blocks=settings.num_blocks,
            dropout=settings.dropout,
            batch_norm=settings.batch_norm,
        )

    def _losses(self, network: RatioNetwork, settings: MarginalRatioSettings) -> tuple[Loss, Loss]:
        training, validation = (
            SwyftLoss(network, settings, random=random) for random in (True, False)
        )
        return training, validation

    def _posterior(
        self, context: PosteriorContext, network: RatioNetwork, settings: MarginalRatioSettings
    ) -> Posterior:
        return trained_posterior(context, network, self.config(settings), settings.pool_size)
