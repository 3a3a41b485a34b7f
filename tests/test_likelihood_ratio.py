"""Likelihood ratios and fits, against closed forms and iminuit."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import optimize

sys.path.insert(0, str(Path(__file__).parent))
from sample_likelihoods import (
    box,
    counting_model,
    gaussian_model,
    peak_gram,
    peak_model,
    peak_ratio,
    random_grams,
)

from sbi_physics import Fixed, Normal, Parameter, Prior, Uniform
from sbi_physics.errors import ContractError, ObservationError, UnknownNameError
from sbi_physics.likelihood import (
    EventSet,
    FunctionModel,
    LikelihoodRatio,
    QuadraticModel,
    background_gram,
)

COVARIANCE = np.array([[1.0, 0.6], [0.6, 2.0]])
RNG = np.random.default_rng(5)
EVENTS = RNG.multivariate_normal([0.3, -0.5], COVARIANCE, 50)


def quadratic_model(**options):
    rng = np.random.default_rng(2)
    grams = random_grams(2000, 3, rng)
    return QuadraticModel(box("a", "b", "c", half=1.0), grams.mean(axis=0), 400.0, **options)


QUADRATIC_EVENTS = random_grams(300, 3, np.random.default_rng(3))


def test_gaussian_means_give_the_squared_distance_to_the_sample_mean():
    ratio = LikelihoodRatio(gaussian_model(COVARIANCE), terms="shape")
    mean, inverse = EVENTS.mean(axis=0), np.linalg.inv(COVARIANCE)
    fit = ratio.fit(EVENTS)
    np.testing.assert_allclose(fit.theta, mean, atol=1e-6)
    assert fit.converged
    assert not fit.at_bound.any()
    points = np.array([[0.0, 0.0], [1.0, -1.0]])
    distance = [50 * (p - mean) @ inverse @ (p - mean) for p in points]
    np.testing.assert_allclose(ratio.statistic(points, EVENTS), distance, rtol=1e-9)


def test_a_minimum_outside_the_box_is_found_on_its_edge():
    ratio = LikelihoodRatio(gaussian_model(np.eye(1), half=0.1), terms="shape")
    fit = ratio.fit(EVENTS[:, :1] + 3)
    assert fit.theta[0] == 0.1
    assert fit.at_bound[0]


def test_counting_gives_the_poisson_likelihood():
    model, n = counting_model(), 37
    mu = np.array([[0.0], [1.0], [3.0]])
    nu = 20 + 10 * mu[:, 0]
    expected = 2 * (nu - n + n * np.log(n / nu))
    events = np.zeros((n, 1))
    for terms in ("rate", "extended"):
        ratio = LikelihoodRatio(model, terms=terms)
        np.testing.assert_allclose(ratio.statistic(mu, events), expected, atol=1e-8)
        assert ratio.fit(events)["mu"] == pytest.approx(1.7, abs=1e-5)
    # a number without shape says nothing once the rate is taken out
    shape = LikelihoodRatio(model, terms="shape")
    np.testing.assert_allclose(shape.minus2_log_ratio(mu, events), 0.0, atol=1e-10)


def test_no_event_at_all_is_an_observation():
    ratio = LikelihoodRatio(counting_model())
    found = ratio.statistic([[0.0]], np.zeros((0, 1)))
    assert found[0] == pytest.approx(2 * (20 - 5), rel=1e-9)  # best is mu = -1.5, nu = 5


def test_rate_and_shape_add_up():
    model = quadratic_model()
    theta = np.array([[0.2, -0.1, 0.3], [0.0, 0.5, -0.5]])
    value = {
        terms: LikelihoodRatio(model, terms=terms).minus2_log_ratio(theta, QUADRATIC_EVENTS)
        for terms in ("extended", "shape", "rate")
    }
    np.testing.assert_allclose(value["extended"], value["shape"] + value["rate"], rtol=1e-10)


@pytest.mark.parametrize("sd", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("auxiliary", [1.0, 0.9])
def test_the_profiled_normalisation_is_the_brute_force_minimum(sd, auxiliary):
    model = counting_model()
    data = EventSet(np.zeros((37, 1)), None, auxiliary)
    ratio = LikelihoodRatio(model, normalisation_sd=sd)
    for mu in (0.0, 1.0, 3.0):
        nu = 20 + 10 * mu
        found = optimize.minimize_scalar(
            lambda k, nu=nu: 2 * (k * nu - 20)
            - 2 * 37 * np.log(k * nu / 20)
            + ((k - auxiliary) / sd) ** 2,
            bounds=(0.05, 5), method="bounded", options={"xatol": 1e-11},
        )  # fmt: skip
        assert ratio.minus2_log_ratio([mu], data)[0] == pytest.approx(found.fun, abs=1e-8)
        assert ratio.normalisation([mu], data)[0] == pytest.approx(found.x, abs=1e-5)


def test_a_free_normalisation_leaves_the_shape_and_a_sharp_one_everything():
    model = quadratic_model()
    theta = np.array([[0.0, 0.0, 0.0], [0.2, -0.1, 0.3], [0.0, 0.5, -0.5]])

    def value(**options):
        found = LikelihoodRatio(model, **options).minus2_log_ratio(theta, QUADRATIC_EVENTS)
        return found[1:] - found[0]

    shape, extended = value(terms="shape"), value()
    np.testing.assert_allclose(value(normalisation_sd=np.inf), shape, rtol=1e-10)
    np.testing.assert_allclose(value(normalisation_sd=1e4), shape, rtol=1e-5)
    np.testing.assert_allclose(value(normalisation_sd=1e-6), extended, rtol=1e-5)


@pytest.mark.parametrize(
    ("terms", "sd"),
    [("extended", 0.0), ("extended", 0.1), ("rate", 0.0), ("rate", 0.1), ("shape", 0.0)],
)
@pytest.mark.parametrize("sample_gram", [False, True])
def test_gradients_are_those_of_the_value(terms, sd, sample_gram):
    options = {"event_gram": QUADRATIC_EVENTS.mean(axis=0)} if sample_gram else {}
    ratio = LikelihoodRatio(quadratic_model(**options), terms=terms, normalisation_sd=sd)
    weights = np.random.default_rng(1).random(len(QUADRATIC_EVENTS))
    for data in (EventSet(QUADRATIC_EVENTS), EventSet(QUADRATIC_EVENTS, weights)):
        for theta in (np.zeros(3), np.array([0.3, -0.2, 0.7])):
            value, slopes = ratio.with_gradient(theta, data)
            assert value == pytest.approx(ratio.minus2_log_ratio(theta, data)[0], abs=1e-9)
            step = 1e-5 * np.eye(3)
            numeric = [
                np.diff(ratio.minus2_log_ratio(np.stack([theta - s, theta + s]), data))[0] / 2e-5
                for s in step
            ]
            np.testing.assert_allclose(slopes, numeric, rtol=1e-5, atol=1e-5)


def test_a_quadratic_fit_agrees_with_minuit():
    iminuit = pytest.importorskip("iminuit")
    ratio = LikelihoodRatio(quadratic_model())
    data = EventSet(QUADRATIC_EVENTS)
    fit = ratio.fit(data)
    best = min(
        (
            iminuit.Minuit(
                lambda t: ratio.minus2_log_ratio(t, data)[0],
                start,
                grad=lambda t: ratio.with_gradient(t, data)[1],
                name=("a", "b", "c"),
            ).migrad()
            for start in ratio.model.spread[:8]
        ),
        key=lambda m: m.fval,
    )
    assert best.valid
    assert fit.minus2_log_ratio == pytest.approx(best.fval, abs=1e-5)
    # errordef 1: a distance of 1e-3 standard deviations
    np.testing.assert_allclose(fit.theta, best.values, atol=1e-2 * min(best.errors))


def test_both_signs_of_a_squared_parameter_are_found():
    rng = np.random.default_rng(4)
    x = np.concatenate([rng.normal(0, 1.22, 200), rng.normal(2, 0.71, 100)])
    fit = LikelihoodRatio(peak_model()).fit(peak_gram(x))
    np.testing.assert_allclose(np.sort([fit.theta[0], fit.minima[0, 0]]), [-0.7, 0.7], atol=0.2)
    assert fit.minima[0, 0] == pytest.approx(-fit.theta[0], abs=1e-5)
    assert fit.minima_above[0] == pytest.approx(0.0, abs=1e-7)


def test_weights_count_events():
    ratio = LikelihoodRatio(quadratic_model())
    twice = np.concatenate([QUADRATIC_EVENTS, QUADRATIC_EVENTS[:50]])
    weights = np.ones(300)
    weights[:50] = 2
    theta = [[0.1, 0.2, 0.3]]
    a = ratio.minus2_log_ratio(theta, twice)
    b = ratio.minus2_log_ratio(theta, EventSet(QUADRATIC_EVENTS, weights))
    np.testing.assert_allclose(a, b, rtol=1e-12)


def test_backgrounds_dilute_as_their_share_of_events():
    # 100 signal and 300 background events at zero, of the same density: f = 1/4 for every event.
    x = np.random.default_rng(6).normal(0, 1.22, 500)
    mixed = 0.25 * peak_gram(x) + 0.75 * background_gram(len(x), 1)
    gram = np.array([100 + 300.0, 0.0, 100.0])
    ratio = LikelihoodRatio(QuadraticModel(box("theta", half=2.0), gram, 400.0))
    theta = np.array([[0.5], [-1.5]])
    nu = 300 + 100 * (1 + theta[:, 0] ** 2)
    density = 0.75 + 0.25 * (1 + theta**2 * peak_ratio(x))
    expected = 2 * (nu - 400) - 2 * np.log(density).sum(axis=1)
    np.testing.assert_allclose(ratio.minus2_log_ratio(theta, mixed), expected, rtol=1e-12)


def test_ratios_below_the_floor_are_raised_and_counted():
    grams = np.array([[1.0, -2.0, 0.1], [1.0, 0.0, 1.0]])  # 1 - 4 theta + 0.1 theta^2
    model = QuadraticModel(box("theta"), np.eye(2), 10.0, floor=1e-3)
    point = np.array([1.0])
    assert model.below_floor(point, grams) == 0.5
    np.testing.assert_allclose(model.log_ratio(point[None], grams), [[np.log(1e-3), np.log(2)]])
    # where the floor holds there is no slope: 2 theta / (1 + theta^2) of the other event is left
    assert model.summed_slopes(point, grams, None)[1][0] == pytest.approx(1.0)


def test_samples_whose_mean_is_not_the_integral_are_rescaled():
    model = quadratic_model(event_gram=QUADRATIC_EVENTS.mean(axis=0))
    weights = np.full(300, 400 / 300)
    ratio = LikelihoodRatio(model)
    theta = model.spread
    # Gibbs: at zero, t = 2 nu <R - 1 - ln R> is then never negative, and zero at zero.
    value = ratio.minus2_log_ratio(theta, EventSet(QUADRATIC_EVENTS, weights))
    assert (value >= -1e-9).all()
    assert ratio.minus2_log_ratio(np.zeros(3), EventSet(QUADRATIC_EVENTS, weights))[0] == 0
    mean = np.exp(model.log_ratio(theta, QUADRATIC_EVENTS)).mean(axis=1)
    np.testing.assert_allclose(400 * mean, model.expected(theta), rtol=1e-10)


def test_held_and_fixed_parameters_stay_where_they_are():
    ratio = LikelihoodRatio(gaussian_model(COVARIANCE), terms="shape")
    fit = ratio.fit(EVENTS, fixed={"mu_2": 0.0})
    # conditional maximum: mean_1 + C_12/C_22 (0 - mean_2)
    mean = EVENTS.mean(axis=0)
    assert fit["mu_1"] == pytest.approx(mean[0] - 0.3 * mean[1], abs=1e-6)
    assert fit["mu_2"] == 0.0
    assert ratio.fit(EVENTS, fixed={"mu_1": 0.1, "mu_2": 0.2}).theta.tolist() == [0.1, 0.2]
    pinned = Prior([Parameter("mu_1", Uniform(-3, 3)), Parameter("mu_2", Fixed(0.0))])
    model = FunctionModel(pinned, gaussian_model(COVARIANCE).log_ratio)
    assert LikelihoodRatio(model, terms="shape").fit(EVENTS)["mu_1"] == pytest.approx(fit["mu_1"])


def test_constraints_on_nuisance_parameters_enter_as_penalties():
    # one measured mean with a constrained offset: variances add
    prior = Prior([Parameter("mu", Uniform(-5, 5)), Parameter("offset", Normal(0.0, 0.2))])
    gaussian = gaussian_model(np.eye(1))

    def log_ratio(theta, events):
        return gaussian.log_ratio(theta.sum(axis=1, keepdims=True), events)

    model = FunctionModel(prior, log_ratio, penalty=lambda theta: (theta[:, 1] / 0.2) ** 2)
    ratio = LikelihoodRatio(model, terms="shape")
    x = EVENTS[:, :1]
    fit = ratio.fit(x)
    assert fit["mu"] == pytest.approx(x.mean(), abs=1e-5)
    held = ratio.fit(x, fixed={"mu": 1.0})
    expected = (x.mean() - 1) ** 2 / (1 / 50 + 0.04)
    assert held.minus2_log_ratio - fit.minus2_log_ratio == pytest.approx(expected, rel=1e-6)


def test_bad_questions_are_refused():
    model = gaussian_model(COVARIANCE)
    with pytest.raises(UnknownNameError, match="likelihood term 'shapes'.*shape"):
        LikelihoodRatio(model, terms="shapes")
    with pytest.raises(ContractError, match="needs the expected number of events"):
        LikelihoodRatio(model)
    with pytest.raises(ContractError, match="free normalisation says nothing"):
        LikelihoodRatio(counting_model(), terms="rate", normalisation_sd=np.inf)
    with pytest.raises(ContractError, match="normalisation_sd must be 0 or positive, got -1"):
        LikelihoodRatio(counting_model(), normalisation_sd=-1)
    ratio = LikelihoodRatio(model, terms="shape")
    with pytest.raises(ContractError, match=r"shape \(k, 2\) for mu_1, mu_2, got \(3,\)"):
        ratio.minus2_log_ratio([0.0, 1.0, 2.0], EVENTS)
    with pytest.raises(UnknownNameError, match="mu_3"):
        ratio.fit(EVENTS, fixed={"mu_3": 0.0})
    with pytest.raises(ObservationError, match="finite numbers of shape"):
        ratio.fit([np.nan])
    with pytest.raises(ObservationError, match="as many weights"):
        EventSet(EVENTS, np.ones(3))
    with pytest.raises(ContractError, match=r"packed matrices, shape \(n, 10\)"):
        LikelihoodRatio(quadratic_model()).fit(np.ones((4, 6)))
    with pytest.raises(ContractError, match=r"gram of 3 parameters must be \(4, 4\)"):
        QuadraticModel(box("a", "b", "c"), np.eye(3), 1.0)
    with pytest.raises(ContractError, match="positive number of events, got -1"):
        QuadraticModel(box("a"), np.eye(2), -1)
