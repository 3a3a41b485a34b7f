r"""Conditional-moment tests: do truth and draws have the same low moments, given the data?

With the points of a pair (truth and draws) centred and scaled by the mean and standard deviation
of *all* of them, :math:`t`, and features :math:`\phi = (t_j,\; t_j^2,\; t_j t_k,\; t_j x_f)` for
one test and :math:`\phi = (t_j^2 x_f)` for another,

.. math:: d_i = \phi(\theta^*_i, x_i) - \overline{\phi(\cdot, x_i)}, \qquad
          T = N\, \bar d^{\,T}\, \Sigma^{-1}\, \bar d,

where the bar is over all L + 1 points of a pair and :math:`\Sigma` is the covariance of the
deviations over all points of all pairs. Neither knows which point is the truth, so the law of T
follows from exchanging labels (`swap`); Hotelling's F law would reject an exact posterior two to
three times too often. The products see wrong correlations; the terms :math:`t_j x_f` with features
of the data see bias that averages out over the data, and a posterior that repeats the prior; the
terms :math:`t_j^2 x_f` see widths that are too small for some data and too large for others. The
latter are a test of their own, so that they take no power from the former.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from sbi_physics.types import AnyArray, BoolArray, FloatArray, IntArray

MAX_DATA_FEATURES: Final = 5
PAIRS_PER_MOMENT: Final = 20
_CHUNK_VALUES: Final = 4_000_000
_MIN_VARIANCE: Final = 1e-12
_CUTOFF: Final = 1e-10

Moment = tuple[int, int, int]
"""Parameter j; second parameter k or -1; data feature f or -1."""


def choose_moments(n_params: int, n_features: int, n_pairs: int) -> tuple[Moment, ...]:
    """Return the moments tested: at most one for 20 pairs, the first of a fixed order.

    The order is t_j, t_j^2, t_j t_k, then t_j x_f feature by feature.

    Examples:
        >>> choose_moments(2, 1, 1000)
        ((0, -1, -1), (1, -1, -1), (0, 0, -1), (1, 1, -1), (0, 1, -1), (0, -1, 0), (1, -1, 0))
    """
    each = range(n_params)
    order: list[Moment] = [(j, -1, -1) for j in each]
    order += [(j, j, -1) for j in each]
    order += [(j, k, -1) for j in each for k in each if j < k]
    order += [(j, -1, f) for f in range(min(n_features, MAX_DATA_FEATURES)) for j in each]
    return tuple(order[: max(1, n_pairs // PAIRS_PER_MOMENT)])


def choose_width_moments(n_params: int, n_features: int, n_pairs: int) -> tuple[Moment, ...]:
    """Return the moments t_j^2 x_f, feature by feature; at most one for 20 pairs.

    Examples:
        >>> choose_width_moments(2, 2, 60)
        ((0, 0, 0), (1, 1, 0), (0, 0, 1))
    """
    features = range(min(n_features, MAX_DATA_FEATURES))
    order = [(j, j, f) for f in features for j in range(n_params)]
    return tuple(order[: max(1, n_pairs // PAIRS_PER_MOMENT)])


class MomentSums:
    """Sums over pairs from which the statistics of every relabelling follow.

    Pairs are added in batches, so that no array of all points and moments exists.

    Args:
        tests: Name of each test -> its moments, from `choose_moments` or `choose_width_moments`.
        labels: From `swap.swap_labels`, shape (n_pairs, replicates).
    """

    def __init__(self, tests: Mapping[str, tuple[Moment, ...]], labels: AnyArray) -> None:
        self.tests = {name: moments for name, moments in tests.items() if moments}
        self._moments = tuple(m for moments in self.tests.values() for m in moments)
        self._labels = labels
        self._sums = np.zeros((labels.shape[1], len(self._moments)))
        self._scatter = np.zeros((len(self._moments), len(self._moments)))
        self._n_pairs, self._n_points = 0, 0

    def add(self, pairs: IntArray, points: FloatArray, features: FloatArray | None) -> None:
        """Add pairs.

        Args:
            pairs: Their numbers, shape (batch,).
            points: Truth first, then draws, finite, shape (batch, point, param).
            features: Features of their data, shape (batch, feature), if moments use them.
        """
        step = max(1, _CHUNK_VALUES // (points.shape[1] * len(self._moments)))
        for start in range(0, len(pairs), step):
            rows = slice(start, start + step)
            own = None if features is None else features[rows]
            self._add(pairs[rows], self._deviations(points[rows], own))

    def statistics(self) -> dict[str, FloatArray]:
        """Return T of every test, shape (replicates,) each; zeros where nothing varies."""
        found, first = {}, 0
        for name, moments in self.tests.items():
            found[name] = self._quadratic(slice(first, first + len(moments)))
            first += len(moments)
        return found

    def _quadratic(self, own: slice) -> FloatArray:
        sigma = self._scatter[own, own] / max(1, self._n_pairs * self._n_points)
        used = np.diagonal(sigma) > _MIN_VARIANCE
        if not used.any():
            return np.zeros(len(self._sums))
        sd = np.sqrt(np.diagonal(sigma)[used])
        inverse = np.linalg.pinv(
            sigma[np.ix_(used, used)] / np.outer(sd, sd), rcond=_CUTOFF, hermitian=True
        )
        sums = self._sums[:, own][:, used] / sd
        quadratic: FloatArray = np.einsum("bi,bi->b", sums @ inverse, sums)
        return quadratic / self._n_pairs

    @property
    def n_pairs(self) -> int:
        """Pairs added so far."""
        return self._n_pairs

    def _deviations(self, points: FloatArray, features: FloatArray | None) -> FloatArray:
        t = standardise(points)
        values = np.empty((*points.shape[:2], len(self._moments)))
        for column, (j, k, f) in enumerate(self._moments):
            values[..., column] = t[..., j]
            if k >= 0:
                values[..., column] *= t[..., k]
            if f >= 0 and features is not None:
                values[..., column] *= features[:, None, f]
        values -= values.mean(axis=1, keepdims=True)
        return values

    def _add(self, pairs: IntArray, deviations: FloatArray) -> None:
        chosen = np.empty_like(self._sums)
        for pair, own in zip(pairs.tolist(), deviations, strict=True):
            np.take(own, self._labels[pair], axis=0, out=chosen)
            self._sums += chosen
        flat = deviations.reshape(-1, deviations.shape[2])
        self._scatter += flat.T @ flat
        self._n_pairs += len(pairs)
        self._n_points = deviations.shape[1]


def standardise(points: FloatArray) -> FloatArray:
    """Centre and scale points (batch, point, param) by the mean and sd of each pair's points."""
    mean = points.mean(axis=1, keepdims=True)
    shifted = points - mean
    sd = np.sqrt(np.einsum("bkd,bkd->bd", shifted, shifted) / points.shape[1])[:, None]
    varies: BoolArray = sd > 1e-13 * np.abs(mean)
    standardised: FloatArray = shifted / np.where(varies, sd, np.inf)
    return standardised
