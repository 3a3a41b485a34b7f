r"""Posteriors from likelihood-to-evidence ratios, without MCMC.

A ratio estimator gives :math:`\log r(\theta, x) \approx \log p(x|\theta)/p(x)`; the posterior is
:math:`p(\theta|x) = r(\theta, x)\, p(\theta)`. Draws come from a pool of prior points shared by
all observations, weighted by :math:`r` and resampled; the mean of :math:`r` over the pool is the
normalising constant (one for a perfect estimator).

Where a narrow posterior leaves too few effective points in the shared pool, the observation gets a
pool of its own by adaptive importance sampling (population Monte Carlo, Cappé et al. 2004): points
from a mixture of Student-t kernels around the best points so far, where :math:`r` is raised to a
power that grows to one as the mixture closes in. A pool depends on the observation alone, so that
`draw` and `log_prob` agree.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from sbi_physics.errors import ContractError
from sbi_physics.posterior import Draws, Posterior, PosteriorContext
from sbi_physics.seeding import generator
from sbi_physics.types import DataArray, FloatArray

POOL_SIZE = 16_384
"""Default number of prior points (a power of two: the pool is a scrambled Sobol sequence)."""

# Chosen on Gaussian posteriors in 1 to 8 dimensions, 1e-5 to 0.5 of the prior wide.
_STARVED = 1 / 8  # effective fraction of the shared pool below which a pool of its own is made
_OWN_POOL = 1 / 4  # its size, relative to the shared pool
_MAX_ROUNDS = 12
_MIN_POINTS = 128  # effective points that the power of the ratio must leave
_CENTRES = 128
_GOOD_FRACTION = 0.3
_BISECTIONS = 12
_WEAKEST = 1e-12  # the first power


class RatioPosterior(Posterior):
    """A posterior from log ratios; subclasses write `_log_ratio`.

    Args:
        context: What it was made from; must hold the fitted transform.
        pool_size: Number of prior points in the shared pool.
    """

    def __init__(self, context: PosteriorContext, *, pool_size: int = POOL_SIZE) -> None:
        super().__init__(context)
        if context.transform is None:
            raise ContractError("a ratio posterior needs the fitted data transform")
        self._transform = context.transform
        self.pool_size = pool_size

    @abstractmethod
    def _log_ratio(self, u: FloatArray, xt: DataArray) -> FloatArray:
        """Log ratios, shape (batch, k).

        Args:
            u: Unconstrained points, shape (k, d) shared by all observations, or (batch, k, d).
            xt: Transformed observations, shape (batch, *shape).
        """

    def log_ratio(
        self, theta: ArrayLike, x: ArrayLike, *, any_observation: bool = False
    ) -> FloatArray:
        """Return log p(x|theta)/p(x) as learned, not renormalised.

        Args:
            theta: Points, shape (batch, k, d), or (k, d) for the same points at every observation.
            x: Observations, shape (batch, *observable.shape).
            any_observation: As in `log_prob`.

        Raises:
            ObservationError: As in `sample`.
        """
        self._require(x, any_observation)
        data = self.observable.check(x)
        points = self._points(theta, len(data))
        return self._log_ratio(self.prior.to_unconstrained(points), self._transform(data))

    @cached_property
    def _pool(self) -> FloatArray:
        """Prior points shared by all observations, shape (pool_size, d)."""
        rng = generator(self.context.seed, "pool", 0)
        return self.prior.quasi_sample(self.pool_size, rng)

    @cached_property
    def _pool_u(self) -> FloatArray:
        return self.prior.to_unconstrained(self._pool)

    def _rows_each(self, n: int) -> int:
        return max(n, self.pool_size)

    def _draw(
        self, x: DataArray, n: int, rng: np.random.Generator, log_prob: bool, at: FloatArray | None
    ) -> Draws:
        xt = self._transform(x)
        pools = self._pools(xt)
        theta = np.empty((len(x), n, self.prior.d))
        log_ratio = np.empty((len(x), n))
        for i, pool in enumerate(pools):
            chosen = rng.choice(len(pool.theta), n, p=pool.weights)
            theta[i], log_ratio[i] = pool.theta[chosen], pool.log_ratio[chosen]
        log_norm = np.array([pool.log_norm for pool in pools])
        density = log_ratio - log_norm[:, None] + self.prior.log_prob(theta) if log_prob else None
        return Draws(
            theta,
            density,
            None if at is None else self._density(at, xt, log_norm),
            np.array([pool.ess for pool in pools]),
        )

    def _log_prob_at(self, theta: FloatArray, x: DataArray) -> FloatArray:
        xt = self._transform(x)
        log_norm = np.array([pool.log_norm for pool in self._pools(xt)])
        return self._density(theta, xt, log_norm)

    def _density(self, theta: FloatArray, xt: DataArray, log_norm: FloatArray) -> FloatArray:
        inside = self.prior.contains(theta)
        safe = np.where(inside[..., None], theta, self.prior.from_unit(np.full(self.prior.d, 0.5)))
        log_ratio = self._log_ratio(self.prior.to_unconstrained(safe), xt)
        density = log_ratio - log_norm[:, None] + self.prior.log_prob(safe)
        return np.where(inside, density, -np.inf)

    def _pools(self, xt: DataArray) -> list[_Pool]:
        """Weighted points for each observation."""
        pools = []
        for i, log_ratio in enumerate(self._log_ratio(self._pool_u, xt)):
            pool = _Pool.weigh(self._pool, log_ratio, np.zeros(self.pool_size))
            if pool.ess < _STARVED * self.pool_size:
                own = self._own_pool(log_ratio, xt[i : i + 1])
                pool = own if own.ess > pool.ess else pool
            pools.append(pool)
        return pools

    def _own_pool(self, log_ratio: FloatArray, xt: DataArray) -> _Pool:
        """Close in on the posterior of one observation, given its ratios on the shared pool."""
        rng = generator(self.context.seed, "pool", 1)
        size = max(int(_OWN_POOL * self.pool_size), 2 * _CENTRES)
        u, log_base = self._pool_u, np.zeros(self.pool_size)  # log of prior / proposal density
        best: _Pool | None = None
        power = _WEAKEST
        for _ in range(_MAX_ROUNDS):
            power = _raised(power, log_ratio, log_base)
            kernels = _Kernels.around(u, power * log_ratio + log_base, rng)
            u = kernels.sample(size, rng)
            theta = self.prior.from_unconstrained(u)
            log_ratio = self._log_ratio(u, xt)[0]
            log_base = self.prior.log_prob(theta) - kernels.log_density(u)
            log_base -= self.prior.log_abs_det_unconstrained(theta)
            pool = _Pool.weigh(theta, log_ratio, log_base)
            gain = pool.ess / best.ess if best is not None else np.inf
            best = pool if gain > 1 else best
            if power == 1 and (pool.ess > _GOOD_FRACTION * size or gain < 1.2):
                break
        return pool if best is None else best


@dataclass(frozen=True, slots=True)
class _Pool:
    """Weighted points that represent the posterior of one observation.

    Attributes:
        theta: Points, shape (k, d).
        log_ratio: Their log ratios, shape (k,).
        weights: Their weights, summing to one, shape (k,).
        log_norm: Log of the mean ratio over the prior.
        ess: Effective number of points.
    """

    theta: FloatArray
    log_ratio: FloatArray
    weights: FloatArray
    log_norm: float
    ess: float

    @classmethod
    def weigh(cls, theta: FloatArray, log_ratio: FloatArray, log_base: FloatArray) -> Self:
        """Weigh points by ratio x prior / proposal density."""
        log_weights = log_ratio + log_base
        log_sum = float(special.logsumexp(log_weights))
        if not np.isfinite(log_sum):
            raise ContractError(
                "log ratios must be finite, at least in part, and not NaN; their sum over "
                f"{len(theta)} points is exp({log_sum})"
            )
        weights: FloatArray = np.exp(log_weights - log_sum)
        ess = 1.0 / float((weights**2).sum())
        return cls(theta, log_ratio, weights / weights.sum(), log_sum - np.log(len(theta)), ess)


@dataclass(frozen=True, slots=True)
class _Kernels:
    """An equal mixture of Student-t kernels of one shape.

    Attributes:
        centres: Shape (kernels, d).
        root: Cholesky factor of the common scale matrix, shape (d, d).
    """

    centres: FloatArray
    root: FloatArray

    @classmethod
    def around(cls, u: FloatArray, log_weights: FloatArray, rng: np.random.Generator) -> Self:
        """Place kernels on weighted points u (k, d), as wide as Silverman's rule says."""
        weights: FloatArray = special.softmax(log_weights)
        d = u.shape[1]
        covariance = np.atleast_2d(np.cov(u.T, aweights=weights, bias=True))
        width = (4 / (_CENTRES * (d + 2))) ** (1 / (d + 4))
        tiny = 1e-12 * np.eye(d)
        root = width * np.linalg.cholesky(covariance + tiny)
        return cls(u[rng.choice(len(u), _CENTRES, p=weights)], root)

    @property
    def tail(self) -> int:
        """Degrees of freedom: 4 or 5, so that the exponent (tail + d) / 2 is an integer."""
        d: int = self.centres.shape[1]
        return 4 + d % 2

    def sample(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Draw n points, shape (n, d)."""
        d = self.centres.shape[1]
        stretch = np.sqrt(self.tail / rng.chisquare(self.tail, (n, 1)))
        steps = stretch * rng.standard_normal((n, d)) @ self.root.T
        points: FloatArray = self.centres[rng.integers(len(self.centres), size=n)] + steps
        return points

    def log_density(self, u: FloatArray) -> FloatArray:
        """Log density of points u (n, d), shape (n,)."""
        d = self.centres.shape[1]
        a = np.linalg.solve(self.root, u.T).T
        b = np.linalg.solve(self.root, self.centres.T).T
        # 1 + |a - b|^2 / tail by one matrix product, in place; rounding may leave it below 1.
        spread = a @ (b.T * (-2 / self.tail))
        spread += (a**2).sum(axis=1)[:, None] / self.tail
        spread += 1 + (b**2).sum(axis=1) / self.tail
        np.reciprocal(np.maximum(spread, 1.0, out=spread), out=spread)
        power = (self.tail + d) // 2
        kernels = spread.copy()
        for _ in range(power - 1):  # several times faster than a power of an array
            kernels *= spread
        constant = special.gammaln(power) - special.gammaln(0.5 * self.tail)
        constant -= 0.5 * d * np.log(self.tail * np.pi) + np.log(np.diag(self.root)).sum()
        density: FloatArray = np.log(kernels.mean(axis=1)) + constant
        return density


def _raised(power: float, log_ratio: FloatArray, log_base: FloatArray) -> float:
    """Largest power of the ratio, between `power` and 1, that leaves enough effective points."""

    def enough(trial: float) -> bool:
        weights = special.softmax(trial * log_ratio + log_base)
        return bool(1 / (weights**2).sum() >= _MIN_POINTS)

    if enough(1.0):
        return 1.0
    low, high = power, 1.0
    for _ in range(_BISECTIONS):
        middle = float(np.sqrt(low * high))
        low, high = (middle, high) if enough(middle) else (low, middle)
    return low
