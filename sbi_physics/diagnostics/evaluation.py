"""One pass over the draws of many observations, keeping only what the diagnostics need.

For N pairs, L draws and D parameters the draws themselves (N L D numbers) are never held at once:
each batch is reduced to ranks, moments and quantiles. The jitter of every ranked quantity is drawn
beforehand from its own stream, so results depend neither on the batch size nor on the order of the
parameters.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from sbi_physics.diagnostics.block_density import kernel_log_density, n_centres
from sbi_physics.diagnostics.ranks import effective_sample_size, pit_values
from sbi_physics.errors import ValidationError
from sbi_physics.seeding import generator
from sbi_physics.types import AnyArray, BoolArray, FloatArray

QUANTILES = (0.025, 0.16, 0.5, 0.84, 0.975)
"""Posterior quantiles kept for every pair."""

_JITTER_STREAM = 1


@dataclass(frozen=True, slots=True, eq=False)
class DrawBatch:
    """Posterior draws of a batch of observations, next to the truth.

    Attributes:
        truth: True parameters in scaled coordinates, shape (batch, param).
        draws: Draws in scaled coordinates, shape (batch, draw, param).
        values: The same draws in physical units, of which quantiles are kept.
        log_q_truth: Log density of the truth, up to a constant for each observation, shape
            (batch,).
        log_q_draws: Log density of the draws with the same constants, shape (batch, draw).
        weights: Weights of the draws, shape (batch, draw), or None when all are equal.
        ess: Effective sample size where the draws come from weighted ones, shape (batch,).
        outside: Fraction of the draws outside the prior's support, shape (batch,).
    """

    truth: FloatArray
    draws: FloatArray
    values: FloatArray
    log_q_truth: FloatArray | None = None
    log_q_draws: FloatArray | None = None
    weights: FloatArray | None = None
    ess: FloatArray | None = None
    outside: FloatArray | None = None


@dataclass(slots=True, eq=False)
class Evaluation:
    """What is kept of all pairs; NaN where a pair could not be used.

    Attributes:
        names: Parameter names.
        seed: Seed of the jitter.
        n_pairs: Number of pairs.
        blocks: Blocks of parameters to rank by a kernel density of the draws, besides the
            posterior's own density.
        joint: Name of the quantity ranked by the posterior's own density.
        pit: Quantity name -> u, shape (n_pairs,).
        mean: Posterior means in scaled coordinates, shape (n_pairs, param).
        covariance: Posterior covariances in scaled coordinates, shape (n_pairs, param, param).
        quantiles: Posterior quantiles in physical units, shape (n_pairs, len(QUANTILES), param).
        ess: Effective sample size of the draws, shape (n_pairs,); NaN for equally weighted ones.
        outside: Fraction of draws outside the prior, shape (n_pairs,).
    """

    names: tuple[str, ...]
    seed: int
    n_pairs: int
    blocks: Sequence[tuple[str, ...]] = ()
    joint: str = "hpd"
    pit: dict[str, FloatArray] = field(default_factory=dict)
    mean: FloatArray = field(init=False)
    covariance: FloatArray = field(init=False)
    quantiles: FloatArray = field(init=False)
    ess: FloatArray = field(init=False)
    outside: FloatArray = field(init=False)
    _jitter: dict[str, FloatArray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n, d = self.n_pairs, len(self.names)
        self.mean = np.full((n, d), np.nan)
        self.covariance = np.full((n, d, d), np.nan)
        self.quantiles = np.full((n, len(QUANTILES), d), np.nan)
        self.ess = np.full(n, np.nan)
        self.outside = np.zeros(n)

    @property
    def usable(self) -> BoolArray:
        """Pairs whose truth and draws were finite, shape (n_pairs,)."""
        return np.asarray(np.isfinite(self.mean).all(axis=1))

    def add(self, rows: slice, batch: DrawBatch) -> None:
        """Reduce one batch of draws into rows `rows`."""
        finite: BoolArray = np.asarray(
            np.isfinite(batch.truth).all(axis=1) & np.isfinite(batch.draws).all(axis=(1, 2))
        )
        for j, name in enumerate(self.names):
            self._rank(
                rows, f"sbc:{name}", batch.truth[:, j], batch.draws[..., j], batch.weights, finite
            )
        if batch.log_q_truth is not None and batch.log_q_draws is not None:
            self._rank(
                rows, self.joint, batch.log_q_truth, batch.log_q_draws, batch.weights, finite
            )
        self._rank_blocks(rows, batch, finite)
        self._summarise(rows, batch, finite)

    def _rank(
        self,
        rows: slice,
        quantity: str,
        truth: FloatArray,
        draws: FloatArray,
        weights: FloatArray | None,
        usable: BoolArray,
    ) -> None:
        if quantity not in self.pit:
            stream = zlib.crc32(quantity.encode())
            self._jitter[quantity] = generator(
                self.seed, "validation", _JITTER_STREAM, stream
            ).random(self.n_pairs)
            self.pit[quantity] = np.full(self.n_pairs, np.nan)
        u = pit_values(truth, draws, self._jitter[quantity][rows], weights)
        self.pit[quantity][rows] = np.where(usable, u, np.nan)

    def _rank_blocks(self, rows: slice, batch: DrawBatch, finite: BoolArray) -> None:
        centres = n_centres(batch.draws.shape[1])
        for block in self.blocks:
            columns = [self.names.index(name) for name in block]
            # Unusable rows must not poison the linear algebra of the others.
            draws = np.where(finite[:, None, None], batch.draws[..., columns], 0.0)
            truth = np.where(finite[:, None], batch.truth[:, columns], 0.0)
            ranked = np.concatenate([truth[:, None], draws[:, centres:]], axis=1)
            density = kernel_log_density(draws[:, :centres], ranked)
            weights = None if batch.weights is None else batch.weights[:, centres:]
            self._rank(rows, block_name(block), density[:, 0], density[:, 1:], weights, finite)

    def _summarise(self, rows: slice, batch: DrawBatch, finite: BoolArray) -> None:
        good = np.flatnonzero(finite)
        target = np.arange(self.n_pairs)[rows][good]
        draws, weights = batch.draws[good], None if batch.weights is None else batch.weights[good]
        share = None if weights is None else weights / weights.sum(axis=1, keepdims=True)
        mean = draws.mean(axis=1) if share is None else np.einsum("bl,bld->bd", share, draws)
        shifted = draws - mean[:, None]
        left = shifted / draws.shape[1] if share is None else shifted * share[..., None]
        self.mean[target] = mean
        self.covariance[target] = left.transpose(0, 2, 1) @ shifted
        self.quantiles[target] = _quantiles(batch.values[good], share)
        if batch.weights is not None:
            self.ess[rows] = effective_sample_size(batch.weights)
        elif batch.ess is not None:
            self.ess[rows] = batch.ess
        if batch.outside is not None:
            self.outside[rows] = batch.outside


def block_name(block: Sequence[str]) -> str:
    """Name of the highest-density quantity of a block of parameters.

    Examples:
        >>> block_name(["m_a", "g"])
        'hpd:m_a,g'
    """
    return f"hpd:{','.join(block)}"


def check_draws(theta: ArrayLike, draws: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return true parameters (batch, param) and draws (batch, draw, param) as float64 arrays.

    Raises:
        ValidationError: If the shapes do not fit together.
    """
    truth, samples = np.asarray(theta, dtype=np.float64), np.asarray(draws, dtype=np.float64)
    if truth.ndim != 2 or truth.shape[1] == 0 or len(truth) == 0:
        raise ValidationError(
            f"theta must have shape (batch, param) with at least one of each, got {truth.shape}"
        )
    if samples.ndim != 3 or samples.shape[::2] != truth.shape or samples.shape[1] == 0:
        raise ValidationError(
            f"draws must have shape ({truth.shape[0]}, draw, {truth.shape[1]}) to match theta, "
            f"got {samples.shape}"
        )
    return truth, samples


def check_rows(arrays: Mapping[str, tuple[AnyArray | None, tuple[int, ...]]]) -> None:
    """Check that optional arrays have the shapes given.

    Raises:
        ValidationError: Naming the array, its shape and the expected one.
    """
    for name, (array, expected) in arrays.items():
        if array is not None and array.shape != expected:
            raise ValidationError(f"{name} must have shape {expected}, got {array.shape}")


def _quantiles(draws: FloatArray, share: FloatArray | None) -> FloatArray:
    """Quantiles along the draw axis, shape (batch, len(QUANTILES), param)."""
    if len(draws) == 0:
        return np.empty((0, len(QUANTILES), draws.shape[2]))
    if share is None:
        return np.quantile(draws, QUANTILES, axis=1).transpose(1, 0, 2)
    order = np.argsort(draws, axis=1)
    ordered = np.take_along_axis(draws, order, axis=1)
    mass = np.cumsum(
        np.take_along_axis(np.broadcast_to(share[..., None], draws.shape), order, axis=1), axis=1
    )
    picks = [np.minimum((mass < q).sum(axis=1), draws.shape[1] - 1) for q in QUANTILES]
    return np.stack([np.take_along_axis(ordered, p[:, None], axis=1)[:, 0] for p in picks], axis=1)
