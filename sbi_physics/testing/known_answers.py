r"""Posteriors with planted defects, against which a validator is measured.

Model G
    theta ~ N(0, I), x = theta + noise with covariance 0.25 [[1, 0.6], [0.6, 1]]. The exact
    posterior is Gaussian with standard deviations 0.434 and correlation 0.517.
Model M
    theta_1 = 2 m + c with an unobserved sign m and c ~ N(0, 1), theta_2 ~ N(0, 1),
    x = (c, theta_2) + 0.5 N(0, I). The exact posterior has two equal modes at x_1 / 1.25 +- 2.

Widths are in units of the exact standard deviation, as are biases.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from scipy import special

from sbi_physics.distributions import Normal
from sbi_physics.errors import unknown_name
from sbi_physics.parameters import Parameter
from sbi_physics.priors import Prior
from sbi_physics.types import FloatArray

_NOISE: Final = 0.25 * np.array([[1.0, 0.6], [0.6, 1.0]])
_COVARIANCE: Final = np.linalg.inv(np.eye(2) + np.linalg.inv(_NOISE))
_GAIN: Final = _COVARIANCE @ np.linalg.inv(_NOISE)
_SD: Final = np.sqrt(np.diag(_COVARIANCE))

PRIOR: Final = Prior([Parameter("a", Normal(0.0, 1.0)), Parameter("b", Normal(0.0, 1.0))])
"""Prior of model G; that of model M is no product of known distributions."""


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """Truths, data and a mixture of Gaussians as posterior of each.

    Attributes:
        theta: True parameters, shape (pairs, 2).
        x: Data, shape (pairs, 2).
        means: Means of the components, shape (pairs, component, 2).
        covariance: Their covariance, shape (pairs, 2, 2).
        weights: Their weights, shape (component,).
        prior: The prior, where it is a product.
    """

    theta: FloatArray
    x: FloatArray
    means: FloatArray
    covariance: FloatArray
    weights: FloatArray
    prior: Prior | None

    def draw(self, n_draws: int, rng: np.random.Generator) -> FloatArray:
        """Return independent posterior draws, shape (pairs, n_draws, 2)."""
        n, k, d = self.means.shape
        which = rng.choice(k, size=(n, n_draws), p=self.weights)
        root = np.linalg.cholesky(self.covariance)
        z = rng.standard_normal((n, n_draws, d))
        chosen = np.take_along_axis(self.means, which[..., None], axis=1)
        draws: FloatArray = chosen + z @ root.transpose(0, 2, 1)
        return draws

    def log_prob(self, points: FloatArray) -> FloatArray:
        """Return log densities of points (pairs, k, 2), shape (pairs, k)."""
        inverse = np.linalg.inv(self.covariance)
        constant = -0.5 * np.linalg.slogdet(2.0 * np.pi * self.covariance)[1]
        parts = []
        for component in range(len(self.weights)):
            residual = points - self.means[:, None, component]
            quadratic = ((residual @ inverse) * residual).sum(axis=2)
            with np.errstate(divide="ignore"):
                parts.append(np.log(self.weights[component]) - 0.5 * quadratic)
        total: FloatArray = special.logsumexp(parts, axis=0) + constant[:, None]
        return total

    def arrays(self, n_draws: int, rng: np.random.Generator) -> dict[str, Any]:
        """Return the arguments of `validate_draws`, but for `rng`."""
        draws = self.draw(n_draws, rng)
        return {
            "theta": self.theta,
            "draws": draws,
            "x": self.x,
            "log_prob_true": self.log_prob(self.theta[:, None])[:, 0],
            "log_prob_draws": self.log_prob(draws),
            "normalized": True,
            "prior": self.prior,
            "names": ("a", "b"),
        }


def gaussian(n: int, rng: np.random.Generator) -> Case:
    """Return `n` pairs of model G with the exact posterior."""
    theta = rng.standard_normal((n, 2))
    x = theta + rng.standard_normal((n, 2)) @ np.linalg.cholesky(_NOISE).T
    means = (x @ _GAIN.T)[:, None]
    covariance = np.broadcast_to(_COVARIANCE, (n, 2, 2))
    return Case(theta, x, means, covariance, np.ones(1), PRIOR)


def bimodal(n: int, rng: np.random.Generator) -> Case:
    """Return `n` pairs of model M with the exact posterior."""
    sign = rng.choice((-1.0, 1.0), n)
    hidden = rng.standard_normal((n, 2))
    theta = hidden + 2.0 * np.stack([sign, np.zeros(n)], axis=1)
    x = hidden + 0.5 * rng.standard_normal((n, 2))
    offset = np.array([[2.0, 0.0], [-2.0, 0.0]])
    means = (x / 1.25)[:, None] + offset
    return Case(
        theta, x, means, np.broadcast_to(0.2 * np.eye(2), (n, 2, 2)), np.full(2, 0.5), None
    )


def scaled(case: Case, width: float | FloatArray) -> Case:
    """Multiply the claimed widths, by one factor or by one for each pair."""
    factor = np.broadcast_to(np.square(width), len(case.theta))[:, None, None]
    return replace(case, covariance=factor * case.covariance)


def shifted(case: Case, *bias: float) -> Case:
    """Shift the posterior by so many of its exact standard deviations in each parameter."""
    return replace(case, means=case.means + np.array(bias) * _SD)


def correlated(case: Case, factor: float) -> Case:
    """Multiply the claimed correlation."""
    return replace(case, covariance=case.covariance * np.array([[1.0, factor], [factor, 1.0]]))


def _prior_only(case: Case) -> Case:
    n = len(case.theta)
    return replace(
        case, means=np.zeros((n, 1, 2)), covariance=np.broadcast_to(np.eye(2), (n, 2, 2))
    )


def _shifted_by_sign(case: Case) -> Case:
    bias = 0.3 * np.sign(case.x[:, :1]) * _SD
    return replace(case, means=case.means + bias[:, None])


def _weighted(plus: float) -> Callable[[Case], Case]:
    return lambda case: replace(case, weights=np.array([plus, 1.0 - plus]))


_ALTERED: Final[Mapping[str, Callable[[Case], Case]]] = {
    "exact": lambda case: case,
    "over0.8": lambda case: scaled(case, 0.8),
    "over0.9": lambda case: scaled(case, 0.9),
    "under1.25": lambda case: scaled(case, 1.25),
    "under1.1": lambda case: scaled(case, 1.1),
    "bias0.2_one": lambda case: shifted(case, 0.2, 0.0),
    "bias0.2_all": lambda case: shifted(case, 0.2, 0.2),
    "bias0.5_wide1.2": lambda case: scaled(shifted(case, 0.5, 0.5), 1.2),
    "prior": _prior_only,
    "corr_drop": lambda case: correlated(case, 0.0),
    "corr_flip": lambda case: correlated(case, -1.0),
    "xbias0.3": _shifted_by_sign,
    "xscale": lambda case: scaled(case, np.where(case.x[:, 0] > 0.0, 0.75, 1.33)),
    "mode_exact": lambda case: case,
    "mode_drop": _weighted(1.0),
    "mode_0.6": _weighted(0.6),
    "mode_0.7": _weighted(0.7),
}

DEFECTS: Final = tuple(_ALTERED)
"""Names of the posteriors: two exact ones and fifteen defects, known by size and place."""

EXACT: Final = ("exact", "mode_exact")


def known_case(defect: str, n: int, rng: np.random.Generator) -> Case:
    """Return `n` pairs with the posterior of one name.

    Args:
        defect: One of `DEFECTS`. `overF` and `underF` have F times the exact width; `bias0.2_one`
            shifts one parameter by 0.2 standard deviations, `bias0.2_all` both; `prior` repeats
            the prior; `corr_drop` and `corr_flip` have the right marginals and no or the opposite
            correlation; `xbias0.3` shifts by 0.3 sign(x_1); `xscale` has 0.75 or 1.33 times the
            width by the sign of x_1; `mode_*` are of model M: a mode dropped or weighted wrongly.
        n: Number of pairs.
        rng: Source of randomness.

    Raises:
        UnknownNameError: If the name is unknown.
    """
    if defect not in _ALTERED:
        raise unknown_name("defect", defect, DEFECTS)
    model = bimodal if defect.startswith("mode") else gaussian
    return _ALTERED[defect](model(n, rng))
