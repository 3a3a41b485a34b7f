r"""The balance of a ratio estimator, and whether its ratios are normalised.

With :math:`d = \sigma(\log r)`, the optimal classifier between joint and marginal pairs obeys

.. math:: \mathrm{E}_{p(\theta, x)}[d] + \mathrm{E}_{p(\theta) p(x)}[d] = 1

(arXiv:2208.13624; arXiv:2304.10978 for other estimators). Balanced estimators tend to be
conservative, so a balance far from one is a warning, not a verdict. Besides,
:math:`\mathrm{E}_{p(\theta)}[r(\theta, x)] = 1` at every x for a ratio that is normalised.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from scipy import special

from sbi_physics.diagnostics.information import mean_score
from sbi_physics.diagnostics.uniformity import Z95
from sbi_physics.errors import ValidationError
from sbi_physics.ratio import RatioPosterior
from sbi_physics.seeding import check_seed, fresh_seed, generator
from sbi_physics.store import Simulations
from sbi_physics.types import FloatArray

TOLERANCE: Final = 0.05
"""A balance further from one is a warning."""

N_MARGINAL: Final = 16
_STREAM = 24
_MIN_PAIRS = 20
_BATCH = 500


@dataclass(frozen=True, slots=True)
class Balance:
    """Balance and normalisation of a ratio estimator.

    Attributes:
        joint: Mean of d over joint pairs.
        marginal: Mean of d over marginal pairs.
        balance: Their sum; one for a balanced estimator.
        standard_error: Standard error of the balance.
        mean_ratio: Mean of r over marginal pairs; one for a normalised estimator. Its law has a
            heavy tail where posteriors are narrow.
        mean_ratio_error: Its standard error, as far as a sample can tell.
        log_normalizer: Median over observations of the log of the mean ratio over the prior, by
            the posterior's own pool of points: how far r is from normalised.
        log_normalizer_interval: Central 90 % of the observations.
        n: Pairs.
        seed: Seed of the marginal pairs.
    """

    joint: float
    marginal: float
    balance: float
    standard_error: float
    mean_ratio: float
    mean_ratio_error: float
    log_normalizer: float
    log_normalizer_interval: tuple[float, float]
    n: int
    seed: int

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the balance."""
        error = Z95 * self.standard_error
        return self.balance - error, self.balance + error

    @property
    def is_warning(self) -> bool:
        """Whether the balance is shown to be further from one than 0.05."""
        low, high = self.interval
        return low > 1.0 + TOLERANCE or high < 1.0 - TOLERANCE

    def summary(self) -> str:
        """Return one line of plain text."""
        direction = "marginal pairs are" if self.balance > 1.0 else "joint pairs are"
        verdict = f"a warning: {direction} taken for the other kind" if self.is_warning else "fine"
        low, high = self.log_normalizer_interval
        return (
            f"balance {self.balance:.3f} +- {self.standard_error:.3f} ({verdict}); mean ratio "
            f"{self.mean_ratio:.3f} +- {self.mean_ratio_error:.3f}; log normaliser "
            f"{self.log_normalizer:+.3f}, 90 % of observations in [{low:+.3f}, {high:+.3f}]"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready description."""
        return {
            **asdict(self),
            "log_normalizer_interval": list(self.log_normalizer_interval),
            "is_warning": self.is_warning,
        }


def balance(
    log_ratio_joint: FloatArray,
    log_ratio_marginal: FloatArray,
    log_normalizer: FloatArray,
    *,
    seed: int = 0,
) -> Balance:
    """Return the balance from log ratios.

    Args:
        log_ratio_joint: At the truth of each pair, shape (pairs,).
        log_ratio_marginal: At independent prior points for each observation, shape (pairs, point).
        log_normalizer: Log of the mean ratio over the prior for each observation, shape (pairs,).
        seed: Recorded.

    Raises:
        ValidationError: If shapes disagree, there are fewer than 20 pairs, or values are NaN.
    """
    n = len(log_ratio_joint)
    shapes = log_ratio_joint.shape, log_ratio_marginal.shape[:1], log_normalizer.shape
    if set(shapes) != {(n,)} or log_ratio_marginal.ndim != 2 or n < _MIN_PAIRS:
        raise ValidationError(
            f"a balance needs at least {_MIN_PAIRS} pairs: joint ratios (pairs,), marginal ones "
            f"(pairs, point), normalisers (pairs,); got {log_ratio_joint.shape}, "
            f"{log_ratio_marginal.shape} and {log_normalizer.shape}"
        )
    for name, values in (("joint", log_ratio_joint), ("marginal", log_ratio_marginal)):
        if np.isnan(values).any() or np.isposinf(values).any():
            raise ValidationError(f"{name} log ratios are NaN or infinite: no ratio estimator")
    joint = special.expit(log_ratio_joint)
    marginal = special.expit(log_ratio_marginal).mean(axis=1)
    # Observations are independent, so the error of the sum is that of one mean over them.
    total = mean_score(joint + marginal)
    ratio = mean_score(np.exp(log_ratio_marginal).mean(axis=1))
    low, middle, high = np.quantile(log_normalizer, (0.05, 0.5, 0.95)).tolist()
    return Balance(
        joint=float(joint.mean()),
        marginal=float(marginal.mean()),
        balance=total.mean,
        standard_error=total.standard_error,
        mean_ratio=ratio.mean,
        mean_ratio_error=ratio.standard_error,
        log_normalizer=middle,
        log_normalizer_interval=(low, high),
        n=n,
        seed=seed,
    )


def check_balance(
    posterior: RatioPosterior, pairs: Simulations, *, seed: int | None = None
) -> Balance:
    """Return the balance of a ratio posterior on fresh pairs.

    Args:
        posterior: A posterior of a ratio engine.
        pairs: Fresh simulations from its prior.
        seed: Seed of the marginal pairs; drawn and recorded when None.

    Raises:
        ValidationError: If the posterior has no ratio or there are fewer than 20 pairs.
    """
    if not isinstance(posterior, RatioPosterior):
        raise ValidationError(
            f"{posterior!r} is not a posterior of a ratio engine: it has no balance"
        )
    seed = fresh_seed() if seed is None else check_seed(seed)
    read = pairs.read(slice(None), latents=())
    prior = posterior.prior
    theta = read.theta[:, pairs.parameters.indices(prior.names)]
    n = len(theta)
    # Fresh prior points rather than shuffled truths: every marginal pair is then independent.
    rng = generator(seed, "validation", _STREAM)
    other = prior.sample(n * N_MARGINAL, rng).reshape(n, N_MARGINAL, prior.d)
    points = np.concatenate([theta[:, None], other], axis=1)
    log_ratio, log_norm = np.empty(points.shape[:2]), np.empty(n)
    for start in range(0, n, _BATCH):
        rows = slice(start, start + _BATCH)
        log_ratio[rows] = posterior.log_ratio(points[rows], read.x[rows], any_observation=True)
        # log q = log r + log prior - log normaliser, so the density knows the normaliser.
        density = posterior.log_prob(points[rows, :1], read.x[rows], any_observation=True)[:, 0]
        log_norm[rows] = log_ratio[rows, 0] + prior.log_prob(theta[rows]) - density
    return balance(log_ratio[:, 0], log_ratio[:, 1:], log_norm, seed=seed)
