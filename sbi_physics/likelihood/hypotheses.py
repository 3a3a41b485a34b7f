r"""How far apart two hypotheses are, as a likelihood tells them, right or wrong.

Expected limits from an Asimov set and Wilks' thresholds presume that ratios are exact: a noisy
learned ratio falls faster and so *claims* more than it can do. The comparison here asks instead
how often the statistic works. For events :math:`e` of a pool with exact weights
:math:`w_e(\theta)`, and :math:`d_e` the (learned) log of the intensity at :math:`\theta` over
that at :math:`\theta_0`, the statistic :math:`\sum_e d_e` of a Poisson number of events has mean
:math:`\sum_e w_e d_e` and variance :math:`\sum_e w_e d_e^2`, so that

.. math:: Z(\theta) = \frac{\sum_e [w_e(\theta) - w_e(\theta_0)]\, d_e}
                           {\sqrt{\sum_e w_e(\theta)\, d_e^2}}

is how many of its own standard deviations lie between the median experiment at :math:`\theta_0`
and what is expected at :math:`\theta`: the significance with which toys at :math:`\theta` exclude
it.
It is the same for d and any multiple of d, and largest, for near hypotheses, where d is exact.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from sbi_physics.errors import ContractError, ValidationError
from sbi_physics.likelihood.pool import EventPool
from sbi_physics.likelihood.ratio import LikelihoodRatio
from sbi_physics.seeding import generator
from sbi_physics.types import FloatArray

_STREAM = 32
_ROUNDING = 1e-12


def separation(
    likelihood: LikelihoodRatio,
    pool: EventPool,
    truth: ArrayLike,
    points: ArrayLike,
    *,
    resamples: int = 0,
    seed: int = 0,
) -> FloatArray:
    """Return the expected significance with which points are excluded, for simple hypotheses.

    Args:
        likelihood: The likelihood under test, exact or learned; all its parameters are held.
        pool: Events with exact weights; its `events` are what the likelihood sees.
        truth: Parameters of the experiments, shape (d,).
        points: Hypotheses, shape (k, d).
        resamples: Bootstrap samples of the pool (weights Poisson(1)) that follow the value itself.
        seed: Seed of them: the same for two likelihoods on one pool makes their samples the same.

    Returns:
        Shape (1 + resamples, k); about sqrt(chi2) of Asimov sets where the ratio is exact and many
        events decide.

    Raises:
        ContractError: If the normalisation is uncertain or nuisance parameters are constrained:
            hypotheses are then not simple.
        ValidationError: If the number of resamples is negative.
    """
    if likelihood.normalisation_sd or likelihood.model.constrained:
        raise ContractError("separations are of simple hypotheses: no nuisance may float")
    if resamples < 0:
        raise ValidationError(f"resamples must be 0 or more, got {resamples}")
    theta = likelihood.points(points)
    at_truth = likelihood.points(np.asarray(truth, dtype=np.float64).reshape(1, -1))
    counts = np.ones((1 + resamples, len(pool)))
    counts[1:] = generator(seed, "validation", _STREAM).poisson(1.0, (resamples, len(pool)))
    reference = _logs(likelihood, at_truth, pool)
    here = counts * pool.weights(at_truth[0])
    here *= float(pool.truth.expected(at_truth)[0]) / here.sum(axis=1, keepdims=True)
    found = np.empty((1 + resamples, len(theta)))
    for k in range(len(theta)):
        d = _logs(likelihood, theta[k : k + 1], pool) - reference
        there = counts * pool.weights(theta[k])
        there *= float(pool.truth.expected(theta[k : k + 1])[0]) / there.sum(axis=1, keepdims=True)
        spread = np.sqrt(there @ d**2)
        apart = (there - here) @ d
        # Logs that differ by rounding alone separate nothing.
        enough = spread > _ROUNDING * np.sqrt(there.sum(axis=1))
        found[:, k] = np.divide(apart, spread, out=np.zeros_like(apart), where=enough)
    return found


def _logs(likelihood: LikelihoodRatio, point: FloatArray, pool: EventPool) -> FloatArray:
    """Log of what the likelihood multiplies for each event, shape (n,)."""
    model = likelihood.model
    rate = 0.0
    if model.has_rate:
        rate = float(np.log(model.expected(point)[0]))
    if likelihood.terms == "rate":
        return np.full(len(pool), rate)
    log: FloatArray = model.log_ratio(point, pool.events)[0]
    if likelihood.terms == "shape":
        log = log - rate
    return log
