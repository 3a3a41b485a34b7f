"""The verdict on draws of a posterior whose exact form is known.

Model: theta ~ N(0, 1)^2, x = theta + noise with covariance 0.25 [[1, 0.6], [0.6, 1]]; the exact
posterior has standard deviations 0.434 and correlation 0.517.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from scipy import special

from sbi_physics.assess import _adjusted, _one_sided_tests
from sbi_physics.coverage import Coverage
from sbi_physics.diagnostics import evaluation
from sbi_physics.distributions import LogUniform, Uniform
from sbi_physics.errors import UnknownNameError, ValidationError
from sbi_physics.parameters import Parameter
from sbi_physics.priors import Prior
from sbi_physics.testing import known_answers
from sbi_physics.testing.known_answers import PRIOR
from sbi_physics.validate_arrays import validate_draws

COVARIANCE = known_answers.gaussian(1, np.random.default_rng(0)).covariance[0]


@dataclass
class Case:
    """Truth, data and a Gaussian posterior for each of n observations."""

    known: known_answers.Case

    def validate(
        self, rng: np.random.Generator, n_draws: int = 199, **changes: object
    ) -> Coverage:
        return validate_draws(rng=rng, **{**self.arrays(rng, n_draws), **changes})

    def arrays(self, rng: np.random.Generator, n_draws: int = 199) -> dict[str, object]:
        return self.known.arrays(n_draws, rng)


def gaussian_case(
    n: int,
    rng: np.random.Generator,
    *,
    width: float = 1.0,
    bias: tuple[float, float] = (0.0, 0.0),
    is_prior: bool = False,
    correlation: float = 1.0,
) -> Case:
    if is_prior:
        return Case(known_answers.known_case("prior", n, rng))
    exact = known_answers.gaussian(n, rng)
    shifted = known_answers.shifted(exact, *bias)
    return Case(known_answers.correlated(known_answers.scaled(shifted, width), correlation))


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


def test_the_expected_coverage_is_the_same_on_either_side_of_storage(tmp_path):
    rng = np.random.default_rng(11)
    arrays = gaussian_case(300, rng).arrays(rng)
    arrays["log_prob_true"][3] = np.nan
    arrays["log_prob_true"][4] = -np.inf
    result = validate_draws(rng=rng, blocks=[("a",)], **arrays)
    result.to_json(tmp_path / "coverage.json")
    again = Coverage.from_json(tmp_path / "coverage.json")
    assert again.to_json() == result.to_json()
    assert again.summary() == result.summary()
    assert again.prior == PRIOR
    for name in result.quantities:
        assert np.array_equal(again.pit[name], result.pit[name], equal_nan=True)
    assert again.ecp(0.9) == result.ecp(0.9)


@pytest.mark.parametrize(("text", "message"), [("{", "not readable"), ("{}", "schema None")])
def test_a_damaged_record_is_refused(tmp_path, text, message):
    (tmp_path / "coverage.json").write_text(text)
    with pytest.raises(ValidationError, match=message):
        Coverage.from_json(tmp_path / "coverage.json")


def test_a_record_without_an_entry_is_refused(tmp_path):
    rng = np.random.default_rng(12)
    data = gaussian_case(200, rng).validate(rng, 19).to_dict()
    del data["pit"]
    with pytest.raises(ValidationError, match="lacks the entry 'pit'"):
        Coverage.from_dict(data)


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


def test_weighted_draws_are_ranked_by_weight():
    rng = np.random.default_rng(19)
    case = gaussian_case(400, rng)
    wide = Case(known_answers.scaled(case.known, 1.3))
    arrays = wide.arrays(rng, 1500)
    at_draws = case.known.log_prob(arrays["draws"])
    weights = np.exp(at_draws - arrays["log_prob_draws"])
    own = case.known.log_prob(case.known.theta[:, None])[:, 0]
    corrected = validate_draws(
        rng=rng, **{**arrays, "weights": weights, "log_prob_true": own, "log_prob_draws": at_draws}
    )
    assert corrected.verdict in ("PASS", "MARGINAL")
    # Effective draws are several times those resampled: exchangeable with the truth.
    assert corrected.counts.median_ess > 1000
    assert corrected.combination.startswith("swap")
    assert wide.validate(rng, 1500).verdict == "FAIL"


def test_few_effective_draws_are_inconclusive():
    rng = np.random.default_rng(20)
    arrays = gaussian_case(300, rng).arrays(rng, 999)
    weights = rng.pareto(0.5, (300, 999))
    result = validate_draws(rng=rng, weights=weights, **arrays)
    assert result.verdict == "INCONCLUSIVE"
    assert "effective draws" in result.reason
    assert result.counts.low_ess > 150
    # Weighted draws are not exchangeable with the truth.
    assert result.combination.startswith("Bonferroni over all tests")
    assert [t.name for t in result.tests] == ["sbc:a", "sbc:b", "hpd", "tarp_u", "tarp_x"]


def test_few_pairs_are_inconclusive_and_very_few_are_refused():
    rng = np.random.default_rng(21)
    few = gaussian_case(199, rng).validate(rng, 19)
    assert few.verdict == "INCONCLUSIVE"
    assert "199 usable pairs" in few.reason
    with pytest.raises(ValidationError, match="at least 20 usable pairs"):
        gaussian_case(19, rng).validate(rng, 19)


def test_draws_alone_cannot_tell_a_repeated_prior():
    rng = np.random.default_rng(22)
    result = gaussian_case(300, rng).validate(rng, x=None, log_prob_true=None, log_prob_draws=None)
    assert result.verdict == "INCONCLUSIVE"
    assert "repeats the prior" in result.reason


def test_non_finite_values_are_counted_and_too_many_are_inconclusive():
    rng = np.random.default_rng(23)
    arrays = gaussian_case(500, rng).arrays(rng)
    arrays["draws"][:4, 7, 1] = np.nan
    arrays["log_prob_draws"][4:8, 3] = np.nan
    result = validate_draws(rng=rng, **arrays)
    assert result.counts.usable == 496
    assert result.counts.density_missing == 4
    # 100 of the 500 pairs fit the regression behind tarp_x; all 8 bad ones are among the rest or
    # not: rows 4 and 9, 14, ... are held out.
    assert {t.name: t.n for t in result.tests} == {
        "sbc:a": 496, "sbc:b": 496, "hpd": 492, "tarp_u": 496, "tarp_x": 396, "moment": 496,
        "width_x": 496,
    }  # fmt: skip
    assert result.verdict in ("PASS", "MARGINAL")
    arrays["draws"][:20, 7, 1] = np.inf
    assert validate_draws(rng=rng, **arrays).verdict == "INCONCLUSIVE"


def test_a_truth_of_zero_density_counts_as_outside_every_region_and_is_clipped_in_scores():
    rng = np.random.default_rng(24)
    arrays = gaussian_case(500, rng).arrays(rng)
    arrays["log_prob_true"][:25] = -np.inf
    result = validate_draws(rng=rng, **arrays)
    assert result.counts.truth_excluded == 25
    assert result.nll.n_clipped == 25
    assert np.isfinite(result.nll.mean)
    assert np.all(result.credibility()[:25] > 199 / 200 - 1e-9)
    assert result.ecp(0.99)[0] < 0.96


def test_draws_outside_the_prior_are_counted_and_too_many_are_inconclusive():
    rng = np.random.default_rng(25)
    box = Prior([Parameter("a", Uniform(-1.0, 1.0))])
    theta = rng.uniform(-1, 1, (400, 1))
    draws = theta[:, None] + 1.5 * rng.standard_normal((400, 1, 1))
    draws = draws + 1.5 * rng.standard_normal((400, 99, 1))
    result = validate_draws(theta, draws, x=theta, prior=box, rng=rng)
    assert result.verdict == "INCONCLUSIVE"
    assert "outside the prior" in result.reason
    with pytest.raises(ValidationError, match="lie outside the prior"):
        validate_draws(theta + 5, draws, prior=box, rng=rng)


@pytest.mark.parametrize("n_draws", [1, 2])
def test_one_draw_is_enough_for_a_valid_if_weak_test(n_draws):
    rng = np.random.default_rng(26)
    result = gaussian_case(400, rng).validate(rng, n_draws)
    assert result.verdict in ("PASS", "MARGINAL")
    assert gaussian_case(3000, rng, width=0.6).validate(rng, n_draws).verdict == "FAIL"


def test_one_parameter_and_a_constant_one_are_fine():
    rng = np.random.default_rng(27)
    theta = np.stack([rng.standard_normal(400), np.full(400, 3.0)], axis=1)
    x = theta[:, :1] + 0.5 * rng.standard_normal((400, 1))
    draws = np.full((400, 99, 2), 3.0)
    draws[..., 0] = 0.8 * x + np.sqrt(0.2) * rng.standard_normal((400, 99))
    single = validate_draws(theta[:, :1], draws[..., :1], x=x, rng=np.random.default_rng(1))
    both = validate_draws(theta, draws, x=x, blocks=[("theta_2",)], rng=np.random.default_rng(1))
    assert np.array_equal(single.pit["sbc:theta_1"], both.pit["sbc:theta_1"])
    assert single.verdict in ("PASS", "MARGINAL")
    assert both.verdict in ("PASS", "MARGINAL")
    assert np.isnan(both.parameters[1].contraction[1])


def test_a_negligible_effect_seen_with_very_many_pairs_is_marginal_not_fail():
    rng = np.random.default_rng(28)
    n = 30_000
    theta = rng.standard_normal((n, 1))
    x = theta + 0.5 * rng.standard_normal((n, 1))
    mean = 0.8 * x[:, None] + 0.05 * np.sqrt(0.2)
    draws = mean + np.sqrt(0.2) * rng.standard_normal((n, 49, 1))
    result = validate_draws(theta, draws, x=x, rng=rng)
    assert result.p_global < 0.01
    assert result.verdict == "MARGINAL"
    assert "inside its tolerance" in result.reason


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"draws": np.zeros((300, 9, 3))}, r"\(300, draw, 2\)"),
        ({"draws": np.zeros((299, 9, 2))}, r"\(300, draw, 2\)"),
        ({"theta": np.zeros(300)}, "theta must have shape"),
        ({"log_prob_true": np.zeros(7)}, r"log_prob_true must have shape \(300,\)"),
        ({"log_prob_true": None}, "log_prob_draws needs log_prob_true"),
        ({"weights": -np.ones((300, 199))}, "weights must be finite"),
        ({"x": np.zeros((4, 2))}, r"x must hold real numbers for 300 .* shape \(4, 2\)"),
        ({"x": np.full(300, "text")}, "x must hold real numbers"),
        ({"prior": PRIOR.select(("a",))}, "theta has 2 parameters"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(changes, message):
    rng = np.random.default_rng(29)
    with pytest.raises(ValidationError, match=message):
        gaussian_case(300, rng).validate(rng, **changes)


def test_an_unknown_parameter_or_quantity_is_named_with_its_neighbour():
    rng = np.random.default_rng(30)
    case = gaussian_case(200, rng)
    with pytest.raises(UnknownNameError, match="'c'"):
        case.validate(rng, 19, blocks=[("a", "c")])
    result = case.validate(rng, 19)
    with pytest.raises(UnknownNameError, match="hpd"):
        result.u("hpt")
    with pytest.raises(ValidationError, match="between 0 and 1"):
        result.ecp(1.0)
    with pytest.raises(UnknownNameError, match="requirement 'conservativ'.*conservative"):
        case.validate(rng, 19, require="conservativ")
    with pytest.raises(UnknownNameError, match="loglik"):
        case.validate(rng, 19, quantities=["loglik"])


def test_when_conservative_is_required_only_over_confidence_fails():
    rng = np.random.default_rng(38)
    wide = gaussian_case(1000, rng, width=1.25)
    assert wide.validate(rng, 99).verdict == "FAIL"
    tolerated = wide.validate(rng, 99, require="conservative")
    assert tolerated.verdict == "PASS"
    assert tolerated.labels == ("conservative",)
    assert tolerated.require == "conservative"
    narrow = gaussian_case(1000, rng, width=0.8).validate(rng, 99, require="conservative")
    assert narrow.verdict == "FAIL"
    assert narrow.labels == ("overconfident",)
    assert narrow.p_global == min(t.p_holm for t in narrow.tests if t.family == "one-sided")
    assert narrow.p_global < 1e-6
    off = gaussian_case(1000, rng, bias=(0.5, 0.5)).validate(rng, 99, require="conservative")
    assert off.verdict == "FAIL"


def test_the_one_sided_tests_hold_their_level_for_an_exact_posterior():
    rng = np.random.default_rng(39)
    p = []
    for _ in range(150):
        pit = {k: np.round(rng.random(200), 9) for k in ("sbc:a", "sbc:b", "hpd")}
        p.append(min(t.p_holm for t in _adjusted(_one_sided_tests(pit))))
    # Central 99.9 % of Binomial(150, 0.05), and its upper end.
    assert 1 <= np.sum(np.array(p) < 0.05) <= 17


def test_records_of_the_former_schema_are_read():
    rng = np.random.default_rng(40)
    result = gaussian_case(200, rng).validate(rng, 19)
    data = result.to_dict()
    assert data["schema"] == 3
    old = {k: v for k, v in data.items() if k not in ("require", "local")} | {"schema": 1}
    assert Coverage.from_dict(old).to_dict() == {**data, "local": None}
    second = {k: v for k, v in data.items() if k != "local"} | {"schema": 2}
    assert Coverage.from_dict(second).to_dict() == {**data, "local": None}
    with pytest.raises(ValidationError, match="schema 4.*reads schemas 1, 2, 3"):
        Coverage.from_dict({**data, "schema": 4})


def test_the_local_map_travels_with_the_record_and_says_where_widths_are_wrong():
    rng = np.random.default_rng(44)
    case = Case(known_answers.known_case("xscale", 1000, rng))
    result = case.validate(rng, 99)
    found = result.local
    assert found.quantities == result.quantities
    assert found.features == ("feature_1", "feature_2")
    ends = [found.select("sbc:a", "feature_1")[k].width[0] for k in (0, -1)]
    # 0.75 and 1.33 times the width by the sign of x_1, which the first component follows.
    assert min(ends) < 0.85
    assert max(ends) > 1.15
    assert found.deviating()
    again = Coverage.from_dict(result.to_dict())
    assert again.local.to_dict() == found.to_dict()
    assert case.validate(rng, 9, x=None).local is None
    assert case.validate(rng, 9, x=np.ones(1000)).local is None


def test_fifty_pairs_give_every_number_but_no_verdict():
    rng = np.random.default_rng(41)
    result = gaussian_case(50, rng).validate(rng, 19)
    assert result.verdict == "INCONCLUSIVE"
    assert result.local is None
    assert {t.name: t.n for t in result.tests}["tarp_x"] == 40
    assert all(0.0 < t.p_value <= 1.0 for t in result.tests)
    # At most one moment for 20 pairs.
    assert next(t for t in result.tests if t.name == "moment").detail.startswith("2 moments")


@pytest.mark.parametrize(
    ("n", "message"), [(0, "theta must have shape.*at least one"), (1, "1 of 1 have finite")]
)
def test_no_pair_and_a_single_pair_are_refused(n, message):
    rng = np.random.default_rng(45)
    with pytest.raises(ValidationError, match=message):
        validate_draws(np.zeros((n, 2)), rng.random((n, 9, 2)), x=np.zeros((n, 1)), rng=rng)


@pytest.mark.parametrize("n_draws", [19, 99])
def test_a_posterior_of_whole_numbers_is_calibrated_in_spite_of_ties(n_draws):
    # A coin's bias is 0.2, 0.5 or 0.8; the data are 4 tosses: a discrete exact posterior.
    rng = np.random.default_rng(46)
    values = np.array([0.2, 0.5, 0.8])
    p = []
    for _ in range(60):
        truth = rng.integers(0, 3, 250)
        x = rng.binomial(4, values[truth])
        weight = values ** x[:, None] * (1 - values) ** (4 - x[:, None])
        edges = np.cumsum(weight / weight.sum(axis=1, keepdims=True), axis=1)
        drawn = (rng.random((250, n_draws, 1)) > edges[:, None, :2]).sum(axis=2)
        found = validate_draws(
            truth[:, None].astype(float), drawn[..., None].astype(float), x=x[:, None], rng=rng
        )
        p.append(next(t for t in found.tests if t.family == "sbc").p_value)
    # Central 99.9 % of Binomial(60, 0.5), and the upper end of Binomial(60, 0.05).
    assert 17 <= np.sum(np.array(p) < 0.5) <= 43
    assert np.sum(np.array(p) < 0.05) <= 10


def test_draws_in_single_precision_with_ties_and_one_parameter_are_fine():
    rng = np.random.default_rng(47)
    theta = rng.standard_normal((400, 1)).astype(np.float32)
    x = theta + np.float32(0.5) * rng.standard_normal((400, 1)).astype(np.float32)
    noise = np.sqrt(0.2) * rng.standard_normal((400, 99))
    draws = (0.8 * x + noise).astype(np.float16).astype(np.float32)[..., None]
    result = validate_draws(theta, draws, x=x, rng=rng)
    assert result.verdict in ("PASS", "MARGINAL")
    assert {t.name for t in result.tests} == {
        "sbc:theta_1", "tarp_u", "tarp_x", "moment", "width_x",
    }  # fmt: skip


def test_data_with_holes_and_constant_data_are_accepted():
    rng = np.random.default_rng(42)
    case = gaussian_case(300, rng)
    holes = case.known.x.copy()
    holes[::7, 0] = np.nan
    assert case.validate(rng, 49, x=holes).verdict in ("PASS", "MARGINAL")
    assert case.validate(rng, 49, x=np.zeros(300)).verdict in ("PASS", "MARGINAL")


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
