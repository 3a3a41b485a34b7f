"""The numbers of a validation of draws: closed forms, and what must not change them.

The model and its exact posterior: `sample_draws.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import special

sys.path.insert(0, str(Path(__file__).parent))
from sample_draws import gaussian_case

from sbi_physics.coverage import Coverage
from sbi_physics.diagnostics import evaluation
from sbi_physics.distributions import LogUniform, Uniform
from sbi_physics.parameters import Parameter
from sbi_physics.priors import Prior
from sbi_physics.testing import known_answers
from sbi_physics.testing.known_answers import PRIOR
from sbi_physics.validate_arrays import validate_draws

COVARIANCE = known_answers.gaussian(1, np.random.default_rng(0)).covariance[0]


def test_the_scores_agree_with_their_closed_forms():
    rng = np.random.default_rng(8)
    result = gaussian_case(10_000, rng).validate(rng, 9)
    entropy = 0.5 * np.linalg.slogdet(2 * np.pi * np.e * COVARIANCE)[1]
    information = -0.5 * np.linalg.slogdet(COVARIANCE)[1]
    assert result.gain_kind == "information"
    assert abs(result.nll.mean - entropy) < 4 * result.nll.standard_error
    assert abs(result.gain.mean - information) < 4 * result.gain.standard_error
    assert result.nll.standard_error == pytest.approx(1 / np.sqrt(10_000), rel=0.05)


def test_the_gain_from_moments_equals_the_information_gain_for_gaussians():
    rng = np.random.default_rng(9)
    case = gaussian_case(2000, rng)
    moments = case.validate(rng, 999, log_prob_true=None, log_prob_draws=None)
    information = -0.5 * np.linalg.slogdet(COVARIANCE)[1]
    assert abs(moments.gain.mean - information) < 4 * moments.gain.standard_error
    assert moments.nll is None


def test_expected_coverage_at_a_level_agrees_with_the_closed_form():
    rng = np.random.default_rng(10)
    result = gaussian_case(8000, rng, width=0.8).validate(rng, 399)
    for level in (0.383, 0.683, 0.90, 0.954):
        # Claimed radius^2 = -2 ln(1 - level) in units of the claimed width, 0.8 of the true one.
        expected = 1 - (1 - level) ** (0.8**2)
        ecp, low, high = result.ecp(level)
        # 4 standard errors of 8000 pairs, and half a rank.
        assert ecp == pytest.approx(expected, abs=0.025)
        assert low < ecp < high
    area = result.effect("area", "hpd")
    # A = int_0^1 (1 - (1 - t)^0.64) dt - 1/2.
    assert area.value == pytest.approx(1 - 1 / 1.64 - 0.5, abs=0.01)
    assert result.effect("width", "sbc:a").value == pytest.approx(1.25, abs=0.03)
    # Central intervals of one parameter cover 2 Phi(0.8 z) - 1.
    one = result.ecp(0.683, "a")[0]
    assert one == pytest.approx(2 * special.ndtr(0.8 * special.ndtri(0.8415)) - 1, abs=0.025)


def test_the_same_generator_gives_the_same_verdict_and_the_seed_is_recorded():
    arrays = gaussian_case(300, np.random.default_rng(13)).arrays(np.random.default_rng(14))
    first = validate_draws(rng=np.random.default_rng(1), **arrays)
    second = validate_draws(rng=np.random.default_rng(1), **arrays)
    other = validate_draws(rng=np.random.default_rng(2), **arrays)
    assert first.seed == second.seed != other.seed
    assert np.array_equal(first.pit["hpd"], second.pit["hpd"])
    assert not np.array_equal(first.pit["hpd"], other.pit["hpd"])


def test_the_size_of_batches_changes_nothing(monkeypatch):
    arrays = gaussian_case(250, np.random.default_rng(31)).arrays(np.random.default_rng(32), 49)
    arrays["draws"][17, 3, 0] = np.nan
    arrays["draws"][:, 0] = arrays["draws"][:, 1]
    options = {"blocks": [("a", "b")], "quantities": ["pair"]}
    whole = validate_draws(rng=np.random.default_rng(1), **arrays, **options)
    monkeypatch.setattr(evaluation, "_BATCH", 7)
    split = validate_draws(rng=np.random.default_rng(1), **arrays, **options)
    for name in whole.quantities:
        assert np.array_equal(split.pit[name], whole.pit[name], equal_nan=True)
    assert split.p_global == whole.p_global
    assert {t.name: t.p_value for t in split.tests} == {t.name: t.p_value for t in whole.tests}


def test_the_order_of_draws_changes_no_rank_and_no_conclusion():
    arrays = gaussian_case(300, np.random.default_rng(33)).arrays(np.random.default_rng(34))
    result = validate_draws(rng=np.random.default_rng(1), **arrays)
    order = np.random.default_rng(35).permuted(np.tile(np.arange(199), (300, 1)), axis=1)
    shuffled = {
        **arrays,
        "draws": np.take_along_axis(arrays["draws"], order[..., None], axis=1),
        "log_prob_draws": np.take_along_axis(arrays["log_prob_draws"], order, axis=1),
    }
    again = validate_draws(rng=np.random.default_rng(1), **shuffled)
    for name in result.quantities:
        assert np.array_equal(again.pit[name], result.pit[name], equal_nan=True)
    # Other relabellings of the same 5000: p differs by its binomial error.
    assert again.p_global == pytest.approx(result.p_global, abs=5 * np.sqrt(0.25 / 5000))


def test_a_monotone_map_of_one_parameter_changes_no_marginal_rank():
    arrays = gaussian_case(300, np.random.default_rng(36)).arrays(np.random.default_rng(37), 49)
    arrays = {k: arrays[k] for k in ("theta", "draws", "x")}
    result = validate_draws(rng=np.random.default_rng(1), **arrays)
    for key in ("theta", "draws"):
        arrays[key] = arrays[key].copy()
        arrays[key][..., 1] = np.exp(arrays[key][..., 1])
    mapped = validate_draws(rng=np.random.default_rng(1), **arrays)
    for name in ("sbc:theta_1", "sbc:theta_2"):
        assert np.array_equal(mapped.pit[name], result.pit[name])
    assert not np.array_equal(mapped.pit["tarp_u"], result.pit["tarp_u"])


def test_the_order_of_parameters_changes_nothing():
    rng = np.random.default_rng(15)
    arrays = gaussian_case(300, rng).arrays(rng)
    result = validate_draws(rng=np.random.default_rng(1), **arrays)
    swapped = {
        **arrays,
        "theta": arrays["theta"][:, ::-1],
        "draws": arrays["draws"][..., ::-1],
        "prior": PRIOR.select(("b", "a")),
    }
    mirrored = validate_draws(rng=np.random.default_rng(1), **swapped)
    for name in result.quantities:
        assert np.array_equal(mirrored.pit[name], result.pit[name], equal_nan=True)
    assert mirrored.p_global == result.p_global


def test_single_precision_gives_the_same_ranks_up_to_ties():
    rng = np.random.default_rng(16)
    arrays = gaussian_case(300, rng).arrays(rng)
    result = validate_draws(rng=np.random.default_rng(1), **arrays)
    narrow = {
        k: v.astype(np.float32) if isinstance(v, np.ndarray) else v for k, v in arrays.items()
    }
    again = validate_draws(rng=np.random.default_rng(1), **narrow)
    for name in ("sbc:a", "sbc:b", "hpd"):
        # One rank is 1/200.
        assert np.abs(again.pit[name] - result.pit[name]).max() < 0.02


def test_a_logarithmic_parameter_gives_the_same_regions_as_its_logarithm():
    rng = np.random.default_rng(17)
    n, n_draws = 300, 199
    log_prior = Prior([Parameter("g", LogUniform(1e-3, 1e3))])
    linear_prior = Prior([Parameter("g", Uniform(-3.0, 3.0))])
    log_theta = rng.uniform(-3, 3, (n, 1))
    x = log_theta + 0.3 * rng.standard_normal((n, 1))

    # Exact: normal around x, truncated to [-3, 3].
    low, high = special.ndtr((-3 - x) / 0.3), special.ndtr((3 - x) / 0.3)
    u = low + (high - low) * rng.uniform(1e-6, 1 - 1e-6, (n, n_draws))
    draws = (x + 0.3 * special.ndtri(u))[..., None]
    log_q = -0.5 * ((log_theta - x) / 0.3)[:, 0] ** 2
    log_q_draws = -0.5 * ((draws - x[:, None]) / 0.3)[..., 0] ** 2
    linear = validate_draws(
        log_theta, draws, log_prob_true=log_q, log_prob_draws=log_q_draws, prior=linear_prior,
        rng=np.random.default_rng(1),
    )  # fmt: skip
    physical = validate_draws(
        10**log_theta, 10**draws, log_prob_true=log_q - np.log(10**log_theta[:, 0]),
        log_prob_draws=log_q_draws - np.log(10 ** draws[..., 0]), prior=log_prior,
        rng=np.random.default_rng(1),
    )  # fmt: skip
    assert np.array_equal(physical.pit["sbc:g"], linear.pit["sbc:g"])
    assert physical.pit["hpd"] == pytest.approx(linear.pit["hpd"], abs=0.011)
    # Without the Jacobian the regions would be those of the density in g itself.
    wrong = validate_draws(
        10**log_theta, 10**draws, log_prob_true=log_q, log_prob_draws=log_q_draws, prior=log_prior,
        rng=np.random.default_rng(1),
    )  # fmt: skip
    assert np.abs(wrong.pit["hpd"] - linear.pit["hpd"]).max() > 0.1


def test_a_block_of_parameters_is_covered_as_its_own_joint_region():
    rng = np.random.default_rng(18)
    exact = [gaussian_case(200, rng).validate(rng, 99, blocks=[("a", "b")]) for _ in range(60)]
    p = np.array([_test(r, "hpd:a,b").p_value for r in exact])
    # Central 99.9 % of Binomial(60, 0.05) and Binomial(60, 0.5).
    assert np.sum(p < 0.05) <= 10
    assert 17 <= np.sum(p < 0.5) <= 43
    flipped = gaussian_case(1000, rng, correlation=-1.0).validate(rng, 399, blocks=[("a", "b")])
    assert _test(flipped, "hpd:a,b").p_value < 1e-6
    assert flipped.ecp(0.683, "hpd:a,b")[0] == pytest.approx(flipped.ecp(0.683)[0], abs=0.05)


def _test(result: Coverage, name: str):
    return next(t for t in result.tests if t.name == name)


def test_a_region_of_tarp_is_the_ball_that_just_contains_the_truth():
    rng = np.random.default_rng(43)
    result = gaussian_case(4000, rng, width=0.7).validate(rng, 49)
    # References near the centre: balls are like highest-density regions, and too small.
    assert np.array_equal(result.credibility("tarp_x"), result.u("tarp_x"))
    ecp, _, high = result.ecp(0.683, "tarp_x")
    assert high < 0.683
    assert ecp == pytest.approx(result.ecp(0.683)[0], abs=0.05)
    curve = result.curve("tarp_u")
    assert (curve.ecp[0], curve.ecp[-1]) == (0.0, 1.0)
