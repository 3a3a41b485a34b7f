from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from sbi_physics.diagnostics.bands import clopper_pearson, ecdf_band, gamma_test
from sbi_physics.errors import ValidationError


def test_clopper_pearson_agrees_with_scipy():
    counts = np.array([0, 1, 45, 99, 100])
    low, high = clopper_pearson(counts, 100)
    for k, a, b in zip(counts, low, high, strict=True):
        reference = stats.binomtest(int(k), 100).proportion_ci(0.95, method="exact")
        assert (a, b) == pytest.approx((reference.low, reference.high), abs=1e-12)


def test_clopper_pearson_reproduces_the_half_widths_quoted_for_validation():
    for n, below, above in ((200, 0.050, 0.038), (1000, 0.020, 0.018), (5000, 0.0087, 0.0082)):
        low, high = clopper_pearson(np.array([round(0.9 * n)]), n)
        assert 0.9 - low[0] == pytest.approx(below, abs=6e-4)
        assert high[0] - 0.9 == pytest.approx(above, abs=6e-4)


def test_impossible_counts_are_refused():
    with pytest.raises(ValidationError, match="between 0 and n = 10"):
        clopper_pearson(np.array([11]), 10)


@pytest.mark.parametrize("n", [20, 150, 1000])
def test_the_simultaneous_band_holds_the_whole_curve_as_often_as_it_says(n):
    rng = np.random.default_rng(n)
    band = ecdf_band(n, 0.95)
    u = np.sort(rng.random((2000, n)), axis=1)
    inside = 0
    for row in u:
        ecdf = np.searchsorted(row, band.z, side="right") / n
        inside += np.all((ecdf >= band.low - 1e-12) & (ecdf <= band.high + 1e-12))
    assert band.coverage >= 0.95
    # 4 standard errors of 2000 repetitions.
    assert abs(inside / 2000 - band.coverage) < 4 * math.sqrt(0.05 * 0.95 / 2000)


def test_the_band_is_about_as_wide_as_the_published_one():
    # Kolmogorov's band has half-width 1.358 / sqrt(n) everywhere; the adaptive one is of
    # that order
    # in the middle and far narrower near the ends.
    band = ecdf_band(1000)
    middle, end = np.argmin(abs(band.z - 0.5)), 1
    assert 1.2 < (band.high - band.z)[middle] * math.sqrt(1000) < 1.6
    assert (band.high - band.z)[end] < 0.02


@pytest.mark.parametrize("n", [40, 300])
def test_the_gamma_test_rejects_uniform_numbers_at_its_level(n):
    rng = np.random.default_rng(n)
    p = np.array([gamma_test(rng.random(n))[1] for _ in range(2000)])
    for level in (0.01, 0.05, 0.5):
        assert np.mean(p <= level) < level + 4 * math.sqrt(level * (1 - level) / 2000)
    # Discrete, but far from vacuous.
    assert np.mean(p <= 0.05) > 0.02


def test_the_gamma_test_and_the_band_are_two_views_of_one_test():
    rng = np.random.default_rng(5)
    band = ecdf_band(200, 0.95)
    for _ in range(300):
        u = rng.beta(1.15, 1.0, 200)
        ecdf = np.searchsorted(np.sort(u), band.z, side="right") / 200
        leaves = np.any((ecdf < band.low - 1e-12) | (ecdf > band.high + 1e-12))
        assert leaves == (gamma_test(u)[1] < 1 - band.coverage + 1e-9)


def test_the_gamma_test_sees_wrong_widths():
    rng = np.random.default_rng(6)
    assert gamma_test(stats.norm.cdf(1.25 * rng.standard_normal(1000)))[1] < 1e-6
    assert gamma_test(stats.norm.cdf(0.8 * rng.standard_normal(1000)))[1] < 1e-6


@pytest.mark.parametrize(("n", "level"), [(0, 0.95), (10, 0.0), (10, 1.0)])
def test_impossible_bands_are_refused(n, level):
    with pytest.raises(ValidationError, match="a band needs"):
        ecdf_band(n, level)
