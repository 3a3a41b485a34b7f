"""Draws of a density that knows a prior's bounds but not the constraints between parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from sbi_physics.errors import ContractError
from sbi_physics.priors import Prior
from sbi_physics.types import BoolArray, FloatArray, IntArray

Propose = Callable[[IntArray, int], tuple[FloatArray, FloatArray | None]]
"""(observations, k) -> k draws for each, shape (rows, k, d), and their log densities, if asked."""

_MAX_TOP_UPS: Final = 100
_MIN_TOP_UP: Final = 256


def redraw_forbidden(
    theta: FloatArray, density: FloatArray | None, prior: Prior, propose: Propose
) -> tuple[FloatArray, FloatArray | None]:
    """Replace, in place, the draws that break the prior's constraints by ones that keep them.

    Args:
        theta: Draws inside the bounds, shape (batch, n, d).
        density: Their log densities, shape (batch, n), or None.
        prior: The prior with its constraints.
        propose: Makes more draws.

    Raises:
        ContractError: If hardly any draw keeps them.
    """
    if not prior.constraints:
        return theta, density
    for _ in range(_MAX_TOP_UPS):
        bad: BoolArray = ~prior.contains(theta)
        rows = np.flatnonzero(bad.any(axis=1))
        if len(rows) == 0:
            return theta, density
        k = max(2 * int(bad.sum(axis=1).max()), _MIN_TOP_UP)
        fresh, fresh_density = propose(rows, k)
        good = prior.contains(fresh)
        for j, i in enumerate(rows):
            empty = np.flatnonzero(bad[i])
            taken = np.flatnonzero(good[j])[: len(empty)]
            theta[i, empty[: len(taken)]] = fresh[j, taken]
            if density is not None and fresh_density is not None:
                density[i, empty[: len(taken)]] = fresh_density[j, taken]
    rules = ", ".join(repr(c.expression) for c in prior.constraints)
    raise ContractError(
        f"posterior draws keep violating the prior's constraints {rules}: for {len(rows)} "
        "observations hardly any of the network's probability lies where they hold"
    )
