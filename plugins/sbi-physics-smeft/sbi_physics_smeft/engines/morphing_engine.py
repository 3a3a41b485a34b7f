r"""Engine `smeft-morphing`: ratios at basis points, combined by morphing (arXiv:2410.07315).

Each ratio r_b is learned on events of zero and of one basis point, half of the weight each. Then

.. math:: R(x|\theta) = \sum_b w_b(\theta)\, \frac{\sigma(\theta_b)}{\sigma(0)}\, r_b(x) .

With the positive parametrisation one network gives a positive matrix instead, from which the
ratios at the points follow, and nothing can become negative in between.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from sbi_physics import Engine, Observable, TrainingData, TrainingSettings
from sbi_physics.errors import ContractError, TrainingError
from sbi_physics.likelihood.gram import monomials, pack
from sbi_physics.nn.loop import fit
from sbi_physics.nn.weights import load_arrays
from sbi_physics.posterior import PosteriorContext
from sbi_physics.progress import Progress
from sbi_physics.types import AnyArray, FloatArray
from sbi_physics_smeft.eft_simulator import EftSimulator
from sbi_physics_smeft.engines.derivative import (
    PACKAGES,
    active_entries,
    build_gram_network,
    label_source,
    parameter_scale,
    rebuilt_gram_network,
    sampling_trace,
    single_events_only,
)
from sbi_physics_smeft.engines.gram_posterior import (
    GramPosterior,
    Rates,
    for_sets,
    of_any_proposal,
    rates_of,
)
from sbi_physics_smeft.engines.label_data import Events, labelled_events
from sbi_physics_smeft.engines.losses import PointRatios
from sbi_physics_smeft.engines.morphing import MorphingBasis
from sbi_physics_smeft.engines.network import GramNetwork, MemberPerceptron, RatioNetwork
from sbi_physics_smeft.engines.settings import ARCHITECTURE, LabelSettings

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


class MorphingEngine(Engine):
    """Morphing-aware learning of a likelihood ratio."""

    name: ClassVar[str] = "smeft-morphing"
    summary: ClassVar[str] = "ratios at basis points from parton-level labels, joined by morphing"
    Settings: ClassVar[type[TrainingSettings]] = MorphingSettings
    packages: ClassVar[tuple[str, ...]] = PACKAGES

    def supports(self, observable: Observable) -> str | None:
        """Single events as vectors."""
        return single_events_only(observable)

    def _train(
        self,
        data: TrainingData,
        context: PosteriorContext,
        settings: MorphingSettings,
        seed: int,
        progress: Progress,
    ) -> MorphingPosterior:
        events, rates = labelled_events(data), rates_of(data.simulations, data.prior)
        simulator = cast("EftSimulator", data.simulations.simulator)
        context = of_any_proposal(context)
        basis = _basis_of(simulator, events)
        if settings.max_events:
            context = for_sets(context, events.x[data.train_rows], settings.max_events)
        sigma = (monomials(basis.points) @ pack(simulator.fiducial_gram()))[1:]
        labels = _composite(basis, events, sigma)
        share = events.gram @ sampling_trace(simulator, data)
        target = events.gram / share[:, None]
        network: RatioNetwork | GramNetwork
        if settings.parametrization == "positive":
            scale = parameter_scale(target[data.train_rows])
            network = build_gram_network(context, settings, basis.active, scale, seed)
        else:
            network = _ratio_network(context, settings, len(sigma), seed)
        source = label_source(data, events, labels, target, settings, context, seed)
        loss = PointRatios(
            network,
            basis.points[1:],
            sigma,
            settings.loss,
            len(data.train_rows) / source.n_train,
            repulsive=settings.members_from == "repulsion",
            n_events=len(data.train_rows),
        )
        history = fit(network, loss, source, settings, seed=seed + 1, progress=progress)
        config = settings.model_dump(include=set(ARCHITECTURE), mode="json")
        context = replace(context, history=history)
        return MorphingPosterior(context, network, config, rates, basis)

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
            network = _ratio_network(context, settings, len(basis.points) - 1, 0)
            load_arrays(network, weights)
        return MorphingPosterior(context, network, values, rates, basis)


def _basis_of(simulator: EftSimulator, events: Events) -> MorphingBasis:
    if simulator.options.proposal != "mixture":
        raise TrainingError(
            "morphing trains on events of the basis points: simulate with proposal='mixture' "
            f"(these have proposal={simulator.options.proposal!r})"
        )
    try:
        return MorphingBasis(simulator.points, active_entries(events.gram))
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


def _ratio_network(
    context: PosteriorContext, settings: LabelSettings, points: int, seed: int
) -> RatioNetwork:
    n_in = context.observable.shape[-1] - int(context.observable.kind == "set")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = MemberPerceptron(
            n_in,
            settings.hidden_features,
            settings.hidden_layers,
            1,
            settings.members * points,
        )
    return RatioNetwork(body, settings.members)
