"""Ratio estimation on torch networks: settings, the contrastive loss, evaluation on pools."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from sbi_physics.nn.contrast import contrastive_loss, pair_weights, shifts
from sbi_physics.nn.coordinates import to_normal
from sbi_physics.nn.embedding import embedded
from sbi_physics.nn.settings import NetworkSettings
from sbi_physics.ratio import POOL_SIZE
from sbi_physics.types import DataArray, FloatArray

Logits = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(u, x, shifts) -> classifier outputs of the joint pair and K shifted ones of each row, shape
(batch, 1 + K), or (batch, 1 + K, channels) for classifiers of several blocks of parameters."""


class ContrastSettings(NetworkSettings):
    """Settings of ratio estimation beside those of the networks."""

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
    def _enough_rows(self) -> Self:
        if self.contrasts >= self.batch_size:
            raise ValueError(
                f"contrasts={self.contrasts} needs a larger batch_size than {self.batch_size}"
            )
        return self


class ContrastiveLoss:
    """Contrastive loss; random pairs for training, always the same ones for validation.

    Args:
        logits: The classifier.
        settings: Variant, number of contrasts and regulariser.
        random: Whether pairs are drawn anew for every batch.
    """

    def __init__(self, logits: Logits, settings: ContrastSettings, *, random: bool) -> None:
        self.settings = settings
        self._logits, self._random = logits, random

    def __call__(self, u: Tensor, x: Tensor, weight: Tensor | None) -> Tensor:
        rolls = shifts(len(u), self.settings.contrasts, random=self._random)
        logits = self._logits(u, x, rolls)
        weights = None if weight is None else pair_weights(weight, rolls)
        if logits.dim() == 2:
            return self._value(logits, weights)
        # Every channel is a classifier of its own; their mean is the loss.
        if self.settings.balance > 0:
            return torch.stack([self._value(c, weights) for c in logits.unbind(-1)]).mean()
        logits = logits.movedim(-1, 0)
        weights = None if weights is None else weights.expand(logits.shape).flatten(0, 1)
        return self._value(logits.flatten(0, 1), weights)

    def _value(self, logits: Tensor, weights: Tensor | None) -> Tensor:
        return contrastive_loss(
            logits,
            self.settings.variant,
            gamma=self.settings.gamma,
            balance=self.settings.balance,
            weights=weights,
        )


def log_ratios(
    score: Callable[[Tensor, Tensor], Tensor],
    embedding: nn.Module,
    u: FloatArray,
    xt: DataArray,
    *,
    rows: int,
    device: torch.device,
) -> FloatArray:
    """Evaluate a ratio network at many points of many observations, in chunks.

    Args:
        score: (z, features) -> log ratios (batch, k), at normal coordinates z, (k, d) or
            (batch, k, d), and features (batch, f).
        embedding: Summary network.
        u: Unconstrained points, shape (k, d) shared by all observations, or (batch, k, d).
        xt: Transformed observations, shape (batch, *shape).
        rows: Largest number of (observation, point) pairs in one pass, if one observation has
            not more.
        device: Where the networks are.

    Returns:
        Log ratios, shape (batch, k).
    """
    out = np.empty((len(xt), u.shape[-2]))
    with torch.no_grad():
        z = to_normal(torch.from_numpy(np.ascontiguousarray(u))).float().to(device)
        features = embedded(embedding, xt, device)
        together = max(1, rows // max(u.shape[-2], 1))
        for i in range(0, len(xt), together):
            chunk = slice(i, i + together)
            points = z if u.ndim == 2 else z[chunk]
            out[chunk] = score(points, features[chunk]).cpu().numpy()
    return out
