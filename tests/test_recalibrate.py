"""Mended posteriors: right afterwards, stored safely, and never tested on their own pairs."""

from __future__ import annotations

import json
import math
from fractions import Fraction

import numpy as np
import pytest

from sbi_physics import load_posterior, recalibrated
from sbi_physics.engine import train
from sbi_physics.errors import ContractError, PosteriorFileError, UnknownNameError, ValidationError
from sbi_physics.posterior import Posterior
from sbi_physics.progress import SILENT
from sbi_physics.recalibrate import EDGES, recalibrate
from sbi_physics.recalibrated import N_REFERENCE, AffinePosterior, ShellPosterior
from sbi_physics.simulate import simulate
from sbi_physics.testing import POSTERIOR_CHECKS, ToyBimodal, ToyGaussian, check_posterior
from sbi_physics.validate import validate

TOY = ToyGaussian(noise=0.2)


def simulations(n, purpose, seed=1, toy=TOY):
    return simulate(toy, n, seed=seed, purpose=purpose, progress=SILENT)


@pytest.fixture(scope="module")
def exact():
    return train(simulations(300, "train"), "exact", seed=1, progress=SILENT)


@pytest.fixture(scope="module")
def calibration():
    return simulations(600, "test")


@pytest.fixture(scope="module")
def pairs():
    return simulations(400, "pairs")


def spoilt(posterior, shift=(0.0, 0.0), stretch=(1.0, 1.0)):
    """A posterior with a planted bias (posterior sd) and width, and densities that agree."""
    record = {"method": "affine", "seed": 99, "pairs": {}}
    return AffinePosterior(posterior, record, np.array(shift), np.array(stretch))


def verdict(posterior, pairs):
    return validate(posterior, pairs, n_draws=99, seed=1, progress=SILENT)


@pytest.mark.parametrize("method", ["rank", "conformal"])
@pytest.mark.parametrize("width", [0.8, 1.3])
def test_shells_mend_the_joint_coverage(exact, calibration, pairs, method, width):
    wrong = spoilt(exact, stretch=(width, width))
    before = verdict(wrong, pairs)
    mended = recalibrate(wrong, calibration, method, seed=1)
    after = verdict(mended, pairs)
    assert before.verdict == "FAIL"
    # The correction carries the error of its 600 pairs, the test that of 400.
    error = np.sqrt(0.683 * 0.317 * (1 / 400 + 1 / 600))
    assert after.ecp(0.683)[0] == pytest.approx(0.683, abs=4 * error)
    assert abs(before.ecp(0.683)[0] - 0.683) > 4 * error
    assert after.nll.mean < before.nll.mean
    assert wrong.context.simulations.get("recalibrations") == [wrong.record]


def test_an_affine_correction_takes_out_bias_and_width(exact, calibration, pairs):
    wrong = spoilt(exact, shift=(0.4, 0.0), stretch=(0.7, 1.0))
    assert verdict(wrong, pairs).verdict == "FAIL"
    mended = recalibrate(wrong, calibration, "affine", seed=1)
    # Exact inverse: -0.4 / 0.7 and 1 / 0.7; errors of 600 pairs, of truncated normals.
    assert mended.shift == pytest.approx([-0.4 / 0.7, 0.0], abs=5 * 1.5 / np.sqrt(600))
    assert mended.stretch == pytest.approx([1 / 0.7, 1.0], abs=5 * 1.5 / np.sqrt(1200))
    after = verdict(mended, pairs)
    assert after.p_global > 1e-3
    assert after.nll.mean < verdict(wrong, pairs).nll.mean


def test_the_conformal_levels_hold_their_guarantee():
    # Coverage of a level over calibration sets and truths: between g and g + 1 / (n + 1).
    toy = ToyGaussian(dimension=1, noise=0.3)
    wrong = spoilt(toy.reference_posterior(), (0.3,), (1.2,))
    fresh = simulations(400, "pairs", toy=toy)
    covered = []
    for seed in range(4):
        own = recalibrate(wrong, simulations(250, "test", seed + 2, toy), "conformal", seed=1)
        credibility = own.credibility(fresh.theta[:, None], fresh.x)[:, 0]
        covered.append(np.mean(credibility <= 0.9))
    # Errors: 250 pairs in each of 4 sets, 400 test pairs common to all.
    error = np.sqrt(0.09 * (1 / (4 * 250) + 1 / 400))
    assert np.mean(covered) == pytest.approx(0.902, abs=4 * error)
    assert own.calibrated[1:-1] == pytest.approx(EDGES[: len(own.calibrated) - 2])


# 220 * 0.55 is above 121 in floating point.
@pytest.mark.parametrize("n", [219, 250])
def test_a_conformal_region_holds_exactly_the_stated_number_of_its_own_pairs(n):
    # Split conformal prediction: the k-th smallest score, k = ceil((n + 1) g), is the threshold.
    toy = ToyGaussian(dimension=1, noise=0.3)
    wrong = spoilt(toy.reference_posterior(), (0.3,), (1.2,))
    own = simulations(n, "test", 3, toy)
    mended = recalibrate(wrong, own, "conformal", seed=1)
    score = np.sort(mended.nominal_credibility(own.theta[:, None], own.x)[:, 0])
    assert len(np.unique(score)) == n
    levels = mended.calibrated[1:-1]
    assert len(levels) > 15
    for level, threshold in zip(levels, mended.nominal[1:-1], strict=True):
        k = math.ceil(Fraction(n + 1) * Fraction(str(level)))
        assert threshold == score[k - 1]
        inside = mended.credibility(own.theta[:, None], own.x)[:, 0] <= level + 1e-12
        assert inside.sum() == k


def test_an_exact_posterior_is_hardly_changed(exact, calibration, pairs):
    for method in ("rank", "affine"):
        mended = recalibrate(exact, calibration, method, seed=1)
        change = mended.log_prob(pairs.theta[:50, None], pairs.x[:50])
        change = change - exact.log_prob(pairs.theta[:50, None], pairs.x[:50])
        assert np.abs(change).mean() < 0.3
        assert verdict(mended, pairs).verdict in ("PASS", "MARGINAL")


@pytest.mark.parametrize("method", ["rank", "affine"])
def test_a_mended_posterior_passes_the_whole_kit(exact, method):
    wrong = spoilt(exact, shift=(0.1, 0.0), stretch=(1.2, 0.9))
    if method == "rank":
        wrong = spoilt(exact, stretch=(1.2, 1.2))
    mended = recalibrate(wrong, simulations(4000, "test"), method, seed=1)
    report = check_posterior(lambda: mended)
    assert len(list(report)) == len(POSTERIOR_CHECKS)
    assert not report.failed, report.failed
    assert [r.name for r in report if r.outcome == "skipped"] == []


@pytest.mark.parametrize("method", ["rank", "affine"])
def test_observations_answered_together_and_one_by_one_get_the_same_answers(
    exact, pairs, method, monkeypatch
):
    # Few candidates at a time: some observations need more rounds than others.
    monkeypatch.setattr(recalibrated, "_MAX_CANDIDATES", 60 * 30)
    wrong = spoilt(exact, shift=(0.2, 0.0), stretch=(1.2, 0.9))
    mended = recalibrate(wrong, simulations(300, "test"), method, seed=1)
    x, theta = pairs.x[:60], pairs.theta[:60, None]
    together = mended.log_prob(theta, x)
    fresh = recalibrate(wrong, simulations(300, "test"), method, seed=1)
    alone = np.concatenate([fresh.log_prob(theta[i], x[i : i + 1]) for i in reversed(range(60))])
    assert together == pytest.approx(alone[::-1], abs=1e-6)
    draws = mended.draw(x, 50, np.random.default_rng(1), log_prob=True, at=theta)
    assert draws.log_prob_at == pytest.approx(together, abs=1e-6)
    assert draws.log_prob == pytest.approx(mended.log_prob(draws.theta, x), abs=1e-6)
    # Every row is filled, by draws of its own observation.
    z = (np.median(draws.theta, axis=1) - pairs.theta[:60]) / draws.theta.std(axis=1)
    assert np.abs(z).max() < 5


def test_draws_of_many_observations_are_made_together(exact, pairs):
    calls = []

    class Counted(type(exact)):
        def _draw(self, x, n, rng, log_prob, at):
            calls.append((len(x), n))
            return super()._draw(x, n, rng, log_prob, at)

    base = Counted.__new__(Counted)
    base.__dict__.update(exact.__dict__)
    for mended in (
        recalibrate(base, simulations(300, "test"), "rank", seed=1),
        recalibrate(base, simulations(300, "test"), "affine", seed=1),
    ):
        calls.clear()
        mended.sample(pairs.x[:40], 100, np.random.default_rng(1))
        references = [c for c in calls if c == (1, N_REFERENCE)]
        assert len(references) == 40
        assert len(calls) - len(references) <= 6
        calls.clear()
        mended.sample(pairs.x[:40], 100, np.random.default_rng(1))
        assert len(calls) <= 6


def test_two_modes_keep_their_shape_and_their_shells_add_up():
    toy = ToyBimodal()
    mended = recalibrate(
        toy.reference_posterior(), simulations(300, "test", toy=toy), "rank", seed=1
    )
    x = np.array([[4.0]], dtype=np.float32)
    grid = np.linspace(-3, 3, 2001)
    density = np.exp(mended.log_prob(grid[:, None], x)[0])
    assert np.trapezoid(density, grid) == pytest.approx(1.0, abs=0.1)
    draws = mended.sample(x, 2000, np.random.default_rng(1))[0, :, 0]
    assert abs(np.mean(draws > 0) - 0.5) < 5 * 0.5 / np.sqrt(2000)
    inside = np.trapezoid(np.where(np.abs(grid - 2) < 0.06, density, 0), grid)
    assert np.mean(np.abs(draws - 2) < 0.06) == pytest.approx(inside, abs=0.06)


def test_pairs_of_a_recalibration_are_refused_in_validation_and_again(
    exact, calibration, pairs, tmp_path
):
    mended = recalibrate(exact, calibration, "affine", seed=1)
    again = load_posterior(mended.save(tmp_path / "mended"))
    for posterior in (mended, again):
        with pytest.raises(ValidationError, match="'affine' recalibration"):
            validate(posterior, calibration, progress=SILENT)
        with pytest.raises(ValidationError, match="'affine' recalibration"):
            # The same stream, fewer rows.
            validate(posterior, simulations(300, "test"), progress=SILENT)
        with pytest.raises(ValidationError, match="'affine' recalibration"):
            recalibrate(posterior, calibration, "rank", seed=2)
    with pytest.raises(ValidationError, match="overlap the training simulations"):
        recalibrate(exact, simulations(300, "train"), seed=1)
    twice = recalibrate(mended, simulations(300, "test", seed=2), "rank", seed=2)
    for seen in (calibration, simulations(300, "test", seed=2)):
        with pytest.raises(ValidationError, match="recalibration"):
            validate(twice, seen, progress=SILENT)


def test_a_saved_correction_comes_back_with_its_base(exact, calibration, pairs, tmp_path):
    first = recalibrate(exact, calibration, "affine", seed=1)
    twice = recalibrate(first, simulations(300, "test", seed=2), "rank", seed=2)
    folder = twice.save(tmp_path / "twice")
    loaded = load_posterior(folder)
    assert isinstance(loaded, ShellPosterior)
    assert isinstance(loaded.base, AffinePosterior)
    assert loaded.record == twice.record
    assert loaded.context.simulations == twice.context.simulations
    x = pairs.x[:3]
    assert np.array_equal(
        loaded.sample(x, 20, np.random.default_rng(1)),
        twice.sample(x, 20, np.random.default_rng(1)),
    )
    files = [p for p in folder.rglob("*") if p.is_file()]
    assert {p.suffix for p in files} == {".json", ".safetensors"}
    header = json.loads((folder / "posterior.json").read_text())
    header["recalibration"]["method"] = "wishful"
    (folder / "posterior.json").write_text(json.dumps(header))
    with pytest.raises(PosteriorFileError, match="'wishful'"):
        load_posterior(folder)


def test_hopeless_posteriors_and_bad_arguments_are_refused(exact, calibration):
    narrow = spoilt(exact, stretch=(0.3, 0.3))
    for method in ("rank", "conformal"):
        with pytest.raises(ValidationError, match="too far from calibration.*affine"):
            recalibrate(narrow, calibration, method, seed=1)
    with pytest.raises(UnknownNameError, match="'ranks'.*Did you mean 'rank'"):
        recalibrate(exact, calibration, "ranks")
    with pytest.raises(ValidationError, match="at least 200 pairs, got 100"):
        recalibrate(exact, simulations(100, "test"))
    with pytest.raises(ValidationError, match="cannot be recalibrated"):
        recalibrate(lambda x, n: x, calibration)


def test_corrections_check_their_numbers(exact):
    record = {"method": "rank", "seed": 1}
    with pytest.raises(ContractError, match="must rise from 0 to 1"):
        ShellPosterior(exact, record, np.array([0.0, 0.5, 0.5, 1.0]), np.linspace(0, 1, 4))
    with pytest.raises(ContractError, match="stretch positive"):
        AffinePosterior(exact, record, np.zeros(2), np.array([1.0, -1.0]))


def test_an_affine_correction_refuses_constraints(exact):
    from dataclasses import replace

    from sbi_physics.priors import Prior

    class Tied(Posterior):
        def _draw(self, x, n, rng, log_prob, at):
            raise AssertionError

        def _log_prob_at(self, theta, x):
            raise AssertionError

    prior = Prior(exact.prior.parameters, ("theta_1 < theta_2",))
    with pytest.raises(ContractError, match="theta_1 < theta_2.*method='rank'"):
        spoilt(Tied(replace(exact.context, prior=prior)))
