"""From posteriors of mass and coupling to contours and limits, in eV and GeV^-1.

Everything is read off a map of posterior mass on a grid in log10 m_a and log10 g: highest-density
regions, and one-sided limits on g in each column of mass. A limit is a quantile of g given m_a and
so depends on the prior of g; ``flat_in_g`` turns a log-uniform prior into a uniform one.

A posterior of m_a and g alone, or one with a marginal of them, is evaluated on the grid. Any other
posterior is drawn from, `DRAWS_PER_COLUMN` draws for each column of mass on average: the limit of
a column with as many is a quantile known to 0.7 percent of probability at 95 %.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from sbi_physics import Posterior, Simulator
from sbi_physics.errors import ContractError, ObservationError

Array = np.ndarray[Any, np.dtype[np.float64]]
BoolArray = np.ndarray[Any, np.dtype[np.bool_]]

EV_PER_NEV: Final = 1e-9
INVERSE_GEV_PER_G11: Final = 1e-11
DRAWS_PER_COLUMN: Final = 1000
"""Draws of a posterior of more parameters than m_a and g, for each column of mass on average."""

_PLANE: Final = {"m_a", "g"}


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
            m_nev: Masses in neV, positive, shape (n,).
            g11: Couplings in 1e-11 GeV^-1, not negative, shape (n,).
            log10_m_ev: Edges in log10 of the mass in eV, increasing, shape (n_m + 1,).
            log10_g: Edges in log10 of the coupling in GeV^-1, increasing, shape (n_g + 1,).
            weights: Weights of the draws, not negative, shape (n,).
            flat_in_g: Reweight a posterior under a log-uniform prior of g to one under a uniform.

        Raises:
            ContractError: If draws, weights or edges are not as above, or no draw lies on the
                grid.
        """
        m, g = np.asarray(m_nev, dtype=np.float64), np.asarray(g11, dtype=np.float64)
        w = np.ones(m.shape) if weights is None else np.asarray(weights, dtype=np.float64)
        if m.ndim != 1 or not m.shape == g.shape == w.shape:
            raise ContractError(
                f"m_nev, g11 and weights must have one shape (n,); they have {m.shape}, {g.shape} "
                f"and {w.shape}"
            )
        if not ((m > 0).all() and (g >= 0).all() and (w >= 0).all()):
            raise ContractError("masses must be positive, couplings and weights not negative")
        if flat_in_g:
            w = w * g
        edges = [_edges("log10_m_ev", log10_m_ev), _edges("log10_g", log10_g)]
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
        draws_per_column: int = DRAWS_PER_COLUMN,
        rng: np.random.Generator | None = None,
    ) -> MassCouplingMap:
        """Map of a posterior for one observation, on its whole prior of m_a and g.

        A posterior of m_a and g, or of blocks one of which is m_a and g (its ``marginal``), is
        evaluated at the middle of each bin. From any other posterior that infers m_a and g among
        more parameters, ``n_m * draws_per_column`` draws are taken and the others left out; draws
        from weighted points (ratio engines) count as as many as there are effective points.

        Args:
            posterior: A posterior that infers m_a and g.
            x: The observation, shape (1, *observable.shape) or observable.shape.
            n_m: Bins of mass.
            n_g: Bins of coupling.
            flat_in_g: As in `from_draws`.
            draws_per_column: Draws for each bin of mass, on average, where the map is drawn.
            rng: Source of these draws; None: always the same.

        Raises:
            ContractError: If the posterior does not infer m_a and g jointly, or a number is not
                positive.
            ObservationError: If ``x`` is more than one observation, or not the one that a
                truncated posterior is for.
        """
        for name, number in (("n_m", n_m), ("n_g", n_g), ("draws_per_column", draws_per_column)):
            _check_number(name, number)
        data = posterior.observable.check(x)
        if len(data) != 1:
            raise ObservationError(
                f"a map is of one observation; got {len(data)}, of shape {data.shape[1:]} each"
            )
        posterior.require_valid_for(data, "use from_draws with draws of any_observation=True")
        plane = _of_the_plane(posterior)
        bounds = dict(zip(posterior.prior.names, posterior.prior.bounds, strict=True))
        edges = [
            np.linspace(float(np.log10(low)), float(np.log10(high)), n + 1)
            for (low, high), n in ((bounds["m_a"], n_m), (bounds["g"], n_g))
        ]
        in_ev = edges[0] + np.log10(EV_PER_NEV), edges[1] + np.log10(INVERSE_GEV_PER_G11)
        if plane is not None:
            mass = _evaluated(plane, data, edges, flat_in_g)
            return cls(*in_ev, mass, np.full(n_m, np.inf))
        rng = np.random.default_rng(0) if rng is None else rng
        drawn = posterior.draw(data, n_m * draws_per_column, rng)
        m, g = (drawn.theta[0, :, posterior.prior.names.index(name)] for name in ("m_a", "g"))
        found = cls.from_draws(m, g, log10_m_ev=in_ev[0], log10_g=in_ev[1], flat_in_g=flat_in_g)
        if drawn.ess is None:
            return found
        share = min(1.0, float(drawn.ess[0]) / (n_m * draws_per_column))
        return replace(found, draws=found.draws * share)

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
    draws_per_column: int = DRAWS_PER_COLUMN,
    rng: np.random.Generator,
) -> ExpectedLimits:
    """Limits that observations at one point would give, on average and in their spread.

    Every toy has a map of its own, `MassCouplingMap.from_posterior`, evaluated or drawn as is said
    there. In a drawn one the limit of a column is missing (NaN, and left out of the bands) where
    fewer than 100 effective draws fall into it; more of them are a matter of ``draws_per_column``.

    Args:
        posterior: Amortised posterior that infers m_a and g.
        simulator: Where toys come from.
        point: Benchmark point of the toys.
        n_toys: Number of toys, at least 1.
        level: Credibility of the limits.
        n_m: Columns of mass.
        n_g: Bins of coupling.
        flat_in_g: As in `MassCouplingMap.from_draws`.
        draws_per_column: As in `MassCouplingMap.from_posterior`; one toy takes ``n_m`` times as
            many draws.
        rng: Source of the toys; draws for them come from its children, so that the toys are the
            same for every posterior.

    Raises:
        ContractError: If the posterior is truncated, and so holds for one observation only, does
            not infer m_a and g jointly, or a number is not positive.
    """
    _check_level(level)
    _check_number("n_toys", n_toys)
    if not posterior.is_amortised:
        raise ContractError(
            "expected limits need an amortised posterior: this one comes from truncated rounds "
            "and holds for their observation only, not for toys; train one on the whole prior"
        )
    theta = np.repeat(simulator.theta(point)[None], n_toys, axis=0)
    toys = simulator.simulate(theta, rng)
    maps = [
        MassCouplingMap.from_posterior(
            posterior,
            x[None],
            n_m=n_m,
            n_g=n_g,
            flat_in_g=flat_in_g,
            draws_per_column=draws_per_column,
            rng=child,
        )
        for x, child in zip(toys, rng.spawn(n_toys), strict=True)
    ]
    return ExpectedLimits(maps[0].m_ev, np.stack([m.upper_limits(level) for m in maps]), level)


def _of_the_plane(posterior: Posterior) -> Posterior | None:
    """The posterior of m_a and g alone; None where it has to be drawn from the one of more."""
    missing = sorted(_PLANE - set(posterior.prior.names))
    if missing:
        raise ContractError(
            f"the posterior is of {', '.join(posterior.prior.names)}; a map needs m_a and g, and "
            f"{', '.join(missing)} is not inferred"
        )
    if len(posterior.blocks) == 1:
        return posterior if len(posterior.prior.names) == 2 else None
    # Answers for blocks: as a whole such a posterior is blind to correlations.
    marginal = getattr(posterior, "marginal", None)
    for block in posterior.blocks:
        if set(block) == _PLANE and marginal is not None:
            plane: Posterior = marginal(block)
            return plane
    raise ContractError(
        f"the posterior answers for the blocks {'; '.join(map(', '.join, posterior.blocks))}, "
        f"not for m_a and g jointly; train it with a block of both"
    )


def _evaluated(
    posterior: Posterior, x: ArrayLike, edges: Sequence[Array], flat_in_g: bool
) -> Array:
    """Mass of the bins of a posterior of m_a and g between edges in log10, (n_m, n_g)."""
    m, g = (10 ** (0.5 * (e[1:] + e[:-1])) for e in edges)
    grid = {"m_a": np.repeat(m, g.size), "g": np.tile(g, m.size)}
    theta = np.stack([grid[name] for name in posterior.prior.names], axis=1)
    log_density = posterior.log_prob(theta, x)[0]
    # d theta = m g d ln m d ln g; a flat prior of g has one more factor of g.
    power = 2.0 if flat_in_g else 1.0
    log_mass = log_density + np.log(grid["m_a"]) + power * np.log(grid["g"])
    mass = np.exp(log_mass - log_mass.max()).reshape(m.size, g.size)
    return np.asarray(mass / mass.sum())


def _edges(name: str, values: ArrayLike) -> Array:
    edges = np.asarray(values, dtype=np.float64)
    if edges.ndim != 1 or edges.size < 2 or not (np.diff(edges) > 0).all():
        what = f"{edges:g}" if edges.ndim == 0 else f"shape {edges.shape}"
        raise ContractError(
            f"{name} must be the edges of bins, at least two increasing numbers; got {what}"
        )
    return edges


def _check_number(name: str, number: int) -> None:
    if number < 1:
        raise ContractError(f"{name} is {number}; accepted is a number from 1")


def _check_level(level: float) -> None:
    if not 0.0 < level < 1.0:
        raise ContractError(f"a level is a probability between 0 and 1; got {level}")
