from __future__ import annotations

import numpy as np
import pytest

from sbi_physics.diagnostics.moments import MomentSums, choose_moments, standardise
from sbi_physics.diagnostics.swap import own_p_values, swap_labels


def statistics(points, features=None, *, swaps=99, seed=0, batch=1000):
    n, m, d = points.shape
    labels = swap_labels(n, m, swaps, np.random.default_rng(seed))
    k = 0 if features is None else features.shape[1]
    sums = MomentSums(choose_moments(d, k, n), labels)
    for start in range(0, n, batch):
        rows = np.arange(start, min(start + batch, n))
        sums.add(rows, points[rows], None if features is None else features[rows])
    return sums.statistics()


def test_at_most_one_moment_for_20_pairs_is_kept_in_the_stated_order():
    assert len(choose_moments(2, 8, 10_000)) == 2 + 2 + 1 + 2 * 5
    assert choose_moments(3, 2, 80) == ((0, -1, -1), (1, -1, -1), (2, -1, -1), (0, 0, -1))
    assert len(choose_moments(10, 5, 2000)) == 100
    assert choose_moments(2, 0, 5) == ((0, -1, -1),)


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


def test_batches_change_nothing():
    rng = np.random.default_rng(2)
    points, x = rng.standard_normal((90, 8, 2)), rng.standard_normal((90, 2))
    whole = statistics(points, x)
    assert statistics(points, x, batch=7) == pytest.approx(whole, rel=1e-10)


def test_units_and_offsets_of_the_parameters_change_nothing():
    rng = np.random.default_rng(3)
    points = rng.standard_normal((90, 8, 2))
    moved = points * [1e-9, 1e6] + [1.0, -3e5]
    assert statistics(moved) == pytest.approx(statistics(points), rel=1e-4)


@pytest.mark.parametrize("n_draws", [1, 2, 30])
def test_an_exact_posterior_is_rejected_at_the_stated_rate(n_draws):
    rng = np.random.default_rng(n_draws)
    p = []
    for _ in range(300):
        points = rng.standard_t(4, (100, n_draws + 1, 2))
        features = rng.standard_normal((100, 1))
        p.append(own_p_values(statistics(points, features, seed=int(rng.integers(2**31))))[0])
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


def test_constant_and_duplicate_parameters_are_left_out():
    rng = np.random.default_rng(6)
    points = rng.standard_normal((100, 10, 1))
    twice = np.concatenate([points, points, np.full_like(points, 3.1)], axis=2)
    found = statistics(twice)
    assert np.isfinite(found).all()
    assert found == pytest.approx(statistics(points)[: len(found)], rel=0.5)
    assert not statistics(np.full((50, 4, 2), 0.1)).any()
