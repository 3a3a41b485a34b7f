"""What the tests need to know of data and prior: features, and reference points of TARP.

Nothing here knows which point of a tested pair is the truth: regressions are fitted on training
simulations, or on a fifth of the pairs, which the test that uses them then leaves out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from sbi_physics.diagnostics.regression import Features, Regression, fit_rows, plain_vectors
from sbi_physics.diagnostics.tarp import data_references, normal_references, prior_references
from sbi_physics.errors import ValidationError
from sbi_physics.priors import Prior
from sbi_physics.store import Simulations
from sbi_physics.types import AnyArray, FloatArray

HELD_OUT: Final = 5
"""Every fifth pair fits the regression where there are no training simulations."""

_BLOCK: Final = 500


@dataclass(frozen=True, slots=True, eq=False)
class References:
    """Inputs of the tests beside truth and draws.

    Attributes:
        names: Parameters.
        anywhere: References independent of the data, scaled, shape (pairs, param).
        nearby: References near a regression on the data, shape (pairs, param), NaN for pairs that
            fitted it; None without data.
        features: Standardised features of the data, shape (pairs, feature); None without data.
    """

    names: tuple[str, ...]
    anywhere: FloatArray
    nearby: FloatArray | None = None
    features: FloatArray | None = None

    def points(self, names: Sequence[str], suffix: str = "") -> dict[str, FloatArray]:
        """Return the reference points of some parameters, by name of the quantity.

        Args:
            names: A block of parameters.
            suffix: Added to the names of the quantities.
        """
        columns = [self.names.index(name) for name in names]
        found = {f"tarp_u{suffix}": self.anywhere[:, columns]}
        if self.nearby is not None:
            found[f"tarp_x{suffix}"] = self.nearby[:, columns]
        return found


def references_for(
    pairs: Simulations, training: Simulations | None, prior: Prior, n: int, seed: int
) -> References:
    """Return the inputs for the first `n` pairs of a store.

    Args:
        pairs: The pairs.
        training: Where to fit the regression, if at hand.
        prior: Prior of the parameters tested.
        n: Number of pairs.
        seed: Recorded seed.

    Raises:
        ValidationError: If training simulations hold other data than the pairs.
    """
    source = pairs if training is None else training
    if source.observable.shape != pairs.observable.shape:
        raise ValidationError(
            f"the training simulations hold data of shape {source.observable.shape}, the pairs "
            f"{pairs.observable.shape}"
        )
    n_fit = min(n if training is None else len(source), fit_rows(pairs.observable))
    read = source.read(slice(0, n_fit), latents=())
    extract = Features.fit(pairs.observable, read.x)
    theta = prior.scaled(read.theta[:, source.parameters.indices(prior.names)])
    features = np.concatenate(
        [
            extract(pairs.read(slice(start, min(start + _BLOCK, n)), latents=()).x)
            for start in range(0, n, _BLOCK)
        ]
    )
    anywhere = prior_references(prior, n, seed)
    if training is None:
        nearby = _nearby_held_out(prior.names, features, theta, seed)
    else:
        fitted = Regression.fit(extract(read.x), theta)
        nearby = data_references(prior.names, fitted(features), fitted.residual_sd, seed)
    return References(prior.names, anywhere, nearby, features)


def references_from_arrays(
    truth: FloatArray,
    x: AnyArray | None,
    prior: Prior | None,
    names: tuple[str, ...],
    spread: tuple[FloatArray, FloatArray],
    seed: int,
) -> References:
    """Return the inputs for pairs given as arrays.

    Args:
        truth: Scaled true parameters, shape (pairs, param).
        x: Data, shape (pairs, ...), or None.
        prior: Prior of the parameters, if known.
        names: Parameter names.
        spread: Scaled mean and standard deviation of truths and draws together, shape (param,)
            each, used without a prior.
        seed: Recorded seed.
    """
    if prior is not None:
        anywhere = prior_references(prior, len(truth), seed)
    else:
        anywhere = normal_references(names, *spread, len(truth), seed)
    if x is None:
        return References(names, anywhere)
    observable, flat = plain_vectors(x)
    features = Features.fit(observable, flat[: fit_rows(observable)])(flat)
    return References(names, anywhere, _nearby_held_out(names, features, truth, seed), features)


def _nearby_held_out(
    names: tuple[str, ...], features: FloatArray, theta: FloatArray, seed: int
) -> FloatArray:
    held_out = np.arange(len(features)) % HELD_OUT == HELD_OUT - 1
    fit = held_out.copy()
    fit[len(theta) :] = False
    fit[: len(theta)] &= np.isfinite(theta).all(axis=1)
    if not fit.any():
        return np.full((len(features), len(names)), np.nan)
    fitted = Regression.fit(features[fit], theta[fit[: len(theta)]])
    nearby = data_references(names, fitted(features), fitted.residual_sd, seed)
    nearby[held_out] = np.nan
    return nearby
