r"""Scores: how much a posterior knows, not only whether it is calibrated.

The mean of :math:`\log q(\theta^*|x)` over simulated pairs is a proper score; minus it is the
negative log likelihood (NLL). Its excess over the prior, :math:`\mathrm{IG} = \langle \log
q(\theta^*|x) - \log p(\theta^*) \rangle`, is a lower bound of the mutual information I(theta; x):
a posterior that repeats the prior is perfectly calibrated and has IG = 0. Densities are taken in
scaled coordinates (log10 where the parameter's scale says so, over the prior standard deviation).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import special

from sbi_physics.errors import ValidationError
from sbi_physics.types import FloatArray

FLOOR = -50.0
"""Log densities (scaled coordinates, nats) below this count as this, and are counted."""

_Z99 = float(special.ndtri(0.99))
_Z95 = float(special.ndtri(0.975))


@dataclass(frozen=True, slots=True)
class Score:
    """A mean over pairs with its uncertainty, in nats.

    Attributes:
        mean: Mean over pairs.
        standard_error: Standard error of the mean.
        lower_99: One-sided 99 % lower bound of the mean.
        n: Number of pairs.
        n_clipped: Pairs whose log density fell below the floor of -50.
    """

    mean: float
    standard_error: float
    lower_99: float
    n: int
    n_clipped: int = 0

    @property
    def interval(self) -> tuple[float, float]:
        """Two-sided 95 % interval."""
        return self.mean - _Z95 * self.standard_error, self.mean + _Z95 * self.standard_error


def mean_score(values: FloatArray, n_clipped: int = 0) -> Score:
    """Average per-pair scores with shape (batch,), all finite."""
    n = len(values)
    if n == 0:
        raise ValidationError("a score needs at least one pair")
    if not np.isfinite(values).all():
        raise ValidationError(f"{int((~np.isfinite(values)).sum())} of {n} scores are not finite")
    mean = float(values.mean())
    error = float(values.std(ddof=1)) / math.sqrt(n) if n > 1 else math.inf
    return Score(
        mean=mean, standard_error=error, lower_99=mean - _Z99 * error, n=n, n_clipped=n_clipped
    )


def negative_log_likelihood(log_q: FloatArray) -> Score:
    """Return the NLL from normalised log densities at the truths; NaN is left out."""
    kept, n_clipped = _clipped(log_q)
    return mean_score(-kept, n_clipped)


def information_gain(log_q: FloatArray, log_prior: FloatArray) -> Score:
    """Return the mean of log q - log prior at the truth.

    Args:
        log_q: Normalised log posterior density at the truth, shape (batch,); NaN entries are left
            out.
        log_prior: Log prior density at the truth in the same coordinates, shape (batch,).
    """
    usable = ~np.isnan(log_q)
    kept, n_clipped = _clipped(log_q)
    return mean_score(kept - log_prior[usable], n_clipped)


def paired_difference(log_q_a: FloatArray, log_q_b: FloatArray) -> Score:
    """Return the mean advantage of a over b on the same pairs; positive = a is better.

    Pairing removes the variation between pairs, so far smaller differences become visible.

    Args:
        log_q_a: Log density of the truth under the first posterior, shape (batch,).
        log_q_b: The same under the second, shape (batch,).
    """
    if log_q_a.shape != log_q_b.shape:
        raise ValidationError(
            f"paired scores need equal shapes, got {log_q_a.shape} and {log_q_b.shape}"
        )
    usable = ~(np.isnan(log_q_a) | np.isnan(log_q_b))
    a, clipped_a = _clipped(log_q_a[usable])
    b, clipped_b = _clipped(log_q_b[usable])
    return mean_score(a - b, clipped_a + clipped_b)


def moment_gain(
    truth: FloatArray,
    mean: FloatArray,
    covariance: FloatArray,
    prior_mean: FloatArray,
    prior_covariance: FloatArray,
) -> FloatArray:
    r"""Return the gain of the Dawid-Sebastiani score over the prior's moments, for each pair.

    The score of mean and covariance alone, :math:`-\tfrac12 (\log|\Sigma| + (\theta - \mu)^T
    \Sigma^{-1} (\theta - \mu))`, is proper, so a positive mean gain shows that draws know more
    than the prior when no normalised density exists.

    Args:
        truth: Shape (batch, param).
        mean: Posterior means, shape (batch, param).
        covariance: Posterior covariances, shape (batch, param, param).
        prior_mean: Shape (param,).
        prior_covariance: Shape (param, param).

    Returns:
        Shape (batch,), each at least the floor of -50.
    """
    reference = _gaussian_score(truth, prior_mean[None], prior_covariance[None])
    return np.maximum(_gaussian_score(truth, mean, covariance) - reference, FLOOR)


def contraction(variance: FloatArray, prior_variance: FloatArray) -> FloatArray:
    """Return 1 - posterior / prior variance, shape (batch, param); 0 = nothing learnt."""
    return 1.0 - variance / prior_variance


def z_scores(truth: FloatArray, mean: FloatArray, variance: FloatArray) -> FloatArray:
    """Return (posterior mean - truth) / posterior sd, shape (batch, param); NaN for zero width."""
    sd = np.sqrt(variance)
    scores: FloatArray = np.divide(mean - truth, sd, out=np.full_like(sd, np.nan), where=sd > 0)
    return scores


def _clipped(log_q: FloatArray) -> tuple[FloatArray, int]:
    kept = log_q[~np.isnan(log_q)]
    if np.isposinf(kept).any():
        raise ValidationError(
            "a log density of +inf cannot be scored; check the posterior's log_prob"
        )
    low = kept < FLOOR
    return np.where(low, FLOOR, kept), int(low.sum())


def _gaussian_score(truth: FloatArray, mean: FloatArray, covariance: FloatArray) -> FloatArray:
    d = truth.shape[-1]
    # A relative floor on the widths keeps draws that do not vary (L = 1, constants) finite.
    spread = np.trace(covariance, axis1=-2, axis2=-1)[:, None, None] / d
    regular = covariance + (1e-9 * spread + 1e-12) * np.eye(d)
    residual = truth - mean
    solved = np.linalg.solve(regular, residual[..., None])[..., 0]
    _, log_determinant = np.linalg.slogdet(regular)
    score: FloatArray = -0.5 * (log_determinant + (residual * solved).sum(axis=-1))
    return score
