"""Networks as settings ask for them, untrained or with stored weights."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import nn

from sbi_physics import Observable
from sbi_physics.errors import PosteriorFileError, TrainingError
from sbi_physics.nn.device import seeded
from sbi_physics.nn.weights import load_arrays
from sbi_physics.posterior import PosteriorContext
from sbi_physics.types import AnyArray, BoolArray, FloatArray
from sbi_physics_smeft.engines.network import GramNetwork, MemberPerceptron, RatioNetwork
from sbi_physics_smeft.engines.settings import LabelSettings


def required_by(settings: LabelSettings, observable: Observable) -> tuple[str, ...]:
    """Return the distributions that the chosen network needs beside those of the engines.

    Args:
        settings: Which network.
        observable: What it would see.

    Raises:
        PluginError: If one is not installed.
        TrainingError: If the network cannot see such data.
    """
    if settings.network == "mlp":
        return ()
    # Here: the detector's features need numba, and the package is optional.
    from sbi_physics_smeft.engines.lgatr_network import import_lgatr
    from sbi_physics_smeft.engines.particles import particle_columns

    particle_columns(observable)
    import_lgatr()
    return ("lgatr",)


def bodies(
    context: PosteriorContext, settings: LabelSettings, outputs: int, copies: int, seed: int
) -> nn.Module:
    """Build untrained networks of single events with reproducible weights.

    Args:
        context: Whose observations are events or sets of them.
        settings: Kind and sizes.
        outputs: Outputs of each network.
        copies: Number of networks.
        seed: Seed of their weights.

    Returns:
        A module that maps (batch, features) to (copies, batch, outputs).

    Raises:
        PluginError: If a package that they need is not installed.
        TrainingError: If they cannot see such data.
    """
    if settings.network == "mlp":
        n_in = context.observable.shape[-1] - int(context.observable.kind == "set")
        width, depth = settings.hidden_features, settings.hidden_layers
        with seeded(seed):
            return MemberPerceptron(n_in, width, depth, outputs, copies)
    from sbi_physics_smeft.engines.lgatr_network import LgatrSizes, MemberTransformer

    if context.transform is None:  # pragma: no cover - training always fits one
        raise TrainingError("there is no fitted transform")
    sizes = LgatrSizes(
        settings.lgatr_blocks,
        settings.lgatr_multivectors,
        settings.lgatr_scalars,
        settings.lgatr_heads,
        settings.lgatr_expansion,
        settings.lgatr_references,
    )
    with seeded(seed):
        return MemberTransformer(context.transform, outputs, copies, sizes)


def gram_network(
    context: PosteriorContext,
    settings: LabelSettings,
    active: BoolArray,
    scale: FloatArray,
    seed: int,
) -> GramNetwork:
    """Build an untrained network of matrices with reproducible weights."""
    positive = getattr(settings, "parametrization", "positive") == "positive"
    body = bodies(context, settings, len(active), settings.members, seed)
    return GramNetwork(body, positive=positive, active=active, scale=scale)


def rebuilt_gram_network(
    context: PosteriorContext, settings: LabelSettings, weights: Mapping[str, AnyArray]
) -> GramNetwork:
    """Rebuild a network of matrices from stored weights."""
    active = np.asarray(weights["active"], dtype=np.float64) > 0
    scale = np.asarray(weights["scale"], dtype=np.float64)
    network = gram_network(context, settings, active, scale, 0)
    _restore(network, context, weights)
    return network


def ratio_network(
    context: PosteriorContext, settings: LabelSettings, points: int, seed: int
) -> RatioNetwork:
    """Build untrained networks, one for each basis point, with reproducible weights."""
    body = bodies(context, settings, 1, settings.members * points, seed)
    return RatioNetwork(body, settings.members)


def rebuilt_ratio_network(
    context: PosteriorContext,
    settings: LabelSettings,
    points: int,
    weights: Mapping[str, AnyArray],
) -> RatioNetwork:
    """Rebuild networks of the basis points from stored weights."""
    network = ratio_network(context, settings, points, 0)
    _restore(network, context, weights)
    return network


def _restore(
    network: nn.Module, context: PosteriorContext, weights: Mapping[str, AnyArray]
) -> None:
    try:
        load_arrays(network, weights)
    except RuntimeError as error:
        raise PosteriorFileError(
            "the stored weights do not fit the network that the installed packages build; it was "
            f"trained with {dict(context.versions)}: {error}"
        ) from error
