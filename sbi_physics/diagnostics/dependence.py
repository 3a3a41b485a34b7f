"""Sizes of the deviations that the conditional-moment tests look for.

Correlation
    Correlation of the true parameters around the posterior means, minus the mean correlation that
    the posteriors claim. Widths and biases common to all observations cancel.
x-slope
    Slope of the bias of one parameter on a standardised feature of the data, in posterior standard
    deviations: bias that averages out over the data.
x-width
    Relative change of the true over the claimed width of one parameter for one standard deviation
    of a feature: widths that are too small here and too large there.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from scipy import special

from sbi_physics.diagnostics.moments import MAX_DATA_FEATURES
from sbi_physics.diagnostics.uniformity import Z95
from sbi_physics.diagnostics.verdict import (
    CORRELATION_TOLERANCE,
    SLOPE_TOLERANCE,
    X_WIDTH_TOLERANCE,
    Effect,
)
from sbi_physics.types import FloatArray

_MIN_PAIRS: Final = 20


def correlation_effects(
    names: tuple[str, ...], truth: FloatArray, mean: FloatArray, covariance: FloatArray
) -> tuple[Effect, ...]:
    """Return true minus claimed correlation of every two parameters, with 95 % intervals.

    Args:
        names: Parameter names.
        truth: True parameters, shape (pairs, param), finite.
        mean: Posterior means, shape (pairs, param).
        covariance: Posterior covariances, shape (pairs, param, param).
    """
    sd = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    found = []
    for j, a in enumerate(names):
        for k, b in enumerate(names[j + 1 :], j + 1):
            wide = np.flatnonzero((sd[:, j] > 0.0) & (sd[:, k] > 0.0))
            if len(wide) < _MIN_PAIRS:
                continue
            za, zb = ((truth - mean)[wide][:, c] / sd[wide, c] for c in (j, k))
            claimed = covariance[wide, j, k] / (sd[wide, j] * sd[wide, k])
            value, error = _correlation_difference(za, zb, claimed)
            found.append(
                Effect(
                    "correlation",
                    f"{a},{b}",
                    value,
                    value - Z95 * error,
                    value + Z95 * error,
                    CORRELATION_TOLERANCE,
                )
            )
    return tuple(found)


def slope_effect(name: str, u: FloatArray, features: FloatArray) -> Effect | None:
    """Return the steepest slope of one parameter's normal scores on features of the data.

    Args:
        name: Parameter.
        u: Its probability integral transforms, shape (pairs,).
        features: Standardised features of the data, shape (pairs, feature).

    Returns:
        The slope on the feature where it is most significant; its 95 % interval holds
        simultaneously for all features. None where no feature varies or pairs are few.
    """
    steepest = _steepest(special.ndtri(u), features)
    return None if steepest is None else Effect("x-slope", name, *steepest, SLOPE_TOLERANCE)


def width_slope_effect(name: str, u: FloatArray, features: FloatArray) -> Effect | None:
    """Return the steepest relative change of one parameter's width with a feature of the data.

    For normal scores g with a width s (1 + b z), the slope of g^2 / (2 mean g^2) on the
    standardised feature z is b to first order.

    Args:
        name: Parameter.
        u: Its probability integral transforms, shape (pairs,).
        features: Standardised features of the data, shape (pairs, feature).

    Returns:
        The change on the feature where it is most significant; its 95 % interval holds
        simultaneously for all features. None where no feature varies or pairs are few.
    """
    squared = special.ndtri(u) ** 2
    steepest = _steepest(squared / (2.0 * squared.mean()), features)
    return None if steepest is None else Effect("x-width", name, *steepest, X_WIDTH_TOLERANCE)


def _steepest(y: FloatArray, features: FloatArray) -> tuple[float, float, float] | None:
    """Most significant slope of y on a standardised feature; its simultaneous 95 % interval."""
    z = features[:, :MAX_DATA_FEATURES]
    z = z - z.mean(axis=0)
    variance = (z**2).mean(axis=0)
    varying = variance > 0.0
    if len(y) < _MIN_PAIRS or not varying.any():
        return None
    z = z[:, varying] / np.sqrt(variance[varying])
    centred = y - y.mean()
    slopes = z.T @ centred / len(y)
    # The heteroscedasticity-consistent error (White 1980).
    errors = np.sqrt(np.mean((z * (centred[:, None] - z * slopes)) ** 2, axis=0) / len(y))
    pulls = np.divide(np.abs(slopes), errors, out=np.zeros_like(slopes), where=errors > 0.0)
    f = int(np.argmax(pulls))
    half = float(special.ndtri(1.0 - 0.025 / len(slopes))) * float(errors[f])
    return float(slopes[f]), float(slopes[f]) - half, float(slopes[f]) + half


def _correlation_difference(
    za: FloatArray, zb: FloatArray, claimed: FloatArray
) -> tuple[float, float]:
    """Sample correlation minus mean claimed one, and its standard error (delta method)."""
    a, b = za - za.mean(), zb - zb.mean()
    sa, sb = math.sqrt(float(np.mean(a**2))), math.sqrt(float(np.mean(b**2)))
    if sa == 0.0 or sb == 0.0:
        return -float(claimed.mean()), float(claimed.std()) / math.sqrt(len(a))
    a, b = a / sa, b / sb
    r = float(np.mean(a * b))
    influence = a * b - 0.5 * r * (a**2 + b**2) - (claimed - claimed.mean())
    return r - float(claimed.mean()), float(influence.std()) / math.sqrt(len(a))
