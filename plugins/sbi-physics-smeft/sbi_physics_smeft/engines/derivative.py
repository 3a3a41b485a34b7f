r"""Engine `smeft-derivative`: regression of the quadratic coefficients (arXiv:2410.07315).

Events from zero parameters give derivative learning as published; events from a mixture give the
same coefficients from bounded labels, with the regions that matter populated. Which it is follows
from the simulations (`proposal`); `losses` has the equations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from sbi_physics import Engine, Observable, TrainingData, TrainingSettings
from sbi_physics.errors import TrainingError
from sbi_physics.likelihood.gram import monomials, n_parameters, pack, triangle
from sbi_physics.nn.loop import fit
from sbi_physics.nn.weights import load_arrays
from sbi_physics.posterior import PosteriorContext
from sbi_physics.progress import Progress
from sbi_physics.types import AnyArray, BoolArray, FloatArray
from sbi_physics_smeft.eft_simulator import EftSimulator
from sbi_physics_smeft.engines.gram_posterior import (
    GramPosterior,
    Rates,
    event_inputs,
    for_sets,
    of_any_proposal,
    rates_of,
)
from sbi_physics_smeft.engines.label_data import Events, LabelData, labelled_events
from sbi_physics_smeft.engines.losses import GramCrossEntropy, GramRegression, LabelLoss
from sbi_physics_smeft.engines.network import GramNetwork, MemberPerceptron
from sbi_physics_smeft.engines.settings import ARCHITECTURE, LabelSettings
from sbi_physics_smeft.engines.smearing import robust_spread

PACKAGES = ("sbi-physics-smeft", "torch")


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


class DerivativeEngine(Engine):
    """Learning of the quadratic coefficients of a likelihood ratio."""

    name: ClassVar[str] = "smeft-derivative"
    summary: ClassVar[str] = "regression of the quadratic coefficients from parton-level labels"
    Settings: ClassVar[type[TrainingSettings]] = DerivativeSettings
    packages: ClassVar[tuple[str, ...]] = PACKAGES

    def supports(self, observable: Observable) -> str | None:
        """Single events as vectors."""
        return single_events_only(observable)

    def _train(
        self,
        data: TrainingData,
        context: PosteriorContext,
        settings: DerivativeSettings,
        seed: int,
        progress: Progress,
    ) -> DerivativePosterior:
        events, rates = labelled_events(data), rates_of(data.simulations, data.prior)
        simulator = cast("EftSimulator", data.simulations.simulator)
        context = of_any_proposal(context)
        if settings.max_events:
            context = for_sets(context, events.x[data.train_rows], settings.max_events)
        trace = sampling_trace(simulator, data)
        share = events.gram @ trace
        target = events.gram / share[:, None]
        active, scale = active_entries(events.gram), parameter_scale(target[data.train_rows])
        network = build_gram_network(context, settings, active, scale, seed)
        unit = entry_unit(scale)
        loss, labels = self._loss(
            network, settings, simulator, events, target * unit, trace / unit, data, share
        )
        source = label_source(data, events, labels, target, settings, context, seed)
        loss.mean_weight = len(data.train_rows) / source.n_train
        history = fit(network, loss, source, settings, seed=seed + 1, progress=progress)
        config = settings.model_dump(include=set(ARCHITECTURE), mode="json")
        return DerivativePosterior(replace(context, history=history), network, config, rates)

    def _loss(
        self,
        network: GramNetwork,
        settings: DerivativeSettings,
        simulator: EftSimulator,
        events: Events,
        target: FloatArray,
        trace: FloatArray,
        data: TrainingData,
        share: FloatArray,
    ) -> tuple[LabelLoss, FloatArray]:
        repulsive = settings.members_from == "repulsion"
        n = len(data.train_rows)
        if settings.loss == "mse":
            spread = robust_spread(target[data.train_rows])
            small = spread < 1e-9 * np.abs(target).max(axis=0, initial=0.0)
            spread = np.where(small, 0.0, spread)
            loss: LabelLoss = GramRegression(
                network, trace, spread, 1.0, repulsive=repulsive, n_events=n
            )
            return loss, target
        points = simulator.points
        needed = int(active_entries(events.gram).sum())
        largest = np.abs(points).max(axis=0)
        rows = monomials(points / np.where(largest > 0, largest, 1.0))
        rank = int(np.linalg.matrix_rank(rows))
        if rank < needed:
            raise TrainingError(
                f"the cross-entropy of {len(points)} points cannot determine {needed} "
                "coefficients: simulate with more mixture_points, or use loss='mse'"
            )
        # Equal weights where the sample is no mixture of the points.
        shares = np.full(len(points), 1 / len(points))
        sigma = monomials(points) @ pack(simulator.fiducial_gram())
        labels = shares / sigma * (events.gram @ monomials(points).T) / share[:, None]
        return (
            GramCrossEntropy(network, points, shares, sigma, 1.0, repulsive=repulsive, n_events=n),
            labels,
        )

    def _rebuild(
        self, context: PosteriorContext, config: Mapping[str, Any], weights: Mapping[str, AnyArray]
    ) -> DerivativePosterior:
        values = dict(config)
        rates = Rates.from_dict(values.pop("rates"))
        network = rebuilt_gram_network(context, DerivativeSettings(**values), weights)
        return DerivativePosterior(context, network, values, rates)


def single_events_only(observable: Observable) -> str | None:
    """Return why an observable cannot be learned from labels, or None."""
    if observable.kind == "vector" and len(observable.shape) == 1:
        return None
    return (
        "labels belong to single events; simulate events as vectors (a posterior of event sets "
        "comes from the setting max_events)"
    )


def sampling_trace(simulator: EftSimulator, data: TrainingData) -> FloatArray:
    """Return t with q(z)/p(z|0) = t . packed G(z), shape (entries,)."""
    matrix = pack(simulator.sampling_matrix(data.simulations.prior))
    return matrix * monomials(np.ones(n_parameters(len(matrix))))


def active_entries(gram: FloatArray) -> BoolArray:
    """Return which entries do not vanish in every event, shape (entries,)."""
    largest = np.abs(gram).max(axis=0)
    return np.asarray(largest > 1e-12 * largest.max())


def parameter_scale(target: FloatArray) -> FloatArray:
    """Return units of v in which the mean matrix of a sample has a unit diagonal, (d + 1,)."""
    rows, columns = triangle(n_parameters(target.shape[1]))
    diagonal = target[:, rows == columns].mean(axis=0)
    return np.where(diagonal > 0, np.sqrt(diagonal[0] / np.maximum(diagonal, 1e-300)), 1.0)


def entry_unit(scale: FloatArray) -> FloatArray:
    """Return the factor of packed entries in scaled parameters, shape (entries,)."""
    rows, columns = triangle(len(scale) - 1)
    unit: FloatArray = scale[rows] * scale[columns]
    return unit


def build_gram_network(
    context: PosteriorContext,
    settings: LabelSettings,
    active: BoolArray,
    scale: FloatArray,
    seed: int,
) -> GramNetwork:
    """Build an untrained network with reproducible weights."""
    n_in = context.observable.shape[-1] - int(context.observable.kind == "set")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = MemberPerceptron(
            n_in,
            settings.hidden_features,
            settings.hidden_layers,
            len(active) - 1,
            settings.members,
        )
    positive = getattr(settings, "parametrization", "positive") == "positive"
    return GramNetwork(body, positive=positive, active=active, scale=scale)


def rebuilt_gram_network(
    context: PosteriorContext, settings: LabelSettings, weights: Mapping[str, AnyArray]
) -> GramNetwork:
    """Rebuild a network from stored weights."""
    active = np.asarray(weights["active"], dtype=np.float64) > 0
    scale = np.asarray(weights["scale"], dtype=np.float64)
    network = build_gram_network(context, settings, active, scale, 0)
    load_arrays(network, weights)
    return network


def label_source(
    data: TrainingData,
    events: Events,
    labels: FloatArray,
    outlying: FloatArray,
    settings: LabelSettings,
    context: PosteriorContext,
    seed: int,
) -> LabelData:
    """Return the batches that both engines train on."""
    transform = context.transform
    if transform is None:  # pragma: no cover - training always fits one
        raise TrainingError("there is no fitted transform")
    return LabelData(
        data,
        events,
        labels,
        copies=outlying if settings.smearing == "fractional" else None,
        threshold=settings.smearing_threshold,
        max_copies=settings.smearing_max,
        inputs=lambda x: event_inputs(transform, x),
        members=settings.members,
        bootstrap=settings.members_from == "bootstrap",
        redraw=data.redraws,
        batch_size=settings.batch_size,
        seed=seed,
    )
