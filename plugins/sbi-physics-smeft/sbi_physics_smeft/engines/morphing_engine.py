r"""Engine `smeft-morphing`: ratios at basis points, combined by morphing (arXiv:2410.07315).

Each ratio r_b is learned on events of zero and of one basis point, half of the weight each. Then

.. math:: R(x|\theta) = \sum_b w_b(\theta)\, \frac{\sigma(\theta_b)}{\sigma(0)}\, r_b(x) .

With the positive parametrisation one network gives a positive matrix instead, from which the
ratios at the points follow, and nothing can become negative in between.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from sbi_physics import TrainingSettings
from sbi_physics.errors import ContractError, TrainingError
from sbi_physics.likelihood.gram import monomials, pack
from sbi_physics.posterior import PosteriorContext
from sbi_physics.types import AnyArray, FloatArray
from sbi_physics_smeft.engines.build import (
    gram_network,
    ratio_network,
    rebuilt_gram_network,
    rebuilt_ratio_network,
)
from sbi_physics_smeft.engines.gram_posterior import GramPosterior, Rates
from sbi_physics_smeft.engines.label_data import Events
from sbi_physics_smeft.engines.label_engine import LabelEngine, Lesson
from sbi_physics_smeft.engines.losses import LabelLoss, PointRatios
from sbi_physics_smeft.engines.morphing import MorphingBasis
from sbi_physics_smeft.engines.network import GramNetwork, RatioNetwork
from sbi_physics_smeft.engines.settings import LabelSettings

_MIN_EVENTS = 50


class MorphingSettings(LabelSettings):
    """Settings of `smeft-morphing`."""

    parametrization: Literal["ratios", "positive"] = Field(
        "ratios",
        description="ratios: one network for each basis point, as published; positive: one "
        "network for a positive matrix, whose ratios at the points are trained.",
    )
    loss: Literal["alice", "rolr"] = Field(
        "alice",
        description="alice: cross-entropy with soft targets, bounded; rolr: squared differences "
        "of ratios.",
    )


class MorphingPosterior(GramPosterior):
    """Matrices from ratios at basis points.

    Args:
        context: What it was made from.
        network: The trained network.
        config: The settings that shaped it.
        rates: Integrated quantities of the simulator.
        basis: The basis, zero first.
    """

    def __init__(
        self,
        context: PosteriorContext,
        network: nn.Module,
        config: Mapping[str, Any],
        rates: Rates,
        basis: MorphingBasis,
    ) -> None:
        super().__init__(context, network, config, rates)
        self.basis = basis
        self._sigma = monomials(basis.points) @ rates.gram

    def _grams(self, x: Tensor) -> Tensor:
        if isinstance(self.network, GramNetwork):
            return self.network.physical(self.network(x))
        log_r = self.network(x).double().numpy()
        values = np.exp(log_r) * self._sigma[1:]
        ones = np.ones((*values.shape[:-1], 1))
        return torch.from_numpy(self.basis.gram(np.concatenate([ones, values], axis=-1)))

    def _config(self) -> dict[str, Any]:
        basis = {"points": self.basis.points.tolist(), "active": self.basis.active.tolist()}
        return {**super()._config(), "basis": basis}


class MorphingEngine(LabelEngine):
    """Morphing-aware learning of a likelihood ratio."""

    name: ClassVar[str] = "smeft-morphing"
    summary: ClassVar[str] = "ratios at basis points from parton-level labels, joined by morphing"
    Settings: ClassVar[type[TrainingSettings]] = MorphingSettings

    def _objective(
        self, lesson: Lesson, settings: MorphingSettings, seed: int
    ) -> tuple[nn.Module, LabelLoss, FloatArray]:
        basis = _basis_of(lesson)
        sigma = (monomials(basis.points) @ pack(lesson.simulator.fiducial_gram()))[1:]
        labels = _composite(basis, lesson.events, sigma)
        network: RatioNetwork | GramNetwork
        if settings.parametrization == "positive":
            network = gram_network(lesson.context, settings, basis.active, lesson.scale, seed)
        else:
            network = ratio_network(lesson.context, settings, len(sigma), seed)
        loss = PointRatios(
            network,
            basis.points[1:],
            sigma,
            settings.loss,
            repulsive=settings.members_from == "repulsion",
            n_events=lesson.n_train,
        )
        return network, loss, labels

    def _posterior(
        self,
        context: PosteriorContext,
        network: nn.Module,
        config: Mapping[str, Any],
        rates: Rates,
        lesson: Lesson,
    ) -> MorphingPosterior:
        return MorphingPosterior(context, network, config, rates, _basis_of(lesson))

    def _rebuild(
        self, context: PosteriorContext, config: Mapping[str, Any], weights: Mapping[str, AnyArray]
    ) -> MorphingPosterior:
        values = dict(config)
        rates, stored = Rates.from_dict(values.pop("rates")), values.pop("basis")
        basis = MorphingBasis(np.array(stored["points"]), np.array(stored["active"]))
        settings = MorphingSettings(**values)
        network: RatioNetwork | GramNetwork
        if settings.parametrization == "positive":
            network = rebuilt_gram_network(context, settings, weights)
        else:
            network = rebuilt_ratio_network(context, settings, len(basis.points) - 1, weights)
        return MorphingPosterior(context, network, values, rates, basis)


def _basis_of(lesson: Lesson) -> MorphingBasis:
    proposal = lesson.simulator.options.proposal
    if proposal != "mixture":
        raise TrainingError(
            "morphing trains on events of the basis points: simulate with proposal='mixture' "
            f"(these have proposal={proposal!r})"
        )
    try:
        return MorphingBasis(lesson.simulator.points, lesson.active)
    except ContractError as error:
        raise TrainingError(f"{error}; choose the option mixture_points accordingly") from error


def _composite(basis: MorphingBasis, events: Events, sigma: FloatArray) -> FloatArray:
    """Log ratios, weights and origin of events, shape (n, 2 points + 1)."""
    ratio = (events.gram @ monomials(basis.points[1:]).T) / sigma
    weight = np.zeros_like(ratio)
    n = len(ratio)
    at_zero = events.source == 0
    for b in range(ratio.shape[1]):
        at_point = events.source == b + 1
        few = min(int(at_zero.sum()), int(at_point.sum()))
        if few < _MIN_EVENTS:
            raise TrainingError(
                f"basis point {b + 1} needs events of it and of zero parameters, there are {few}"
            )
        weight[at_zero, b] = 0.5 * n / at_zero.sum()
        weight[at_point, b] = 0.5 * n / at_point.sum()
    log_ratio = np.log(np.maximum(ratio, 1e-12))
    return np.concatenate([log_ratio, weight, at_zero[:, None]], axis=1)
