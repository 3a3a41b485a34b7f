from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from sbi_physics.diagnostics.uniformity import (
    anderson_darling,
    anderson_darling_tail,
    holm,
    kolmogorov_smirnov,
    location_scale,
    max_distance,
)
from sbi_physics.errors import ValidationError


@pytest.mark.parametrize(
    ("statistic", "tail"),
    # Anderson and Darling (1954), table 1: asymptotic significance points, given to 3 decimals.
    [(1.933, 0.10), (2.492, 0.05), (3.878, 0.01)],
)
def test_the_anderson_darling_tail_reproduces_published_significance_points(statistic, tail):
    assert anderson_darling_tail(statistic) == pytest.approx(tail, rel=1e-3)


def test_the_anderson_darling_tail_equals_the_law_inverted_from_its_characteristic_function():
    # Independent route: Gil-Pelaez inversion of prod_j (1 - 2 i t / (j (j + 1)))^(-1/2), which
    # decays like exp(-pi sqrt(t) / 2). Factors beyond j = 400 are taken to first order; their
    # weights sum to 1 / 401.
    step = 1e-3
    t = (np.arange(60_000) + 0.5) * step
    log_cf = 1j * t / 401
    for j in range(1, 401):
        log_cf -= 0.5 * np.log(1 - 2j * t / (j * (j + 1)))
    for statistic in (0.05, 0.3, 0.7, 1.5, 3.0, 6.0):
        oscillating = np.imag(np.exp(log_cf - 1j * t * statistic)) / t
        tail = 0.5 + np.sum(oscillating) * step / np.pi
        assert anderson_darling_tail(statistic) == pytest.approx(tail, abs=1e-5)


def test_the_far_tail_follows_the_leading_chi_squared_term():
    # The largest weight is 1/2, and the other factors tend to sqrt(3) at its pole.
    for statistic in (20.0, 60.0, 200.0):
        leading = math.sqrt(3.0) * special.erfc(math.sqrt(statistic))
        assert anderson_darling_tail(statistic) == pytest.approx(leading, rel=0.03)


def test_anderson_darling_agrees_with_its_definition_as_an_integral():
    u = np.random.default_rng(1).beta(1.3, 0.8, 37)
    z = (np.arange(2_000_000) + 0.5) / 2_000_000
    ecdf = np.searchsorted(np.sort(u), z, side="right") / len(u)
    integral = len(u) * np.mean((ecdf - z) ** 2 / (z * (1 - z)))
    assert anderson_darling(u)[0] == pytest.approx(integral, rel=1e-4)


@pytest.mark.parametrize("test", [anderson_darling, kolmogorov_smirnov])
@pytest.mark.parametrize("n", [20, 200])
def test_p_values_of_uniform_numbers_are_uniform(test, n):
    rng = np.random.default_rng(n)
    p = np.array([test(rng.random(n))[1] for _ in range(3000)])
    for level in (0.01, 0.05, 0.5):
        # Within 4 binomial standard errors, plus the finite-n error of the limit law.
        allowed = 4 * math.sqrt(level * (1 - level) / 3000) + 0.002
        assert abs(np.mean(p < level) - level) < allowed


def test_kolmogorov_smirnov_agrees_with_scipy():
    u = np.random.default_rng(2).beta(1.2, 1.0, 150)
    distance, p = kolmogorov_smirnov(u)
    reference = stats.ks_1samp(u, stats.uniform.cdf, method="exact")
    assert distance == pytest.approx(reference.statistic, abs=1e-12)
    assert p == pytest.approx(reference.pvalue, rel=1e-6)


def test_the_largest_distance_is_found_on_either_side_of_a_jump():
    assert max_distance(np.array([0.1, 0.2, 0.3])) == pytest.approx((0.7, 0.3))
    assert max_distance(np.array([0.7, 0.8, 0.9])) == pytest.approx((0.7, 0.7))


@pytest.mark.parametrize(("bias", "width"), [(0.0, 1.0), (0.2, 1.0), (0.0, 1.3), (-0.4, 0.8)])
def test_location_and_width_intervals_cover_the_planted_effect(bias, width):
    rng = np.random.default_rng(7)
    covered = np.zeros(2)
    for _ in range(400):
        u = special.ndtr(bias + width * rng.standard_normal(300))
        found = location_scale(np.clip(u, 1e-9, 1 - 1e-9))
        covered += [
            found.location_interval[0] <= bias <= found.location_interval[1],
            found.width_interval[0] <= width <= found.width_interval[1],
        ]
    # 95 % nominal; 4 standard errors of 400 repetitions are 0.044.
    assert np.all(covered / 400 > 0.906)
    assert np.all(covered / 400 < 0.994)


def test_the_location_scale_test_is_chi_squared_for_uniform_numbers():
    rng = np.random.default_rng(8)
    p = np.array([location_scale(rng.random(500)).p_value for _ in range(3000)])
    assert abs(np.mean(p < 0.05) - 0.05) < 4 * math.sqrt(0.05 * 0.95 / 3000) + 0.005


@given(st.lists(st.floats(1e-12, 1.0), min_size=1, max_size=12))
def test_holm_adjustment_keeps_order_and_starts_at_bonferroni(p_values):
    adjusted = holm(p_values)
    order = np.argsort(p_values, kind="stable")
    assert np.all(np.diff(np.array(adjusted)[order]) >= 0)
    assert min(adjusted) == pytest.approx(min(1.0, len(p_values) * min(p_values)))
    assert all(a >= p for a, p in zip(adjusted, p_values, strict=True))


@pytest.mark.parametrize("bad", [[], [[0.5]], [0.0, 0.5], [0.5, 1.0], [0.5, np.nan]])
def test_numbers_that_are_no_probabilities_are_refused(bad):
    with pytest.raises(ValidationError, match="uniformity needs"):
        anderson_darling(np.array(bad, dtype=float))
