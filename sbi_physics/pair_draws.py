"""Truths, data and posterior draws of simulated pairs, for the diagnostics beside the verdict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import numpy as np

from sbi_physics.errors import ValidationError
from sbi_physics.pair_checks import check_pairs, check_streams
from sbi_physics.posterior import Posterior
from sbi_physics.priors import Prior
from sbi_physics.store import Simulations
from sbi_physics.targets import Sampler
from sbi_physics.types import DataArray, FloatArray

MIN_ESS: Final = 200.0
"""With fewer effective draws, repeated ones break the exchangeability of truth and draws."""

Features: TypeAlias = Callable[[DataArray], FloatArray]
"""A function of observations (batch, *shape) that returns a few numbers each, (batch, feature)."""


def usable_pairs(
    target: Posterior | Sampler, pairs: Simulations, training: Simulations | None = None
) -> tuple[Prior, FloatArray, DataArray]:
    """Return the prior of the inferred parameters, their true values and the data of all pairs.

    Args:
        target: What will be asked for draws.
        pairs: Fresh simulations.
        training: The training simulations, if at hand.

    Raises:
        ValidationError: If the pairs cannot be used with this posterior.
    """
    check_streams(target, pairs, training)
    prior = pairs.prior.select(pairs.parameters.interest)
    if isinstance(target, Posterior):
        check_pairs(target, pairs)
        prior = target.prior
    read = pairs.read(slice(None), latents=())
    if read.weight is not None and not bool((read.weight == 1.0).all()):
        raise ValidationError(
            "the pairs carry importance weights: this needs unweighted draws from the prior"
        )
    return prior, read.theta[:, pairs.parameters.indices(prior.names)], read.x


def draws_of(
    source: Posterior | Sampler, x: DataArray, n: int, d: int, rng: np.random.Generator
) -> FloatArray:
    """Return independent draws for every observation in physical units, shape (batch, n, d).

    Raises:
        ValidationError: If a bare function returns another shape, or half of the observations
            have fewer than 200 effective draws behind theirs.
    """
    if isinstance(source, Posterior):
        drawn_from = source.draw(x, n, rng, any_observation=True)
        ess = drawn_from.ess
        if ess is not None and len(ess) and float(np.median(ess)) < MIN_ESS:
            raise ValidationError(
                f"half of the observations have fewer than {float(np.median(ess)):.0f} effective "
                f"draws behind them; at least {MIN_ESS:.0f} are needed. A larger pool "
                "(pool_size) has more"
            )
        return drawn_from.theta
    drawn = np.asarray(source(x, n), dtype=np.float64)
    if drawn.shape != (len(x), n, d):
        raise ValidationError(
            f"the sampler returned draws of shape {drawn.shape} for {len(x)} observations; "
            f"expected ({len(x)}, {n}, {d})"
        )
    return drawn


def data_features(pairs: Simulations, x: DataArray) -> Features:
    """Return the default features of data: leading principal components of the pairs' own data."""
    return pairs.observable.fit_transform(x).features


def checked_features(features: Features, x: DataArray, subject: str) -> FloatArray:
    """Evaluate features of the data.

    Raises:
        ValidationError: If they have another shape or are not finite.
    """
    values: Any = np.asarray(features(x), dtype=np.float64)
    if values.ndim != 2 or len(values) != len(x):
        raise ValidationError(
            f"features of the {subject} must have shape ({len(x)}, feature), got {values.shape}"
        )
    if not np.isfinite(values).all():
        raise ValidationError(
            f"features of the {subject} have {int((~np.isfinite(values)).sum())} values that are "
            "not finite"
        )
    checked: FloatArray = values
    return checked
