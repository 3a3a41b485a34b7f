r"""Posteriors mended on held-out pairs: a trained posterior behind a fitted correction.

Two corrections, both with draws and densities that agree:

* *shells*: the posterior keeps the shape of its highest-density regions and changes how much
  probability each shell between two of them holds,

  .. math:: q'(\theta|x) = q(\theta|x)\, g(c(\theta, x)),

  where :math:`c` is the credibility of the region that just contains :math:`\theta` and g is the
  density of :math:`c` over calibration pairs. As :math:`c` is uniform under q, the new density
  is normalised, and its probability of the region :math:`c \le c_k` is :math:`G(c_k)`.
* *affine*: in unconstrained coordinates, with median m and spread sd (half of the central 68.3 %)
  of the draws of each observation, :math:`z' = m + b\,\mathrm{sd} + s\,(z - m)`.

Credibility, centre and spread of an observation come from reference draws that depend on the
observation alone, so that `draw` and `log_prob` agree. They are made one observation at a time,
once; everything else is batched.
"""

from __future__ import annotations

import zlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from sbi_physics.errors import ContractError, PosteriorFileError
from sbi_physics.posterior import Draws, Posterior
from sbi_physics.seeding import generator
from sbi_physics.types import AnyArray, DataArray, FloatArray

RECALIBRATIONS: Final = "recalibrations"
"""Entry of `PosteriorContext.simulations` that lists the pairs of every recalibration."""

SHELL_METHODS: Final = ("rank", "conformal")
METHODS: Final = (*SHELL_METHODS, "affine")

N_REFERENCE: Final = 2048
"""Reference draws for each observation: a credibility is known to 0.011 or better."""

_STREAM = 21
_REMEMBERED = 512
_MAX_CANDIDATES = 50_000
_MAX_ROUNDS = 200
_QUANTILES = (0.1587, 0.5, 0.8413)


class RecalibratedPosterior(Posterior):
    """A posterior behind a correction that was fitted on pairs; made by `recalibrate`.

    Args:
        base: The posterior that is corrected; left as it is.
        record: Method, seed, and what identifies the pairs: seed, purpose, rounds, number, digest.
    """

    def __init__(self, base: Posterior, record: Mapping[str, Any]) -> None:
        known = base.context.simulations
        seen = [*known.get(RECALIBRATIONS, ()), dict(record)]
        super().__init__(replace(base.context, simulations={**known, RECALIBRATIONS: seen}))
        self.base, self.record = base, dict(record)
        self.normalized = base.normalized
        self._remembered: dict[bytes, FloatArray] = {}

    def _inner(self) -> Sequence[Posterior]:
        return (self.base,)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.record['method']} of {self.base!r})"

    def _references(self, x: DataArray) -> FloatArray:
        """What is kept of the reference draws of each observation, shape (batch, ...)."""
        return np.stack([self._reference(x[i : i + 1]) for i in range(len(x))])

    def _reference(self, one: DataArray) -> FloatArray:
        """A function of one observation alone; those used last are remembered."""
        content = np.ascontiguousarray(one).tobytes()
        known = self._remembered.pop(content, None)
        if known is None:
            rng = generator(int(self.record["seed"]), "validation", _STREAM, zlib.crc32(content))
            known = self._kept(self.base._draw(one, N_REFERENCE, rng, True, None))
            if len(self._remembered) >= _REMEMBERED:
                del self._remembered[next(iter(self._remembered))]
        self._remembered[content] = known
        return known

    @abstractmethod
    def _kept(self, reference: Draws) -> FloatArray:
        """What is needed of the reference draws of one observation."""


class ShellPosterior(RecalibratedPosterior):
    """A posterior with the probability of its highest-density shells redistributed.

    Args:
        base: The posterior that is corrected.
        record: What it was fitted on.
        nominal: Credibilities of `base` at the edges of the shells, rising from 0 to 1.
        calibrated: Their probabilities under the corrected posterior, rising from 0 to 1.
    """

    def __init__(
        self,
        base: Posterior,
        record: Mapping[str, Any],
        nominal: FloatArray,
        calibrated: FloatArray,
    ) -> None:
        super().__init__(base, record)
        for name, edges in (("nominal", nominal), ("calibrated", calibrated)):
            ends = edges.shape == nominal.shape and edges[0] == 0.0 and edges[-1] == 1.0
            if edges.ndim != 1 or len(edges) < 2 or not ends or (np.diff(edges) <= 0).any():
                raise ContractError(
                    f"{name} credibilities must rise from 0 to 1, got {edges.tolist()}"
                )
        self.nominal, self.calibrated = nominal, calibrated
        self._factor = np.diff(calibrated) / np.diff(nominal)

    def credibility(
        self, theta: ArrayLike, x: ArrayLike, *, any_observation: bool = False
    ) -> FloatArray:
        """Return the calibrated credibility of the region that just contains each point.

        A region of credibility g is `credibility(theta, x) <= g`: the base's own highest-density
        region, at another of its levels.

        Args:
            theta: Points, shape (batch, k, d), or (k, d) for the same points at every observation.
            x: Observations, shape (batch, *observable.shape).
            any_observation: As in `log_prob`.

        Returns:
            Shape (batch, k).

        Raises:
            ObservationError: As in `sample`.
        """
        nominal = self.nominal_credibility(theta, x, any_observation=any_observation)
        calibrated: FloatArray = np.interp(nominal, self.nominal, self.calibrated)
        return calibrated

    def nominal_credibility(
        self, theta: ArrayLike, x: ArrayLike, *, any_observation: bool = False
    ) -> FloatArray:
        """Return the credibility that the base claims, shape (batch, k); see `credibility`."""
        self._require(x, any_observation)
        data = self.observable.check(x)
        points = self._points(theta, len(data))
        step = max(1, _MAX_CANDIDATES // self._rows_each(points.shape[1]))
        parts = [
            _credibility(
                self.base._log_prob_at(points[i : i + step], data[i : i + step]),
                self._references(data[i : i + step]),
            )
            for i in range(0, len(data), step)
        ]
        return np.concatenate(parts) if parts else np.empty(points.shape[:2])

    def _rows_each(self, n: int) -> int:
        candidates = int(n * self._factor.max())
        return max(self.base._rows_each(candidates), self.base._rows_each(N_REFERENCE))

    def _kept(self, reference: Draws) -> FloatArray:
        return np.sort(_known(reference.log_prob)[0])

    def _log_prob_at(self, theta: FloatArray, x: DataArray) -> FloatArray:
        return self._corrected(self.base._log_prob_at(theta, x), self._references(x))

    def _corrected(self, log_q: FloatArray, references: FloatArray) -> FloatArray:
        density: FloatArray = log_q + np.log(self._weight(_credibility(log_q, references)))
        return density

    def _weight(self, credibility: FloatArray) -> FloatArray:
        shell = np.searchsorted(self.nominal[1:-1], credibility, side="left")
        weight: FloatArray = self._factor[shell]
        return weight

    def _draw(
        self, x: DataArray, n: int, rng: np.random.Generator, log_prob: bool, at: FloatArray | None
    ) -> Draws:
        references = self._references(x)
        theta, density, ess = self._accepted(x, n, rng, references)
        return Draws(
            theta,
            density if log_prob else None,
            None if at is None else self._corrected(self.base._log_prob_at(at, x), references),
            ess,
        )

    def _accepted(
        self, x: DataArray, n: int, rng: np.random.Generator, references: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray | None]:
        """Draw from the base and keep each draw with probability weight / largest weight."""
        largest = float(self._factor.max())
        theta = np.empty((len(x), n, self.prior.d))
        density = np.empty((len(x), n))
        found, ess = np.zeros(len(x), np.intp), None
        for _ in range(_MAX_ROUNDS):
            open_ = np.flatnonzero(found < n)
            missing = n - int(found[open_].min())
            size = min(int(1.2 * missing * largest) + 32, max(1, _MAX_CANDIDATES // len(open_)))
            drawn = self.base._draw(x[open_], size, rng, True, None)
            log_q = _known(drawn.log_prob)
            weight = self._weight(_credibility(log_q, references[open_]))
            accepted = rng.random(weight.shape) * largest < weight
            corrected = log_q + np.log(weight)
            for k, row in enumerate(open_.tolist()):
                kept = np.flatnonzero(accepted[k])[: n - found[row]]
                rows = slice(found[row], found[row] + len(kept))
                theta[row, rows], density[row, rows] = drawn.theta[k, kept], corrected[k, kept]
                found[row] += len(kept)
            if drawn.ess is not None:
                ess = np.full(len(x), np.nan) if ess is None else ess
                ess[open_] = drawn.ess / largest
            if found.min() == n:
                return theta, density, ess
        raise ContractError(
            f"{self!r} found only {int(found.min())} of {n} draws in {_MAX_ROUNDS} rounds: its "
            "correction is too large; train again"
        )

    def _weights(self) -> dict[str, AnyArray]:
        return {"nominal": self.nominal, "calibrated": self.calibrated}


class AffinePosterior(RecalibratedPosterior):
    """A posterior shifted and stretched in unconstrained coordinates.

    Args:
        base: The posterior that is corrected; its prior must have no constraints.
        record: What it was fitted on.
        shift: Shift of each parameter in posterior standard deviations, shape (d,).
        stretch: Factor on the width of each parameter, positive, shape (d,).
    """

    def __init__(
        self,
        base: Posterior,
        record: Mapping[str, Any],
        shift: FloatArray,
        stretch: FloatArray,
    ) -> None:
        super().__init__(base, record)
        if base.prior.constraints:
            raise ContractError(
                "an affine recalibration would move draws across the prior's constraints "
                f"{[c.expression for c in base.prior.constraints]}; use method='rank'"
            )
        if shift.shape != (self.prior.d,) or stretch.shape != shift.shape or stretch.min() <= 0:
            raise ContractError(
                f"shift and stretch must have shape ({self.prior.d},), stretch positive; got "
                f"{shift.tolist()} and {stretch.tolist()}"
            )
        self.shift, self.stretch = shift, stretch

    def _rows_each(self, n: int) -> int:
        return max(n, self.base._rows_each(N_REFERENCE))

    def _draw(
        self, x: DataArray, n: int, rng: np.random.Generator, log_prob: bool, at: FloatArray | None
    ) -> Draws:
        drawn = self.base._draw(x, n, rng, False, None)
        centre, spread = self._centres(x)
        z = self.prior.to_unconstrained(drawn.theta)
        theta = self.prior.from_unconstrained(
            centre + self.shift * spread + self.stretch * (z - centre)
        )
        return Draws(
            theta,
            self._log_prob_at(theta, x) if log_prob else None,
            None if at is None else self._log_prob_at(at, x),
            drawn.ess,
        )

    def _log_prob_at(self, theta: FloatArray, x: DataArray) -> FloatArray:
        prior = self.prior
        inside = prior.contains(theta)
        safe = np.where(inside[..., None], theta, prior.from_unit(np.full(prior.d, 0.5)))
        centre, spread = self._centres(x)
        z = prior.to_unconstrained(safe)
        source = prior.from_unconstrained(
            centre + (z - centre - self.shift * spread) / self.stretch
        )
        density = self.base._log_prob_at(source, x)
        density = density - prior.log_abs_det_unconstrained(source)
        density = density + prior.log_abs_det_unconstrained(safe) - np.log(self.stretch).sum()
        return np.where(inside, density, -np.inf)

    def _centres(self, x: DataArray) -> tuple[FloatArray, FloatArray]:
        """Centre and spread of each observation, unconstrained, each (batch, 1, d)."""
        kept = self._references(x)
        return kept[:, :1], kept[:, 1:]

    def _kept(self, reference: Draws) -> FloatArray:
        z = self.prior.to_unconstrained(reference.theta[0])
        # Quantiles: near the end of a prior, unconstrained coordinates have long tails.
        low, centre, high = np.quantile(z, _QUANTILES, axis=0)
        return np.stack([centre, 0.5 * (high - low)])

    def _weights(self) -> dict[str, AnyArray]:
        return {"shift": self.shift, "stretch": self.stretch}


def rebuild(
    base: Posterior, record: Mapping[str, Any], arrays: Mapping[str, AnyArray]
) -> RecalibratedPosterior:
    """Return the recalibrated posterior that was saved.

    Raises:
        PosteriorFileError: If the method is unknown or an array is missing.
    """
    method = record.get("method")
    names = ("nominal", "calibrated") if method in SHELL_METHODS else ("shift", "stretch")
    if method not in METHODS or not set(names) <= arrays.keys() or "seed" not in record:
        raise PosteriorFileError(
            f"the recalibration {method!r} with arrays {sorted(arrays)} cannot be understood: it "
            "is damaged, or a newer version wrote it"
        )
    first, second = (np.asarray(arrays[name], dtype=np.float64) for name in names)
    kind = ShellPosterior if method in SHELL_METHODS else AffinePosterior
    return kind(base, record, first, second)


def _credibility(log_q: FloatArray, references: FloatArray) -> FloatArray:
    """Fraction of the posterior with a larger density, by interpolation between draws.

    Args:
        log_q: Shape (batch, k).
        references: Sorted log densities of draws, shape (batch, N_REFERENCE).
    """
    levels = (np.arange(references.shape[1]) + 0.5) / references.shape[1]
    below = [np.interp(own, known, levels) for own, known in zip(log_q, references, strict=True)]
    return 1.0 - np.stack(below)


def _known(density: FloatArray | None) -> FloatArray:
    if density is None:
        raise ContractError("a recalibration needs the densities of the posterior's draws")
    return density
