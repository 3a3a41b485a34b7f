"""How close a trained posterior comes to the exact one, in numbers with known sampling errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from sbi_physics.posterior import Posterior
from sbi_physics.types import DataArray, FloatArray

PULL: Final = 0.2
"""Largest accepted mean pull; its sampling error with 300 pairs is 0.06."""

WIDTH: Final = (0.85, 1.18)
"""Accepted ratio of posterior widths, trained over exact."""

COVERAGE: Final = {0.68: 0.09, 0.95: 0.05}
"""Accepted deviation of the coverage of central intervals; sampling errors are 0.027 and 0.013."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Comparison of a posterior with the exact one on fresh pairs.

    Attributes:
        pull: Mean over pairs of (truth - posterior mean) / posterior sd, shape (d,).
        width_ratio: Mean over pairs of the half-width of the central 68 % interval, trained over
            exact, shape (d,).
        coverage: Level -> fraction of pairs inside the central interval, shape (d,).
        loss: Mean log density of the truth, exact minus trained (nats); NaN without joint density.
    """

    pull: FloatArray
    width_ratio: FloatArray
    coverage: dict[float, FloatArray]
    loss: float

    def problems(self) -> list[str]:
        """Return a sentence for every number out of bounds."""
        found = []
        if (bad := np.abs(self.pull) > PULL).any():
            found.append(f"the mean pull is {_list(self.pull[bad])}, accepted is +-{PULL}")
        low, high = WIDTH
        if (bad := ~((self.width_ratio > low) & (self.width_ratio < high))).any():
            found.append(
                f"widths are {_list(self.width_ratio[bad])} of the exact ones, accepted is {low} "
                f"to {high}"
            )
        for level, fraction in self.coverage.items():
            if (bad := np.abs(fraction - level) > COVERAGE[level]).any():
                found.append(
                    f"{level:.0%} intervals cover {_list(fraction[bad])}, accepted is {level} +- "
                    f"{COVERAGE[level]}"
                )
        return found


def measure(
    posterior: Posterior,
    exact: Posterior,
    truth: FloatArray,
    x: DataArray,
    *,
    n_draws: int,
    rng: np.random.Generator,
    fold: bool = False,
) -> Accuracy:
    """Compare a posterior with the exact one.

    Args:
        posterior: The trained posterior.
        exact: The exact posterior of the same parameters.
        truth: True values, shape (pairs, d).
        x: Their data, shape (pairs, *shape).
        n_draws: Draws for each pair.
        rng: Source of randomness.
        fold: Compare pulls and widths of absolute values.
    """
    draws = posterior.draw(x, n_draws, rng).theta
    reference = exact.draw(x, n_draws, rng).theta
    below = (draws < truth[:, None]).mean(axis=1)
    coverage: dict[float, FloatArray] = {
        level: np.asarray((np.abs(below - 0.5) < level / 2).mean(axis=0)) for level in COVERAGE
    }
    loss = float("nan")
    if posterior.normalized and len(posterior.blocks) == 1:
        points = truth[:, None]
        loss = float((exact.log_prob(points, x) - posterior.log_prob(points, x)).mean())
    if fold:
        draws, reference, truth = np.abs(draws), np.abs(reference), np.abs(truth)
    width = draws.std(axis=1)
    safe = np.maximum(width, 1e-12)
    return Accuracy(
        pull=((truth - draws.mean(axis=1)) / safe).mean(axis=0),
        width_ratio=(_half_width(draws) / _half_width(reference)).mean(axis=0),
        coverage=coverage,
        loss=loss,
    )


def _half_width(draws: FloatArray) -> FloatArray:
    """Half the central 68 % interval, (batch, d): a few draws between two modes don't count."""
    low, high = np.quantile(draws, (0.16, 0.84), axis=1)
    half: FloatArray = 0.5 * (high - low)
    return half


def _list(values: FloatArray) -> str:
    return ", ".join(f"{v:.2f}" for v in values)
