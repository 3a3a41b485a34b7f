r"""What both engines do: read events and labels, build networks and batches, train.

An engine says what is learned by `_objective`, and what posterior comes of it by `_posterior`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, cast

import numpy as np
from torch import nn

from sbi_physics import Engine, Observable, TrainingData
from sbi_physics.engine import package_versions
from sbi_physics.errors import TrainingError
from sbi_physics.likelihood.gram import monomials, n_parameters, pack, triangle
from sbi_physics.nn.loop import fit
from sbi_physics.posterior import PosteriorContext
from sbi_physics.progress import Progress
from sbi_physics.types import BoolArray, FloatArray
from sbi_physics_smeft.eft_simulator import EftSimulator
from sbi_physics_smeft.engines.build import required_by
from sbi_physics_smeft.engines.gram_posterior import (
    GramPosterior,
    Rates,
    event_inputs,
    for_sets,
    of_any_proposal,
    rates_of,
)
from sbi_physics_smeft.engines.label_data import Events, LabelData, labelled_events
from sbi_physics_smeft.engines.losses import LabelLoss
from sbi_physics_smeft.engines.settings import ARCHITECTURE, LabelSettings


@dataclass(frozen=True, eq=False)
class Lesson:
    """What an engine learns from.

    Attributes:
        data: Split and transform.
        events: Events with their labels.
        simulator: Where they come from.
        context: What the posterior will carry: observations are sets where settings say so.
    """

    data: TrainingData
    events: Events
    simulator: EftSimulator
    context: PosteriorContext

    @cached_property
    def trace(self) -> FloatArray:
        """The vector t with q(z)/p(z|0) = t . packed G(z), shape (entries,)."""
        matrix = pack(self.simulator.sampling_matrix(self.data.simulations.prior))
        return matrix * monomials(np.ones(n_parameters(len(matrix))))

    @cached_property
    def share(self) -> FloatArray:
        """Density of the sample over that of zero parameters, q(z)/p(z|0), shape (n,)."""
        share: FloatArray = self.events.gram @ self.trace
        return share

    @cached_property
    def target(self) -> FloatArray:
        """Packed matrices over the sampling density, shape (n, entries)."""
        target: FloatArray = self.events.gram / self.share[:, None]
        return target

    @cached_property
    def active(self) -> BoolArray:
        """Which entries do not vanish in every event, shape (entries,)."""
        largest = np.abs(self.events.gram).max(axis=0)
        return np.asarray(largest > 1e-12 * largest.max())

    @cached_property
    def scale(self) -> FloatArray:
        """Units of v in which the mean training matrix has a unit diagonal, shape (d + 1,)."""
        target = self.target[self.data.train_rows]
        rows, columns = triangle(n_parameters(target.shape[1]))
        diagonal = target[:, rows == columns].mean(axis=0)
        return np.where(diagonal > 0, np.sqrt(diagonal[0] / np.maximum(diagonal, 1e-300)), 1.0)

    @property
    def n_train(self) -> int:
        """Number of training events."""
        return len(self.data.train_rows)


class LabelEngine(Engine):
    """Base of engines that learn likelihood ratios from labels of single events."""

    packages: ClassVar[tuple[str, ...]] = ("sbi-physics-smeft", "torch")

    def supports(self, observable: Observable) -> str | None:
        """Single events as vectors."""
        if observable.kind == "vector" and len(observable.shape) == 1:
            return None
        return (
            "labels belong to single events; simulate events as vectors (a posterior of event "
            "sets comes from the setting max_events)"
        )

    @abstractmethod
    def _objective(
        self, lesson: Lesson, settings: Any, seed: int
    ) -> tuple[nn.Module, LabelLoss, FloatArray]:
        """Return an untrained network, its loss and the loss's labels, shape (n, columns)."""

    @abstractmethod
    def _posterior(
        self,
        context: PosteriorContext,
        network: nn.Module,
        config: Mapping[str, Any],
        rates: Rates,
        lesson: Lesson,
    ) -> GramPosterior:
        """Return the posterior of a trained network."""

    def _train(
        self,
        data: TrainingData,
        context: PosteriorContext,
        settings: LabelSettings,
        seed: int,
        progress: Progress,
    ) -> GramPosterior:
        versions = package_versions(required_by(settings, data.observable))
        events, rates = labelled_events(data), rates_of(data.simulations, data.prior)
        simulator = cast("EftSimulator", data.simulations.simulator)
        context = of_any_proposal(context)
        context = replace(context, versions={**context.versions, **versions})
        if settings.max_events:
            context = for_sets(context, events.x[data.train_rows], settings.max_events)
        lesson = Lesson(data, events, simulator, context)
        network, loss, labels = self._objective(lesson, settings, seed)
        source = _batches(lesson, labels, settings, seed)
        loss.mean_weight = lesson.n_train / source.n_train
        history = fit(network, loss, source, settings, seed=seed + 1, progress=progress)
        config = settings.model_dump(include=set(ARCHITECTURE), mode="json")
        return self._posterior(replace(context, history=history), network, config, rates, lesson)


def _batches(lesson: Lesson, labels: FloatArray, settings: LabelSettings, seed: int) -> LabelData:
    transform = lesson.context.transform
    if transform is None:  # pragma: no cover - training always fits one
        raise TrainingError("there is no fitted transform")
    return LabelData(
        lesson.data,
        lesson.events,
        labels,
        copies=lesson.target if settings.smearing == "fractional" else None,
        threshold=settings.smearing_threshold,
        max_copies=settings.smearing_max,
        inputs=lambda x: event_inputs(transform, x),
        members=settings.members,
        bootstrap=settings.members_from == "bootstrap",
        redraw=lesson.data.redraws,
        batch_size=settings.batch_size,
        seed=seed,
    )
