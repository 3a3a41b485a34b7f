r"""Posteriors with a closed form, or exact on a one-dimensional grid.

* independent truncated normals: :math:`\theta_i|x \sim N(c_i, s_i^2)` inside the prior's interval;
* linear-Gaussian: with :math:`\theta \sim N(m, P)` and :math:`x|\theta \sim N(A\theta, C)`,

.. math:: S = (P^{-1} + A^T C^{-1} A)^{-1}, \qquad
    \theta|x \sim N\left(S (P^{-1} m + A^T C^{-1} x), S\right);

* one parameter on a grid, drawn by the inverse of the piecewise-quadratic CDF.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from scipy import special

from sbi_physics.errors import ContractError
from sbi_physics.posterior import Draws, Posterior, PosteriorContext
from sbi_physics.types import DataArray, FloatArray

CentreAndWidth: TypeAlias = Callable[[DataArray], tuple[FloatArray, FloatArray]]

_LOG_2PI = float(np.log(2 * np.pi))
_GRID = 8001


class ClosedFormPosterior(Posterior):
    """A posterior with independent draws; subclasses write `_sample` and `_log_prob_at`."""

    def _draw(
        self, x: DataArray, n: int, rng: np.random.Generator, log_prob: bool, at: FloatArray | None
    ) -> Draws:
        theta = self._sample(x, n, rng)
        return Draws(
            theta,
            self._log_prob_at(theta, x) if log_prob else None,
            None if at is None else self._log_prob_at(at, x),
        )

    def _sample(self, x: DataArray, n: int, rng: np.random.Generator) -> FloatArray:
        raise NotImplementedError


class TruncatedNormalPosterior(ClosedFormPosterior):
    """Independent normals restricted to a uniform prior.

    Args:
        context: What it belongs to; its prior must be uniform in every parameter.
        centre_and_width: Maps data (batch, *shape) to centres and widths, each (batch, d).
    """

    def __init__(self, context: PosteriorContext, centre_and_width: CentreAndWidth) -> None:
        super().__init__(context)
        self._centre_and_width = centre_and_width

    def _sample(self, x: DataArray, n: int, rng: np.random.Generator) -> FloatArray:
        centre, width, low, high, sign, log_mass = self._standardised(x)
        log_u = np.log1p(-rng.random((len(x), n, self.prior.d)))
        log_cdf = np.logaddexp(special.log_ndtr(low)[:, None], log_u + log_mass[:, None])
        inside = np.clip(special.ndtri_exp(np.minimum(log_cdf, 0.0)), low[:, None], high[:, None])
        theta = centre[:, None] + sign[:, None] * width[:, None] * inside
        bounds: FloatArray = self.prior.bounds
        inside_box: FloatArray = np.clip(theta, bounds[:, 0], bounds[:, 1])
        return inside_box

    def _log_prob_at(self, theta: FloatArray, x: DataArray) -> FloatArray:
        centre, width, _, _, _, log_mass = self._standardised(x)
        z = (theta - centre[:, None]) / width[:, None]
        density = -0.5 * z**2 - 0.5 * _LOG_2PI - np.log(width)[:, None] - log_mass[:, None]
        return np.where(self.prior.contains(theta), density.sum(axis=-1), -np.inf)

    def _standardised(
        self, x: DataArray
    ) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]:
        """Centre, width, two ends, sign and log of the mass between the ends, each (batch, d)."""
        centre, width = self._centre_and_width(x)
        ends = (self.prior.bounds[None] - centre[..., None]) / width[..., None]
        # Reflected into the lower tail, where log_ndtr keeps its relative precision.
        sign = np.where(ends.sum(axis=-1) > 0, -1.0, 1.0)
        ends = np.sort(sign[..., None] * ends, axis=-1)
        low, high = ends[..., 0], ends[..., 1]
        log_low, log_high = special.log_ndtr(low), special.log_ndtr(high)
        log_mass: FloatArray = log_high + np.log1p(-np.exp(log_low - log_high))
        return centre, width, low, high, sign, log_mass


class GaussianPosterior(ClosedFormPosterior):
    """The posterior of a linear-Gaussian model.

    Args:
        context: What it belongs to.
        matrix: Posterior means are `matrix @ x + offset`; shape (d, n_data).
        offset: Shape (d,).
        covariance: Posterior covariance, shape (d, d), the same for every observation.
    """

    def __init__(
        self,
        context: PosteriorContext,
        matrix: FloatArray,
        offset: FloatArray,
        covariance: FloatArray,
    ) -> None:
        super().__init__(context)
        self._matrix, self._offset = matrix, offset
        self._cholesky = np.linalg.cholesky(covariance)

    def _mean(self, x: DataArray) -> FloatArray:
        mean: FloatArray = x.reshape(len(x), -1).astype(np.float64) @ self._matrix.T + self._offset
        return mean

    def _sample(self, x: DataArray, n: int, rng: np.random.Generator) -> FloatArray:
        normal = rng.standard_normal((len(x), n, self.prior.d))
        return self._mean(x)[:, None] + normal @ self._cholesky.T

    def _log_prob_at(self, theta: FloatArray, x: DataArray) -> FloatArray:
        z = (theta - self._mean(x)[:, None]) @ np.linalg.inv(self._cholesky).T
        log_det = float(np.log(np.diag(self._cholesky)).sum())
        result: FloatArray = -0.5 * (z**2 + _LOG_2PI).sum(axis=-1) - log_det
        return result


class GridPosterior(ClosedFormPosterior):
    """The posterior of one parameter from its likelihood on a grid over the prior's interval.

    Args:
        context: What it belongs to; one parameter with a bounded prior.
        log_likelihood: Maps theta (batch, k) and data (batch, *shape) to log p(x|theta).
    """

    def __init__(
        self,
        context: PosteriorContext,
        log_likelihood: Callable[[FloatArray, DataArray], FloatArray],
    ) -> None:
        super().__init__(context)
        if self.prior.d != 1 or not np.isfinite(self.prior.bounds).all():
            raise ContractError(
                f"a grid posterior needs one parameter with a bounded prior, got {self.prior}"
            )
        self._log_likelihood = log_likelihood
        low, high = self.prior.bounds[0]
        self._grid = np.linspace(low, high, _GRID)

    def _rows_each(self, n: int) -> int:
        return n + _GRID

    def _density(self, x: DataArray) -> tuple[FloatArray, FloatArray]:
        """Density on the grid, shape (batch, grid), and log of the evidence, shape (batch, 1)."""
        grid = np.broadcast_to(self._grid, (len(x), _GRID))
        joint = self._log_likelihood(grid, x) + self.prior.log_prob(self._grid[:, None])
        peak = joint.max(axis=1, keepdims=True)
        weights = np.exp(joint - peak)
        mass = np.trapezoid(weights, self._grid, axis=1)[:, None]
        return weights / mass, peak + np.log(mass)

    def _sample(self, x: DataArray, n: int, rng: np.random.Generator) -> FloatArray:
        density, _ = self._density(x)
        step = self._grid[1] - self._grid[0]
        cdf = np.zeros_like(density)
        np.cumsum(0.5 * step * (density[:, 1:] + density[:, :-1]), axis=1, out=cdf[:, 1:])
        u = rng.random((len(x), n)) * cdf[:, -1:]
        theta = np.empty_like(u)
        for i in range(len(x)):
            theta[i] = _inverse_cdf(self._grid, density[i], cdf[i], u[i])
        return theta[..., None]

    def _log_prob_at(self, theta: FloatArray, x: DataArray) -> FloatArray:
        _, log_evidence = self._density(x)
        density = (
            self._log_likelihood(theta[..., 0], x) + self.prior.log_prob(theta) - log_evidence
        )
        return np.where(self.prior.contains(theta), density, -np.inf)


def _inverse_cdf(
    grid: FloatArray, density: FloatArray, cdf: FloatArray, u: FloatArray
) -> FloatArray:
    """Invert the CDF of a piecewise-linear density."""
    cell = np.clip(np.searchsorted(cdf, u, side="right") - 1, 0, len(grid) - 2)
    step = grid[1] - grid[0]
    left, slope, missing = density[cell], (density[cell + 1] - density[cell]) / step, u - cdf[cell]
    # Root of left*t + slope*t^2/2 = missing in the form that stays exact as the slope vanishes.
    root = np.sqrt(np.maximum(left**2 + 2 * slope * missing, 0.0))
    total = left + root
    t = np.divide(2 * missing, total, out=np.zeros_like(u), where=total > 0)
    result: FloatArray = grid[cell] + np.clip(t, 0.0, step)
    return result
