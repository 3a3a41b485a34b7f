"""Confidence: how credible regions cover at fixed parameters, and regions that cover as stated.

See `diagnostics.frequentist` for the statistics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from sbi_physics.diagnostics.expected_coverage import central_credibility
from sbi_physics.diagnostics.frequentist import (
    CriticalValues,
    FrequentistCoverage,
    coverage_at_points,
    fit_critical_values,
    waldo,
)
from sbi_physics.diagnostics.ranks import pit_values
from sbi_physics.errors import ContractError, ValidationError, unknown_name
from sbi_physics.pair_draws import draws_of, usable_pairs
from sbi_physics.posterior import Posterior
from sbi_physics.progress import SILENT, Progress
from sbi_physics.seeding import check_seed, fresh_seed, generator
from sbi_physics.simulator import Simulator
from sbi_physics.store import Simulations
from sbi_physics.types import BoolArray, DataArray, FloatArray

STATISTICS: Final = ("waldo", "ratio")
N_DRAWS: Final = 999
_STREAM = 23
_BATCH = 200


def frequentist_coverage(
    posterior: Posterior,
    simulator: Simulator,
    points: Sequence[Mapping[str, float]] | ArrayLike,
    *,
    levels: Sequence[float] = (0.683, 0.954),
    region: str = "hpd",
    n_toys: int = 1000,
    n_draws: int = N_DRAWS,
    seed: int | None = None,
    progress: Progress = SILENT,
) -> FrequentistCoverage:
    """Measure how often credible regions contain fixed true parameters.

    Credible regions are right on average over the prior; at a fixed point they need not be. A
    deviation is a fact about Bayesian regions, not a failure of the posterior.

    Args:
        posterior: A posterior with densities (for `hpd`).
        simulator: Where toys come from.
        points: True values of *all* parameters of the simulator, nuisances included: mappings from
            name to value, or an array of shape (point, param).
        levels: Nominal credibilities.
        region: `hpd`, or the name of an inferred parameter for its central interval.
        n_toys: Toys at each point; 1000 give 0.007 on a coverage of 95 %.
        n_draws: Posterior draws for each toy.
        seed: Seed of toys and draws; drawn and recorded when None.
        progress: Where to show progress.

    Raises:
        ValidationError: If a point lies outside the prior or no toy of it is usable.
        UnknownNameError: If the region is no parameter.
    """
    seed = fresh_seed() if seed is None else check_seed(seed)
    names = posterior.prior.names
    if region != "hpd" and region not in names:
        raise unknown_name("region", region, ("hpd", *names))
    if n_toys < 1 or n_draws < 1:
        raise ValidationError(f"n_toys and n_draws must be at least 1, got {n_toys}, {n_draws}")
    prior = posterior.context.simulation_prior or simulator.prior
    theta = _points(points, simulator)
    outside = ~prior.contains(theta)
    if outside.any():
        raise ValidationError(
            f"the point {theta[outside][0].tolist()} lies outside the prior of the simulations"
        )
    columns = simulator.parameters.indices(names)
    credibility = np.full((len(theta), n_toys), np.nan)
    with progress.task("toys", len(theta) * n_toys, "toy") as task:
        for i, point in enumerate(theta):
            for batch, start in enumerate(range(0, n_toys, _BATCH)):
                size = min(_BATCH, n_toys - start)
                rng = generator(seed, "validation", _STREAM, i, batch)
                x = np.asarray(simulator.simulate(np.repeat(point[None], size, axis=0), rng))
                good = np.flatnonzero(np.isfinite(x.reshape(size, -1)).all(axis=1))
                if len(good):
                    truth = np.repeat(point[None, columns], len(good), axis=0)
                    found = _credibility(posterior, x[good], truth, region, n_draws, rng)
                    credibility[i, start + good] = found
                task.advance(size)
    return coverage_at_points(
        credibility, theta, levels, names=simulator.parameters.names, region=region, seed=seed
    )


class ConfidenceRegions:
    """Regions that contain a fixed truth with the stated probability, whatever the posterior.

    Made by `confidence_regions`.

    Attributes:
        posterior: The posterior behind the statistic.
        statistic_name: `waldo` or `ratio`.
        critical: Critical values as a function of the parameters in scaled coordinates.
        seed: Seed of the draws behind the statistic.
    """

    def __init__(
        self, posterior: Posterior, statistic_name: str, critical: CriticalValues, seed: int
    ) -> None:
        self.posterior, self.statistic_name = posterior, statistic_name
        self.critical, self.seed = critical, seed

    def __repr__(self) -> str:
        return f"ConfidenceRegions({self.statistic_name}, {self.critical.level:.1%})"

    @property
    def level(self) -> float:
        """Nominal coverage."""
        return self.critical.level

    def statistic(
        self, theta: ArrayLike, x: ArrayLike, *, any_observation: bool = False
    ) -> FloatArray:
        """Return the test statistic of points at observations.

        Args:
            theta: Points, shape (batch, k, d), or (k, d) for the same points at every observation.
            x: Observations, shape (batch, *observable.shape).
            any_observation: Evaluate under the truncated prior where the posterior is not
                `valid_for` an observation, as a test of the regions needs, instead of refusing.

        Returns:
            Shape (batch, k), not negative.

        Raises:
            ObservationError: As in `Posterior.sample`.
        """
        if not any_observation:
            self.posterior.require_valid_for(x, "pass any_observation=True")
        data = self.posterior.observable.check(x)
        points = np.asarray(theta, dtype=np.float64)
        if points.ndim == 2:
            points = np.broadcast_to(points, (len(data), *points.shape))
        return _statistic(self.posterior, self.statistic_name, points, data, self.seed)

    def contains(
        self, theta: ArrayLike, x: ArrayLike, *, any_observation: bool = False
    ) -> BoolArray:
        """Return whether points lie in the region of each observation, shape (batch, k).

        A region is drawn by asking for a grid of points. Arguments are those of `statistic`.
        """
        points = np.asarray(theta, dtype=np.float64)
        limits = self.critical.at(self.posterior.prior.scaled(points))
        return np.asarray(self.statistic(points, x, any_observation=any_observation) <= limits)


def confidence_regions(
    posterior: Posterior,
    pairs: Simulations,
    *,
    level: float = 0.9,
    statistic: str = "waldo",
    degree: int = 2,
    seed: int | None = None,
    training: Simulations | None = None,
) -> ConfidenceRegions:
    """Calibrate regions to nominal coverage at every parameter (Neyman's construction, learned).

    Args:
        posterior: Any posterior; a better one gives smaller regions, not better coverage.
        pairs: Fresh simulations, spent on the calibration: do not test the regions on them.
        level: Coverage.
        statistic: `waldo` (posterior mean and covariance, arXiv:2205.15680) or `ratio`
            (2 [max log r - log r], with r the posterior density over the prior's).
        degree: Degree of the polynomial for the logarithm of the critical value.
        seed: Seed of draws; drawn and recorded when None.
        training: The training simulations, if at hand: shared ones are then found by content.

    Raises:
        UnknownNameError: If the statistic is unknown.
        ValidationError: If the pairs cannot be used or are too few.
    """
    if statistic not in STATISTICS:
        raise unknown_name("statistic", statistic, STATISTICS)
    seed = fresh_seed() if seed is None else check_seed(seed)
    prior, theta, x = usable_pairs(posterior, pairs, training)
    values = _statistic(posterior, statistic, theta[:, None], x, seed)[:, 0]
    critical = fit_critical_values(prior.scaled(theta), values, level, degree=degree)
    return ConfidenceRegions(posterior, statistic, critical, seed)


def _statistic(
    posterior: Posterior, name: str, theta: FloatArray, x: DataArray, seed: int
) -> FloatArray:
    rng = generator(seed, "validation", _STREAM)
    draws = draws_of(posterior, x, N_DRAWS, posterior.prior.d, rng)
    prior = posterior.prior
    if name == "waldo":
        return waldo(prior.scaled(theta), prior.scaled(draws))
    log_r = posterior.log_prob(np.concatenate([theta, draws], axis=1), x, any_observation=True)
    own, drawn = log_r[:, : theta.shape[1]], log_r[:, theta.shape[1] :]
    own = own - prior.log_prob(theta)
    drawn = drawn - prior.log_prob(draws)
    # The maximum is that over the draws; a point above all of them is at the maximum itself.
    best: FloatArray = drawn.max(axis=1, keepdims=True)
    statistic: FloatArray = 2.0 * np.maximum(best - own, 0.0)
    return statistic


def _credibility(
    posterior: Posterior,
    x: DataArray,
    truth: FloatArray,
    region: str,
    n_draws: int,
    rng: np.random.Generator,
) -> FloatArray:
    jitter = rng.random(len(x))
    if region != "hpd":
        j = posterior.prior.names.index(region)
        draws = posterior.draw(x, n_draws, rng, any_observation=True).theta
        return central_credibility(pit_values(truth[:, j], draws[..., j], jitter))
    drawn = posterior.draw(x, n_draws, rng, log_prob=True, at=truth[:, None], any_observation=True)
    if drawn.log_prob is None or drawn.log_prob_at is None:
        raise ContractError(f"{posterior!r} returned no log densities")
    return 1.0 - pit_values(drawn.log_prob_at[:, 0], drawn.log_prob, jitter)


def _points(points: Sequence[Mapping[str, float]] | ArrayLike, simulator: Simulator) -> FloatArray:
    names = simulator.parameters.names
    rows: list[Any] = list(points) if isinstance(points, Sequence) else [*np.atleast_2d(points)]
    table: list[Any] = []
    for row in rows:
        if isinstance(row, Mapping):
            for name in row:
                if name not in names:
                    raise unknown_name("parameter", name, names)
            missing = [name for name in names if name not in row]
            if missing:
                raise ValidationError(
                    f"a point needs a value of every parameter; {', '.join(missing)} missing"
                )
            table.append([float(row[name]) for name in names])
        else:
            table.append(np.asarray(row, dtype=np.float64))
    theta = np.array(table, dtype=np.float64)
    if theta.ndim != 2 or theta.shape[1] != len(names) or len(theta) == 0:
        raise ValidationError(
            f"points must have shape (point, {len(names)}) for {', '.join(names)}, got "
            f"{theta.shape}"
        )
    return theta
