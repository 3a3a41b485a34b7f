from __future__ import annotations

import numpy as np
import pytest

from sbi_physics.diagnostics.ranks import pit_values
from sbi_physics.diagnostics.tarp import (
    JITTER,
    data_references,
    distances,
    normal_references,
    prior_references,
)
from sbi_physics.diagnostics.uniformity import anderson_darling
from sbi_physics.distributions import LogUniform, Normal, Uniform
from sbi_physics.parameters import Parameter
from sbi_physics.priors import Prior
from sbi_physics.references import references_from_arrays

PRIOR = Prior(
    [
        Parameter("a", Uniform(-1.0, 3.0)),
        Parameter("b", LogUniform(1e-3, 1e3), scale="log10"),
        Parameter("c", Normal(5.0, 0.1)),
    ]
)


def test_references_fill_the_prior_in_scaled_coordinates():
    found = prior_references(PRIOR, 20_000, 1)
    assert found.std(axis=0) == pytest.approx(1.0, abs=0.03)
    low, high = PRIOR.scaled(np.array([[-1.0, 1e-3, 4.0], [3.0, 1e3, 6.0]]))
    assert np.all(found >= low)
    assert np.all(found <= high)


def test_references_belong_to_parameters_not_to_columns():
    found = prior_references(PRIOR, 50, 1)
    turned = prior_references(PRIOR.select(("c", "a", "b")), 50, 1)
    assert np.array_equal(turned, found[:, [2, 0, 1]])
    assert not np.array_equal(prior_references(PRIOR, 50, 2), found)


def test_references_near_the_data_stay_within_half_a_residual_sd():
    centre, sd = np.random.default_rng(1).standard_normal((4000, 2)), np.array([0.5, 2.0])
    away = (data_references(("a", "b"), centre, sd, 1) - centre) / sd
    assert np.abs(away).max() <= JITTER
    # Uniform on [-1/2, 1/2].
    assert away.std(axis=0) == pytest.approx(1 / np.sqrt(12), rel=0.05)


def test_normal_references_have_the_moments_asked_for():
    found = normal_references(("a", "b"), np.array([1.0, -2.0]), np.array([0.1, 3.0]), 20_000, 1)
    assert found.mean(axis=0) == pytest.approx([1.0, -2.0], abs=0.1)
    assert found.std(axis=0) == pytest.approx([0.1, 3.0], rel=0.03)


def test_distances_are_euclidean():
    points = np.array([[[3.0, 4.0], [0.0, 0.0]]])
    assert distances(points, np.zeros((1, 2))).tolist() == [[25.0, 0.0]]


def test_credibility_counts_the_draws_closer_than_the_truth():
    points = np.array([[[2.0, 0.0], [1.0, 0.0], [0.0, 3.0], [0.5, 0.5]]])
    away = distances(points, np.zeros((1, 2)))
    assert pit_values(away[:, 0], away[:, 1:], np.zeros(1)) == pytest.approx([2 / 4])


def test_references_do_not_know_which_point_is_the_truth():
    rng = np.random.default_rng(2)
    n = 100
    truth, x = rng.standard_normal((n, 2)), rng.standard_normal((n, 3))
    other = np.where((np.arange(n) % 5 == 4)[:, None], truth, rng.standard_normal((n, 2)))
    names, spread = ("a", "b"), (np.zeros(2), np.ones(2))
    for prior in (None, PRIOR.select(("a", "b"))):
        first = references_from_arrays(truth, x, prior, names, spread, 1)
        second = references_from_arrays(other, x, prior, names, spread, 1)
        assert np.array_equal(first.anywhere, second.anywhere)
        assert np.array_equal(first.nearby, second.nearby, equal_nan=True)
        # The pairs that fitted the regression are not tested with it.
        assert np.isnan(first.nearby).all(axis=1).tolist() == (np.arange(n) % 5 == 4).tolist()


@pytest.mark.parametrize(("kind", "sees"), [("u", False), ("x", True)])
def test_only_references_that_follow_the_data_see_a_posterior_that_repeats_the_prior(kind, sees):
    rng = np.random.default_rng(3)
    n = 1000
    theta = rng.standard_normal((n, 2))
    x = theta + 0.5 * rng.standard_normal((n, 2))
    draws = rng.standard_normal((n, 200, 2))
    near = data_references(("a", "b"), 0.8 * x, np.full(2, np.sqrt(0.2)), 1)
    anywhere = normal_references(("a", "b"), np.zeros(2), np.ones(2), n, 1)
    away = distances(
        np.concatenate([theta[:, None], draws], axis=1), near if kind == "x" else anywhere
    )
    p = anderson_darling(pit_values(away[:, 0], away[:, 1:], rng.random(n)))[1]
    assert (p < 1e-10) == sees
    assert sees or p > 1e-3
