r"""Fractional smearing: events with outlying labels are observed many times, at weight 1/n.

A few latent events carry huge labels; smeared once they are spikes at random places. Smeared n
times at weight 1/n they say the same with less noise (arXiv:2410.07315). In closed form

.. math:: n = \max_k \left\lceil \frac{|y_k|}{|\mu_k| + t\, s_k} \right\rceil, \quad
          1 \le n \le n_{\max},

with the mean and a robust spread of each label,
:math:`s = \min(\mathrm{std}, 10\max(q_{99\%}(|y|), \overline{|y|}))`.
It removes the noise of the smearing at fixed latents; it makes no new latents.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sbi_physics.errors import ContractError
from sbi_physics.types import FloatArray, IntArray

MAX_COPIES = 200


@dataclass(frozen=True, slots=True)
class Copies:
    """How often each event is observed.

    Attributes:
        n: Copies of each event, shape (events,); each has weight 1/n.
        capped: How many events would have needed more.
    """

    n: IntArray
    capped: int

    @property
    def total(self) -> int:
        """Number of copies of all events together."""
        return int(self.n.sum())


def robust_spread(labels: FloatArray) -> FloatArray:
    """Return min(std, 10 x max(99 % quantile, mean) of |y|) of each column, shape (columns,).

    The mean is for labels that hardly any event has, where the quantile is next to nothing.
    """
    plain = labels.std(axis=0)
    size = np.abs(labels)
    tail = 10.0 * np.maximum(np.quantile(size, 0.99, axis=0), size.mean(axis=0))
    spread: FloatArray = np.minimum(plain, tail)
    return spread


def fractional_copies(
    labels: FloatArray, threshold: float, *, max_copies: int = MAX_COPIES
) -> Copies:
    """Return how often each event is to be observed.

    Args:
        labels: Regression labels, shape (events, columns).
        threshold: t, in spreads of the label; 0.5 is usual.
        max_copies: Largest number of copies.

    Raises:
        ContractError: If the threshold is not positive or labels are not finite.
    """
    if not threshold > 0 or max_copies < 1:
        raise ContractError(
            f"fractional smearing needs a positive threshold and max_copies of at least 1, got "
            f"{threshold:g} and {max_copies}"
        )
    if labels.ndim != 2 or not np.isfinite(labels).all():
        raise ContractError(f"labels must be finite, shape (events, columns), got {labels.shape}")
    limit = np.abs(labels.mean(axis=0)) + threshold * robust_spread(labels)
    varying = limit > 0  # a label that is zero everywhere needs no copies
    if not varying.any():
        return Copies(np.ones(len(labels), dtype=np.int64), 0)
    wanted = np.ceil(np.abs(labels[:, varying]) / limit[varying]).max(axis=1)
    n = np.clip(wanted, 1, max_copies).astype(np.int64)
    return Copies(n, int((wanted > max_copies).sum()))
