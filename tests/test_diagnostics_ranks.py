from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbi_physics.diagnostics.ranks import effective_sample_size, pit_values, resample
from sbi_physics.diagnostics.uniformity import anderson_darling


def test_the_rank_counts_draws_below_the_truth():
    draws = np.array([[0.1, 0.2, 0.9], [0.6, 0.7, 0.8]])
    u = pit_values(np.array([0.5, 0.5]), draws, np.array([0.0, 0.5]))
    assert u == pytest.approx([2 / 4, 0.5 / 4])


def test_a_truth_tied_with_all_draws_is_placed_uniformly():
    jitter = np.array([0.0, 0.25, 1.0 - 1e-12])
    u = pit_values(np.ones(3), np.ones((3, 9)), jitter)
    assert u == pytest.approx([1e-9, 0.25, 1.0 - 1e-9], abs=1e-8)


@pytest.mark.parametrize("n_draws", [1, 2, 7, 100])
def test_u_is_uniform_for_an_exact_posterior_whatever_the_number_of_draws(n_draws):
    rng = np.random.default_rng(n_draws)
    n = 20_000
    u = pit_values(rng.normal(size=n), rng.normal(size=(n, n_draws)), rng.random(n))
    # p < 1e-4 happens in one run in 10 000 for a correct rule; without jitter p is 0 for few
    # draws.
    assert anderson_darling(u)[1] > 1e-4


def test_u_is_uniform_when_the_quantity_takes_few_values():
    rng = np.random.default_rng(3)
    n = 20_000
    truth, draws = rng.integers(0, 3, n) * 1.0, rng.integers(0, 3, (n, 5)) * 1.0
    assert anderson_darling(pit_values(truth, draws, rng.random(n)))[1] > 1e-4


def test_equal_weights_give_the_unweighted_rank():
    rng = np.random.default_rng(4)
    truth, draws, jitter = rng.normal(size=50), rng.normal(size=(50, 30)), rng.random(50)
    weighted = pit_values(truth, draws, jitter, np.full((50, 30), 0.7))
    assert weighted == pytest.approx(pit_values(truth, draws, jitter), abs=1e-8)


def test_importance_weights_correct_draws_from_another_distribution():
    rng = np.random.default_rng(5)
    n, n_draws = 4000, 2000
    draws = 1.5 * rng.normal(size=(n, n_draws))
    weights = np.exp(-0.5 * draws**2 + 0.5 * (draws / 1.5) ** 2)
    u = pit_values(rng.normal(size=n), draws, rng.random(n), weights)
    assert anderson_darling(u)[1] > 1e-3
    assert anderson_darling(pit_values(rng.normal(size=n), draws, rng.random(n)))[1] < 1e-10


@given(st.integers(0, 2**32 - 1), st.sampled_from([np.exp, np.cbrt, lambda v: 3 * v - 1]))
def test_ranks_do_not_change_under_a_monotone_map(seed, function):
    rng = np.random.default_rng(seed)
    truth, draws, jitter = rng.normal(size=20), rng.normal(size=(20, 11)), rng.random(20)
    before = pit_values(truth, draws, jitter)
    assert np.array_equal(pit_values(function(truth), function(draws), jitter), before)


@given(st.integers(0, 2**32 - 1))
def test_ranks_do_not_depend_on_the_order_of_the_draws(seed):
    rng = np.random.default_rng(seed)
    truth, draws, jitter = rng.normal(size=20), rng.normal(size=(20, 11)), rng.random(20)
    shuffled = rng.permuted(draws, axis=1)
    assert np.array_equal(pit_values(truth, shuffled, jitter), pit_values(truth, draws, jitter))


def test_infinite_values_are_ranked_and_missing_ones_are_marked():
    draws = np.array([[0.0, 1.0], [0.0, np.nan], [-np.inf, 1.0], [0.0, 1.0]])
    truth = np.array([-np.inf, 0.0, np.inf, np.nan])
    u = pit_values(truth, draws, np.full(4, 0.5))
    assert u[0] == pytest.approx(0.5 / 3)
    assert u[2] == pytest.approx(2.5 / 3)
    assert np.isnan(u[[1, 3]]).all()


def test_effective_sample_size_counts_equal_weights_and_ignores_their_scale():
    weights = np.array([[2.0, 2.0, 2.0, 2.0], [5.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    assert effective_sample_size(weights).tolist() == [4.0, 1.0, 0.0]


def test_resampling_reproduces_the_weighted_distribution():
    rng = np.random.default_rng(6)
    draws = 1.5 * rng.normal(size=(200, 20_000, 1))
    weights = np.exp(-0.5 * draws[..., 0] ** 2 + 0.5 * (draws[..., 0] / 1.5) ** 2)
    chosen, picks = resample(draws, weights, 500, rng)
    assert np.array_equal(chosen, np.take_along_axis(draws, picks[:, :, None], axis=1))
    # Standard error of the sd of 100 000 nearly independent draws is 0.0022.
    assert chosen.std() == pytest.approx(1.0, abs=0.01)
    assert chosen.mean() == pytest.approx(0.0, abs=0.015)
