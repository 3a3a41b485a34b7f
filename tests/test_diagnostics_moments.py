from __future__ import annotations

import numpy as np
import pytest

from sbi_physics.diagnostics.moments import (
    MomentSums,
    choose_moments,
    choose_width_moments,
    standardise,
)
from sbi_physics.diagnostics.swap import own_p_values, swap_labels


def statistics(points, features=None, *, swaps=99, seed=0, batch=1000, test="moment"):
    n, m, d = points.shape
    labels = swap_labels(n, m, swaps, np.random.default_rng(seed))
    k = 0 if features is None else features.shape[1]
    tests = {"moment": choose_moments(d, k, n), "width_x": choose_width_moments(d, k, n)}
    sums = MomentSums(tests, labels)
    for start in range(0, n, batch):
        rows = np.arange(start, min(start + batch, n))
        sums.add(rows, points[rows], None if features is None else features[rows])
    return sums.statistics()[test]


def test_at_most_one_moment_for_20_pairs_is_kept_in_the_stated_order():
    assert len(choose_moments(2, 8, 10_000)) == 2 + 2 + 1 + 2 * 5
    assert choose_moments(3, 2, 80) == ((0, -1, -1), (1, -1, -1), (2, -1, -1), (0, 0, -1))
    assert len(choose_moments(10, 5, 2000)) == 100
    assert choose_moments(2, 0, 5) == ((0, -1, -1),)
    assert len(choose_width_moments(2, 8, 10_000)) == 2 * 5
    assert choose_width_moments(3, 2, 80) == ((0, 0, 0), (1, 1, 0), (2, 2, 0), (0, 0, 1))
    assert choose_width_moments(3, 0, 80) == ()


def test_the_streamed_statistic_is_the_quadratic_form_of_its_definition():
    rng = np.random.default_rng(1)
    n, m = 100, 12
    points, x = rng.standard_normal((n, m, 2)) @ [[1, 0.4], [0, 2]], rng.standard_normal((n, 1))
    t = standardise(points)
    cross = t * x[:, None]
    phi = np.concatenate([t, t**2], axis=2)[..., :5]
    phi = np.concatenate([phi, (t[..., :1] * t[..., 1:])], axis=2)
    phi = np.concatenate([phi, cross], axis=2)[..., : 100 // 20]
    d = phi - phi.mean(axis=1, keepdims=True)
    sigma = np.einsum("nmi,nmj->ij", d, d) / (n * m)
    mean = d[:, 0].mean(axis=0)
    expected = n * mean @ np.linalg.inv(sigma) @ mean
    assert statistics(points, x)[0] == pytest.approx(expected, rel=1e-9)


def test_the_width_test_is_the_quadratic_form_of_its_definition():
    rng = np.random.default_rng(7)
    n, m = 100, 12
    points, x = rng.standard_normal((n, m, 2)) @ [[1, 0.4], [0, 2]], rng.standard_normal((n, 2))
    squared = standardise(points) ** 2
    phi = np.concatenate([squared * x[:, None, :1], squared * x[:, None, 1:]], axis=2)
    d = phi - phi.mean(axis=1, keepdims=True)
    sigma = np.einsum("nmi,nmj->ij", d, d) / (n * m)
    mean = d[:, 0].mean(axis=0)
    expected = n * mean @ np.linalg.inv(sigma) @ mean
    assert statistics(points, x, test="width_x")[0] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("test", ["moment", "width_x"])
def test_batches_change_nothing(test):
    rng = np.random.default_rng(2)
    points, x = rng.standard_normal((90, 8, 2)), rng.standard_normal((90, 2))
    whole = statistics(points, x, test=test)
    assert statistics(points, x, batch=7, test=test) == pytest.approx(whole, rel=1e-10)


def test_units_and_offsets_of_the_parameters_change_nothing():
    rng = np.random.default_rng(3)
    points = rng.standard_normal((90, 8, 2))
    moved = points * [1e-9, 1e6] + [1.0, -3e5]
    assert statistics(moved) == pytest.approx(statistics(points), rel=1e-4)


@pytest.mark.parametrize(
    ("n_draws", "test"),
    [(1, "moment"), (2, "moment"), (30, "moment"), (2, "width_x"), (30, "width_x")],
)
def test_an_exact_posterior_is_rejected_at_the_stated_rate(n_draws, test):
    rng = np.random.default_rng(n_draws)
    p = []
    for _ in range(300):
        points = rng.standard_t(4, (100, n_draws + 1, 2))
        features = rng.standard_normal((100, 1))
        seed = int(rng.integers(2**31))
        p.append(own_p_values(statistics(points, features, seed=seed, test=test))[0])
    # Central 99.9 % of Binomial(300, 0.05) and Binomial(300, 0.5).
    assert 4 <= np.sum(np.array(p) <= 0.05) <= 29
    assert 122 <= np.sum(np.array(p) <= 0.5) <= 178


def test_a_dropped_correlation_and_a_bias_that_averages_out_are_seen():
    rng = np.random.default_rng(5)
    n, m = 400, 40
    points, x = rng.standard_normal((n, m, 2)), rng.standard_normal((n, 1))
    assert own_p_values(statistics(points, x, swaps=999))[0] > 0.01
    correlated = points.copy()
    correlated[:, 0] = correlated[:, 0] @ np.linalg.cholesky([[1, 0.5], [0.5, 1]]).T
    assert own_p_values(statistics(correlated, swaps=999))[0] == pytest.approx(0.001)
    biased = points.copy()
    biased[:, 0, 0] += 0.4 * np.sign(x[:, 0])
    assert own_p_values(statistics(biased, x, swaps=999))[0] == pytest.approx(0.001)
    # Without the data it averages out.
    assert own_p_values(statistics(biased, swaps=999))[0] > 0.001


def test_widths_that_average_out_are_seen_by_the_width_test_alone():
    rng = np.random.default_rng(8)
    points, x = rng.standard_normal((400, 40, 2)), rng.standard_normal((400, 1))
    assert own_p_values(statistics(points, x, swaps=999, test="width_x"))[0] > 0.01
    # The mean square stays one.
    points[:, 0] *= np.where(x > 0, 1.25, np.sqrt(2 - 1.25**2))
    assert own_p_values(statistics(points, x, swaps=999, test="width_x"))[0] == pytest.approx(
        0.001
    )
    assert own_p_values(statistics(points, x, swaps=999))[0] > 0.001


def test_constant_and_duplicate_parameters_are_left_out():
    rng = np.random.default_rng(6)
    points = rng.standard_normal((100, 10, 1))
    twice = np.concatenate([points, points, np.full_like(points, 3.1)], axis=2)
    found = statistics(twice)
    assert np.isfinite(found).all()
    assert found == pytest.approx(statistics(points)[: len(found)], rel=0.5)
    assert not statistics(np.full((50, 4, 2), 0.1)).any()
    # The squares of two standardised points are equal.
    assert not statistics(points[:, :2], rng.standard_normal((100, 1)), test="width_x").any()
