"""Exact posteriors of the benchmark problems, and the densities and noise they share with them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final

import numpy as np
from scipy import special

from sbi_physics.errors import ContractError
from sbi_physics.posterior import PosteriorContext
from sbi_physics.priors import Prior
from sbi_physics.testing.closed_form import ClosedFormPosterior, TruncatedNormalPosterior
from sbi_physics.types import DataArray, FloatArray

MOON: Final = (0.1, 0.01)
"""Mean and standard deviation of the radius of `toy-two-moons`."""

MIXTURE: Final = (1.0, 0.1)
"""Standard deviations of the two components of `toy-mixture`."""

TRIALS: Final = 4
"""Points in an observation of `toy-slcp`."""

_LARGEST_VARIANCE = 3.0**4
_SHIFT = np.array([0.25, 0.0])
_MAX_BLOCK = 100_000
_MAX_PROPOSALS = 10_000_000


class TwoMoonsPosterior(ClosedFormPosterior):
    """Draws by undoing the simulator: a crescent of noise and a sign give theta."""

    def __init__(self, context: PosteriorContext) -> None:
        super().__init__(context)
        angle, weight = special.roots_legendre(200)
        z, weight_z = special.roots_hermitenorm(16)
        self._nodes = _polar(*np.meshgrid(0.5 * np.pi * angle, MOON[0] + MOON[1] * z))
        mass = weight_z[:, None] * weight
        self._mass = (mass / mass.sum()).ravel()

    def _rows_each(self, n: int) -> int:
        return n + len(self._mass)

    def _sample(self, x: DataArray, n: int, rng: np.random.Generator) -> FloatArray:
        def propose(row: FloatArray, k: int) -> FloatArray:
            return self._preimages(row[None], crescent(k, rng))[
                rng.integers(2, size=k), 0, range(k)
            ]

        return _accepted(x, n, self.prior, propose)

    def _log_prob_at(self, theta: FloatArray, x: DataArray) -> FloatArray:
        noise = x[:, None] - folded(theta) - _SHIFT
        radius = np.hypot(noise[..., 0], noise[..., 1])
        z = (radius - MOON[0]) / MOON[1]
        density = -0.5 * z**2 - 0.5 * np.log(2 * np.pi) - np.log(MOON[1] * np.pi * radius)
        inside = self.prior.contains(theta) & (noise[..., 0] > 0)
        return np.where(inside, density - self._log_evidence(x)[:, None], -np.inf)

    def _log_evidence(self, x: DataArray) -> FloatArray:
        """Log of the integral of the likelihood over the box, by quadrature over the noise."""
        theta = self._preimages(x, self._nodes)
        inside = self.prior.contains(np.where(np.isnan(theta), np.inf, theta))
        mass: FloatArray = (inside.sum(axis=0) * self._mass).sum(axis=-1)
        log_mass: FloatArray = np.log(mass)
        return log_mass

    def _preimages(self, x: DataArray | FloatArray, noise: FloatArray) -> FloatArray:
        """Return both theta for each x (batch, 2) and noise (k, 2), (2, batch, k, 2), or NaN."""
        rest = noise - np.asarray(x, np.float64)[:, None]
        size = np.where(rest[..., 0] >= 0, rest[..., 0], np.nan)
        height = -rest[..., 1]
        both = [np.stack([s - height, s + height], axis=-1) for s in (size, -size)]
        theta: FloatArray = np.stack(both) / np.sqrt(2)
        return theta


class MixturePosterior(ClosedFormPosterior):
    """A mixture of two truncated normals."""

    def __init__(self, context: PosteriorContext) -> None:
        super().__init__(context)
        self._parts = [
            TruncatedNormalPosterior(context, functools.partial(_centre_and_width, sigma=s))
            for s in MIXTURE
        ]

    def _sample(self, x: DataArray, n: int, rng: np.random.Generator) -> FloatArray:
        evidence = self._log_evidence(x)
        share = special.expit(evidence[1] - evidence[0])
        narrow = rng.random((len(x), n)) < share[:, None]
        draws = [part._sample(x, n, rng) for part in self._parts]
        return np.where(narrow[..., None], draws[1], draws[0])

    def _log_prob_at(self, theta: FloatArray, x: DataArray) -> FloatArray:
        square = ((np.asarray(x, np.float64)[:, None] - theta) ** 2).sum(axis=-1)
        density = np.logaddexp(*(isotropic(square, s) for s in MIXTURE))
        log_norm = np.logaddexp(*self._log_evidence(x))[:, None]
        return np.where(self.prior.contains(theta), density - log_norm, -np.inf)

    def _log_evidence(self, x: DataArray) -> list[FloatArray]:
        """Log of each component's mass inside the box: likelihood over density at one point."""
        bounds = self.prior.bounds
        point = np.clip(np.asarray(x, np.float64), bounds[:, 0], bounds[:, 1])
        square = ((x - point) ** 2).sum(axis=1)
        return [
            isotropic(square, s) - part._log_prob_at(point[:, None], x)[:, 0]
            for s, part in zip(MIXTURE, self._parts, strict=True)
        ]


class SlcpPosterior(ClosedFormPosterior):
    r"""Independent draws by rejection from an inverse Wishart.

    With four points of mean :math:`\bar x` and scatter :math:`A`, integrating the Gaussian
    likelihood over the mean leaves :math:`|S|^{-3/2} e^{-\mathrm{tr}(S^{-1}A)/2}`. A density flat
    in :math:`(\theta_3, \theta_4, \theta_5)` is one in :math:`S` proportional to
    :math:`|S|^{-5/4}(1-\rho^2)^{1/4}`. The posterior of :math:`S` is therefore an inverse Wishart
    with 5/2 degrees of freedom and scale :math:`A`, accepted with probability
    :math:`(1-\rho^2)^{1/4}` and inside the box; the mean given :math:`S` is
    :math:`N(\bar x, S/4)`, accepted inside the box; the signs of :math:`\theta_3, \theta_4` are
    coins. Of the inverse Wishart, :math:`S_{11}` and :math:`S_{22} - S_{12}^2/S_{11}` are
    independent inverse gammas of shapes 3/4 and 5/4, and :math:`S_{12}/S_{11}` is normal given the
    latter. The density is the likelihood up to a constant of the data.
    """

    normalized = False

    def _sample(self, x: DataArray, n: int, rng: np.random.Generator) -> FloatArray:
        return _accepted(x, n, self.prior, lambda row, k: _slcp_proposals(row, k, rng))

    def _log_prob_at(self, theta: FloatArray, x: DataArray) -> FloatArray:
        density = slcp_log_likelihood(np.asarray(x, np.float64), theta)
        return np.where(self.prior.contains(theta), density, -np.inf)


def crescent(n: int, rng: np.random.Generator) -> FloatArray:
    """Return the noise of `toy-two-moons`, shape (n, 2)."""
    angle = rng.uniform(-0.5 * np.pi, 0.5 * np.pi, n)
    return _polar(angle, rng.normal(*MOON, n))


def slcp_log_likelihood(x: FloatArray, theta: FloatArray) -> FloatArray:
    """Return log p(x|theta) of `toy-slcp` for x (batch, 8) at theta (batch, k, 5)."""
    points = x.reshape(-1, 1, TRIALS, 2)
    s_1, s_2, t = theta[..., 2] ** 2, theta[..., 3] ** 2, theta[..., 4]
    one = (points[..., 0] - theta[..., :1]) / s_1[..., None]
    two = (points[..., 1] - theta[..., 1:2]) / s_2[..., None]
    # 1 / (1 - rho^2) = cosh^2: the residual of two given one, in its own standard deviations.
    two = (two - np.tanh(t)[..., None] * one) * np.cosh(t)[..., None]
    square: FloatArray = (one**2 + two**2).sum(axis=-1)
    log_det = np.log(2 * np.pi * s_1 * s_2) - np.log(np.cosh(t))
    density: FloatArray = -0.5 * square - TRIALS * log_det
    return density


def _slcp_proposals(x: FloatArray, k: int, rng: np.random.Generator) -> FloatArray:
    """Return at most k draws under a flat prior with bounded variances; the box is not checked."""
    points = x.reshape(TRIALS, 2)
    # The axis that varies more comes first: the prior's largest variance cuts it more often.
    order = np.argsort(-points.var(axis=0))
    points = points[:, order]
    mean = points.mean(axis=0)
    scatter = (points - mean).T @ (points - mean)
    slope = scatter[0, 1] / scatter[0, 0]
    rest = scatter[1, 1] - slope * scatter[0, 1]
    # Variance of the first axis, and of the second given the first.
    first = _inverse_gamma(0.75, 0.5 * scatter[0, 0], k, rng)
    given = _inverse_gamma(1.25, 0.5 * rest, k, rng)
    slope = slope + np.sqrt(given / scatter[0, 0]) * rng.standard_normal(k)
    second = given + slope**2 * first
    one_minus = given / second  # 1 - rho^2
    kept = rng.random(k) < one_minus**0.25
    one, two = rng.standard_normal((2, k)) / np.sqrt(TRIALS)
    centre = [
        mean[0] + np.sqrt(first) * one,
        mean[1] + slope * np.sqrt(first) * one + np.sqrt(given) * two,
    ]
    width = [v**0.25 * rng.choice([-1.0, 1.0], k) for v in (first, second)]
    theta_5 = np.arcsinh(slope * np.sqrt(first / given))  # artanh rho
    columns = [*(centre[i] for i in order), *(width[i] for i in order), theta_5]
    theta: FloatArray = np.column_stack(columns)[kept]
    return theta


def _inverse_gamma(shape: float, scale: float, k: int, rng: np.random.Generator) -> FloatArray:
    """Draw k variances below the largest one of the prior."""
    least = special.gammaincc(shape, scale / _LARGEST_VARIANCE)
    precision = special.gammainccinv(shape, least * (1 - rng.random(k)))
    variance: FloatArray = scale / precision
    return variance


def _accepted(
    x: DataArray, n: int, prior: Prior, propose: Callable[[FloatArray, int], FloatArray]
) -> FloatArray:
    """Collect n proposals inside the prior for each row of x, shape (batch, n, d)."""
    theta = np.empty((len(x), n, prior.d))
    for i, row in enumerate(np.asarray(x, np.float64)):
        have = proposed = 0
        while have < n:
            # As many as the accepted share so far lets expect to suffice.
            size = int(min(1.1 * (n - have) * (proposed + 1) / (have + 1) + 64, _MAX_BLOCK))
            points = propose(row, size)
            points = points[np.isfinite(points).all(axis=1)]
            points = points[prior.contains(points)][: n - have]
            theta[i, have : have + len(points)] = points
            have, proposed = have + len(points), proposed + size
            if have == 0 and proposed > _MAX_PROPOSALS:
                raise ContractError(
                    f"of {proposed} proposals for the posterior given {row.tolist()} none lies "
                    "inside the prior; the observation is all but impossible under it"
                )
    return theta


def _polar(angle: FloatArray, radius: FloatArray) -> FloatArray:
    """Return the crescent's points of angle and radius, shape (size, 2)."""
    around = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1).reshape(-1, 2)
    points: FloatArray = around + _SHIFT
    return points


def folded(theta: FloatArray) -> FloatArray:
    """Return the centre of the crescent of `toy-two-moons`, without its shift, shape (..., 2)."""
    total, difference = theta[..., 0] + theta[..., 1], theta[..., 1] - theta[..., 0]
    centre: FloatArray = np.stack([-np.abs(total), difference], axis=-1) / np.sqrt(2)
    return centre


def _centre_and_width(x: DataArray, sigma: float) -> tuple[FloatArray, FloatArray]:
    return x.astype(np.float64), np.full(x.shape, sigma)


def isotropic(square: FloatArray, sigma: float) -> FloatArray:
    """Log density of a two-dimensional isotropic normal at a squared distance."""
    density: FloatArray = -0.5 * square / sigma**2 - np.log(2 * np.pi * sigma**2)
    return density
