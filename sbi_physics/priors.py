r"""The prior over named parameters: a product of 1-d distributions, optionally constrained.

Engines learn in an unconstrained space made here, once for all of them: with the prior CDF
:math:`u = F(\theta)` and

.. math:: z = \operatorname{logit} u, \qquad
    \log\left|\frac{dz}{d\theta}\right| = \log p(\theta) - \log u - \log(1 - u),

so that :math:`z` is O(1), unbounded, and nothing leaks out of the prior.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from sbi_physics.constraints import Constraint
from sbi_physics.errors import ContractError
from sbi_physics.parameters import Parameter, ParameterSpace
from sbi_physics.types import BoolArray, FloatArray

_CLIP = 1e-9
"""Unconstrained coordinates reach this close to the ends of the unit cube: |z| <= 20.7."""

_TINY = 1e-16
_LARGEST_BLOCK = 2**18

_QUANTILES = (np.arange(4096) + 0.5) / 4096
_ACCEPTANCE_BLOCK = 2**16
_ACCEPTANCE_BLOCKS = 64
_ENOUGH_ACCEPTED = 4096
_MIN_ACCEPTANCE = 1e-4


class Prior:
    """A prior density over a `ParameterSpace`.

    Args:
        parameters: The parameters, in order; fixed ones keep their column in theta but carry no
            density.
        constraints: Predicates every draw satisfies; the density is renormalised accordingly.

    All methods accept any leading axes: theta has shape (..., d).
    """

    def __init__(
        self,
        parameters: ParameterSpace | Iterable[Parameter],
        constraints: Sequence[Constraint | str] = (),
    ) -> None:
        self.parameters = (
            parameters if isinstance(parameters, ParameterSpace) else ParameterSpace(parameters)
        )
        self.constraints = tuple(Constraint(c) if isinstance(c, str) else c for c in constraints)
        for constraint in self.constraints:
            self.parameters.indices(sorted(constraint.names))

    def __repr__(self) -> str:
        rules = (
            f", constraints={[c.expression for c in self.constraints]}" if self.constraints else ""
        )
        return f"Prior({', '.join(self.names)}{rules})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Prior) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(self.digest())

    @property
    def names(self) -> tuple[str, ...]:
        """Parameter names, in order."""
        return self.parameters.names

    @property
    def d(self) -> int:
        """Number of parameters, fixed ones included."""
        return len(self.parameters)

    @property
    def bounds(self) -> FloatArray:
        """Lower and upper ends, shape (d, 2)."""
        return np.array([p.bounds for p in self.parameters], dtype=np.float64)

    def sample(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Draw `n` points, shape (n, d)."""
        return self._accepted(n, lambda size: rng.random((size, self.d)))

    def quasi_sample(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Draw `n` points that fill the prior evenly (scrambled Sobol), shape (n, d).

        Averages over them converge faster than over `sample`; best with `n` a power of two.
        """
        from scipy.stats import qmc  # slow to import and rarely needed

        sequence = qmc.Sobol(self.d, rng=rng)
        return self._accepted(n, lambda size: sequence.random(2 ** (size - 1).bit_length()))

    def log_prob(self, theta: ArrayLike) -> FloatArray:
        """Log density in physical units, shape (...); `-inf` where the prior is zero."""
        points = self._points(theta)
        density: FloatArray = self._columnwise(points, _log_pdf).sum(axis=-1)
        if self.constraints:
            density = np.where(self._allowed(points), density - np.log(self._acceptance), -np.inf)
        return density

    def contains(self, theta: ArrayLike) -> BoolArray:
        """Whether points lie in the support, shape (...)."""
        points = self._points(theta)
        low, high = self.bounds.T
        inside: BoolArray = ((points >= low) & (points <= high)).all(axis=-1)
        return inside & self._allowed(points)

    def to_unit(self, theta: ArrayLike) -> FloatArray:
        """Map to the unit cube by the prior CDF of each parameter."""
        return self._columnwise(self._points(theta), lambda p, x: p.distribution.cdf(x))

    def from_unit(self, u: ArrayLike) -> FloatArray:
        """Inverse of `to_unit`."""
        return self._columnwise(self._points(u), lambda p, x: p.distribution.ppf(x))

    def to_unconstrained(self, theta: ArrayLike) -> FloatArray:
        """Map to logit(prior CDF), where engines train."""
        z: FloatArray = special.logit(np.clip(self.to_unit(theta), _CLIP, 1 - _CLIP))
        return z

    def from_unconstrained(self, z: ArrayLike) -> FloatArray:
        """Inverse of `to_unconstrained`; always finite and inside the bounds."""
        return self.from_unit(np.clip(special.expit(self._points(z)), _CLIP, 1 - _CLIP))

    def log_abs_det_unconstrained(self, theta: ArrayLike) -> FloatArray:
        """Log of |dz/dtheta|, shape (...); free parameters only."""
        points = self._points(theta)
        u = np.clip(self.to_unit(points), _CLIP, 1 - _CLIP)
        slope = self._columnwise(points, _log_pdf) - np.log(u) - np.log1p(-u)
        return self._sum_free(slope)

    def scaled(self, theta: ArrayLike) -> FloatArray:
        """Map to plot coordinates (log10 where the scale says so), in units of the prior's sd."""
        return self._columnwise(self._points(theta), _coordinate) / self._scaled_sd

    def log_abs_det_scaled(self, theta: ArrayLike) -> FloatArray:
        """Log of |d scaled / d theta|, shape (...); free parameters only."""
        slope = self._columnwise(self._points(theta), _log_slope) - np.log(self._scaled_sd)
        return self._sum_free(slope)

    def truncate(self, box: Mapping[str, tuple[float, float]]) -> Prior:
        """Return the renormalised prior inside a box given by name, in physical units."""
        narrowed = {}
        for name, (low, high) in box.items():
            parameter = self.parameters[name]
            narrowed[name] = replace(
                parameter,
                distribution=parameter.distribution.truncate(low, high),
                support=parameter.valid_range,
            )
        return Prior(self.parameters.replace(**narrowed), self.constraints)

    def select(self, names: Iterable[str]) -> Prior:
        """Return the marginal prior of some parameters, in the order given.

        Raises:
            ContractError: If a constraint ties a selected to a left-out parameter: the marginal is
                no product.
        """
        chosen = self.parameters.select(names)
        kept = []
        fixed = {p.name: p.bounds[0] for p in self.parameters if p.is_fixed}
        for full in self.constraints:
            left_out = {k: v for k, v in fixed.items() if k in full.names - set(chosen.names)}
            constraint = full.substitute(left_out) if left_out else full
            inside = constraint.names & set(chosen.names)
            if inside and inside != constraint.names:
                raise ContractError(
                    f"cannot marginalise the prior over {sorted(constraint.names - inside)}: the "
                    f"constraint {full.expression!r} ties it to {sorted(inside)}; infer all of "
                    "them or fix the others"
                )
            if inside:
                kept.append(constraint)
        return Prior(chosen, kept)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready description."""
        return {
            "parameters": self.parameters.to_list(),
            "constraints": [c.expression for c in self.constraints],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild from `to_dict`."""
        return cls(
            ParameterSpace.from_list(data["parameters"]), tuple(data.get("constraints", ()))
        )

    def digest(self) -> str:
        """SHA-256 of the canonical JSON form."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    @cached_property
    def _free(self) -> list[int]:
        return [i for i, p in enumerate(self.parameters) if not p.is_fixed]

    @cached_property
    def _scaled_sd(self) -> FloatArray:
        spreads = [
            float(np.std(_coordinate(p, p.distribution.ppf(_QUANTILES)))) for p in self.parameters
        ]
        return np.array([s if s > 0 else 1.0 for s in spreads])

    @cached_property
    def _acceptance(self) -> float:
        """Prior mass where the constraints hold."""
        from scipy.stats import qmc  # slow to import and rarely needed

        # Quasi-random with a fixed scramble: the normalisation is a property of the prior, not of
        # a run. More blocks are drawn where the constraints leave little.
        sequence = qmc.Sobol(self.d, rng=np.random.default_rng(0))
        accepted = total = 0
        while accepted < _ENOUGH_ACCEPTED and total < _ACCEPTANCE_BLOCK * _ACCEPTANCE_BLOCKS:
            cube = sequence.random(_ACCEPTANCE_BLOCK)
            accepted += int(self._allowed(self._from_random(cube)).sum())
            total += _ACCEPTANCE_BLOCK
        if accepted < _MIN_ACCEPTANCE * total:
            rules = ", ".join(repr(c.expression) for c in self.constraints)
            raise ContractError(
                f"the constraints {rules} leave only {accepted / total:.1e} of the prior"
            )
        return accepted / total

    def _accepted(self, n: int, uniform: Callable[[int], FloatArray]) -> FloatArray:
        blocks, missing = [np.empty((0, self.d))], n
        while missing > 0:
            size = missing
            if self.constraints:
                size = min(int(missing / self._acceptance * 1.1) + 16, _LARGEST_BLOCK)
            block = self._from_random(uniform(size))
            blocks.append(block[self._allowed(block)][:missing])
            missing -= len(blocks[-1])
        return np.concatenate(blocks)

    def _from_random(self, u: FloatArray) -> FloatArray:
        # Random numbers in [0, 1) include 0, where an unbounded prior is infinite.
        return self.from_unit(np.maximum(u, _TINY))

    def _allowed(self, points: FloatArray) -> BoolArray:
        allowed: BoolArray = np.ones(points.shape[:-1], dtype=np.bool_)
        columns = {name: points[..., i] for i, name in enumerate(self.names)}
        for constraint in self.constraints:
            allowed &= constraint.holds(columns)
        return allowed

    def _points(self, theta: ArrayLike) -> FloatArray:
        points = np.asarray(theta, dtype=np.float64)
        if points.ndim == 0 or points.shape[-1] != self.d:
            raise ContractError(
                f"parameter values have shape {points.shape}, expected (..., {self.d}) "
                f"for {', '.join(self.names)}"
            )
        return points

    def _sum_free(self, slope: FloatArray) -> FloatArray:
        total: FloatArray = slope[..., self._free].sum(axis=-1)
        return total

    def _columnwise(
        self, points: FloatArray, function: Callable[[Parameter, FloatArray], FloatArray]
    ) -> FloatArray:
        return np.stack(
            [function(p, points[..., i]) for i, p in enumerate(self.parameters)], axis=-1
        )


def _log_pdf(parameter: Parameter, values: FloatArray) -> FloatArray:
    return parameter.distribution.log_pdf(values)


def _coordinate(parameter: Parameter, values: FloatArray) -> FloatArray:
    if parameter.scale == "linear":
        return values
    with np.errstate(divide="ignore", invalid="ignore"):
        exponent: FloatArray = np.log10(values)
    return exponent


def _log_slope(parameter: Parameter, values: FloatArray) -> FloatArray:
    if parameter.scale == "linear":
        return np.zeros_like(values)
    with np.errstate(divide="ignore", invalid="ignore"):
        slope: FloatArray = -np.log(values) - np.log(np.log(10.0))
    return slope
