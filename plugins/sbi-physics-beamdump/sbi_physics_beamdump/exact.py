"""The posterior of mass and lifetime without a network, from the numerical likelihood of a set.

A reference for trained posteriors, and the best that a detector can do: no network has a lower
mean negative log density. Whether it is exact is tested like any posterior, by fresh pairs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sbi_physics import Posterior
from sbi_physics.errors import ContractError
from sbi_physics.posterior import Draws, PosteriorContext
from sbi_physics.types import DataArray, FloatArray
from sbi_physics_beamdump.set_likelihood import SetLikelihood

if TYPE_CHECKING:
    from sbi_physics_beamdump.simulator import BeamdumpAlp

_FLOOR: Final = 1e-9
"""Share of the prior in the density: the grid ends where the likelihood has fallen below e-26."""


_RANGES: Final = {"sigma_e": (0.002, 0.2), "sigma_hit": (1e-5, 0.01), "sigma_angle": (2e-4, 0.05)}


class ExactPosterior(Posterior):
    """Posterior of (m_a, ctau) on a grid around the maximum of the likelihood.

    Args:
        context: What it belongs to; the prior is log-uniform in both.
        likelihood: The likelihood of sets.
        resolution: sigma_e and sigma_angle (rad); None where their logarithms stand in the data,
            before the last column.
    """

    def __init__(
        self,
        context: PosteriorContext,
        likelihood: SetLikelihood,
        resolution: tuple[float, float] | None,
    ) -> None:
        super().__init__(context)
        self._likelihood = likelihood
        self._resolution = resolution
        self._log_volume = float(
            np.log(np.log(self.prior.bounds)[:, 1] - np.log(self.prior.bounds)[:, 0]).sum()
        )

    def _draw(
        self, x: DataArray, n: int, rng: np.random.Generator, log_prob: bool, at: FloatArray | None
    ) -> Draws:
        theta = np.empty((len(x), n, 2))
        density = np.empty((len(x), n)) if log_prob else None
        density_at = None if at is None else np.empty(at.shape[:2])
        low, high = self.prior.bounds.T
        for i, one in enumerate(x):
            grid = self._grid(one)
            theta[i] = np.clip(np.exp(grid.sample(n, rng)), low, high)
            if density is not None:
                density[i] = self._log_density(grid, theta[i])
            if density_at is not None and at is not None:
                density_at[i] = self._log_density(grid, at[i])
        return Draws(theta, density, density_at)

    def _log_prob_at(self, theta: FloatArray, x: DataArray) -> FloatArray:
        found = [self._log_density(self._grid(one), p) for one, p in zip(x, theta, strict=True)]
        return np.array(found)

    def _grid(self, x: DataArray) -> BilinearDensity:
        events = x[x[:, -1] > 0]
        if self._resolution is not None:
            sigma_e, sigma_angle = self._resolution
        else:
            sigma_e, sigma_angle = np.exp(x[0, -3:-1].astype(np.float64))
        log_m, log_ctau, log_l = self._likelihood.grid(
            events[:, :10].astype(np.float64), sigma_e, sigma_angle
        )
        return BilinearDensity(log_m, log_ctau, np.exp(log_l - log_l.max()))

    def _log_density(self, grid: BilinearDensity, theta: FloatArray) -> FloatArray:
        """Log density in (m_a, ctau) at points, shape (k, 2)."""
        inside = self.prior.contains(theta)
        logs = np.log(np.where(inside[:, None], theta, 1.0))
        density = (1.0 - _FLOOR) * grid(logs) + _FLOOR * math.exp(-self._log_volume)
        return np.where(inside, np.log(density) - logs.sum(axis=-1), -np.inf)


def exact_posterior(simulator: BeamdumpAlp) -> ExactPosterior:
    """Return the exact posterior of a simulator, under its own prior.

    Raises:
        ContractError: If it draws B mesons from a table, or a resolution is out of range.
    """
    options = simulator.options
    if options.production != "parametric":
        raise ContractError(
            f"the likelihood needs the momentum density of ALPs, which production="
            f"{options.production!r} does not give; accepted is 'parametric'"
        )
    amortized = options.detector == "amortized"
    for name, (low, high) in _RANGES.items():
        value = getattr(options, name)
        if not (low <= value <= high) and not (amortized and name != "sigma_hit"):
            raise ContractError(
                f"the likelihood treats {name} from {low:g} to {high:g}, got {value:g}"
            )
    prior = simulator.prior
    context = PosteriorContext(
        "exact",
        prior.select(simulator.parameters.interest),
        simulator.observable,
        simulator=simulator.identity,
        simulation_prior=prior,
    )
    likelihood = SetLikelihood(
        simulator.geometry, options.sigma_hit, options.angle_smearing == "tangent"
    )
    resolution = None if amortized else (options.sigma_e, options.sigma_angle)
    return ExactPosterior(context, likelihood, resolution)


@dataclass(frozen=True, eq=False)
class BilinearDensity:
    """A density that is linear in each coordinate between the points of a regular grid.

    Args:
        a: First coordinate, shape (n,).
        b: Second coordinate, shape (k,).
        values: Density up to a factor, shape (n, k); normalised here.
    """

    a: FloatArray
    b: FloatArray
    values: FloatArray

    def __post_init__(self) -> None:
        v = self.values
        cells = 0.25 * (v[:-1, :-1] + v[1:, :-1] + v[:-1, 1:] + v[1:, 1:])
        area = (self.a[1] - self.a[0]) * (self.b[1] - self.b[0])
        vars(self)["values"] = v / (cells.sum() * area)
        vars(self)["_cdf"] = np.cumsum(cells.ravel() / cells.sum())

    def __call__(self, points: FloatArray) -> FloatArray:
        """Return the density at points, shape (k, 2); 0 outside of the grid."""
        i, u, in_a = _place(points[:, 0], self.a)
        j, w, in_b = _place(points[:, 1], self.b)
        v = self.values
        low = (1 - w) * v[i, j] + w * v[i, j + 1]
        high = (1 - w) * v[i + 1, j] + w * v[i + 1, j + 1]
        found: FloatArray = np.where(in_a & in_b, (1 - u) * low + u * high, 0.0)
        return found

    def sample(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Draw points, shape (n, 2)."""
        cdf: Any = vars(self)["_cdf"]
        cell = np.minimum(np.searchsorted(cdf, rng.random(n), side="right"), len(cdf) - 1)
        i, j = np.divmod(cell, len(self.b) - 1)
        v = self.values
        corners = v[i, j], v[i, j + 1], v[i + 1, j], v[i + 1, j + 1]
        u = _linear(rng.random(n), corners[0] + corners[1], corners[2] + corners[3])
        w = _linear(
            rng.random(n),
            (1 - u) * corners[0] + u * corners[2],
            (1 - u) * corners[1] + u * corners[3],
        )
        a = self.a[i] + u * (self.a[1] - self.a[0])
        b = self.b[j] + w * (self.b[1] - self.b[0])
        return np.stack([a, b], axis=1)


def _place(values: FloatArray, grid: FloatArray) -> tuple[Any, FloatArray, Any]:
    """Cell, place in it, and whether it is inside."""
    where = (values - grid[0]) / (grid[1] - grid[0])
    inside = (where >= -1e-9) & (where <= len(grid) - 1 + 1e-9)
    cell = np.clip(np.floor(where), 0, len(grid) - 2).astype(np.intp)
    return cell, np.clip(where - cell, 0.0, 1.0), inside


def _linear(u: FloatArray, left: FloatArray, right: FloatArray) -> FloatArray:
    """Invert the CDF of a density that goes linearly from `left` at 0 to `right` at 1."""
    root = np.sqrt((1 - u) * left**2 + u * right**2)
    total = left + root
    found: FloatArray = np.divide(u * (left + right), total, out=np.copy(u), where=total > 0)
    return np.clip(found, 0.0, 1.0)
