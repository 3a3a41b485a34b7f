from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from sbi_physics.diagnostics.dependence import (
    correlation_effects,
    slope_effect,
    width_slope_effect,
)


@pytest.mark.parametrize(("true", "claimed", "width"), [(0.5, 0.5, 1.0), (0.5, 0.0, 1.3)])
def test_the_interval_covers_true_minus_claimed_correlation_whatever_the_width(
    true, claimed, width
):
    rng = np.random.default_rng(1)
    root = np.linalg.cholesky([[1.0, true], [true, 1.0]])
    covariance = np.broadcast_to([[1.0, claimed], [claimed, 1.0]], (300, 2, 2))
    covered = 0
    for _ in range(400):
        truth = width * rng.standard_normal((300, 2)) @ root.T
        (effect,) = correlation_effects(("a", "b"), truth, np.zeros((300, 2)), covariance)
        covered += effect.low <= true - claimed <= effect.high
    assert (effect.kind, effect.name) == ("correlation", "a,b")
    # 95 % nominal; 4 standard errors of 400 repetitions are 0.044.
    assert 0.906 < covered / 400 < 0.994


def test_correlations_that_change_with_the_data_are_averaged():
    rng = np.random.default_rng(2)
    n = 4000
    rho = rng.uniform(-0.9, 0.9, n)
    z = rng.standard_normal((n, 2))
    truth = np.stack([z[:, 0], rho * z[:, 0] + np.sqrt(1 - rho**2) * z[:, 1]], axis=1)
    covariance = np.ones((n, 2, 2))
    covariance[:, 0, 1] = covariance[:, 1, 0] = rho
    (effect,) = correlation_effects(("a", "b"), truth, np.zeros((n, 2)), covariance)
    assert effect.low < 0.0 < effect.high
    assert effect.high - effect.low < 0.08


def test_the_steepest_slope_is_covered_and_zero_slopes_rarely_stand_out():
    rng = np.random.default_rng(3)
    covered, silent = 0, 0
    for _ in range(400):
        x = rng.standard_normal((300, 4))
        g = rng.standard_normal(300) + 0.4 * x[:, 2]
        effect = slope_effect("a", special.ndtr(g), x)
        covered += effect.low <= 0.4 <= effect.high
        none = slope_effect("a", rng.random(300), x)
        silent += none.low <= 0.0 <= none.high
    assert effect.kind == "x-slope"
    # The simultaneous interval of 4 slopes covers one of them in 98.75 %, all of them in 95 %.
    assert covered / 400 > 0.95
    assert 0.906 < silent / 400 < 0.994


def test_the_steepest_change_of_width_is_covered_and_zero_changes_rarely_stand_out():
    rng = np.random.default_rng(5)
    covered, silent = 0, 0
    for _ in range(400):
        x = rng.standard_normal((300, 4))
        g = rng.standard_normal(300) * (1 + 0.3 * np.sign(x[:, 2]))
        effect = width_slope_effect("a", special.ndtr(g), x)
        # E[g^2 z] / (2 E[g^2]) with (1 +- 0.3)^2 on either side of zero.
        expected = 0.5 * np.sqrt(2 / np.pi) * (1.3**2 - 0.7**2) / (1.3**2 + 0.7**2)
        covered += effect.low <= expected <= effect.high
        none = width_slope_effect("a", rng.random(300), x)
        silent += none.low <= 0.0 <= none.high
    assert (effect.kind, effect.name) == ("x-width", "a")
    # As for the slope of the bias.
    assert covered / 400 > 0.95
    assert 0.906 < silent / 400 < 0.994


def test_effects_without_variation_or_pairs_are_left_out():
    u = np.random.default_rng(4).random(50)
    assert slope_effect("a", u, np.zeros((50, 3))) is None
    assert slope_effect("a", u[:10], np.ones((10, 3))) is None
    assert width_slope_effect("a", u, np.zeros((50, 3))) is None
    flat = np.zeros((50, 2, 2))
    assert correlation_effects(("a", "b"), np.zeros((50, 2)), np.zeros((50, 2)), flat) == ()
