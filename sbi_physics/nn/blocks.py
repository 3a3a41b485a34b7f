"""Blocks of (observation, point) pairs, so that large evaluations stay within the cache."""

from __future__ import annotations

from collections.abc import Iterator


def blocks(n_observations: int, n: int, rows: int) -> Iterator[tuple[slice, slice]]:
    """Yield (observation, point) blocks that cover all pairs, of at most `rows` pairs each."""
    across = max(1, min(n, rows))
    together = max(1, rows // across)
    for first in range(0, n_observations, together):
        for start in range(0, n, across):
            yield (
                slice(first, min(first + together, n_observations)),
                slice(start, min(start + across, n)),
            )
