"""Likelihoods with closed forms."""

from __future__ import annotations

import numpy as np
from scipy import stats

from sbi_physics import Parameter, Prior, Uniform
from sbi_physics.likelihood import EventModel, EventPool, FunctionModel, QuadraticModel

B, S, ALPHA = np.sqrt(1 + 0.7**2), np.sqrt(0.1**2 + 0.7**2), 2.0


def box(*names, half=3.0):
    return Prior([Parameter(n, Uniform(-half, half)) for n in names])


class GaussianModel(EventModel):
    """Events from a normal law with unknown mean: t is n times a squared distance.

    With `events` their number is expected whatever the mean.
    """

    def __init__(self, covariance, half=3.0, events=None):
        names = [f"mu_{i + 1}" for i in range(len(covariance))]
        super().__init__(box(*names, half=half), events)
        self.inverse = np.linalg.inv(covariance)

    def expected(self, theta):
        return np.full(len(theta), self.reference_expected)

    def log_ratio(self, theta, events):
        # log N(x; theta) - log N(x; 0)
        squares = np.einsum("ki,ij,kj->k", theta, self.inverse, theta)
        return theta @ self.inverse @ events.T - 0.5 * squares[:, None]

    def summed_slopes(self, theta, events, weights):
        w = np.ones(len(events)) if weights is None else weights
        pull = self.inverse @ (w @ events)
        curved = w.sum() * self.inverse @ theta
        return float(theta @ (pull - 0.5 * curved)), pull - curved

    def expected_slopes(self, theta):
        return self.reference_expected, np.zeros(len(theta))


def gaussian_model(covariance, half=3.0):
    """The shape alone, as a function: gradients by differences."""
    model = GaussianModel(covariance, half)
    return FunctionModel(model.prior, model.log_ratio)


def counting_model(signal=10.0, background=20.0):
    """A counting experiment: events carry nothing but their number."""

    def expected(theta):
        return background + signal * theta[:, 0]

    def log_ratio(theta, events):
        return np.repeat(np.log(expected(theta) / background)[:, None], len(events), axis=1)

    prior = Prior([Parameter("mu", Uniform(-1.5, 8.0))])
    return FunctionModel(prior, log_ratio, expected)


def peak_ratio(x):
    """A narrow peak over a wide one: the quadratic term of one parameter (arXiv:2410.07315)."""
    return stats.norm.pdf(x, ALPHA, S) / stats.norm.pdf(x, 0, B)


def peak_gram(x):
    """Packed matrices of events x (n,): 1 + theta^2 peak_ratio(x)."""
    return np.stack([np.ones_like(x), np.zeros_like(x), peak_ratio(x)], axis=1)


def peak_model(events=200.0, half=2.0, **options):
    return QuadraticModel(box("theta", half=half), np.eye(2), events, **options)


def peak_pool(n, seed, model=None, **options):
    """A pool from the equal mixture of theta = 0 and theta = 1."""
    rng = np.random.default_rng(seed)
    peak = rng.random(n) < 0.25  # p(x|1) is half wide, half peak
    x = np.where(peak, rng.normal(ALPHA, S, n), rng.normal(0, B, n))
    weight = 1 / (0.5 + 0.25 * (1 + peak_ratio(x)))
    return EventPool(model or peak_model(), peak_gram(x), weight=weight, **options), x


def random_grams(n, d, rng, scale=0.3):
    """Positive semidefinite packed matrices with G_00 = 1, and exact integrated one."""
    from sbi_physics.likelihood import pack

    root = np.tril(scale * rng.standard_normal((n, d + 1, d + 1)))
    root[:, 0, 0] = 1.0
    return pack(root @ root.transpose(0, 2, 1))
