"""A linear regression of the parameters on a few features of the data.

It places references (`tarp`) and gives the features that residuals must not depend on
(`moments`). It is fitted on simulations that are not tested. Any function of the data alone is
legitimate there: a poor regression costs power, never validity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np

from sbi_physics.observables import Observable
from sbi_physics.transforms import Transform
from sbi_physics.types import AnyArray, DataArray, FloatArray

MAX_FIT: Final = 5000
_MAX_FIT_VALUES: Final = 20_000_000
_COMPONENT_ROWS: Final = 500
_CLIP: Final = 3.0
_RIDGE: Final = 1e-3


def fit_rows(observable: Observable) -> int:
    """How many simulations are read to fit features and regression: enough, and not more."""
    entries = math.prod(observable.shape)
    return max(200, min(MAX_FIT, _MAX_FIT_VALUES // entries))


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """Leading principal components of the data, in units of their spread and cut at 3 of these.

    Attributes:
        transform: Gives the components.
        centre: Their means, shape (feature,).
        spread: Their standard deviations, shape (feature,).
    """

    transform: Transform
    centre: FloatArray
    spread: FloatArray

    @classmethod
    def fit(cls, observable: Observable, x: DataArray) -> Self:
        """Fit on data with shape (n, *shape)."""
        steps = tuple(s for s in observable.transform if s != "whiten")
        plain = replace(observable, transform=steps)
        transform = Transform.fit(plain, x[:_COMPONENT_ROWS])
        values = transform.features(x)
        spread = values.std(axis=0)
        return cls(transform, values.mean(axis=0), np.where(spread > 0.0, spread, np.inf))

    def __call__(self, x: DataArray) -> FloatArray:
        """Return features of data with shape (batch, *shape), shape (batch, feature)."""
        values = (self.transform.features(x) - self.centre) / self.spread
        return np.clip(values, -_CLIP, _CLIP)


@dataclass(frozen=True, slots=True, eq=False)
class Regression:
    """A ridge regression with intercept.

    Attributes:
        intercept: Shape (param,).
        slopes: Shape (feature, param).
        residual_sd: Shape (param,).
    """

    intercept: FloatArray
    slopes: FloatArray
    residual_sd: FloatArray

    @classmethod
    def fit(cls, features: FloatArray, theta: FloatArray) -> Self:
        """Fit on features (n, feature) and scaled parameters (n, param), both finite."""
        n, k = features.shape
        centre, mean = features.mean(axis=0), theta.mean(axis=0)
        z, y = features - centre, theta - mean
        # The features have unit variance, so one small ridge suits all of them.
        slopes = np.linalg.solve(z.T @ z + _RIDGE * n * np.eye(k), z.T @ y)
        residual = y - z @ slopes
        return cls(mean - centre @ slopes, slopes, residual.std(axis=0))

    def __call__(self, features: FloatArray) -> FloatArray:
        """Return m(x), shape (batch, param)."""
        return self.intercept + features @ self.slopes


def plain_vectors(x: AnyArray) -> tuple[Observable, DataArray]:
    """Return data of unknown kind as standardised vectors; entries not finite become average.

    Args:
        x: Shape (batch, ...), real numbers.
    """
    flat = np.asarray(x, dtype=np.float64).reshape(len(x), -1)
    finite = np.isfinite(flat)
    if not finite.all():
        known = np.where(finite, flat, 0.0).sum(axis=0) / np.maximum(finite.sum(axis=0), 1)
        flat = np.where(finite, flat, known)
    # Data may be of any size, beyond single precision too.
    largest = np.abs(flat).max(axis=0, initial=0.0)
    flat = flat / np.where(largest > 0.0, largest, 1.0)
    spread = flat.std(axis=0)
    standard = (flat - flat.mean(axis=0)) / np.where(spread > 0.0, spread, np.inf)
    return Observable(kind="vector", shape=(flat.shape[1],)), standard.astype(np.float32)
