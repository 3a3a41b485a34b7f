r"""Frequentist coverage of regions, and regions that have it.

A credible region need not contain a *fixed* :math:`\theta` with its nominal probability, least of
all near the ends of a prior; its coverage there is shown, never judged.

Regions with nominal coverage at every :math:`\theta_0` come from a test statistic
:math:`\tau(x; \theta_0)` and its critical value, learned by quantile regression on simulated pairs
(LF2I, arXiv:2107.03920):

.. math:: \{\theta_0: \tau(x; \theta_0) \le C(\theta_0)\}, \qquad
          P(\tau(x; \theta_0) \le C(\theta_0) \mid \theta_0) = \text{level}.

WALDO (arXiv:2205.15680) needs nothing but mean and covariance of the posterior,

.. math:: \tau = (\mathrm{E}[\theta|x] - \theta_0)^T\, \mathrm{V}[\theta|x]^{-1}\,
          (\mathrm{E}[\theta|x] - \theta_0).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any, Final, Self

import numpy as np

from sbi_physics.diagnostics.bands import clopper_pearson
from sbi_physics.diagnostics.json_numbers import from_list, to_list
from sbi_physics.diagnostics.json_record import JsonRecord, check_schema
from sbi_physics.errors import ValidationError
from sbi_physics.types import BoolArray, FloatArray

SCHEMA: Final = 1
_SMALLEST = 1e-12
_RIDGE = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class FrequentistCoverage(JsonRecord):
    """How often a region contains the truth, at fixed true parameters.

    Attributes:
        region: `hpd`, or the name of a parameter for its central interval.
        names: Names of the parameters that were fixed.
        points: Their values, shape (point, param).
        levels: Nominal credibilities, shape (level,).
        coverage: Fraction of toys whose region contains the truth, shape (point, level).
        low: Lower end of its Clopper-Pearson interval, shape (point, level).
        high: Upper end.
        n_toys: Usable toys of each point, shape (point,).
        confidence: Joint confidence of all intervals.
        seed: Seed of toys and draws.
    """

    region: str
    names: tuple[str, ...]
    points: FloatArray
    levels: FloatArray
    coverage: FloatArray
    low: FloatArray
    high: FloatArray
    n_toys: FloatArray
    confidence: float
    seed: int

    @property
    def undercovers(self) -> BoolArray:
        """Where the coverage is shown to be below nominal, shape (point, level)."""
        return np.asarray(self.high < self.levels)

    @property
    def overcovers(self) -> BoolArray:
        """Where the coverage is shown to be above nominal, shape (point, level)."""
        return np.asarray(self.low > self.levels)

    def summary(self) -> str:
        """Return a table as plain text; `-` marks under-, `+` over-coverage."""
        heads = "".join(f"{100 * level:>26.4g} %" for level in self.levels)
        lines = [f"{', '.join(self.names):<30}{heads}"]
        for i, point in enumerate(self.points):
            marks = np.where(self.undercovers[i], "-", np.where(self.overcovers[i], "+", " "))
            cells = "".join(
                f"{c:>10.3f} [{a:.3f}, {b:.3f}] {m}"
                for c, a, b, m in zip(
                    self.coverage[i], self.low[i], self.high[i], marks, strict=True
                )
            )
            lines.append(f"{', '.join(f'{v:.4g}' for v in point):<30}{cells}")
        lines.append(
            f"{self.region} regions, {int(self.n_toys.min())} or more toys each, intervals hold "
            f"jointly at {self.confidence:.0%}; seed {self.seed}"
        )
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready description."""
        arrays = {name: to_list(getattr(self, name)) for name in _ARRAYS}
        return {
            "schema": SCHEMA,
            "region": self.region,
            "names": list(self.names),
            "confidence": self.confidence,
            "seed": self.seed,
            **arrays,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild from `to_dict`.

        Raises:
            ValidationError: If the schema is another one.
        """
        check_schema(data, "frequentist coverage", SCHEMA)
        return cls(
            region=data["region"],
            names=tuple(data["names"]),
            confidence=data["confidence"],
            seed=data["seed"],
            **{name: from_list(data[name]) for name in _ARRAYS},
        )


_ARRAYS = ("points", "levels", "coverage", "low", "high", "n_toys")


def coverage_at_points(
    credibility: FloatArray,
    points: FloatArray,
    levels: Sequence[float],
    *,
    names: Sequence[str],
    region: str = "hpd",
    confidence: float = 0.95,
    seed: int = 0,
) -> FrequentistCoverage:
    """Count how often regions contain the truth at fixed points.

    Args:
        credibility: Credibility of the region that just contains the truth, for toys simulated at
            each point, shape (point, toy); NaN for toys that could not be used.
        points: True parameters, shape (point, param).
        levels: Nominal credibilities in (0, 1).
        names: Names of the parameters.
        region: What the regions are.
        confidence: Joint confidence of all intervals (Bonferroni over points and levels).
        seed: Recorded.

    Raises:
        ValidationError: If shapes disagree, a level is out of range or a point has no toy.
    """
    wanted = np.asarray(levels, dtype=np.float64)
    if wanted.ndim != 1 or len(wanted) == 0 or (wanted <= 0).any() or (wanted >= 1).any():
        raise ValidationError(f"levels must lie between 0 and 1, got {list(levels)}")
    if credibility.ndim != 2 or points.shape != (len(credibility), len(names)):
        raise ValidationError(
            f"credibilities of shape {credibility.shape} need points of shape (point, "
            f"{len(names)}), got {points.shape}"
        )
    known = ~np.isnan(credibility)
    toys = known.sum(axis=1)
    if len(toys) == 0 or toys.min() == 0:
        raise ValidationError("every point needs at least one usable toy")
    each = 1.0 - (1.0 - confidence) / (len(points) * len(wanted))
    hits = ((credibility[..., None] <= wanted) & known[..., None]).sum(axis=1)
    ends = [clopper_pearson(h, int(n), each) for h, n in zip(hits, toys, strict=True)]
    return FrequentistCoverage(
        region=region,
        names=tuple(names),
        points=points,
        levels=wanted,
        coverage=hits / toys[:, None],
        low=np.stack([low for low, _ in ends]),
        high=np.stack([high for _, high in ends]),
        n_toys=toys.astype(np.float64),
        confidence=confidence,
        seed=seed,
    )


def waldo(theta: FloatArray, draws: FloatArray) -> FloatArray:
    """Return the WALDO statistic (arXiv:2205.15680).

    Args:
        theta: Points, shape (batch, point, param).
        draws: Posterior draws of each observation in the same coordinates, shape (batch, draw,
            param).

    Returns:
        Shape (batch, point).
    """
    mean = draws.mean(axis=1, keepdims=True)
    shifted = draws - mean
    covariance = shifted.transpose(0, 2, 1) @ shifted / draws.shape[1]
    d = draws.shape[2]
    # A relative floor keeps parameters that do not vary finite.
    scale = np.trace(covariance, axis1=1, axis2=2)[:, None, None] / d
    regular = covariance + (_RIDGE * scale + _SMALLEST) * np.eye(d)
    residual = theta - mean
    solved = np.linalg.solve(regular, residual.transpose(0, 2, 1)).transpose(0, 2, 1)
    statistic: FloatArray = (residual * solved).sum(axis=-1)
    return statistic


@dataclass(frozen=True, slots=True, eq=False)
class CriticalValues:
    """The level-quantile of a statistic as a function of the true parameters.

    A polynomial of the logarithm, fitted by quantile regression.

    Attributes:
        level: Probability that the statistic stays below.
        degree: Degree of the polynomial.
        centre: Centre of the coordinates, shape (param,).
        spread: Their unit, shape (param,).
        coefficients: One for each monomial, shape (monomial,).
    """

    level: float
    degree: int
    centre: FloatArray
    spread: FloatArray
    coefficients: FloatArray

    def at(self, theta: FloatArray) -> FloatArray:
        """Return critical values at points with shape (..., param), shape (...)."""
        design = _monomials((theta - self.centre) / self.spread, self.degree)
        values: FloatArray = np.exp(design @ self.coefficients)
        return values

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready description."""
        arrays = {k: to_list(getattr(self, k)) for k in ("centre", "spread", "coefficients")}
        return {"level": self.level, "degree": self.degree, **arrays}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild from `to_dict`."""
        arrays = {k: from_list(data[k]) for k in ("centre", "spread", "coefficients")}
        return cls(level=data["level"], degree=data["degree"], **arrays)


def fit_critical_values(
    theta: FloatArray, statistic: FloatArray, level: float, *, degree: int = 2
) -> CriticalValues:
    """Learn critical values from simulated pairs.

    The polynomial is fitted on the pairs with even numbers; the others then shift it by a
    split-conformal quantile (arXiv:1905.03222), so that the coverage averaged over the pairs'
    prior is right at any number of pairs, however well a polynomial fits.

    Args:
        theta: True parameters, in coordinates of about unit size, shape (pairs, param).
        statistic: Statistic at the truth of each pair, not negative, shape (pairs,).
        level: Wanted coverage in (0, 1).
        degree: Degree of the polynomial, 0 to 4.

    Raises:
        ValidationError: If there are too few pairs for level or degree, or values are not finite.
    """
    if not 0.0 < level < 1.0 or degree not in range(5):
        raise ValidationError(
            f"critical values need 0 < level < 1 and degree 0 to 4, got {level:g} and {degree}"
        )
    if theta.ndim != 2 or statistic.shape != theta.shape[:1]:
        raise ValidationError(
            f"theta must be (pairs, param) and the statistic (pairs,), got {theta.shape} and "
            f"{statistic.shape}"
        )
    if not np.isfinite(theta).all() or not np.isfinite(statistic).all() or (statistic < 0).any():
        raise ValidationError("theta and statistic must be finite, the statistic not negative")
    centre, spread = theta.mean(axis=0), theta.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    design = _monomials((theta - centre) / spread, degree)
    target = np.log(np.maximum(statistic, _SMALLEST))
    fitted, held = slice(0, None, 2), slice(1, None, 2)
    n_tail = min(level, 1.0 - level) * len(target[fitted])
    order = int(np.ceil((len(target[held]) + 1) * level - 1e-9))
    if n_tail < 5 * design.shape[1] or order > len(target[held]):
        raise ValidationError(
            f"{len(target)} pairs are too few for a {level:.1%} critical value with "
            f"{design.shape[1]} coefficients: simulate at least "
            f"{int(np.ceil(10 * design.shape[1] / min(level, 1.0 - level)))} or lower the degree"
        )
    coefficients = _quantile_regression(design[fitted], target[fitted], level)
    residual = np.sort(target[held] - design[held] @ coefficients)
    coefficients[0] += residual[order - 1]
    return CriticalValues(level, degree, centre, spread, coefficients)


def _quantile_regression(design: FloatArray, target: FloatArray, level: float) -> FloatArray:
    """Minimise the pinball loss exactly, as a linear programme."""
    from scipy import sparse
    from scipy.optimize import linprog

    n, k = design.shape
    cost = np.concatenate([np.zeros(k), np.full(n, level), np.full(n, 1.0 - level)])
    eye = sparse.identity(n, format="csc")
    equal = sparse.hstack([sparse.csc_matrix(design), eye, -eye], format="csc")
    bounds = [(None, None)] * k + [(0, None)] * (2 * n)
    found = linprog(cost, A_eq=equal, b_eq=target, bounds=bounds, method="highs")
    if found.status != 0:
        raise ValidationError(f"the quantile regression failed: {found.message}")
    coefficients: FloatArray = found.x[:k]
    return coefficients


def _monomials(z: FloatArray, degree: int) -> FloatArray:
    """All monomials up to a degree, shape (..., monomial); the first is one."""
    d = z.shape[-1]
    columns = [np.ones(z.shape[:-1])]
    for power in range(1, degree + 1):
        for chosen in combinations_with_replacement(range(d), power):
            columns.append(z[..., list(chosen)].prod(axis=-1))
    return np.stack(columns, axis=-1)
