"""Distributions: inverse maps, normalisation and tails, against scipy.stats as the other code."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import special, stats

from sbi_physics.distributions import (
    FAMILIES,
    Fixed,
    Log10Normal,
    LogNormal,
    LogUniform,
    Mirrored,
    Normal,
    Uniform,
    distribution_from_dict,
)
from sbi_physics.errors import ContractError, UnknownNameError

LN10 = math.log(10)

# Each with the distribution scipy has for it, as (ours, scipy's).
UNBOUNDED = [
    (Uniform(-2.0, 5.0), stats.uniform(-2, 7)),
    (LogUniform(1e-3, 1e2), stats.loguniform(1e-3, 1e2)),
    (Normal(3.0, 0.2), stats.norm(3, 0.2)),
    (LogNormal(-1.0, 0.5), stats.lognorm(0.5, scale=math.exp(-1))),
    (Log10Normal(-12.0, 0.3), stats.lognorm(0.3 * LN10, scale=1e-12)),
]
TRUNCATED = [
    (Normal(3.0, 0.2, 2.9, math.inf), stats.truncnorm(-0.5, np.inf, 3, 0.2)),
    (Normal(0.0, 1.0, -1.0, 2.5), stats.truncnorm(-1, 2.5)),
    (Normal(0.0, 1.0, 6.0, 9.0), stats.truncnorm(6, 9)),
    (Normal(0.0, 1.0, -30.0, -25.0), stats.truncnorm(-30, -25)),
]
ALL = [d for d, _ in UNBOUNDED + TRUNCATED] + [
    LogNormal(0.0, 1.0, 0.5, 4.0),
    LogNormal(2.0, 0.1, 0.0, 3.0),
    Log10Normal(1.0, 0.2, 20.0, 80.0),
    Mirrored(Log10Normal(0.29, 0.08, 1.2, 3.3)),
]

finite = st.floats(-50, 50)
width = st.floats(0.05, 20)
unit = st.floats(1e-6, 1 - 1e-6)


@st.composite
def distributions(draw):
    """Any distribution whose truncation keeps at least the 4-sigma centre of its family."""
    family = draw(
        st.sampled_from(["uniform", "log-uniform", "normal", "log-normal", "log10", "mirrored"])
    )
    centre, spread = draw(finite), draw(width)
    low, high = sorted((draw(st.floats(-4, 4)), draw(st.floats(-4, 4))))
    assume(high - low > 1e-2)
    if family == "uniform":
        return Uniform(centre, centre + spread)
    if family == "log-uniform":
        return LogUniform(math.exp(centre), math.exp(centre + spread))
    if family == "normal":
        return Normal(centre, spread, centre + low * spread, centre + high * spread)
    mu, sigma = centre / 10, spread / 10
    if family == "mirrored":
        return Mirrored(
            LogNormal(mu, sigma, math.exp(mu + low * sigma), math.exp(mu + high * sigma))
        )
    if family == "log-normal":
        return LogNormal(mu, sigma, math.exp(mu + low * sigma), math.exp(mu + high * sigma))
    return Log10Normal(mu, sigma, 10 ** (mu + low * sigma), 10 ** (mu + high * sigma))


@given(distributions(), st.lists(unit, min_size=1, max_size=20))
def test_ppf_then_cdf_returns_the_probability(distribution, u):
    assert np.allclose(distribution.cdf(distribution.ppf(u)), u, rtol=0, atol=1e-7)


@given(distributions(), st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_ppf_is_monotone_and_stays_inside(distribution, u):
    values = distribution.ppf(np.sort(u))
    low, high = distribution.bounds
    assert (np.diff(values) >= 0).all()
    assert (values >= low).all()
    assert (values <= high).all()
    assert np.isfinite(distribution.log_pdf(values)).all()


@given(distributions(), unit)
def test_the_density_is_the_slope_of_the_cdf(distribution, u):
    x = float(distribution.ppf(u))
    step = 1e-4 * (distribution.ppf(min(u + 0.01, 1.0)) - distribution.ppf(max(u - 0.01, 0.0)))
    low, high = distribution.bounds
    a, b = max(x - step, low), min(x + step, high)
    slope = (distribution.cdf(b) - distribution.cdf(a)) / (b - a)
    assert math.isclose(slope, math.exp(distribution.log_pdf(x)), rel_tol=2e-3)


@given(distributions(), st.floats(0.05, 0.45), st.floats(0.55, 0.95), unit)
def test_truncation_renormalises_and_changes_nothing_else(distribution, left, right, u):
    low, high = distribution.ppf([left, right])
    assume(low < high)
    narrow = distribution.truncate(float(low), float(high))
    x = narrow.ppf(u)
    mass = distribution.cdf(narrow.bounds[1]) - distribution.cdf(narrow.bounds[0])
    assert type(narrow) is type(distribution)
    assert np.isclose(narrow.log_pdf(x), distribution.log_pdf(x) - np.log(mass), atol=1e-6)
    expected = (distribution.cdf(x) - distribution.cdf(narrow.bounds[0])) / mass
    assert np.isclose(narrow.cdf(x), expected, atol=1e-6)


@given(distributions())
def test_json_brings_back_the_same_distribution(distribution):
    text = json.dumps(distribution.to_dict(), allow_nan=False)
    again = distribution_from_dict(json.loads(text))
    assert again == distribution
    assert json.dumps(again.to_dict()) == text


@pytest.mark.parametrize(("ours", "theirs"), UNBOUNDED + TRUNCATED, ids=lambda d: repr(d)[:40])
def test_scipy_agrees_on_density_cdf_and_quantiles(ours, theirs):
    u = np.linspace(0.001, 0.999, 101)
    x = theirs.ppf(u)
    assert np.allclose(ours.ppf(u), x, rtol=1e-9)
    assert np.allclose(ours.cdf(x), theirs.cdf(x), rtol=1e-9)
    assert np.allclose(ours.log_pdf(x), theirs.logpdf(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("distribution", ALL, ids=repr)
def test_the_density_integrates_to_one(distribution):
    # Gauss-Legendre between quantiles; the outermost ones leave out 2e-8 of the probability.
    edges = distribution.ppf(special.expit(np.linspace(-18.4, 18.4, 400)))
    nodes, weights = np.polynomial.legendre.leggauss(12)
    centre, half = 0.5 * (edges[1:] + edges[:-1]), 0.5 * np.diff(edges)
    density = np.exp(distribution.log_pdf(centre[:, None] + half[:, None] * nodes))
    assert math.isclose(float((density @ weights) @ half), 1.0, rel_tol=1e-6)


@pytest.mark.parametrize("side", [1, -1])
def test_far_tails_keep_their_relative_precision(side):
    # 30 sigma out, where 1 - CDF underflows to 0; there the tail is exponential with rate 30.
    low, high = sorted((side * 30.0, side * 31.0))
    far = Normal(0.0, 1.0, low, high)
    reference = stats.truncnorm(30, 31)
    u = np.array([0.01, 0.5, 0.99])
    assert np.allclose(far.ppf(u) * side, reference.ppf(u if side > 0 else 1 - u), rtol=1e-10)
    assert np.allclose(far.cdf(far.ppf(u)), u, rtol=1e-9)
    assert np.allclose(far.log_pdf(far.ppf(u)), reference.logpdf(side * far.ppf(u)), rtol=1e-8)


@pytest.mark.parametrize("distribution", ALL, ids=repr)
def test_outside_the_support_the_density_is_zero_and_the_cdf_flat(distribution):
    low, high = distribution.bounds
    below = low - 1.0 if math.isfinite(low) else -math.inf
    above = high + 1.0 if math.isfinite(high) else math.inf
    assert distribution.log_pdf([below, above]).tolist() == [-math.inf, -math.inf]
    assert distribution.cdf([below, above]).tolist() == [0.0, 1.0]
    assert not distribution.contains(math.nan)


def test_a_log_normal_has_no_density_at_zero():
    assert LogNormal(0.0, 1.0).log_pdf([0.0, math.inf]).tolist() == [-math.inf, -math.inf]
    assert LogNormal(0.0, 1.0).cdf(0.0) == 0.0


def test_maps_keep_any_shape():
    for distribution in [*ALL, Fixed(2.0)]:
        u = np.full((2, 3, 4), 0.3)
        assert distribution.ppf(u).shape == (2, 3, 4)
        assert distribution.cdf(distribution.ppf(u)).shape == (2, 3, 4)
        assert distribution.log_pdf(distribution.ppf(u)).shape == (2, 3, 4)
        assert np.ndim(distribution.ppf(0.3)) == 0


def test_a_mirrored_distribution_is_the_other_one_of_minus_the_value():
    size = stats.lognorm(0.08 * LN10, scale=10**0.29)
    mirrored = Mirrored(Log10Normal(0.29, 0.08))
    x = -size.ppf(np.linspace(0.01, 0.99, 23))
    assert mirrored.bounds == (-math.inf, 0.0)
    assert np.allclose(mirrored.log_pdf(x), size.logpdf(-x), rtol=1e-9)
    assert np.allclose(mirrored.cdf(x), size.sf(-x), rtol=1e-9)
    assert np.allclose(mirrored.ppf(mirrored.cdf(x)), x, rtol=1e-9)


def test_logarithmic_families_are_shown_in_decades():
    scales = {kind: family.natural_scale for kind, family in FAMILIES.items()}
    assert scales == {
        "uniform": "linear",
        "normal": "linear",
        "fixed": "linear",
        "log-uniform": "log10",
        "log-normal": "log10",
        "log10-normal": "log10",
    }


def test_a_fixed_value_has_no_density_elsewhere():
    fixed = Fixed(2.5)
    assert fixed.bounds == (2.5, 2.5)
    assert fixed.ppf([0.0, 0.7]).tolist() == [2.5, 2.5]
    assert fixed.log_pdf([2.5, 2.4]).tolist() == [0.0, -math.inf]
    assert fixed.truncate(2.0, 3.0) == fixed
    with pytest.raises(ContractError, match=r"2\.5 lies outside \[3, 4\]"):
        fixed.truncate(3.0, 4.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Uniform(2.0, 1.0), "low < high"),
        (lambda: Uniform(1.0, 1.0), "low < high"),
        (lambda: Uniform(0.0, math.inf), "finite"),
        (lambda: Uniform(math.nan, 1.0), "finite"),
        (lambda: Uniform(-1e308, 1e308), "finite"),
        (lambda: LogUniform(0.0, 1.0), "low > 0"),
        (lambda: LogUniform(-1.0, 1.0), "low > 0"),
        (lambda: Normal(0.0, 0.0), "positive finite width"),
        (lambda: Normal(0.0, -1.0), "positive finite width"),
        (lambda: Normal(math.inf, 1.0), "finite centre"),
        (lambda: Normal(0.0, 1.0, 2.0, 1.0), "low < high"),
        (lambda: Normal(0.0, 1.0, 50.0, 60.0), "no probability"),
        (lambda: LogNormal(0.0, 1.0, -1.0, 2.0), "low >= 0"),
        (lambda: Fixed(math.inf), "finite"),
    ],
)
def test_impossible_distributions_are_refused(make, message):
    with pytest.raises(ContractError, match=message):
        make()


def test_truncation_to_nothing_says_what_was_left():
    with pytest.raises(ContractError, match=r"\[5, 6\].*\[-2, 4\]"):
        Uniform(-2.0, 4.0).truncate(5.0, 6.0)


def test_whole_numbers_and_floats_give_the_same_json():
    assert json.dumps(Uniform(0, 1).to_dict()) == json.dumps(Uniform(0.0, 1.0).to_dict())
    assert json.dumps(Fixed(np.float32(2)).to_dict()) == json.dumps(Fixed(2.0).to_dict())


def test_infinite_ends_travel_as_words():
    assert Normal(0.0, 1.0).to_dict()["low"] == "-inf"
    assert distribution_from_dict({"kind": "normal", "mean": 0, "sd": 1}) == Normal(0.0, 1.0)


@pytest.mark.parametrize(
    "data",
    [
        {"kind": "uniform", "low": 0.0},
        {"kind": "uniform", "low": 0.0, "high": 1.0, "mean": 2.0},
        {"kind": "uniform", "low": "zero", "high": 1.0},
        {"kind": "uniform", "low": None, "high": 1.0},
        {"kind": "uniform", "low": 1.0, "high": 0.0},
    ],
)
def test_damaged_json_is_refused(data):
    with pytest.raises(ContractError, match=r"'uniform'|Uniform"):
        distribution_from_dict(data)


def test_an_unknown_family_names_the_nearest():
    with pytest.raises(UnknownNameError, match="Did you mean 'uniform'"):
        distribution_from_dict({"kind": "unifrom", "low": 0, "high": 1})
