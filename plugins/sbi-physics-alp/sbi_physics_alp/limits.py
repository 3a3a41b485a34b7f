"""From posteriors of (m_a, g) to contours and limits, in the units of the field: eV and GeV^-1.

Everything is read off a map of posterior mass on a grid in log10 m_a and log10 g: highest-density
regions, and one-sided limits on g in each column of mass. A limit is a quantile of g given m_a and
so depends on the prior of g; ``flat_in_g`` turns a log-uniform prior into a uniform one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from sbi_physics import Posterior, Simulator
from sbi_physics.errors import ContractError

Array = np.ndarray[Any, np.dtype[np.float64]]
BoolArray = np.ndarray[Any, np.dtype[np.bool_]]

EV_PER_NEV: Final = 1e-9
INVERSE_GEV_PER_G11: Final = 1e-11


@dataclass(frozen=True)
class MassCouplingMap:
    """Posterior mass of bins in log10(m_a / eV) and log10(g / GeV^-1).

    Attributes:
        log10_m_ev: Edges in log10 of the mass, increasing, shape (n_m + 1,).
        log10_g: Edges in log10 of the coupling, increasing, shape (n_g + 1,).
        mass: Mass of each bin, not negative, sum 1, shape (n_m, n_g).
        draws: Effective number of draws in each column of mass, shape (n_m,); infinite when the
            map was evaluated, not drawn.
    """

    log10_m_ev: Array
    log10_g: Array
    mass: Array
    draws: Array

    def __post_init__(self) -> None:
        shape = (self.log10_m_ev.size - 1, self.log10_g.size - 1)
        if self.mass.shape != shape or self.draws.shape != shape[:1]:
            raise ContractError(f"mass has shape {self.mass.shape}; the edges say {shape}")
        if not ((self.mass >= 0).all() and abs(self.mass.sum() - 1.0) < 1e-9):
            raise ContractError("the mass of a map must not be negative and sum to 1")

    @classmethod
    def from_draws(
        cls,
        m_nev: ArrayLike,
        g11: ArrayLike,
        *,
        log10_m_ev: ArrayLike,
        log10_g: ArrayLike,
        weights: ArrayLike | None = None,
        flat_in_g: bool = False,
    ) -> MassCouplingMap:
        """Histogram of posterior draws.

        Args:
            m_nev: Masses in neV, shape (n,).
            g11: Couplings in 1e-11 GeV^-1, shape (n,).
            log10_m_ev: Edges in log10 of the mass in eV.
            log10_g: Edges in log10 of the coupling in GeV^-1.
            weights: Weights of the draws, shape (n,).
            flat_in_g: Reweight a posterior under a log-uniform prior of g to one under a uniform.

        Raises:
            ContractError: If no draw lies on the grid.
        """
        m, g = np.asarray(m_nev, dtype=np.float64), np.asarray(g11, dtype=np.float64)
        w = np.ones(m.shape) if weights is None else np.asarray(weights, dtype=np.float64)
        if flat_in_g:
            w = w * g
        edges = [np.asarray(e, dtype=np.float64) for e in (log10_m_ev, log10_g)]
        x = np.log10(m * EV_PER_NEV)
        y = np.log10(np.maximum(g, 1e-300) * INVERSE_GEV_PER_G11)
        total, *_ = np.histogram2d(x, y, bins=edges, weights=w)
        squares, *_ = np.histogram2d(x, y, bins=edges, weights=w * w)
        if not total.sum() > 0:
            raise ContractError("no draw lies on the grid; check its edges, in eV and GeV^-1")
        column, spread = total.sum(axis=1), squares.sum(axis=1)
        effective = np.divide(column**2, spread, out=np.zeros_like(column), where=spread > 0)
        return cls(edges[0], edges[1], total / total.sum(), effective)

    @classmethod
    def from_posterior(
        cls,
        posterior: Posterior,
        x: ArrayLike,
        *,
        n_m: int = 60,
        n_g: int = 60,
        flat_in_g: bool = False,
    ) -> MassCouplingMap:
        """Density of a posterior of exactly m_a and g for one observation, on its whole prior.

        Args:
            posterior: A posterior whose parameters are m_a and g.
            x: The observation, shape (1, *observable.shape) or observable.shape.
            n_m: Bins of mass.
            n_g: Bins of coupling.
            flat_in_g: As in `from_draws`.

        Raises:
            ContractError: If it has other parameters; use `from_draws` then.
            ObservationError: If truncated rounds closed in on another observation.
        """
        names = posterior.prior.names
        if sorted(names) != ["g", "m_a"]:
            raise ContractError(
                f"the posterior is of {', '.join(names)}, not of m_a and g alone; use from_draws"
            )
        bounds = dict(zip(names, posterior.prior.bounds, strict=True))
        m_edges, g_edges = (
            np.linspace(float(np.log10(low)), float(np.log10(high)), n + 1)
            for (low, high), n in ((bounds["m_a"], n_m), (bounds["g"], n_g))
        )
        m = 10 ** (0.5 * (m_edges[1:] + m_edges[:-1]))
        g = 10 ** (0.5 * (g_edges[1:] + g_edges[:-1]))
        grid = {"m_a": np.repeat(m, n_g), "g": np.tile(g, n_m)}
        theta = np.stack([grid[name] for name in names], axis=1)
        log_density = posterior.log_prob(theta, posterior.observable.check(x)[:1])[0]
        # d theta = m g d ln m d ln g; a flat prior of g has one more factor of g.
        power = 2.0 if flat_in_g else 1.0
        log_mass = log_density + np.log(grid["m_a"]) + power * np.log(grid["g"])
        mass = np.exp(log_mass - log_mass.max()).reshape(n_m, n_g)
        offset = np.log10(EV_PER_NEV), np.log10(INVERSE_GEV_PER_G11)
        return cls(
            m_edges + offset[0], g_edges + offset[1], mass / mass.sum(), np.full(n_m, np.inf)
        )

    def threshold(self, level: float) -> float:
        """Smallest density (mass of a bin over its area) inside the highest-density region."""
        _check_level(level)
        area = np.outer(np.diff(self.log10_m_ev), np.diff(self.log10_g))
        density = (self.mass / area).ravel()
        order = np.argsort(-density, kind="stable")
        inside = np.searchsorted(np.cumsum(self.mass.ravel()[order]), level)
        return float(density[order[min(int(inside), order.size - 1)]])

    def highest_density(self, level: float) -> BoolArray:
        """Bins of the highest-density region of credibility ``level``, shape (n_m, n_g)."""
        area = np.outer(np.diff(self.log10_m_ev), np.diff(self.log10_g))
        return np.asarray(self.mass / area >= self.threshold(level))

    def upper_limits(self, level: float = 0.95, *, least_draws: float = 100.0) -> Array:
        """One-sided limit on g in GeV^-1 in each column of mass, shape (n_m,).

        The quantile of g given that m_a lies in the column, linear in log10 g within a bin; NaN
        where a column holds too few draws to know it.

        Args:
            level: Credibility of g being below the limit.
            least_draws: Effective draws that a column needs; 100 know a quantile of 95 % to about
                two percent of probability.
        """
        _check_level(level)
        limits = np.full(self.mass.shape[0], np.nan)
        for i, column in enumerate(self.mass):
            if self.draws[i] < least_draws or not column.sum() > 0:
                continue
            below = np.concatenate([[0.0], np.cumsum(column)]) / column.sum()
            # Bins without mass have no inverse: only steps count.
            steps = np.concatenate([[True], np.diff(below) > 0])
            limits[i] = 10 ** np.interp(level, below[steps], self.log10_g[steps])
        return limits

    @property
    def m_ev(self) -> Array:
        """Middle of the columns, in eV."""
        return np.asarray(10 ** (0.5 * (self.log10_m_ev[1:] + self.log10_m_ev[:-1])))


@dataclass(frozen=True)
class ExpectedLimits:
    """Limits of simulated observations without ALPs.

    Attributes:
        m_ev: Middle of the columns of mass in eV, shape (n_m,).
        limits: Limit of each toy in GeV^-1, shape (n_toys, n_m).
        level: Credibility of each limit.
    """

    m_ev: Array
    limits: Array
    level: float

    def quantile(self, probability: float | Sequence[float]) -> Array:
        """Quantiles over the toys, shape (n_m,) or (n_probabilities, n_m); 0.5 is the median."""
        return np.asarray(np.nanquantile(self.limits, probability, axis=0))

    def bands(self) -> Mapping[str, Array]:
        """Median and the ends of the bands that hold 68 and 95 % of toys, each (n_m,)."""
        names = ("low95", "low68", "median", "high68", "high95")
        return dict(zip(names, self.quantile((0.025, 0.16, 0.5, 0.84, 0.975)), strict=True))


def expected_limits(
    posterior: Posterior,
    simulator: Simulator,
    point: str | Mapping[str, float] = "no-alp",
    *,
    n_toys: int = 100,
    level: float = 0.95,
    n_m: int = 20,
    n_g: int = 60,
    flat_in_g: bool = False,
    rng: np.random.Generator,
) -> ExpectedLimits:
    """Limits that observations at one point would give, on average and in their spread.

    Args:
        posterior: Amortised posterior of m_a and g.
        simulator: Where toys come from.
        point: Benchmark point of the toys.
        n_toys: Number of toys.
        level: Credibility of the limits.
        n_m: Columns of mass.
        n_g: Bins of coupling.
        flat_in_g: As in `MassCouplingMap.from_draws`.
        rng: Source of the toys.

    Raises:
        ContractError: If the posterior is not amortised: truncated rounds closed in on one
            observation, and toys are others.
    """
    if not posterior.is_amortised:
        raise ContractError(
            "expected limits ask the posterior for many simulated observations, but truncated "
            "rounds closed in on one and cut off couplings that others allow; train without "
            "rounds (an amortised posterior) for expected limits"
        )
    theta = np.repeat(simulator.theta(point)[None], n_toys, axis=0)
    toys = simulator.simulate(theta, rng)
    maps = [
        MassCouplingMap.from_posterior(posterior, x[None], n_m=n_m, n_g=n_g, flat_in_g=flat_in_g)
        for x in toys
    ]
    return ExpectedLimits(maps[0].m_ev, np.stack([m.upper_limits(level) for m in maps]), level)


def _check_level(level: float) -> None:
    if not 0.0 < level < 1.0:
        raise ContractError(f"a level is a probability between 0 and 1; got {level}")
