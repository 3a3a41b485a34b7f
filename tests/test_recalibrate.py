"""Mended posteriors: right afterwards, stored safely, and never tested on their own pairs."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sbi_physics import load_posterior
from sbi_physics.engine import train
from sbi_physics.errors import ContractError, PosteriorFileError, UnknownNameError, ValidationError
from sbi_physics.posterior import Posterior
from sbi_physics.progress import SILENT
from sbi_physics.recalibrate import EDGES, recalibrate
from sbi_physics.recalibrated import AffinePosterior, ShellPosterior
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


def test_an_exact_posterior_is_hardly_changed(exact, calibration, pairs):
    for method in ("rank", "affine"):
        mended = recalibrate(exact, calibration, method, seed=1)
        change = mended.log_prob(pairs.theta[:50, None], pairs.x[:50])
        change = change - exact.log_prob(pairs.theta[:50, None], pairs.x[:50])
        assert np.abs(change).mean() < 0.3
        assert verdict(mended, pairs).verdict in ("PASS", "MARGINAL")


@pytest.mark.parametrize("method", ["rank", "affine"])
def test_a_mended_posterior_keeps_every_promise_of_a_posterior(exact, calibration, method):
    wrong = spoilt(exact, shift=(0.1, 0.0), stretch=(1.2, 0.9))
    mended = recalibrate(wrong, calibration, method, seed=1)
    names = {
        "draws_are_inside_the_prior",
        "same_generator_state_same_draws",
        "batched_equals_one_by_one",
        "one_pass_equals_separate_calls",
        "densities_are_normalised",
        "densities_match_draws",
        "unusable_observations_are_refused",
        "drawing_leaves_no_trace",
        "saved_and_loaded_elsewhere_is_the_same",
    }
    checks = [check for check in POSTERIOR_CHECKS if check.__name__ in names]
    report = check_posterior(lambda: mended, checks=checks, n_pairs=60)
    assert len(list(report)) == 9
    assert not report.failed, report.failed
    assert [r.name for r in report if r.outcome == "skipped"] == []


@pytest.mark.slow
@pytest.mark.parametrize("method", ["rank", "affine"])
def test_a_mended_posterior_passes_the_whole_kit(exact, method):
    wrong = spoilt(exact, shift=(0.1, 0.0), stretch=(1.2, 0.9))
    if method == "rank":
        wrong = spoilt(exact, stretch=(1.2, 1.2))
    mended = recalibrate(wrong, simulations(4000, "test"), method, seed=1)
    report = check_posterior(lambda: mended)
    assert not report.failed, report.failed


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
