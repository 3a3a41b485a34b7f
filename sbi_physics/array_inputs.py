"""Arrays made elsewhere, brought into the form that the tests take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from sbi_physics.diagnostics.ranks import effective_sample_size, resample
from sbi_physics.diagnostics.verdict import REQUIREMENTS
from sbi_physics.errors import ValidationError, unknown_name
from sbi_physics.priors import Prior
from sbi_physics.seeding import generator
from sbi_physics.types import FloatArray

N_DRAWS: Final = 999
"""Default draws for each observation: 1000 ranks bin exactly."""

_RESAMPLE_STREAM = 0
_RESAMPLE_RATIO = 5
_MIN_RESAMPLED = 199


def check_choices(require: str, quantities: Sequence[str], known: tuple[str, ...]) -> None:
    """Check what is required of a posterior and which quantities are ranked besides.

    Raises:
        UnknownNameError: If the requirement or a quantity is unknown.
    """
    if require not in REQUIREMENTS:
        raise unknown_name("requirement", require, REQUIREMENTS)
    for quantity in quantities:
        if quantity not in known:
            raise unknown_name("quantity", quantity, known)


def equal_weights(
    samples: FloatArray, drawn: FloatArray | None, weights: FloatArray, seed: int
) -> tuple[FloatArray, FloatArray | None, FloatArray | None, FloatArray]:
    """Resample where there are plenty of effective draws; otherwise keep the weights."""
    if (weights < 0).any() or not np.isfinite(weights).all() or (weights.sum(axis=1) <= 0).any():
        raise ValidationError(
            "weights must be finite and not negative, with a positive sum for every observation"
        )
    ess = effective_sample_size(weights)
    n_draws = min(N_DRAWS, int(ess.min() / _RESAMPLE_RATIO))
    if n_draws < _MIN_RESAMPLED:
        return samples, drawn, weights, ess
    chosen, picks = resample(
        samples, weights, n_draws, generator(seed, "validation", _RESAMPLE_STREAM)
    )
    densities = None if drawn is None else np.take_along_axis(drawn, picks, axis=1)
    return chosen.astype(np.float64), densities, None, ess


def scaled(
    prior: Prior | None, points: FloatArray, unit: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Scaled coordinates and log |d scaled / d theta|; without a prior, in the units given."""
    if prior is not None:
        return prior.scaled(points), prior.log_abs_det_scaled(points)
    return points / unit, np.full(points.shape[:-1], -float(np.log(unit).sum()))


def pooled_moments(truth: FloatArray, draws: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean and sd of truths and draws together, which knows nothing of who is who."""
    means, squares = [], []
    for own, drawn in zip(truth, draws, strict=True):
        if np.isfinite(own).all() and np.isfinite(drawn).all():
            points = np.concatenate([own[None], drawn])
            means.append(points.mean(axis=0))
            squares.append(points.var(axis=0))
    if not means:
        return np.zeros(truth.shape[1]), np.ones(truth.shape[1])
    variance = np.mean(squares, axis=0) + np.var(means, axis=0)
    return np.mean(means, axis=0), np.sqrt(variance)


def parameter_names(prior: Prior | None, names: Sequence[str], d: int) -> tuple[str, ...]:
    """Return the names of `d` parameters: the prior's, those given, or `theta_1`, ...

    Raises:
        ValidationError: If their number is not `d`.
    """
    chosen = (
        prior.names
        if prior is not None
        else tuple(names) or tuple(f"theta_{j + 1}" for j in range(d))
    )
    if len(chosen) != d:
        raise ValidationError(f"theta has {d} parameters, the names are {', '.join(chosen)}")
    return chosen
