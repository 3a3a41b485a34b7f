r"""Tests of accuracy with random points (TARP, arXiv:2302.03026).

For a reference point r the credibility of the ball around r that just contains the truth is the
fraction of draws closer to r than the truth; it is uniform for an exact posterior. Two kinds of
references see different defects:

- `tarp_u`: references drawn from the prior, independent of the data. Blind to a posterior that
  repeats the prior.
- `tarp_x`: references near a regression m(x) of the parameters on the data. Sees a posterior that
  repeats the prior; nearly blind to bias, since the ball is then like a highest-density region.

Distances are Euclidean in scaled coordinates (prior standard deviations). References and
scalings never depend on which point is the truth.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Final

import numpy as np
from scipy import special

from sbi_physics.priors import Prior
from sbi_physics.seeding import generator
from sbi_physics.types import FloatArray

JITTER: Final = 0.5
"""Half-width of the jitter of x-dependent references, in residual sd of the regression."""

_STREAM: Final = 2
_TINY: Final = 1e-12


def prior_references(prior: Prior, n: int, seed: int) -> FloatArray:
    """Return references drawn from the prior's marginals, scaled, shape (n, param)."""
    return prior.scaled(prior.from_unit(_uniforms(prior.names, n, seed, 0)))


def normal_references(
    names: Sequence[str], mean: FloatArray, sd: FloatArray, n: int, seed: int
) -> FloatArray:
    """Return normal references where there is no prior, shape (n, param).

    Args:
        names: Parameter names.
        mean: Mean of truths and draws together, shape (param,).
        sd: Their standard deviation, shape (param,).
        n: How many.
        seed: Recorded seed.
    """
    z: FloatArray = special.ndtri(_uniforms(names, n, seed, 0))
    return mean + sd * z


def data_references(
    names: Sequence[str], centre: FloatArray, residual_sd: FloatArray, seed: int
) -> FloatArray:
    """Return references around a regression on the data, shape (n, param).

    Args:
        names: Parameter names.
        centre: The regression m(x) of each observation, shape (n, param).
        residual_sd: Its residual standard deviation, shape (param,).
        seed: Recorded seed.
    """
    u = _uniforms(names, len(centre), seed, 1)
    return centre + JITTER * residual_sd * (2.0 * u - 1.0)


def distances(points: FloatArray, references: FloatArray) -> FloatArray:
    """Return squared distances (their order is all that counts).

    Args:
        points: Shape (batch, point, param).
        references: Shape (batch, param).

    Returns:
        Shape (batch, point).
    """
    shifted = points - references[:, None]
    squared: FloatArray = np.einsum("bkd,bkd->bk", shifted, shifted)
    return squared


def _uniforms(names: Sequence[str], n: int, seed: int, kind: int) -> FloatArray:
    # One stream a parameter, so that the order of parameters changes nothing.
    columns = [
        generator(seed, "validation", _STREAM, kind, zlib.crc32(name.encode())).random(n)
        for name in names
    ]
    return np.clip(np.stack(columns, axis=1), _TINY, 1.0 - _TINY)
