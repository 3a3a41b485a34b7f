"""One pass over the draws of many observations, keeping only what the diagnostics need.

For N pairs, L draws and D parameters the draws themselves (N L D numbers) are never held at once:
each batch is reduced to ranks, moments and quantiles. The jitter of every ranked quantity and the
relabellings of the swap null are drawn beforehand from their own streams, so results depend
neither on the batch size nor on the order of the parameters.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from sbi_physics.diagnostics.block_density import kernel_log_density, n_centres
from sbi_physics.diagnostics.moments import (
    MomentSums,
    choose_moments,
    choose_width_moments,
    standardise,
)
from sbi_physics.diagnostics.ranks import (
    effective_sample_size,
    pit_from_ranks,
    pit_values,
    pool_ranks,
    rank_type,
)
from sbi_physics.diagnostics.swap import n_swaps, swap_labels
from sbi_physics.diagnostics.tarp import distances
from sbi_physics.diagnostics.verdict import ALPHA
from sbi_physics.errors import ValidationError
from sbi_physics.seeding import generator
from sbi_physics.types import AnyArray, BoolArray, FloatArray

QUANTILES = (0.025, 0.16, 0.5, 0.84, 0.975)
"""Posterior quantiles kept for every pair."""

_BATCH = 100
_BATCH_VALUES = 8_000_000
_JITTER_STREAM = 1
_SWAP_STREAM = 3
_TIE_STREAM = 4


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
        extra: More quantities to rank: name -> values at the truth, then at the draws, shape
            (batch, draw + 1).
    """

    truth: FloatArray
    draws: FloatArray
    values: FloatArray
    log_q_truth: FloatArray | None = None
    log_q_draws: FloatArray | None = None
    weights: FloatArray | None = None
    ess: FloatArray | None = None
    outside: FloatArray | None = None
    extra: Mapping[str, FloatArray] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Evaluation:
    """What is kept of all pairs; NaN where a pair could not be used.

    Attributes:
        names: Parameter names.
        seed: Seed of jitter, ties and relabellings.
        n_pairs: Number of pairs.
        blocks: Blocks of parameters to rank by a kernel density of the draws, besides the
            posterior's own density.
        joint: Name of the quantity ranked by the posterior's own density.
        references: Quantity name -> reference points in scaled coordinates, shape (n_pairs,
            param), to rank distances from; NaN in rows not to be used.
        features: Standardised features of the data, shape (n_pairs, feature), if there are data.
        products: Whether to rank the product of the residuals of every two parameters.
        n_parts: Number of evaluations that share one verdict.
        pit: Quantity name -> u, shape (n_pairs,).
        ranks: Quantity name -> rank of every point of a pair (truth first) among the pair's
            points, shape (n_pairs, points); none for weighted draws.
        labels: Relabellings of the swap null, shape (n_pairs, replicates); None for weighted
            draws.
        moments: Sums of the conditional-moment tests; None for weighted draws.
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
    references: Mapping[str, FloatArray] = field(default_factory=dict)
    features: FloatArray | None = None
    products: bool = False
    n_parts: int = 1
    pit: dict[str, FloatArray] = field(default_factory=dict)
    ranks: dict[str, AnyArray] = field(default_factory=dict)
    labels: AnyArray | None = None
    moments: MomentSums | None = None
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
        points = np.concatenate([batch.truth[:, None], batch.draws], axis=1)
        # Unusable rows must not poison the linear algebra of the others.
        points[~finite] = 0.0
        if self.labels is None and batch.weights is None:
            self._prepare_swaps(batch)
        for j, name in enumerate(self.names):
            self._rank(rows, f"sbc:{name}", points[..., j], batch.weights, finite)
        if batch.log_q_truth is not None and batch.log_q_draws is not None:
            density = np.concatenate([batch.log_q_truth[:, None], batch.log_q_draws], axis=1)
            self._rank(rows, self.joint, density, batch.weights, finite)
        for quantity, references in self.references.items():
            known = finite & np.isfinite(references[rows]).all(axis=1)
            away = distances(points, np.where(known[:, None], references[rows], 0.0))
            self._rank(rows, quantity, away, batch.weights, known)
        for quantity, values in batch.extra.items():
            self._rank(rows, quantity, values, batch.weights, finite)
        if self.products:
            self._rank_products(rows, points, batch.weights, finite)
        self._rank_blocks(rows, points, batch.weights, finite)
        if self.moments is not None:
            good = np.flatnonzero(finite)
            pairs = np.arange(self.n_pairs)[rows][good]
            own = None if self.features is None else self.features[pairs]
            self.moments.add(pairs, points[good], own)
        self._summarise(rows, batch, finite)

    def _prepare_swaps(self, batch: DrawBatch) -> None:
        d, n_points = len(self.names), batch.draws.shape[1] + 1
        n_tests = (
            d
            + (batch.log_q_truth is not None)
            + len(self.references)
            + len(batch.extra)
            + (d * (d - 1) // 2 if self.products else 0)
            + len(self.blocks)
            + 1
            + (self.features is not None)
        )
        # Draws that carry kernels are not ranked, so they cannot be taken for the truth.
        exchangeable = n_points - (n_centres(n_points - 1) if self.blocks else 0)
        self.labels = swap_labels(
            self.n_pairs,
            exchangeable,
            n_swaps(n_tests * self.n_parts, ALPHA),
            generator(self.seed, "validation", _SWAP_STREAM),
        )
        n_features = 0 if self.features is None else self.features.shape[1]
        tests = {
            "moment": choose_moments(d, n_features, self.n_pairs),
            "width_x": choose_width_moments(d, n_features, self.n_pairs),
        }
        self.moments = MomentSums(tests, self.labels)

    def _rank(
        self,
        rows: slice,
        quantity: str,
        points: FloatArray,
        weights: FloatArray | None,
        usable: BoolArray,
    ) -> None:
        """Rank the truth, point 0, among all points of each row."""
        stream = zlib.crc32(quantity.encode())
        if quantity not in self.pit:
            self._jitter[quantity] = generator(
                self.seed, "validation", _JITTER_STREAM, stream
            ).random(self.n_pairs)
            self.pit[quantity] = np.full(self.n_pairs, np.nan)
        jitter = self._jitter[quantity][rows]
        if weights is not None:
            u = pit_values(points[:, 0], points[:, 1:], jitter, weights)
            self.pit[quantity][rows] = np.where(usable, u, np.nan)
            return
        n_points = points.shape[1]
        if quantity not in self.ranks:
            self.ranks[quantity] = np.zeros((self.n_pairs, n_points), rank_type(n_points))
        good = np.flatnonzero(usable & ~np.isnan(points).any(axis=1))
        pairs = np.arange(self.n_pairs)[rows][good]
        ranks = pool_ranks(
            points[good],
            lambda row: generator(self.seed, "validation", _TIE_STREAM, stream, int(pairs[row])),
        )
        self.ranks[quantity][pairs] = ranks
        self.pit[quantity][pairs] = pit_from_ranks(ranks[:, 0], n_points, jitter[good])

    def _rank_products(
        self, rows: slice, points: FloatArray, weights: FloatArray | None, finite: BoolArray
    ) -> None:
        residual = standardise(points)
        for j, a in enumerate(self.names):
            for k, b in enumerate(self.names[j + 1 :], j + 1):
                self._rank(
                    rows, f"pair:{a},{b}", residual[..., j] * residual[..., k], weights, finite
                )

    def _rank_blocks(
        self, rows: slice, points: FloatArray, weights: FloatArray | None, finite: BoolArray
    ) -> None:
        ranked = points.shape[1] - n_centres(points.shape[1] - 1)
        for block in self.blocks:
            own = points[..., [self.names.index(name) for name in block]]
            density = kernel_log_density(own[:, ranked:], own[:, :ranked])
            left = None if weights is None else weights[:, : ranked - 1]
            self._rank(rows, block_name(block), density, left, finite)

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


def batch_rows(n_draws: int, n_params: int) -> int:
    """Return how many pairs to evaluate at once, so that their draws take little memory."""
    return max(1, min(_BATCH, _BATCH_VALUES // (n_draws * n_params)))


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
