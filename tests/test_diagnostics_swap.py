from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbi_physics.diagnostics.evaluation import DrawBatch, Evaluation
from sbi_physics.diagnostics.ranks import pool_ranks
from sbi_physics.diagnostics.swap import (
    min_p,
    n_swaps,
    own_p_values,
    rank_statistics,
    swap_labels,
)
from sbi_physics.diagnostics.uniformity import anderson_darling


def test_the_histogram_formula_is_anderson_darling_of_the_mid_ranks():
    rng = np.random.default_rng(1)
    for n, m in ((50, 7), (200, 100), (30, 1000)):
        ranks = rng.permuted(np.tile(np.arange(m, dtype=np.uint16), (n, 1)), axis=1)
        labels = swap_labels(n, m, 20, rng)
        found = rank_statistics(ranks, labels)
        for b in range(21):
            chosen = ranks[np.arange(n), labels[:, b]]
            assert found[b] == pytest.approx(anderson_darling((chosen + 0.5) / m)[0], rel=1e-9)


def test_chunks_of_replicates_change_nothing(monkeypatch):
    from sbi_physics.diagnostics import swap

    rng = np.random.default_rng(2)
    ranks = rng.permuted(np.tile(np.arange(20, dtype=np.uint16), (40, 1)), axis=1)
    labels = swap_labels(40, 20, 200, rng)
    whole = rank_statistics(ranks, labels)
    monkeypatch.setattr(swap, "_CHUNK_CELLS", 120)
    assert rank_statistics(ranks, labels) == pytest.approx(whole, rel=1e-12)


def test_replicate_0_is_the_observed_labelling_and_the_others_take_every_point_equally_often():
    labels = swap_labels(100, 4, 2000, np.random.default_rng(3))
    assert labels.dtype == np.uint16
    assert not labels[:, 0].any()
    counts = np.bincount(labels[:, 1:].ravel(), minlength=4)
    # 200 000 choices among 4: 5 standard errors.
    assert np.abs(counts - 50_000).max() < 5 * np.sqrt(200_000 * 0.25 * 0.75)


def test_every_point_of_a_row_has_its_own_rank_and_ties_are_broken_at_random():
    rng = np.random.default_rng(4)
    points = rng.integers(0, 3, (500, 8)).astype(float)
    ranks = pool_ranks(points, lambda row: np.random.default_rng([5, row]))
    assert np.array_equal(np.sort(ranks, axis=1), np.tile(np.arange(8), (500, 1)))
    for row, own in zip(points, ranks, strict=True):
        assert np.all(np.diff(row[np.argsort(own)]) >= 0)
    flat = pool_ranks(np.zeros((4000, 5)), lambda row: np.random.default_rng([6, row]))
    # The first of 5 tied points has mean rank 2 with standard error sqrt(2 / 4000).
    assert abs(flat[:, 0].mean() - 2.0) < 4 * np.sqrt(2 / 4000)


@given(st.integers(0, 2**32 - 1))
def test_p_values_count_replicates_at_least_as_extreme_ties_included(seed):
    statistics = np.random.default_rng(seed).integers(0, 6, 40).astype(float)
    p = own_p_values(statistics)
    assert p == pytest.approx([(statistics >= t).mean() for t in statistics])


def test_rounding_errors_do_not_tell_equal_statistics_apart():
    assert own_p_values(np.array([0.3, 0.1 + 0.2, 0.1]))[0] == pytest.approx(2 / 3)


def test_the_smallest_p_value_of_dependent_tests_is_calibrated():
    # 400 times 3 strongly dependent statistics of 199 exchangeable replicates: p takes the values
    # k / 200 with equal probability.
    rng = np.random.default_rng(7)
    common = rng.standard_normal((400, 1, 200))
    statistics = common + 0.3 * rng.standard_normal((400, 3, 200))
    p = np.array([min_p(s) for s in statistics])
    # Central 99.9 % of Binomial(400, 0.05) and Binomial(400, 0.5).
    assert 7 <= np.sum(p <= 0.05) <= 36
    assert 167 <= np.sum(p <= 0.5) <= 233


def test_enough_replicates_are_drawn_for_many_tests_to_reach_the_level():
    for k in (1, 6, 40):
        swaps = n_swaps(k, 0.01)
        assert swaps >= 4999
        statistics = np.random.default_rng(k).random((k, swaps + 1))
        statistics[0, 0] = 2.0
        assert min_p(statistics) <= 0.002 + 1e-9


def _evaluated(truth, draws, log_q, references, features) -> Evaluation:
    evaluation = Evaluation(
        ("a", "b"), 1, len(truth), references=references, features=features, products=True
    )
    evaluation.add(
        slice(0, len(truth)),
        DrawBatch(truth, draws, draws, log_q_truth=log_q[:, 0], log_q_draws=log_q[:, 1:]),
    )
    return evaluation


def test_a_replicate_is_what_the_data_would_give_with_truth_and_draw_exchanged():
    rng = np.random.default_rng(8)
    n, n_draws = 60, 9
    points = rng.standard_normal((n, n_draws + 1, 2))
    log_q = -(points**2).sum(axis=2)
    references = {"tarp_u": rng.standard_normal((n, 2))}
    features = rng.standard_normal((n, 3))
    before = _evaluated(points[:, 0], points[:, 1:], log_q, references, features)
    rows = np.arange(n)
    for b in (1, 17, 400):
        chosen = before.labels[:, b]
        order = np.tile(np.arange(n_draws + 1), (n, 1))
        order[rows, chosen], order[:, 0] = 0, chosen
        moved = np.take_along_axis(points, order[..., None], axis=1)
        moved_q = np.take_along_axis(log_q, order, axis=1)
        after = _evaluated(moved[:, 0], moved[:, 1:], moved_q, references, features)
        assert set(before.ranks) == {"sbc:a", "sbc:b", "hpd", "tarp_u", "pair:a,b"}
        for quantity, ranks in before.ranks.items():
            assert rank_statistics(ranks, before.labels)[b] == pytest.approx(
                rank_statistics(after.ranks[quantity], after.labels)[0], rel=1e-9
            )
        swapped = after.moments.statistics()
        for name, statistics in before.moments.statistics().items():
            assert statistics[b] == pytest.approx(swapped[name][0], rel=1e-9)
