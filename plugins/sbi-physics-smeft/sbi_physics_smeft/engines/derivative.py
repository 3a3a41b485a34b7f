r"""Engine `smeft-derivative`: regression of the quadratic coefficients (arXiv:2410.07315).

Events from zero parameters give derivative learning as published; events from a mixture give the
same coefficients from bounded labels, with the regions that matter populated. Which it is follows
from the simulations (`proposal`); `losses` has the equations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, cast

import numpy as np
from pydantic import Field
from torch import Tensor, nn

from sbi_physics import TrainingSettings
from sbi_physics.errors import TrainingError
from sbi_physics.likelihood.gram import monomials, pack, triangle
from sbi_physics.posterior import PosteriorContext
from sbi_physics.types import AnyArray, FloatArray
from sbi_physics_smeft.engines.build import gram_network, rebuilt_gram_network
from sbi_physics_smeft.engines.gram_posterior import GramPosterior, Rates
from sbi_physics_smeft.engines.label_engine import LabelEngine, Lesson
from sbi_physics_smeft.engines.losses import GramCrossEntropy, GramRegression, LabelLoss
from sbi_physics_smeft.engines.network import GramNetwork
from sbi_physics_smeft.engines.settings import LabelSettings
from sbi_physics_smeft.engines.smearing import robust_spread


class DerivativeSettings(LabelSettings):
    """Settings of `smeft-derivative`."""

    parametrization: Literal["positive", "free"] = Field(
        "positive", description="positive: matrices L L^T, no negative ratio; free: the entries."
    )
    loss: Literal["mse", "cross-entropy"] = Field(
        "mse",
        description="mse: squared differences of the coefficients over the sampling density; "
        "cross-entropy: which point of the mixture did an event come from.",
    )


class DerivativePosterior(GramPosterior):
    """Matrices straight from the networks."""

    def _grams(self, x: Tensor) -> Tensor:
        network = cast("GramNetwork", self.network)
        return network.physical(network(x))


class DerivativeEngine(LabelEngine):
    """Learning of the quadratic coefficients of a likelihood ratio."""

    name: ClassVar[str] = "smeft-derivative"
    summary: ClassVar[str] = "regression of the quadratic coefficients from parton-level labels"
    Settings: ClassVar[type[TrainingSettings]] = DerivativeSettings

    def _objective(
        self, lesson: Lesson, settings: DerivativeSettings, seed: int
    ) -> tuple[nn.Module, LabelLoss, FloatArray]:
        network = gram_network(lesson.context, settings, lesson.active, lesson.scale, seed)
        members: dict[str, Any] = {
            "repulsive": settings.members_from == "repulsion",
            "n_events": lesson.n_train,
        }
        if settings.loss == "mse":
            return network, *_regression(network, lesson, members)
        return network, *_cross_entropy(network, lesson, members)

    def _posterior(
        self,
        context: PosteriorContext,
        network: nn.Module,
        config: Mapping[str, Any],
        rates: Rates,
        lesson: Lesson,
    ) -> DerivativePosterior:
        return DerivativePosterior(context, network, config, rates)

    def _rebuild(
        self, context: PosteriorContext, config: Mapping[str, Any], weights: Mapping[str, AnyArray]
    ) -> DerivativePosterior:
        values = dict(config)
        rates = Rates.from_dict(values.pop("rates"))
        network = rebuilt_gram_network(context, DerivativeSettings(**values), weights)
        return DerivativePosterior(context, network, values, rates)


def _regression(
    network: GramNetwork, lesson: Lesson, members: Mapping[str, Any]
) -> tuple[LabelLoss, FloatArray]:
    """Squared differences of the matrices over the sampling density, in the network's units."""
    rows, columns = triangle(len(lesson.scale) - 1)
    unit = lesson.scale[rows] * lesson.scale[columns]
    target = lesson.target * unit
    spread = robust_spread(target[lesson.data.train_rows])
    small = spread < 1e-9 * np.abs(target).max(axis=0, initial=0.0)
    spread = np.where(small, 0.0, spread)
    return GramRegression(network, lesson.trace / unit, spread, **members), target


def _cross_entropy(
    network: GramNetwork, lesson: Lesson, members: Mapping[str, Any]
) -> tuple[LabelLoss, FloatArray]:
    """Which point of the mixture did an event come from?"""
    points, needed = lesson.simulator.points, int(lesson.active.sum())
    largest = np.abs(points).max(axis=0)
    rows = monomials(points / np.where(largest > 0, largest, 1.0))
    if int(np.linalg.matrix_rank(rows)) < needed:
        raise TrainingError(
            f"the cross-entropy of {len(points)} points cannot determine {needed} "
            "coefficients: simulate with more mixture_points, or use loss='mse'"
        )
    # Equal weights where the sample is no mixture of the points.
    shares = np.full(len(points), 1 / len(points))
    sigma = monomials(points) @ pack(lesson.simulator.fiducial_gram())
    numbers = lesson.events.gram @ monomials(points).T
    labels = shares / sigma * numbers / lesson.share[:, None]
    return GramCrossEntropy(network, points, shares, sigma, **members), labels
