"""Coverage at fixed parameters and learned critical values."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

from sbi_physics.diagnostics.frequentist import (
    CriticalValues,
    FrequentistCoverage,
    coverage_at_points,
    fit_critical_values,
    waldo,
)
from sbi_physics.errors import ValidationError


def test_coverage_is_counted_with_joint_intervals():
    rng = np.random.default_rng(1)
    missed = 0
    for _ in range(200):
        # Credibilities of an exact frequentist procedure are uniform at every point.
        found = coverage_at_points(
            rng.uniform(size=(5, 100)), np.zeros((5, 1)), (0.683, 0.954), names=("a",)
        )
        missed += bool((found.undercovers | found.overcovers).any())
    # Confidence 95 %: at most the upper end of the central 99.9 % of Binomial(200, 0.05).
    assert missed <= 21


def test_under_and_over_coverage_are_told_apart():
    rng = np.random.default_rng(2)
    credibility = np.stack([rng.beta(2, 1, 500), rng.uniform(size=500), rng.beta(1, 2, 500)])
    credibility[1, :100] = np.nan
    found = coverage_at_points(credibility, np.arange(3.0)[:, None], (0.683,), names=("a",))
    assert found.undercovers[:, 0].tolist() == [True, False, False]
    assert found.overcovers[:, 0].tolist() == [False, False, True]
    assert found.n_toys.tolist() == [500, 400, 500]
    assert found.coverage[0, 0] == np.mean(credibility[0] <= 0.683)
    table = found.summary()
    assert " -" in table
    assert " +" in table
    again = FrequentistCoverage.from_dict(json.loads(found.to_json()))
    assert again.to_json() == found.to_json()
    with pytest.raises(ValidationError, match="schema 3"):
        FrequentistCoverage.from_dict({"schema": 3})


@pytest.mark.parametrize(
    ("shape", "points", "levels", "message"),
    [
        ((2, 5), (2, 1), (1.0,), "levels must lie between 0 and 1"),
        ((2, 5), (3, 1), (0.5,), r"point, 1\), got \(3, 1\)"),
        ((2, 0), (2, 1), (0.5,), "at least one usable toy"),
    ],
)
def test_bad_tables_are_refused(shape, points, levels, message):
    with pytest.raises(ValidationError, match=message):
        coverage_at_points(np.full(shape, 0.5), np.zeros(points), levels, names=("a",))


def test_waldo_of_a_gaussian_is_the_squared_distance():
    rng = np.random.default_rng(3)
    covariance = np.array([[1.0, 0.5], [0.5, 2.0]])
    draws = rng.multivariate_normal([1.0, -1.0], covariance, size=(1, 100_000))
    point = np.array([[[2.0, 0.0], [1.0, -1.0]]])
    residual = np.array([1.0, 1.0])
    expected = residual @ np.linalg.inv(covariance) @ residual
    # Means of 1e5 draws: relative errors of about 0.01.
    assert waldo(point, draws)[0] == pytest.approx([expected, 0.0], abs=0.05)
    constant = np.concatenate([draws, np.ones((1, 100_000, 1))], axis=2)
    assert np.isfinite(waldo(np.ones((1, 2, 3)), constant)).all()


def test_critical_values_cover_where_the_spread_depends_on_the_parameter():
    # tau = exp(theta) chi2_1: the 90 % critical value is exp(theta) * 2.706.
    rng = np.random.default_rng(4)
    theta = rng.uniform(-1, 1, (1000, 1))
    tau = np.exp(theta[:, 0]) * rng.chisquare(1, 1000)
    found = fit_critical_values(theta, tau, 0.9, degree=1)
    points = np.linspace(-0.9, 0.9, 7)[:, None]
    covered = stats.chi2(1).cdf(found.at(points) / np.exp(points[:, 0]))
    # 500 pairs: standard error sqrt(0.09 / 500) = 0.013 of the average, up to twice at the ends.
    assert np.abs(covered - 0.9).max() < 0.08
    flat = fit_critical_values(theta, tau, 0.9, degree=0)
    wrong = stats.chi2(1).cdf(flat.at(points) / np.exp(points[:, 0]))
    assert wrong[0] > 0.94
    assert wrong[-1] < 0.86
    again = CriticalValues.from_dict(json.loads(json.dumps(found.to_dict())))
    assert np.array_equal(again.at(points), found.at(points))


def test_the_average_coverage_is_right_even_with_a_wrong_polynomial():
    rng = np.random.default_rng(5)
    theta = rng.uniform(-1, 1, (400, 2))
    tau = np.exp(np.sin(9 * theta[:, 0])) * rng.chisquare(1, 400)
    covered = []
    for seed in range(40):
        own = np.random.default_rng(seed)
        theta = own.uniform(-1, 1, (400, 2))
        tau = np.exp(np.sin(9 * theta[:, 0])) * own.chisquare(1, 400)
        found = fit_critical_values(theta, tau, 0.8, degree=1)
        fresh = own.uniform(-1, 1, (1000, 2))
        limit = found.at(fresh) / np.exp(np.sin(9 * fresh[:, 0]))
        covered.append(stats.chi2(1).cdf(limit).mean())
    # Split conformal: 0.8 to 0.8 + 1 / 201 on average; each run scatters by 0.03.
    assert np.mean(covered) == pytest.approx(0.8025, abs=5 * 0.03 / np.sqrt(40))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"level": 1.0}, "0 < level < 1"),
        ({"degree": 9}, "degree 0 to 4, got 0.9 and 9"),
        ({"statistic": np.zeros(99)}, r"got \(100, 1\) and \(99,\)"),
        ({"statistic": np.full(100, -1.0)}, "not negative"),
        ({"level": 0.99}, "100 pairs are too few for a 99.0% critical value"),
    ],
)
def test_bad_calibrations_are_refused(changes, message):
    arguments = {"theta": np.zeros((100, 1)), "statistic": np.ones(100), "level": 0.9, "degree": 0}
    with pytest.raises(ValidationError, match=message):
        fit_critical_values(**{**arguments, **changes})
