"""The prior: density, constraints, coordinates and Jacobians, against independent answers."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from sbi_physics.distributions import Fixed, LogNormal, LogUniform, Normal, Uniform
from sbi_physics.errors import ContractError, UnknownNameError
from sbi_physics.parameters import Parameter, ParameterSpace
from sbi_physics.priors import Prior

MASS = Parameter("m_a", LogUniform(0.1, 100.0), unit="neV")
INDEX = Parameter("index", Normal(2.5, 0.5, 1.0, 4.0))
OFFSET = Parameter("offset", Normal(0.0, 3.0))
FIELD = Parameter("b0", LogNormal(2.3, 0.3), unit="uG", role="nuisance")
HELD = Parameter("held", Fixed(7.0))
FREE = Prior([MASS, INDEX, OFFSET, FIELD])
SCIPY = [
    stats.loguniform(0.1, 100.0),
    stats.truncnorm(-3.0, 3.0, 2.5, 0.5),
    stats.norm(0.0, 3.0),
    stats.lognorm(0.3, scale=math.exp(2.3)),
]
WITH_HELD = Prior([MASS, HELD, INDEX])


def unit_square(*constraints: str) -> Prior:
    parameters = [Parameter("a", Uniform(0.0, 1.0)), Parameter("b", Uniform(0.0, 1.0))]
    return Prior(parameters, constraints)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# Density and draws -----------------------------------------------------------


def test_the_density_is_the_product_of_scipys():
    theta = FREE.sample(500, rng())
    expected = sum(d.logpdf(theta[:, i]) for i, d in enumerate(SCIPY))
    assert np.allclose(FREE.log_prob(theta), expected, rtol=1e-10, atol=1e-10)


def test_draws_follow_scipys_distributions():
    theta = FREE.sample(20_000, rng(1))
    for column, expected in zip(theta.T, SCIPY, strict=True):
        assert stats.kstest(column, expected.cdf).pvalue > 1e-4
    assert np.abs(np.corrcoef(theta.T) - np.eye(4)).max() < 4 / math.sqrt(len(theta))


def test_draws_are_inside_and_have_a_density():
    for prior in (FREE, WITH_HELD, unit_square("a < b / 2")):
        theta = prior.sample(1000, rng(2))
        assert theta.shape == (1000, prior.d)
        assert prior.contains(theta).all()
        assert np.isfinite(prior.log_prob(theta)).all()
        prior.parameters.check_range(theta)


def test_zero_draws_have_a_shape():
    assert FREE.sample(0, rng()).shape == (0, 4)
    assert unit_square("a < b").sample(0, rng()).shape == (0, 2)


def test_the_same_generator_gives_the_same_draws():
    for prior in (FREE, unit_square("a < b")):
        assert np.array_equal(prior.sample(100, rng(3)), prior.sample(100, rng(3)))


def test_a_random_zero_gives_a_finite_draw_of_an_unbounded_prior():
    class Zeros:
        def random(self, shape):
            return np.zeros(shape)

    assert np.isfinite(Prior([OFFSET, FIELD]).sample(3, Zeros())).all()


def test_even_draws_are_of_the_prior_and_more_accurate():
    prior = Prior([MASS, INDEX])
    even = prior.to_unit(prior.quasi_sample(4096, rng(4))).mean(axis=0)
    assert np.abs(even - 0.5).max() < 1e-3  # independent draws: 0.0045 rms
    prior = unit_square("a < b / 2")
    points = prior.quasi_sample(1000, rng(5))
    assert points.shape == (1000, 2)
    assert prior.contains(points).all()
    # Mean of b over the triangle a < b / 2 is 2 / 3.
    assert abs(points[:, 1].mean() - 2 / 3) < 0.01


def test_outside_the_support_nothing_is_left():
    theta = np.array([[0.05, 2.0, 0.0, 1.0], [1.0, 4.5, 0.0, 1.0], [1.0, 2.0, 0.0, -1.0]])
    assert FREE.log_prob(theta).tolist() == [-math.inf] * 3
    assert FREE.contains(theta).tolist() == [False] * 3
    assert not FREE.contains([1.0, np.nan, 0.0, 1.0])


def test_any_leading_axes_are_accepted():
    theta = FREE.sample(24, rng()).reshape(2, 3, 4, 4)
    for method in ("log_prob", "contains", "log_abs_det_unconstrained", "log_abs_det_scaled"):
        result = getattr(FREE, method)(theta)
        assert result.shape == (2, 3, 4)
        assert np.array_equal(result[1, 2, 3], getattr(FREE, method)(theta[1, 2, 3]))
    for method in ("to_unit", "to_unconstrained", "scaled"):
        assert getattr(FREE, method)(theta).shape == theta.shape


@pytest.mark.parametrize("theta", [1.0, [1.0, 2.0], np.ones((5, 3))])
def test_a_wrong_number_of_columns_is_refused_with_the_names(theta):
    with pytest.raises(ContractError, match=r"expected \(\.\.\., 4\) for m_a, index, offset, b0"):
        FREE.log_prob(theta)


# Constraints -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("constraints", "area"),
    [
        (["a < b"], 1 / 2),
        (["a < b / 2"], 1 / 4),
        (["a ** 2 + b ** 2 < 1"], math.pi / 4),
        (["a < b", "a + b < 1"], 1 / 4),
        (["a + b < 0.1"], 0.005),
    ],
)
def test_the_density_is_renormalised_to_the_allowed_area(constraints, area):
    prior = unit_square(*constraints)
    theta = prior.sample(50, rng())
    assert np.allclose(prior.log_prob(theta), -math.log(area), atol=0.005)
    forbidden = rng().random((200, 2))
    forbidden = forbidden[~prior.contains(forbidden)]
    assert (prior.log_prob(forbidden) == -math.inf).all()


def test_draws_of_a_thin_strip_are_uniform_in_it():
    # One in 2000 points is allowed; draws must neither take for ever nor crowd anywhere.
    prior = unit_square("b < 0.0005")
    theta = prior.sample(2000, rng(6))
    assert stats.kstest(theta[:, 0], "uniform").pvalue > 1e-4
    assert stats.kstest(theta[:, 1] * 2000, "uniform").pvalue > 1e-4


def test_constraints_that_leave_nothing_are_named():
    with pytest.raises(ContractError, match="'a > b \\+ 1' leave only 0.0e\\+00 of the prior"):
        unit_square("a > b + 1").sample(1, rng())


def test_a_constraint_on_an_unknown_parameter_is_refused():
    with pytest.raises(UnknownNameError, match="'index1'.*Did you mean 'index'"):
        Prior([MASS, INDEX], ["index1 < 2"])


# Coordinates -----------------------------------------------------------------


@given(st.lists(st.floats(1e-6, 1 - 1e-6), min_size=4, max_size=4))
def test_unit_and_unconstrained_coordinates_return(u):
    theta = FREE.from_unit(u)
    assert np.allclose(FREE.to_unit(theta), u, atol=1e-9)
    assert np.allclose(FREE.to_unconstrained(theta), special.logit(u), atol=1e-4)
    assert np.allclose(FREE.from_unconstrained(special.logit(u)), theta, rtol=1e-9)


@given(st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=4))
def test_every_unconstrained_point_is_a_finite_point_of_the_prior(z):
    theta = FREE.from_unconstrained(z)
    assert np.isfinite(theta).all()
    assert FREE.contains(theta)
    assert np.isfinite(FREE.log_prob(theta))
    assert np.isfinite(FREE.log_abs_det_unconstrained(theta))


def test_float32_coordinates_lose_no_accuracy_that_matters():
    # Engines work in float32: back in physical units the error must be far below any posterior.
    theta = FREE.sample(10_000, rng(7))
    again = FREE.from_unconstrained(FREE.to_unconstrained(theta).astype(np.float32))
    error = np.abs(FREE.scaled(again) - FREE.scaled(theta))
    assert error.max() < 1e-5


def test_the_very_ends_of_the_prior_have_finite_coordinates():
    ends = FREE.from_unit(np.array([[0.0] * 4, [1.0] * 4]))
    z = FREE.to_unconstrained(ends)
    assert np.allclose(np.abs(z), special.logit(1 - 1e-9), rtol=1e-6)
    bounded = Prior([MASS, INDEX])
    assert np.isfinite(bounded.log_abs_det_unconstrained(bounded.bounds.T)).all()


def test_the_unconstrained_prior_is_standard_logistic():
    z = FREE.to_unconstrained(FREE.sample(20_000, rng(8)))
    for column in z.T:
        assert stats.kstest(column, stats.logistic.cdf).pvalue > 1e-4
    theta = FREE.from_unconstrained(z[:100])
    logistic = stats.logistic.logpdf(z[:100]).sum(axis=1)
    change = FREE.log_prob(theta) - FREE.log_abs_det_unconstrained(theta)
    assert np.allclose(change, logistic, atol=1e-6)


@pytest.mark.parametrize("prior", [FREE, WITH_HELD], ids=["free", "with a fixed one"])
@pytest.mark.parametrize("coordinates", ["unconstrained", "scaled"])
def test_jacobians_are_the_finite_differences(prior, coordinates):
    forward = {"unconstrained": prior.to_unconstrained, "scaled": prior.scaled}[coordinates]
    theta = prior.from_unit(rng(9).uniform(0.05, 0.95, (50, prior.d)))
    expected = np.zeros(50)
    for i, parameter in enumerate(prior.parameters):
        if parameter.is_fixed:
            continue
        step = np.zeros_like(theta)
        step[:, i] = 1e-5 * np.abs(theta[:, i]) + 1e-7
        slope = (forward(theta + step) - forward(theta - step))[:, i] / (2 * step[:, i])
        expected += np.log(slope)
    found = getattr(prior, f"log_abs_det_{coordinates}")(theta)
    assert np.allclose(found, expected, atol=1e-5)


def test_scaled_coordinates_have_unit_spread_and_decades_where_asked():
    scaled = FREE.scaled(FREE.sample(50_000, rng(10)))
    assert np.allclose(scaled.std(axis=0), 1.0, atol=0.02)
    # A log-uniform prior over three decades is uniform in log10 with sd 3 / sqrt(12).
    theta = np.array([[1.0, 2.0, 0.0, 1.0], [10.0, 2.0, 0.0, 1.0]])
    assert np.isclose(np.diff(FREE.scaled(theta)[:, 0])[0], math.sqrt(12) / 3, rtol=1e-3)


# New priors from old ---------------------------------------------------------


def test_truncation_renormalises_in_closed_form():
    narrow = FREE.truncate({"m_a": (1.0, 10.0), "offset": (-3.0, 50.0)})
    theta = narrow.sample(100, rng(11))
    mass = math.log(1 / 3) + math.log(stats.norm.sf(-1.0))
    assert np.allclose(narrow.log_prob(theta), FREE.log_prob(theta) - mass, atol=1e-9)
    assert narrow.bounds[0].tolist() == [1.0, 10.0]
    assert narrow.log_prob([20.0, 2.0, 0.0, 1.0]) == -math.inf


def test_truncation_narrows_the_prior_but_not_what_the_simulator_accepts():
    narrow = FREE.truncate({"m_a": (1.0, 10.0)})
    assert narrow.parameters["m_a"].valid_range == (0.1, 100.0)


def test_truncation_refuses_unknown_names_and_empty_boxes():
    with pytest.raises(UnknownNameError, match="'m'"):
        FREE.truncate({"m": (1.0, 2.0)})
    with pytest.raises(ContractError, match="nothing of its support"):
        FREE.truncate({"m_a": (200.0, 300.0)})


def test_a_selection_is_the_marginal():
    marginal = FREE.select(["offset", "m_a"])
    theta = FREE.sample(100, rng(12))
    expected = SCIPY[2].logpdf(theta[:, 2]) + SCIPY[0].logpdf(theta[:, 0])
    assert marginal.names == ("offset", "m_a")
    assert np.allclose(marginal.log_prob(theta[:, [2, 0]]), expected)


def test_a_selection_keeps_its_constraints_and_drops_foreign_ones():
    parameters = [Parameter(n, Uniform(0.0, 1.0)) for n in "abcd"]
    prior = Prior(parameters, ["a < b / 2", "c < d"])
    marginal = prior.select(["b", "a"])
    assert [c.expression for c in marginal.constraints] == ["a < b / 2"]
    assert np.isclose(marginal.log_prob([0.9, 0.1]), math.log(4), atol=0.005)


def test_a_selection_across_a_constraint_is_refused_with_the_way_out():
    with pytest.raises(
        ContractError, match=r"'a < b' ties it to \['a'\]; infer all of them or fix"
    ):
        unit_square("a < b").select(["a"])


def test_fixing_the_other_side_of_a_constraint_is_that_way_out():
    prior = unit_square("a < b")
    fixed = Prior(prior.parameters.fix({"b": 0.25}), prior.constraints)
    marginal = fixed.select(["a"])
    assert np.isclose(marginal.log_prob([0.1]), math.log(4), atol=0.005)
    assert marginal.log_prob([0.3]) == -math.inf
    assert marginal.sample(1000, rng(13)).max() < 0.25


def test_a_fixed_parameter_has_a_column_and_nothing_else():
    theta = WITH_HELD.sample(100, rng(14))
    assert (theta[:, 1] == 7.0).all()
    rest = Prior([MASS, INDEX])
    kept = theta[:, [0, 2]]
    assert np.allclose(WITH_HELD.log_prob(theta), rest.log_prob(kept))
    assert np.allclose(WITH_HELD.scaled(theta)[:, [0, 2]], rest.scaled(kept))
    assert (WITH_HELD.to_unconstrained(theta)[:, 1] == 0.0).all()
    assert np.allclose(
        WITH_HELD.log_abs_det_unconstrained(theta), rest.log_abs_det_unconstrained(kept)
    )
    assert not WITH_HELD.contains([1.0, 7.1, 2.0])


def test_json_brings_back_the_same_prior():
    for prior in (FREE, WITH_HELD, unit_square("a < b / 2"), FREE.truncate({"m_a": (1, 10)})):
        again = Prior.from_dict(json.loads(json.dumps(prior.to_dict(), allow_nan=False)))
        assert again == prior
        assert hash(again) == hash(prior)
        assert again.digest() == prior.digest()
        theta = prior.sample(10, rng(15))
        assert np.array_equal(again.log_prob(theta), prior.log_prob(theta))


def test_the_digest_tells_priors_apart_and_ignores_how_numbers_are_written():
    assert Prior([Parameter("a", Uniform(0, 1))]) == unit_square().select(["a"])
    assert Prior([Parameter("a", Uniform(0, 1))]).digest() == unit_square().select("a").digest()
    others = [
        FREE,
        FREE.truncate({"m_a": (0.1, 99.0)}),
        FREE.select(["index", "m_a", "offset", "b0"]),
        Prior(FREE.parameters, ["index < offset"]),
        Prior(ParameterSpace([MASS, INDEX, OFFSET])),
    ]
    assert len({p.digest() for p in others}) == len(others)
