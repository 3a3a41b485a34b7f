r"""The box that a posterior leaves for the next truncated round.

Two rules, and the tighter one holds for each end. In units u of the prior's CDF,

.. math:: \log r(u) = \log q(\theta|x_o) - \log p(\theta)

is the log likelihood of the observation up to a constant, for densities and ratios alike.

1. Likelihood (after arXiv:2107.01214): the range, parameter by parameter, of the points with
   :math:`\log r - \max \log r > \ln \epsilon`, padded by the distance between points; for a normal
   likelihood :math:`\pm\sqrt{-2 \ln \epsilon}` standard deviations, 5.26 at
   :math:`\epsilon = 10^{-6}`.
2. Mass (in the spirit of arXiv:2210.04815): what N simulations teach ends at densities that hold a
   few 1/N of the mass; farther out a network extrapolates, and may leave more than
   :math:`\epsilon` all over the prior. The central :math:`1 - \alpha` of the draws,
   :math:`\alpha = 0.02`, is stretched about the median to where a normal posterior of this width
   would have :math:`\epsilon`, and a tenth more for the noise of the quantiles. All points with a
   hundredth of the largest likelihood are kept besides: other modes.

For a normal posterior both give the same box. What the second rule loses is farther out than the
stretched range, and has less than a hundredth of the mass and of the largest likelihood.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy import special

from sbi_physics.errors import ContractError
from sbi_physics.posterior import Posterior
from sbi_physics.seeding import generator
from sbi_physics.targets import block_posteriors
from sbi_physics.truncation import Box
from sbi_physics.types import DataArray, FloatArray

POOL_POINTS: Final = 2**17
"""Points that fill the box evenly at which a posterior is evaluated."""

_DRAWS: Final = 8192
"""Posterior draws evaluated besides: they find modes between the points of the pool."""

_ALPHA: Final = 0.02
"""Mass outside of the draws' central range: 82 draws on each side of 8192."""

_MARGIN: Final = 1.1
"""The quantiles are off by 2 % of the range (one standard deviation)."""

_MODE: Final = 1e-2
"""Relative likelihood from which a point counts whatever mass is around it."""


def epsilon_box(
    posterior: Posterior, x: DataArray, *, epsilon: float, seed: int, round: int
) -> tuple[Box, float, int, int]:
    """Return the next box.

    Args:
        posterior: The posterior of this round.
        x: The observation, shape (1, *shape).
        epsilon: Relative likelihood below which points are cut off.
        seed: Seed of the rounds.
        round: Number of this round.

    Returns:
        The box, its share of the prior's volume, how many points had a likelihood above epsilon,
        and how many were evaluated.

    Raises:
        ContractError: If the density is not finite.
    """
    prior = posterior.prior
    # A parameter of several blocks keeps the widest range.
    low, high = np.ones(prior.d), np.zeros(prior.d)
    above = evaluated = 0
    for k, block in enumerate(block_posteriors(posterior)):
        if not isinstance(block, Posterior):
            raise ContractError(f"the marginals of {posterior!r} are no posteriors")
        units, n_above, n_points = _range(block, x, epsilon, seed, (round, k))
        columns = prior.parameters.indices(block.prior.names)
        low[columns] = np.minimum(low[columns], units[0])
        high[columns] = np.maximum(high[columns], units[1])
        above, evaluated = above + n_above, evaluated + n_points
    # An end that reaches the prior's is the prior's, exactly.
    ends = np.where([low > 0, high < 1], prior.from_unit([low, high]), prior.bounds.T).T
    box = {name: (float(a), float(b)) for name, (a, b) in zip(prior.names, ends, strict=True)}
    return box, float((high - low).prod()), above, evaluated


def _range(
    posterior: Posterior, x: DataArray, epsilon: float, seed: int, key: tuple[int, int]
) -> tuple[FloatArray, int, int]:
    """Range by both rules in units of the prior CDF, shape (2, d), and points above epsilon."""
    prior = posterior.prior
    pool = prior.quasi_sample(POOL_POINTS, generator(seed, "pool", 2, *key))
    draws = posterior.draw(x, _DRAWS, generator(seed, "pool", 3, *key)).theta[0]
    theta = np.concatenate([pool, draws])
    log_ratio = posterior.log_prob(theta, x)[0] - prior.log_prob(theta)
    if np.isnan(log_ratio).any() or not np.isfinite(log_ratio.max()):
        raise ContractError(
            f"the density of {posterior!r} at the observation is not finite in round {key[0]}: "
            f"{int(np.isnan(log_ratio).sum())} of {len(theta)} points are NaN, the largest "
            f"log ratio is {log_ratio.max()}"
        )
    relative = log_ratio - log_ratio.max()
    above = prior.to_unit(theta[relative > np.log(epsilon)])
    modes = prior.to_unit(theta[relative >= np.log(_MODE)])
    spacing = POOL_POINTS ** (-1 / prior.d)
    mass = stretched(prior.to_unit(draws), epsilon)
    # Both contain the best point, so that what they share is a box.
    low = np.maximum(above.min(axis=0) - spacing, np.minimum(mass[0], modes.min(axis=0)))
    high = np.minimum(above.max(axis=0) + spacing, np.maximum(mass[1], modes.max(axis=0)))
    return np.clip([low, high], 0.0, 1.0), len(above), len(theta)


def stretched(units: FloatArray, epsilon: float) -> FloatArray:
    """Return the range of rule 2, in the same units, shape (2, d); ends may lie outside [0, 1].

    Args:
        units: Draws, shape (n, d).
        epsilon: Relative likelihood at the ends, for a normal posterior.
    """
    low, middle, high = np.quantile(units, [_ALPHA / 2, 0.5, 1 - _ALPHA / 2], axis=0)
    sigmas = -float(special.ndtri(_ALPHA / 2))
    stretch = _MARGIN * np.sqrt(-2 * np.log(epsilon)) / sigmas
    ends: FloatArray = np.stack(
        [middle - stretch * (middle - low), middle + stretch * (high - middle)]
    )
    return ends
