r"""The distribution of the statistic at fixed parameters, from toys.

Toys at :math:`\theta_0` give the law of :math:`t(\theta_0)`: how often asymptotic regions cover,
and the critical values with which regions cover by construction (Neyman). Both go through the
records of `diagnostics.frequentist`, which the coverage of posteriors uses too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from sbi_physics.diagnostics.frequentist import (
    CriticalValues,
    FrequentistCoverage,
    coverage_at_points,
    fit_critical_values,
)
from sbi_physics.diagnostics.json_numbers import from_list, to_list
from sbi_physics.diagnostics.json_record import JsonRecord, check_schema
from sbi_physics.errors import ValidationError
from sbi_physics.likelihood.fit import minimise
from sbi_physics.likelihood.pool import EventPool
from sbi_physics.likelihood.ratio import LikelihoodRatio
from sbi_physics.progress import SILENT, Progress
from sbi_physics.seeding import check_seed, fresh_seed, generator
from sbi_physics.types import FloatArray

SCHEMA: Final = 1
_STREAM = 31


@dataclass(frozen=True, slots=True, eq=False)
class ToyStatistics(JsonRecord):
    """t at the true parameters of toys.

    Attributes:
        names: The parameters of interest; all others were profiled, or held.
        held: Values of held parameters.
        points: Values of the parameters of interest, shape (point, param).
        statistic: t there, shape (point, toy).
        best: Best values of the parameters of interest, shape (point, toy, param).
        below_floor: Mean fraction of events whose ratio was raised to the model's floor, shape
            (point,).
        seed: Seed of the toys.
    """

    names: tuple[str, ...]
    held: Mapping[str, float]
    points: FloatArray
    statistic: FloatArray
    best: FloatArray
    below_floor: FloatArray
    seed: int

    def coverage(
        self, levels: Sequence[float] = (0.683, 0.954), *, confidence: float = 0.95
    ) -> FrequentistCoverage:
        """Return how often regions with Wilks' thresholds contain the truth.

        Args:
            levels: Nominal coverages.
            confidence: Joint confidence of the binomial intervals.
        """
        credibility = special.gammainc(0.5 * len(self.names), 0.5 * self.statistic)
        return coverage_at_points(
            credibility,
            self.points,
            levels,
            names=self.names,
            region="likelihood ratio",
            confidence=confidence,
            seed=self.seed,
        )

    def quantile(self, level: float) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return the level-quantile of t at each point, with ends of its 95 % interval.

        The quantile is the order statistic that covers at least `level` of a new toy; the ends
        are the order statistics that the binomial law of ranks allows.

        Returns:
            Quantile, low and high end, each of shape (point,).

        Raises:
            ValidationError: If there are too few toys for the level.
        """
        n = self.statistic.shape[1]
        order = int(np.ceil((n + 1) * level - 1e-9))
        if not 0 < level < 1 or order > n:
            raise ValidationError(
                f"{n} toys cannot give the {level:.4g} quantile: run at least "
                f"{int(np.ceil(level / max(1 - level, 1e-12)))}"
            )
        spread = 1.96 * np.sqrt(n * level * (1 - level))
        ranked = np.sort(self.statistic, axis=1)
        low = max(int(np.floor(order - spread)), 1)
        high = min(int(np.ceil(order + spread)), n)
        return ranked[:, order - 1], ranked[:, low - 1], ranked[:, high - 1]

    def critical_values(self, level: float, *, degree: int = 2) -> CriticalValues:
        """Fit the quantile of t as a smooth function of the parameters (Neyman, interpolated).

        See `diagnostics.frequentist.fit_critical_values`; points should fill the box.
        """
        n = self.statistic.shape[1]
        # Toys first: neighbours in this order, of which every other one calibrates, then differ
        # in the point and both halves see all points.
        order = np.random.default_rng(0).permutation(self.statistic.size)
        theta = np.repeat(self.points, n, axis=0)[order]
        return fit_critical_values(theta, self.statistic.ravel()[order], level, degree=degree)

    def threshold(
        self, level: float, *, degree: int | None = None
    ) -> Callable[[FloatArray], FloatArray]:
        """Return critical values as a function of points (k, param), for `interval` and regions.

        Args:
            level: Wanted coverage.
            degree: Degree of a fit over all points; None interpolates between the quantiles of
                the points (one parameter only), constant beyond them.

        Raises:
            ValidationError: If several parameters are to be interpolated.
        """
        if degree is not None:
            return self.critical_values(level, degree=degree).at
        if len(self.names) != 1:
            raise ValidationError(
                f"critical values of {len(self.names)} parameters need a fit: give its degree"
            )
        order = np.argsort(self.points[:, 0])
        x, y = self.points[order, 0], self.quantile(level)[0][order]
        return lambda points: np.interp(np.asarray(points)[:, 0], x, y)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready description."""
        arrays = {name: to_list(getattr(self, name)) for name in _ARRAYS}
        return {
            "schema": SCHEMA,
            "names": list(self.names),
            "held": dict(self.held),
            "seed": self.seed,
            **arrays,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild from `to_dict`.

        Raises:
            ValidationError: If the schema is another one.
        """
        check_schema(data, "toy statistics", SCHEMA)
        return cls(
            names=tuple(data["names"]),
            held=dict(data["held"]),
            seed=data["seed"],
            **{name: from_list(data[name]) for name in _ARRAYS},
        )


_ARRAYS = ("points", "statistic", "best", "below_floor")


def run_toys(
    likelihood: LikelihoodRatio,
    pool: EventPool,
    points: ArrayLike,
    *,
    interest: Sequence[str] | None = None,
    held: Mapping[str, float] | None = None,
    n_toys: int = 1000,
    seed: int | None = None,
    progress: Progress = SILENT,
) -> ToyStatistics:
    """Compute t at the truth for toys of each point.

    Args:
        likelihood: The likelihood under test, exact or learned.
        pool: Where toys come from; its `events` are what the likelihood sees.
        points: True values of *all* parameters, shape (point, d).
        interest: Names of the parameters of interest; all by default. The others are profiled.
        held: Parameters held in every fit at these values, which must be those of the points.
        n_toys: Toys at each point; 1000 give 0.007 on a coverage of 95 %.
        seed: Seed; drawn and recorded when None.
        progress: Where to show progress.

    Raises:
        ValidationError: If held values are not the true ones, or the pool is too small.
        UnknownNameError: If a name is unknown.
    """
    seed = fresh_seed() if seed is None else check_seed(seed)
    theta = likelihood.points(points)
    fixed = dict(held or {})
    parameters = likelihood.model.prior.parameters
    for name, value in fixed.items():
        if not np.allclose(theta[:, parameters.index(name)], value):
            raise ValidationError(f"{name} is held at {value:g}, but points have other values")
    names = tuple(n for n in likelihood.names if n not in fixed) if interest is None else interest
    columns = parameters.indices(names)
    if n_toys < 1 or not len(names) or any(n in fixed for n in names):
        raise ValidationError("toys need a parameter of interest that is not held, and n_toys > 0")
    inside = likelihood.model.prior.contains(theta)
    if not inside.all():
        raise ValidationError(f"the point {theta[~inside][0].tolist()} is outside the box of fits")
    nuisances = len(names) + len(fixed) < likelihood.d
    statistic = np.empty((len(theta), n_toys))
    best = np.empty((len(theta), n_toys, len(names)))
    below = np.zeros(len(theta))
    with progress.task("toys", len(theta) * n_toys, "toy") as task:
        for i, point in enumerate(theta):
            rng = generator(seed, "validation", _STREAM, i)
            toys = pool.toys(point, n_toys, rng, normalisation_sd=likelihood.normalisation_sd)
            at_truth = {
                **fixed,
                **{n: float(point[c]) for n, c in zip(names, columns, strict=True)},
            }
            for j, data in enumerate(toys):
                found = minimise(likelihood, data, fixed, point[None])
                if nuisances:
                    starts = np.stack([point, found.theta])
                    here = minimise(likelihood, data, at_truth, starts, search=False)
                    value = here.minus2_log_ratio
                else:
                    value = float(likelihood.minus2_log_ratio(point, data)[0])
                statistic[i, j] = max(value - found.minus2_log_ratio, 0.0)
                best[i, j] = found.theta[columns]
                below[i] += found.below_floor / n_toys
                task.advance()
    return ToyStatistics(tuple(names), fixed, theta[:, columns], statistic, best, below, seed)
