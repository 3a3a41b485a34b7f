"""Scans, intervals and regions, against closed forms."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import optimize, stats

sys.path.insert(0, str(Path(__file__).parent))
from sample_likelihoods import (
    box,
    counting_model,
    gaussian_model,
    peak_gram,
    peak_model,
    random_grams,
)

from sbi_physics.errors import ContractError, UnknownNameError
from sbi_physics.likelihood import LikelihoodRatio, chi2_threshold, interval, scan

COVARIANCE = np.array([[1.0, 0.6], [0.6, 2.0]])
EVENTS = np.random.default_rng(5).multivariate_normal([0.3, -0.5], COVARIANCE, 50)
MEAN = EVENTS.mean(axis=0)
RATIO = LikelihoodRatio(gaussian_model(COVARIANCE), terms="shape")


@pytest.mark.parametrize(
    ("level", "dimension", "value"),
    [(0.6827, 1, 1.000), (0.95, 1, 3.841), (0.9545, 2, 6.180), (0.95, 2, 5.991), (0.95, 3, 7.815)],
)
def test_thresholds_are_those_of_the_tables(level, dimension, value):
    assert chi2_threshold(level, dimension) == pytest.approx(value, abs=6e-4)


def test_a_profile_uses_the_marginal_and_a_slice_the_conditional_width():
    profiled = interval(RATIO, EVENTS, "mu_1")
    half = np.sqrt(3.841459 * COVARIANCE[0, 0] / 50)
    np.testing.assert_allclose(profiled.pieces, [[MEAN[0] - half, MEAN[0] + half]], atol=1e-5)
    assert profiled.others == "profiled"
    sliced = interval(RATIO, EVENTS, "mu_1", others={"mu_2": 0.0}, level=0.6827)
    conditional = COVARIANCE[0, 0] - COVARIANCE[0, 1] ** 2 / COVARIANCE[1, 1]
    half = np.sqrt(stats.chi2.ppf(0.6827, 1) * conditional / 50)
    centre = MEAN[0] - COVARIANCE[0, 1] / COVARIANCE[1, 1] * MEAN[1]
    np.testing.assert_allclose(sliced.pieces, [[centre - half, centre + half]], atol=1e-5)
    assert sliced.others == {"mu_2": 0.0}
    assert "others fixed" in str(sliced)
    assert "the box" not in str(sliced)
    assert not sliced.open_low
    assert not sliced.open_high


def test_poisson_intervals_solve_the_likelihood_equation():
    found = interval(LikelihoodRatio(counting_model(), terms="rate"), np.zeros((37, 1)), "mu")

    def equation(mu):
        nu = 20 + 10 * mu
        return 2 * (nu - 37 + 37 * np.log(37 / nu)) - stats.chi2.ppf(0.95, 1)

    ends = [optimize.brentq(equation, -1.5, 1.7), optimize.brentq(equation, 1.7, 8.0)]
    np.testing.assert_allclose(found.pieces, [ends], atol=1e-5)


def test_scans_of_two_parameters_are_the_exact_ellipse():
    axes = {"mu_1": np.linspace(-0.5, 1, 21), "mu_2": np.linspace(-1.5, 0.5, 31)}
    found = scan(RATIO, EVENTS, axes)
    offset = found.points() - MEAN
    exact = 50 * np.einsum("...i,ij,...j", offset, np.linalg.inv(COVARIANCE), offset)
    np.testing.assert_allclose(found.statistic, exact, rtol=1e-8, atol=1e-8)
    np.testing.assert_array_equal(found.region(0.95), exact <= stats.chi2.ppf(0.95, 2))
    np.testing.assert_allclose(found.best, MEAN, atol=1e-6)


def test_profiled_scans_in_a_third_direction_find_the_lower_branch():
    # Quadratic surface in three parameters: compare with brute force over a fine grid.
    from sbi_physics.likelihood import QuadraticModel

    rng = np.random.default_rng(8)
    grams = random_grams(2000, 3, rng, scale=0.8)
    model = QuadraticModel(box("a", "b", "c", half=1.0), grams.mean(axis=0), 60.0)
    ratio, events = LikelihoodRatio(model), random_grams(60, 3, rng, scale=0.8)
    grid = np.linspace(-0.9, 0.9, 4)
    found = scan(ratio, events, {"a": grid, "b": grid})
    c = np.linspace(-1, 1, 2001)
    best = ratio.fit(events).minus2_log_ratio
    for i, a in enumerate(grid):
        for j, b in enumerate(grid):
            points = np.stack([np.full_like(c, a), np.full_like(c, b), c], axis=1)
            brute = ratio.minus2_log_ratio(points, events).min() - best
            assert found.statistic[i, j] <= brute + 1e-7
            assert found.statistic[i, j] == pytest.approx(brute, abs=1e-3)


def test_two_minima_make_two_pieces():
    rng = np.random.default_rng(4)
    x = np.concatenate([rng.normal(0, 1.22, 200), rng.normal(2, 0.71, 100)])
    found = interval(LikelihoodRatio(peak_model()), peak_gram(x), "theta")
    assert found.pieces.shape == (2, 2)
    np.testing.assert_allclose(found.pieces[0], -found.pieces[1, ::-1], atol=1e-5)
    assert found.pieces[0, 1] < 0 < found.pieces[1, 0]


def test_intervals_far_smaller_than_the_box_are_found():
    narrow = 1e-3 * EVENTS[:, :1]
    model = gaussian_model(np.array([[1e-6]]), half=50.0)
    found = interval(LikelihoodRatio(model, terms="shape"), narrow, "mu_1")
    half = 1e-3 * np.sqrt(3.841459 / 50)
    middle = 1e-3 * MEAN[0]
    np.testing.assert_allclose(found.pieces, [[middle - half, middle + half]], atol=1e-8)


def test_ends_at_the_box_are_marked_open():
    model = gaussian_model(np.eye(1), half=0.2)
    found = interval(LikelihoodRatio(model, terms="shape"), EVENTS[:3, :1], "mu_1")
    assert found.open_low
    assert found.open_high
    assert str(found).endswith("; no limit: reaches the lower and the upper end of the box")
    assert (found.low, found.high) == (-0.2, 0.2)


def test_critical_values_may_vary_with_the_parameter():
    ratio = LikelihoodRatio(gaussian_model(np.eye(1)), terms="shape")
    x = EVENTS[:, :1]
    found = interval(
        ratio, x, "mu_1", threshold=lambda points: np.where(points[:, 0] > MEAN[0], 1.0, 4.0)
    )
    ends = [MEAN[0] - 2 / np.sqrt(50), MEAN[0] + 1 / np.sqrt(50)]
    np.testing.assert_allclose(found.pieces, [ends], atol=1e-5)
    region = scan(ratio, x, {"mu_1": np.linspace(-1, 1, 9)})
    np.testing.assert_array_equal(region.region(threshold=1.0), region.statistic <= 1.0)


def test_figures_show_what_was_scanned():
    from sbi_physics.plots import likelihood_contour_figure, likelihood_curve_figure, png

    slices = {
        "profiled": scan(RATIO, EVENTS, {"mu_1": np.linspace(-1, 1, 41)}),
        "slice": scan(RATIO, EVENTS, {"mu_1": np.linspace(-1, 1, 41)}, others={"mu_2": 0.0}),
    }
    parameters = RATIO.model.prior.parameters
    figure = likelihood_curve_figure(slices, parameters, truth=0.3)
    axes = figure.axes[0]
    assert [t.get_text() for t in axes.get_legend().get_texts()][:2] == ["profiled", "slice"]
    assert png(figure).startswith(b"\x89PNG")
    axes = {"mu_1": np.linspace(-1, 1, 21), "mu_2": np.linspace(-2, 1, 21)}
    figure = likelihood_contour_figure(
        {"all": scan(RATIO, EVENTS, axes)}, parameters, truth=(0.3, -0.5)
    )
    assert figure.axes[0].get_xlabel() == "mu_1"
    assert png(figure).startswith(b"\x89PNG")
    with pytest.raises(ContractError, match="two parameters"):
        likelihood_contour_figure(slices, parameters)
    with pytest.raises(ContractError, match="one parameter"):
        likelihood_curve_figure({"a": scan(RATIO, EVENTS, axes)}, parameters)


def test_bad_scans_are_refused():
    with pytest.raises(ContractError, match="values of all other parameters; mu_2 missing"):
        interval(RATIO, EVENTS, "mu_1", others={})
    with pytest.raises(UnknownNameError, match="mu_3"):
        interval(RATIO, EVENTS, "mu_3")
    with pytest.raises(ContractError, match="one or two increasing"):
        scan(RATIO, EVENTS, {"mu_1": [1.0, 0.0]})
    with pytest.raises(ContractError, match="level in"):
        chi2_threshold(95, 1)


def test_profiles_sweep_both_ways_and_keep_the_lower_value():
    from sbi_physics.likelihood.scans import _swept

    class Sticky:
        """Finds the low branch only when it comes from above."""

        def profiled(self, value, near):
            low = near is not None and near[0] > value[0]
            return (1.0 if low else 2.0), value

    points = np.linspace(0, 1, 5)[:, None]
    np.testing.assert_array_equal(_swept(Sticky(), points), [1, 1, 1, 1, 2])
