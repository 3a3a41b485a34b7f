"""One observation at a time: verdicts on posteriors whose exact form is known."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from sbi_physics.engine import train
from sbi_physics.errors import ObservationError, ValidationError
from sbi_physics.posterior import Draws, Posterior
from sbi_physics.progress import SILENT
from sbi_physics.simulate import simulate
from sbi_physics.testing import ToyGaussian, ToyTwoStage
from sbi_physics.validate_local import LocalValidation, validate_local

TOY = ToyGaussian(noise=0.2)
X_O = np.array([0.3, -0.2])


@pytest.fixture(scope="module")
def pairs():
    return simulate(TOY, 600, seed=1, purpose="pairs", progress=SILENT)


def sampler(width=lambda x: 1.0, seed=1):
    """Draws around the data, `width` times the exact spread, as a bare function."""
    exact, rng = TOY.reference_posterior(), np.random.default_rng(seed)

    def draw(x, n):
        theta = exact.sample(x, n, rng)
        centre = theta.mean(axis=1, keepdims=True)
        return centre + np.reshape(width(x), (-1, 1, 1)) * (theta - centre)

    return draw


def test_the_exact_posterior_passes_and_is_reproducible(pairs):
    exact = TOY.reference_posterior()
    first = validate_local(exact, pairs, X_O, seed=1, n_null=299, progress=SILENT)
    again = validate_local(exact, pairs, X_O[None], seed=1, n_null=299, progress=SILENT)
    assert first.verdict == "PASS"
    assert first.n_pairs == 600
    assert first.results[0].block == ("theta_1", "theta_2")
    assert first.results[0].draws.shape == (1000, 2)
    assert first.results[0].probability.shape == (1000,)
    assert first.results[0].p_value == again.results[0].p_value
    assert first.provenance["engine"] == "exact"
    assert "PASS" in first.summary()


def test_a_posterior_that_is_too_narrow_here_fails_here(pairs):
    # Right on the left, 0.6 times too narrow on the right; the observation decides.
    wrong = sampler(lambda x: np.where(x[:, 0] > 0, 0.6, 1.0))
    observed = np.array([[0.6, 0.0], [-0.6, 0.0]])
    result = validate_local(wrong, pairs, observed, seed=1, n_null=299, progress=SILENT)
    here, there = result.results
    assert here.verdict == "FAIL"
    assert result.verdict == "FAIL"
    assert here.statistic / here.null_mean > 2 * there.statistic / there.null_mean
    assert here.p_holm == pytest.approx(2 * here.p_value)


def test_an_observation_outside_all_simulations_is_inconclusive(pairs):
    exact = TOY.reference_posterior()
    result = validate_local(exact, pairs, [3.0, 3.0], seed=1, n_null=199, progress=SILENT)
    assert result.verdict == "INCONCLUSIVE"
    assert "further out than every simulated pair" in result.results[0].reason


def test_few_pairs_are_inconclusive_and_very_few_are_refused():
    exact = TOY.reference_posterior()
    few = simulate(TOY, 100, seed=2, purpose="pairs", progress=SILENT)
    result = validate_local(exact, few, X_O, seed=1, n_null=199, progress=SILENT)
    assert result.verdict == "INCONCLUSIVE"
    assert "only 100 usable pairs" in result.results[0].reason
    fewer = simulate(TOY, 10, seed=2, purpose="pairs", progress=SILENT)
    with pytest.raises(ValidationError, match="at least 20 usable pairs"):
        validate_local(exact, fewer, X_O, seed=1, n_null=199, progress=SILENT)


def test_pairs_with_draws_that_are_not_finite_are_counted(pairs):
    good = sampler()

    def draw(x, n):
        theta = good(x, n)
        if len(x) > 1:  # the pairs, not the observation
            theta[: len(x) // 20, 0, 0] = np.nan
        return theta

    result = validate_local(draw, pairs, X_O, seed=1, n_null=199, progress=SILENT)
    assert (result.n_pairs, result.n_unusable) == (570, 30)
    assert result.verdict == "INCONCLUSIVE"
    with pytest.raises(ValidationError, match="at an observation that are not finite"):
        validate_local(
            lambda x, n: good(x, n) if len(x) > 1 else np.full((1, n, 2), np.nan),
            pairs, X_O, seed=1, n_null=199, progress=SILENT,
        )  # fmt: skip


def test_bad_observations_and_arguments_are_refused(pairs):
    exact = TOY.reference_posterior()

    def ask(x_o=X_O, **options):
        validate_local(exact, pairs, x_o, seed=1, progress=SILENT, **options)

    with pytest.raises(ObservationError, match="not finite"):
        ask([np.nan, 0.0])
    with pytest.raises(ObservationError, match=r"expected \(2,\)"):
        ask([0.0, 0.0, 0.0])
    with pytest.raises(ValidationError, match="at least one observation"):
        ask(np.empty((0, 2)))
    with pytest.raises(ValidationError, match="2 tests need n_null of at least 200, got 150"):
        ask([X_O, X_O], n_null=150)
    with pytest.raises(ValidationError, match=r"features of the pairs must have shape \(600"):
        ask(features=lambda x: x[:, 0])
    with pytest.raises(ValidationError, match="features of the observations have 2 values"):
        ask(features=lambda x: x if len(x) > 1 else x * np.nan)
    with pytest.raises(ValidationError, match=r"draws of shape \(600, 68, 3\)"):
        validate_local(lambda x, n: np.zeros((len(x), n, 3)), pairs, X_O, seed=1, progress=SILENT)


def test_training_simulations_are_refused():
    training = simulate(TOY, 300, seed=5, progress=SILENT)
    posterior = train(training, "exact", seed=1, progress=SILENT)
    with pytest.raises(ValidationError, match="overlap the training simulations"):
        validate_local(posterior, training, X_O, progress=SILENT)


def test_too_few_effective_draws_are_refused(pairs):
    class Starved(Posterior):
        def _draw(self, x, n, rng, log_prob, at):
            draws = TOY.reference_posterior()._draw(x, n, rng, log_prob, at)
            return Draws(draws.theta, draws.log_prob, draws.log_prob_at, np.full(len(x), 20.0))

        def _log_prob_at(self, theta, x):
            raise AssertionError

    with pytest.raises(ValidationError, match="fewer than 20 effective draws"):
        validate_local(
            Starved(TOY.reference_posterior().context), pairs, X_O, seed=1, progress=SILENT
        )


def test_only_the_parameters_of_interest_and_every_block_are_tested(pairs):
    toy = ToyTwoStage()
    own = simulate(toy, 300, seed=3, purpose="pairs", progress=SILENT)
    result = validate_local(
        toy.reference_posterior(), own, own.x[0], seed=1, n_null=199, progress=SILENT
    )
    assert result.results[0].block == ("position",)

    class Blocks(Posterior):
        blocks = (("theta_1",), ("theta_2",))

        def marginal(self, names):
            return TOY.exact_posterior(TOY.prior, names)

        def _draw(self, x, n, rng, log_prob, at):
            raise AssertionError

        def _log_prob_at(self, theta, x):
            raise AssertionError

    marginal = Blocks(replace(TOY.reference_posterior().context))
    found = validate_local(marginal, pairs, X_O, seed=1, n_null=299, progress=SILENT)
    assert [r.block for r in found.results] == [("theta_1",), ("theta_2",)]
    assert found.verdict in ("PASS", "MARGINAL")


def test_the_record_survives_json(pairs, tmp_path):
    exact = TOY.reference_posterior()
    result = validate_local(exact, pairs, X_O, seed=1, n_null=199, progress=SILENT)
    result.to_json(tmp_path / "local.json")
    again = LocalValidation.from_dict(json.loads((tmp_path / "local.json").read_text()))
    assert again.to_json() == result.to_json()
    assert np.array_equal(again.results[0].draws, result.results[0].draws)
    with pytest.raises(ValidationError, match="schema 7"):
        LocalValidation.from_dict({"schema": 7})
