"""Truncated rounds: the right box, when they stop, and what the posterior knows about them."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

sys.path.insert(0, str(Path(__file__).parent))
from sample_truncation import NOISE, SIGMAS, X, header_of, rounds_of, toy, truncated, without_times

import sbi_physics as sp
from sbi_physics.engine import Engine
from sbi_physics.epsilon_box import POOL_POINTS
from sbi_physics.errors import ContractError, ObservationError, UnknownNameError, ValidationError
from sbi_physics.progress import SILENT
from sbi_physics.ratio import RatioPosterior
from sbi_physics.testing.toys import ToyGaussian
from sbi_physics.truncate import training_simulations
from sbi_physics.validate import validate


@pytest.fixture(scope="module")
def narrowed():
    """A finished posterior nobody changes, with its store."""
    with sp.SimulationStore.open(None, "a", header_of(toy())) as store:
        yield truncated(store=store), store


# --- the box ------------------------------------------------------------------------------------


def test_the_box_keeps_the_likelihood_above_epsilon_and_stops_when_nothing_is_gained(narrowed):
    posterior, _ = narrowed
    record = posterior.context.truncation
    assert record.stopped == "converged"
    first, last = record.rounds
    assert (first.box, first.volume, first.reused) == ({}, 1.0, 0)
    spacing = 2 * POOL_POINTS**-0.5  # of the whole prior, which is 2 wide
    for centre, (low, high) in zip(X, first.next_box.values(), strict=True):
        # The outermost of the points above the threshold lies inside the true end, by at most
        # the width of a strip that holds one point of the pool.
        for reach in (centre - low, high - centre):
            assert SIGMAS * NOISE < reach < SIGMAS * NOISE + spacing
    assert last.box == first.next_box
    assert last.volume == pytest.approx(np.prod([(b - a) / 2 for a, b in last.box.values()]))
    assert last.next_volume > last.volume / 2
    assert (first.trained_on, last.trained_on) == (300, 300)
    assert last.simulated + last.reused == 300


def test_the_last_posterior_is_exact_under_its_truncated_prior(narrowed):
    posterior, _ = narrowed
    low, high = posterior.prior.bounds.T
    np.testing.assert_array_equal(
        posterior.prior.bounds, list(rounds_of(posterior)[-1].box.values())
    )
    assert posterior.context.simulation_prior == toy().prior.truncate(rounds_of(posterior)[-1].box)
    draws = posterior.sample(X, 4000, np.random.default_rng(1))[0]
    for j, centre in enumerate(np.float32(X)):
        a, b = (low[j] - centre) / NOISE, (high[j] - centre) / NOISE
        law = stats.truncnorm(a, b, centre, NOISE)
        assert stats.kstest(draws[:, j], law.cdf).pvalue > 1e-3


def test_it_stops_after_the_rounds_asked_for():
    posterior = truncated(rounds=1)
    assert posterior.context.truncation.stopped == "rounds"
    assert posterior.prior == toy().prior.select(("theta_1", "theta_2"))


@pytest.mark.parametrize(("rounds", "why"), [(4, "converged"), (1, "rounds")])
def test_a_final_round_trains_on_more_simulations_inside_the_last_box(rounds, why):
    plain, longer = truncated(rounds=rounds), truncated(rounds=rounds, final_simulations=700)
    record = longer.context.truncation
    assert (record.final, record.stopped) == (True, why)
    *closing, last = without_times(longer)
    assert closing == without_times(plain)
    assert last.box == closing[-1].next_box == record.box
    assert last.simulated + last.reused == last.trained_on == 700
    assert longer.context.simulation_prior == toy().prior.truncate(last.box)


def test_a_posterior_as_wide_as_the_prior_is_not_truncated():
    posterior = truncated(simulator=ToyGaussian(noise=2.0), rounds=4)
    (only,) = rounds_of(posterior)
    assert only.next_box == {"theta_1": (-1.0, 1.0), "theta_2": (-1.0, 1.0)}
    assert posterior.context.truncation.stopped == "converged"


def test_what_is_marginalised_keeps_its_whole_prior():
    posterior = truncated(infer=["theta_2"], rounds=2)
    outer = posterior.context.simulation_prior
    np.testing.assert_array_equal(outer.bounds[0], [-1, 1])
    assert outer.bounds[1, 1] - outer.bounds[1, 0] < 0.3
    assert posterior.prior.names == ("theta_2",)


class Ratio(RatioPosterior):
    """Log likelihood of the toy, as a ratio estimator would learn it up to the evidence."""

    def _log_ratio(self, u, xt):
        theta = self.prior.from_unconstrained(u)
        theta = theta[None] if theta.ndim == 2 else theta
        return -0.5 * (((xt[:, None] - theta) / NOISE) ** 2).sum(axis=-1)


class RatioEngine(Engine):
    name = "ratio"

    def _train(self, data, context, settings, seed, progress):
        plain = replace(context.observable, transform=())
        return Ratio(replace(context, transform=plain.fit_transform(np.zeros((2, 2)))))

    def _rebuild(self, context, config, weights):
        return Ratio(context)


def test_ratios_and_densities_give_the_same_box(narrowed):
    ratio = truncated(RatioEngine())
    boxes = [np.array(list(rounds_of(p)[0].next_box.values())) for p in (ratio, narrowed[0])]
    # Both pads are equal; the outermost points differ by what draws add to the pool.
    assert np.abs(boxes[0] - boxes[1]).max() < 2 * POOL_POINTS**-0.5


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"rounds": 0}, ContractError, "rounds must be"),
        ({"simulations": 2}, ContractError, "simulations must be"),
        ({"final_simulations": 299}, ContractError, "at least simulations .300., got 299"),
        ({"epsilon": 1.0}, ContractError, "epsilon must lie between 0 and 1"),
        ({"infer": "theta_1"}, ContractError, "list of names"),
        ({"infer": ["theta_3"]}, UnknownNameError, "theta_3"),
        ({"engine": "exct"}, UnknownNameError, "exact"),
        ({"x": np.zeros((2, 2))}, ObservationError, "one observation, 2 are given"),
        ({"x": [np.nan, 0.0]}, ObservationError, "not finite"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_simulated(options, error, text, tmp_path):
    with pytest.raises(error, match=text):
        truncated(store=tmp_path / "store", **options)


# --- what the posterior knows -------------------------------------------------------------------


def test_a_saved_posterior_keeps_the_record(narrowed, tmp_path):
    posterior, _ = narrowed
    loaded = sp.load_posterior(posterior.save(tmp_path / "posterior"))
    ours, theirs = posterior.context.truncation, loaded.context.truncation
    assert theirs.to_dict() == ours.to_dict()
    assert theirs.rounds == ours.rounds
    np.testing.assert_array_equal(theirs.observation, np.float32(X))
    assert theirs.observation.dtype == np.float32


def test_sampling_refuses_other_observations_unless_told_otherwise(narrowed):
    posterior, _ = narrowed
    other = np.array([X, [0.31, -0.1]])
    assert posterior.valid_for(other).tolist() == [True, False]
    rng = np.random.default_rng(1)
    with pytest.raises(ObservationError, match=r"1 of 2 .*outside of theta_1 .*any_observation"):
        posterior.sample(other, 5, rng)
    assert posterior.sample(other, 5, rng, any_observation=True).shape == (2, 5, 2)
    assert posterior.draw(other, 5, rng, any_observation=True).theta.shape == (2, 5, 2)
    assert posterior.sample(X, 5, rng).shape == (1, 5, 2)


def test_amortised_posteriors_are_valid_for_anything():
    posterior = toy().reference_posterior()
    assert posterior.valid_for(np.zeros((3, 2))).all()


def test_it_is_validated_on_pairs_of_its_own_prior_only(narrowed):
    posterior, store = narrowed
    prior = posterior.context.simulation_prior
    pairs = sp.simulate(toy(), 300, prior=prior, seed=1, purpose="pairs", progress=SILENT)
    training = training_simulations(posterior, store)
    coverage = validate(posterior, pairs, n_draws=99, seed=1, training=training, progress=SILENT)
    assert coverage.verdict in ("PASS", "MARGINAL")
    others = sp.simulate(toy(), 300, seed=1, purpose="pairs", progress=SILENT)
    with pytest.raises(ValidationError, match="prior of theta_1"):
        validate(posterior, others, n_draws=99, seed=1, progress=SILENT)


def test_the_training_simulations_are_found_again(narrowed):
    posterior, store = narrowed
    again = training_simulations(posterior, store)
    assert again.digest() == posterior.context.simulations["digest"]
    assert len(again) == rounds_of(posterior)[-1].trained_on
    assert posterior.context.simulations["rounds"] == [0, 1]
    with pytest.raises(ContractError, match="not made by truncated rounds"):
        training_simulations(toy().reference_posterior(), store)


def test_every_member_of_an_ensemble_carries_the_record(tmp_path):
    posterior = truncated(settings={"ensemble": 2}, rounds=2)
    loaded = sp.load_posterior(posterior.save(tmp_path / "posterior"))
    for one in (posterior, *posterior.members, loaded, *loaded.members):
        assert one.context.truncation.stopped == "converged"
        assert len(one.context.truncation.rounds) == 2
