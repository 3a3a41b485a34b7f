"""Draws of a posterior whose exact form is known.

Model: theta ~ N(0, 1)^2, x = theta + noise with covariance 0.25 [[1, 0.6], [0.6, 1]]; the exact
posterior has standard deviations 0.434 and correlation 0.517.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sbi_physics.coverage import Coverage
from sbi_physics.testing import known_answers
from sbi_physics.validate_arrays import validate_draws


@dataclass
class Case:
    """Truth, data and a Gaussian posterior for each of n observations."""

    known: known_answers.Case

    def validate(
        self, rng: np.random.Generator, n_draws: int = 199, **changes: object
    ) -> Coverage:
        return validate_draws(rng=rng, **{**self.arrays(rng, n_draws), **changes})

    def arrays(self, rng: np.random.Generator, n_draws: int = 199) -> dict[str, object]:
        return self.known.arrays(n_draws, rng)


def gaussian_case(
    n: int,
    rng: np.random.Generator,
    *,
    width: float = 1.0,
    bias: tuple[float, float] = (0.0, 0.0),
    correlation: float = 1.0,
) -> Case:
    exact = known_answers.gaussian(n, rng)
    shifted = known_answers.shifted(exact, *bias)
    return Case(known_answers.correlated(known_answers.scaled(shifted, width), correlation))


def write_draws(path: Path) -> Path:
    """A file of 250 pairs with 99 exact draws each of one parameter, m_a."""
    rng = np.random.default_rng(1)
    theta = rng.standard_normal((250, 1))
    x = theta + 0.5 * rng.standard_normal((250, 1))
    draws = 0.8 * x[:, None] + np.sqrt(0.2) * rng.standard_normal((250, 99, 1))
    np.savez(path, theta=theta, draws=draws, x=x, names=["m_a"])
    return path
