"""Do two samples come from one distribution? Kolmogorov-Smirnov tests on parts of each row.

The numbers are up to 16 entries, 8 fixed random projections of the standardised row (which see
correlations) and the non-finite count. The smallest p-value is multiplied by the number of tests.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from sbi_physics.types import FloatArray

LIMIT: Final = 1e-4
"""Below this p-value a check fails: for a correct subject, one seed in 10 000."""

_ENTRIES = 16
_PROJECTIONS = 8


def p_value(a: ArrayLike, b: ArrayLike) -> float:
    """Return the p-value of the hypothesis that two samples share one distribution.

    Args:
        a: Rows with any event shape, shape (n, ...); non-finite entries are allowed.
        b: Rows with the same event shape, shape (m, ...).
    """
    from scipy import stats

    first, second = _numbers(np.asarray(a, np.float64), np.asarray(b, np.float64))
    values = [
        float(stats.ks_2samp(u, v, method="asymp").pvalue)
        for u, v in zip(first.T, second.T, strict=True)
        if not (np.ptp(u) == 0 and np.ptp(v) == 0 and u[0] == v[0])
    ]
    return min(1.0, min(values) * len(values)) if values else 1.0


def uniform_p_value(u: ArrayLike) -> float:
    """Return the p-value of uniformity of values in [0, 1], shape (n, d), in each column."""
    from scipy import stats

    values_in = np.asarray(u, np.float64)
    # Folded about the middle, values show a wrong width as directly as they show a shift unfolded.
    columns = np.concatenate([values_in, np.abs(2 * values_in - 1)], axis=1).T
    values = [float(stats.kstest(column, "uniform").pvalue) for column in columns]
    return min(1.0, min(values) * len(values))


def _numbers(a: FloatArray, b: FloatArray) -> tuple[FloatArray, FloatArray]:
    rows = np.concatenate([a.reshape(len(a), -1), b.reshape(len(b), -1)])
    finite = np.isfinite(rows)
    missing: Any = (~finite).sum(axis=1, keepdims=True).astype(np.float64)
    filled = np.where(finite, rows, 0.0)
    spread = filled.std(axis=0)
    scaled = (filled - filled.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    n_entries = filled.shape[1]
    chosen = np.unique(np.linspace(0, n_entries - 1, _ENTRIES).astype(int))
    # Fixed directions: the result must be a function of the samples alone.
    directions = np.random.default_rng(0).standard_normal((n_entries, _PROJECTIONS))
    projected = scaled @ directions if n_entries > 1 else np.empty((len(rows), 0))
    numbers = np.concatenate([filled[:, chosen], projected, missing], axis=1)
    return numbers[: len(a)], numbers[len(a) :]
