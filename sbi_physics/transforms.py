r"""Transforms of data between a simulator and a network.

Pointwise steps (`log1p`, `sqrt`, `anscombe`) tame the dynamic range; `anscombe`,
:math:`2\sqrt{n + 3/8}`, gives Poisson counts unit variance. `standardize` scales every entry to
unit variance over the prior. `whiten` also removes the correlations between entries,

.. math:: x \to (x - \mu) C^{-1/2}, \qquad C = \operatorname{cov}(x),

so that a small feature on top of a widely varying spectrum reaches the network at the size of its
noise, not of the spectrum. The symmetric root keeps entries in place, so bins stay ordered.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from sbi_physics.errors import ContractError, ObservationError
from sbi_physics.types import DataArray, FloatArray

if TYPE_CHECKING:
    from sbi_physics.observables import Observable

POINTWISE: Final = ("log1p", "sqrt", "anscombe")
STEPS: Final = (*POINTWISE, "standardize", "whiten")
WHITENABLE: Final = ("vector", "spectrum")
"""Kinds of observables whose entries have fixed places, so that their covariance has a meaning."""

N_FEATURES: Final = 10
"""Number of leading principal components that `Transform.features` returns at most."""

_FLOOR: Final = 0.1
_NUMERICAL_FLOOR: Final = 1e-10


class Transform:
    """An observable's transform with fitted constants.

    Args:
        observable: What it applies to.
        arrays: `mean`, `sd` (broadcastable to the event shape), `centre` and `components`
            (n_features, n_entries) of the features, and `whitening` (n_entries, n_entries) if the
            observable asks for it.
    """

    def __init__(self, observable: Observable, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
        self.observable = observable
        self._arrays = {k: np.asarray(v, dtype=np.float64) for k, v in arrays.items()}

    @classmethod
    def fit(cls, observable: Observable, x: DataArray) -> Self:
        """Fit all constants on data with shape (n, *shape)."""
        if len(x) == 0:
            raise ContractError("cannot fit a transform to zero simulations")
        values = _apply_pointwise(observable, x.astype(np.float64))
        mean, sd = _moments(observable, values, x)
        arrays = {"mean": mean, "sd": sd}
        if "whiten" in observable.transform:
            arrays["whitening"] = _whitening((values - mean).reshape(len(x), -1))
        flat = cls(observable, arrays)._flat(x)
        centre = flat.mean(axis=0)
        arrays |= {"centre": centre, "components": _components(flat - centre)}
        return cls(observable, arrays)

    def __call__(self, x: DataArray) -> DataArray:
        """Return transformed data, float32, same shape (batch, *shape)."""
        values = _apply_pointwise(self.observable, np.asarray(x, dtype=np.float64))
        if "whiten" in self.observable.transform:
            flat = self._vectors(values - self._arrays["mean"])
            values = (flat @ self._arrays["whitening"]).reshape(values.shape)
        elif "standardize" in self.observable.transform:
            values = (values - self._arrays["mean"]) / self._arrays["sd"]
        if self.observable.kind == "set":
            mask = np.asarray(x)[..., -1:]
            values = np.concatenate([values[..., :-1] * mask, mask], axis=-1)
        return values.astype(np.float32)

    def features(self, x: DataArray) -> FloatArray:
        """Return a few summaries, shape (batch, n_features): leading principal components."""
        return (self._flat(x) - self._arrays["centre"]) @ self._arrays["components"].T

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Transform)
            and self.observable == other.observable
            and self._arrays.keys() == other._arrays.keys()
            and all(np.array_equal(v, other._arrays[k]) for k, v in self._arrays.items())
        )

    __hash__ = None  # type: ignore[assignment]  # mutable arrays

    def linear_inverse(self) -> tuple[FloatArray, FloatArray]:
        """What undoes everything behind the pointwise steps: their mean, and spread or mixing.

        Returns:
            ``(mean, unmix)``, the mean of the event shape. With `whiten`, unmix is a matrix
            (n_entries, n_entries), and pointwise values are mean + flattened data @ unmix; else it
            has the event shape, and they are mean + data * unmix.
        """
        mean = self._arrays["mean"]
        if "whiten" in self.observable.transform:
            unmix = np.asarray(np.linalg.inv(self._arrays["whitening"]), dtype=np.float64)
            return mean, unmix
        if "standardize" in self.observable.transform:
            return mean, self._arrays["sd"]
        return np.zeros_like(mean), np.ones_like(mean)

    def arrays(self) -> dict[str, FloatArray]:
        """Fitted constants, for storage."""
        return dict(self._arrays)

    @cached_property
    def n_features(self) -> int:
        """Number of features."""
        return len(self._arrays["components"])

    def _flat(self, x: DataArray) -> FloatArray:
        """Standardised data as vectors; sets become event means, spreads and a count."""
        values = _apply_pointwise(self.observable, np.asarray(x, dtype=np.float64))
        values = (values - self._arrays["mean"]) / self._arrays["sd"]
        if self.observable.kind != "set":
            return self._vectors(values)
        mask, events = np.asarray(x, dtype=np.float64)[..., -1:], values[..., :-1]
        count = np.maximum(mask.sum(axis=1), 1.0)
        mean = (events * mask).sum(axis=1) / count
        spread = np.sqrt((((events - mean[:, None]) * mask) ** 2).sum(axis=1) / count)
        return np.concatenate([mean, spread, mask.sum(axis=1)], axis=1)

    def _vectors(self, values: FloatArray) -> FloatArray:
        return values.reshape(len(values), math.prod(self.observable.shape))


def _apply_pointwise(observable: Observable, x: FloatArray) -> FloatArray:
    for step in observable.transform:
        if step == "log1p":
            _require_above(x, -1.0, step)
            x = np.log1p(x)
        elif step == "sqrt":
            _require_above(x, 0.0, step, inclusive=True)
            x = np.sqrt(x)
        elif step == "anscombe":
            _require_above(x, 0.0, step, inclusive=True)
            x = 2.0 * np.sqrt(x + 0.375)
    return x


def _require_above(x: FloatArray, low: float, step: str, *, inclusive: bool = False) -> None:
    if (x < low).any() or (not inclusive and (x == low).any()):
        sign = ">=" if inclusive else ">"
        raise ObservationError(
            f"the {step} transform needs entries {sign} {low:g}, smallest is {x.min():g}"
        )


def _moments(
    observable: Observable, values: FloatArray, x: DataArray
) -> tuple[FloatArray, FloatArray]:
    """Mean and sd of each entry; of each channel of an image; of each event feature of a set."""
    if observable.kind == "set":
        mask = x[..., -1] > 0  # of the data: a pointwise step may move 0
        events = values[mask] if mask.any() else values.reshape(-1, values.shape[-1])
        mean, sd = events.mean(axis=0), events.std(axis=0)
        mean[-1], sd[-1] = 0.0, 1.0
    elif observable.kind == "image":
        mean = values.mean(axis=(0, -2, -1), keepdims=True)[0]
        sd = values.std(axis=(0, -2, -1), keepdims=True)[0]
    else:
        mean, sd = values.mean(axis=0), values.std(axis=0)
    # Entries that never vary (empty bins) stay at zero instead of being blown up. The test is
    # relative, because data may be of any size (fluxes of 1e-12 in their unit).
    return mean, np.where(sd > 1e-8 * np.abs(mean), sd, 1.0)


def _whitening(centred: FloatArray) -> FloatArray:
    """Symmetric inverse root of the covariance of centred data, shape (n_entries, n_entries).

    Eigenvalues below a tenth of the median one are raised to it: directions that hardly vary
    (empty bins) must not be blown up.
    """
    eigenvalues, vectors = np.linalg.eigh(np.atleast_2d(np.cov(centred, rowvar=False)))
    varying = eigenvalues[eigenvalues > _NUMERICAL_FLOOR * max(eigenvalues[-1], 0.0)]
    floor = _FLOOR * float(np.median(varying)) if len(varying) else 1.0
    whitening: FloatArray = (vectors / np.sqrt(np.maximum(eigenvalues, floor))) @ vectors.T
    return whitening


def _components(centred: FloatArray) -> FloatArray:
    """Leading principal directions, shape (n_features, n_entries)."""
    rank = min(N_FEATURES, centred.shape[1], max(len(centred) - 1, 1))
    _, _, rows = np.linalg.svd(centred, full_matrices=False)
    components: FloatArray = rows[:rank]
    # The sign of a singular vector is arbitrary; fix it, so that features are reproducible.
    leading = np.take_along_axis(components, np.abs(components).argmax(axis=1)[:, None], axis=1)
    return components * np.where(leading < 0, -1.0, 1.0)
