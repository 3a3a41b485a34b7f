r"""Normalising constants of densities known only up to a factor.

With draws of the posterior at hand, importance sampling from a mixture that covers it,

.. math:: Z = \mathrm{E}_h\left[f(z) / h(z)\right], \qquad
    h(z) = \tfrac12 \mathcal{N}(z; \mu, 2 \Sigma) + \tfrac12 p(z),

with mean and covariance of the draws in unconstrained coordinates z and the prior density p(z) as
a safety net: h is never much smaller than f, whatever the shape of the posterior.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import special

from sbi_physics.priors import Prior
from sbi_physics.types import FloatArray

N_POINTS = 1024


def log_normalizer(
    log_density: Callable[[FloatArray], FloatArray],
    draws: FloatArray,
    prior: Prior,
    rng: np.random.Generator,
    n_points: int = N_POINTS,
) -> FloatArray:
    """Estimate log of the integral of exp(log_density) over theta, for each observation.

    Args:
        log_density: Maps points in physical units (batch, k, d) to unnormalised log densities
            (batch, k).
        draws: Posterior draws in physical units, shape (batch, draw, d).
        prior: Prior of the d parameters.
        rng: Source of randomness.
        n_points: Importance samples for each observation, half from each part of the mixture.

    Returns:
        Shape (batch,). The relative error of the constant is about 1 / sqrt(n_points) for
        near-Gaussian posteriors.
    """
    z_draws = prior.to_unconstrained(draws)
    n, _, d = z_draws.shape
    mean = z_draws.mean(axis=1)
    shifted = z_draws - mean[:, None]
    # A floor on the width keeps the proposal proper when all draws coincide.
    covariance = 2.0 * shifted.transpose(0, 2, 1) @ shifted / z_draws.shape[1] + 1e-10 * np.eye(d)
    root = np.linalg.cholesky(covariance)
    half = max(1, n_points // 2)
    local = mean[:, None] + rng.standard_normal((n, half, d)) @ root.transpose(0, 2, 1)
    broad = special.logit(rng.uniform(1e-9, 1.0 - 1e-9, (n, half, d)))
    z = np.concatenate([local, broad], axis=1)
    white = np.linalg.solve(root, (z - mean[:, None]).transpose(0, 2, 1))
    log_root = np.log(np.diagonal(root, axis1=1, axis2=2)).sum(axis=1)
    log_local = -0.5 * (white**2).sum(axis=1) - log_root[:, None] - 0.5 * d * np.log(2.0 * np.pi)
    log_broad = (special.log_expit(z) + special.log_expit(-z)).sum(axis=2)
    theta = prior.from_unconstrained(z)
    log_f = log_density(theta) - prior.log_abs_det_unconstrained(theta)
    log_h = np.logaddexp(log_local, log_broad) - np.log(2.0)
    constant: FloatArray = special.logsumexp(log_f - log_h, axis=1) - np.log(z.shape[1])
    return constant
