"""Truncated rounds: the right box, honest reuse, a record that stays, and resumption."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

sys.path.insert(0, str(Path(__file__).parent))
from sample_simulators import Patchy

import sbi_physics as sp
from sbi_physics.engine import Engine
from sbi_physics.epsilon_box import POOL_POINTS, stretched
from sbi_physics.errors import (
    ContractError,
    ObservationError,
    StoreError,
    StoreMismatchError,
    UnknownNameError,
    ValidationError,
)
from sbi_physics.posterior import Draws, Posterior
from sbi_physics.progress import SILENT
from sbi_physics.ratio import RatioPosterior
from sbi_physics.rounds import simulations_within
from sbi_physics.testing.exact import ExactEngine
from sbi_physics.testing.toys import ToyGaussian
from sbi_physics.truncate import training_simulations
from sbi_physics.validate import validate

NOISE = 0.02
X = [0.3, -0.1]
SIGMAS = np.sqrt(-2 * np.log(1e-6))  # where a normal likelihood is 1e-6 of its maximum: 5.26


def toy(**options):
    return ToyGaussian(noise=NOISE, **options)


def rounds_of(posterior):
    return posterior.context.truncation.rounds


def truncated(engine="exact", simulator=None, x=X, **options):
    values = {"rounds": 3, "simulations": 300, "seed": 1, "progress": SILENT, **options}
    return sp.truncate(simulator or toy(), x, engine, **values)


@pytest.fixture(scope="module")
def narrowed():
    """A finished posterior nobody changes, with its store."""
    with sp.SimulationStore.open(None, "a", header_of(toy())) as store:
        yield truncated(store=store), store


def header_of(simulator, seed=1):
    from sbi_physics.store import StoreHeader

    return StoreHeader(
        simulator.identity, simulator.prior, simulator.observable, seed, "train", 256
    )


# --- reuse --------------------------------------------------------------------------------------


def test_rows_of_all_rounds_inside_the_box_are_used_and_no_others():
    simulator = toy()
    wide, narrow = ({"theta_1": (-0.6, 0.8)}, {"theta_1": (-0.5, 0.1), "theta_2": (0.0, 1.0)})
    priors = [simulator.prior, simulator.prior.truncate(wide), simulator.prior.truncate(narrow)]
    with sp.SimulationStore.open(None, "a", header_of(simulator)) as store:
        alone = [
            sp.simulate(simulator, 700, store=store, prior=p, round=r, seed=1, progress=SILENT)
            for r, p in enumerate(priors)
        ]
        both = simulations_within(store, priors[2], {0: 700, 1: 500, 2: 300})
    theta = np.concatenate([alone[0].theta, alone[1].theta[:500], alone[2].theta[:300]])
    x = np.concatenate([alone[0].x, alone[1].x[:500], alone[2].x[:300]])
    inside = priors[2].contains(theta)
    assert 300 < inside.sum() < 1000
    np.testing.assert_array_equal(both.theta, theta[inside])
    np.testing.assert_array_equal(both.x, x[inside])
    assert (len(both), both.n_simulated, both.n_invalid) == (inside.sum(), inside.sum(), 0)
    assert both.prior == priors[2]
    assert both.rounds == (0, 1, 2)
    # Reused rows follow the truncated prior as new ones do.
    reused = priors[2].to_unit(both.theta)[:-300]
    for column in reused.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-3


def test_failed_rows_inside_the_box_are_counted_not_used():
    simulator = Patchy()
    narrow = simulator.prior.truncate({"a": (1.0, 1.8)})
    with sp.SimulationStore.open(None, "a", header_of(simulator)) as store:
        whole = sp.simulate(simulator, 500, store=store, seed=1, progress=SILENT)
        part = simulations_within(store, narrow, {0: 500})
    valid, failed = narrow.contains(whole.theta), narrow.contains(whole.invalid_theta())
    assert 0 < failed.sum() < whole.n_invalid
    assert (len(part), part.n_invalid) == (valid.sum(), failed.sum())
    np.testing.assert_array_equal(part.invalid_theta(), whole.invalid_theta()[failed])


@pytest.mark.parametrize(
    ("drawn", "asked", "text"),
    [
        ({"theta_1": (0.0, 0.5)}, {"theta_1": (-0.1, 0.4)}, "theta_1 was drawn from"),
        ({"theta_1": (0.0, 0.5)}, {}, "theta_1 was drawn from"),
        ({"theta_2": (0.0, 0.5)}, {"theta_1": (0.0, 0.5)}, "theta_2 was drawn from"),
    ],
)
def test_rounds_drawn_from_a_smaller_or_other_box_are_refused(drawn, asked, text):
    simulator = toy()
    prior = simulator.prior.truncate(drawn)
    with sp.SimulationStore.open(None, "a", header_of(simulator)) as store:
        sp.simulate(simulator, 20, store=store, prior=prior, round=1, seed=1, progress=SILENT)
        with pytest.raises(StoreError, match=f"round 1 .*{text}"):
            simulations_within(store, simulator.prior.truncate(asked), {1: 20})


def test_another_shape_of_prior_on_the_same_interval_is_refused():
    simulator = toy(dimension=1)
    bell = sp.Prior(
        [replace(simulator.parameters["theta_1"], distribution=sp.Normal(0, 1, -1, 1))]
    )
    with sp.SimulationStore.open(None, "a", header_of(simulator)) as store:
        sp.simulate(simulator, 20, store=store, seed=1, progress=SILENT)
        with pytest.raises(StoreError, match="round 0"):
            simulations_within(store, bell.truncate({"theta_1": (0.0, 0.5)}), {0: 20})


def test_a_round_begun_anew_leaves_nothing_of_the_old_one(tmp_path):
    simulator, path = toy(), tmp_path / "store"
    old, new = (simulator.prior.truncate({"theta_1": box}) for box in ((-0.5, 0.5), (0.0, 0.5)))
    sp.simulate(simulator, 300, store=path, seed=1, progress=SILENT)
    sp.simulate(simulator, 300, store=path, prior=old, round=1, progress=SILENT)
    with sp.SimulationStore.open(path, "a") as store:
        store.discard_round(1)
        with pytest.raises(ContractError, match="round 0"):
            store.discard_round(0)
    again = sp.simulate(simulator, 100, store=path, prior=new, round=1, progress=SILENT)
    fresh = sp.simulate(simulator, 100, prior=new, round=1, seed=1, progress=SILENT)
    np.testing.assert_array_equal(again.theta, fresh.theta)
    with sp.SimulationStore.open(path) as store:
        assert (store.n_rows(0), store.n_rows(1)) == (300, 100)
        store.verify()


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


def test_two_modes_are_both_kept():
    bimodal = sp.simulator("toy-bimodal", noise=0.05)
    posterior = truncated(simulator=bimodal, x=[4.0], rounds=2)
    ((low, high),) = rounds_of(posterior)[0].next_box.values()
    assert low < -2 < 2 < high


def test_what_is_marginalised_keeps_its_whole_prior():
    posterior = truncated(infer=["theta_2"], rounds=2)
    outer = posterior.context.simulation_prior
    np.testing.assert_array_equal(outer.bounds[0], [-1, 1])
    assert outer.bounds[1, 1] - outer.bounds[1, 0] < 0.3
    assert posterior.prior.names == ("theta_2",)


class Decay(sp.Simulator):
    """The logarithm of a lifetime, measured."""

    name = "decay"
    parameters = sp.ParameterSpace(
        [
            sp.Parameter("tau", sp.LogUniform(1e-3, 1e3), unit="ns"),
            sp.Parameter("shift", sp.Normal(0.0, 1.0)),
        ]
    )
    observable = sp.Observable("vector", (2,))

    def _simulate(self, theta, rng):
        values = np.column_stack([np.log10(theta[:, 0]), theta[:, 1]])
        return values + 0.1 * rng.standard_normal(values.shape)


class Known(Posterior):
    """Density prior x likelihood, unnormalised; draws of the prior, as of a poor sampler."""

    normalized = False

    def _log_prob_at(self, theta, x):
        centre = np.column_stack([x[:, 0], x[:, 1]])[:, None]
        values = np.stack([np.log10(theta[..., 0]), theta[..., 1]], axis=-1)
        return self.prior.log_prob(theta) - 0.5 * (((values - centre) / 0.1) ** 2).sum(axis=-1)

    def _draw(self, x, n, rng, log_prob, at):
        return Draws(self.prior.sample(len(x) * n, rng).reshape(len(x), n, -1))


class KnownEngine(Engine):
    name = "known"

    def _train(self, data, context, settings, seed, progress):
        return Known(context)

    def _rebuild(self, context, config, weights):
        return Known(context)


class Floored(Known):
    """A normal likelihood on a floor of 1e-4 of its peak that draws do not visit.

    As of a network: what holds less mass than one simulation in thousands is not learned.
    """

    def _log_prob_at(self, theta, x):
        return self.prior.log_prob(theta) + np.logaddexp(
            -0.5 * (((theta - x[:, None]) / NOISE) ** 2).sum(axis=-1), np.log(1e-4)
        )

    def _draw(self, x, n, rng, log_prob, at):
        return Draws(x[:, None] + NOISE * rng.standard_normal((len(x), n, 2)))


class FlooredEngine(KnownEngine):
    name = "floored"

    def _train(self, data, context, settings, seed, progress):
        return Floored(context)


def test_a_floor_that_no_mass_supports_does_not_keep_the_box_wide():
    posterior = truncated(FlooredEngine(), rounds=1)
    (only,) = rounds_of(posterior)
    assert only.above == only.evaluated  # the likelihood alone would cut nothing off
    for centre, (low, high) in zip(X, only.next_box.values(), strict=True):
        for reach in (centre - low, high - centre):
            # 1.1 times the true end, with a standard deviation of 0.02 from the quantile.
            assert SIGMAS * NOISE < reach < 1.2 * SIGMAS * NOISE


def test_the_range_of_the_mass_is_that_of_the_likelihood_for_normal_posteriors():
    rng = np.random.default_rng(5)
    for epsilon in (1e-6, 1e-3):
        reaches = np.array(
            [np.abs(stretched(rng.standard_normal((8192, 2)), epsilon)) for _ in range(20)]
        )
        expected = 1.1 * np.sqrt(-2 * np.log(epsilon))
        # 80 values of relative spread 2 %: a quantile's is sqrt(q (1 - q) / n) / density / 2.33.
        assert reaches.mean() == pytest.approx(expected, rel=4 * 0.02 / np.sqrt(80))
        assert (reaches > expected / 1.1).all()


def test_a_log_uniform_parameter_is_truncated_in_its_logarithm_and_an_open_end_in_its_quantile():
    posterior = truncated(KnownEngine(), Decay(), [1.0, 0.5], rounds=2)
    prior = Decay().prior
    box = rounds_of(posterior)[0].next_box
    low, high = np.log10(box["tau"])
    spacing = POOL_POINTS**-0.5
    for reach in (1.0 - low, high - 1.0):
        # log10 tau is uniform over 6 decades
        assert SIGMAS * 0.1 - 6 * spacing < reach < SIGMAS * 0.1 + 6 * spacing
    ends = prior.to_unit(np.column_stack(list(box.values())))[:, 1]
    true = stats.norm.cdf([0.5 - SIGMAS * 0.1, 0.5 + SIGMAS * 0.1])
    assert np.abs(ends - true).max() < spacing
    assert ends[0] < true[0] < true[1] < ends[1]


def test_an_end_that_the_data_leave_open_stays_open():
    posterior = truncated(KnownEngine(), Decay(), [1.0, 9.0], rounds=2)
    low, high = rounds_of(posterior)[0].next_box["shift"]
    assert np.isfinite(low)
    assert high == np.inf
    text = json.dumps(posterior.context.truncation.to_dict(), allow_nan=False)
    back = sp.Prior(Decay().parameters).truncate(
        type(posterior.context.truncation).from_dict(json.loads(text), np.zeros(2)).box
    )
    assert back.bounds[1, 1] == np.inf


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


class Marginals(Posterior):
    """Separate answers for single parameters, as marginal engines give them."""

    def __init__(self, context, simulator):
        super().__init__(context)
        self.simulator = simulator

    @property
    def blocks(self):
        return (("theta_2",), ("theta_1",))

    def marginal(self, names):
        return self.simulator.exact_posterior(self.context.simulation_prior, names)

    def _draw(self, x, n, rng, log_prob, at):
        raise NotImplementedError

    _log_prob_at = None


class MarginalEngine(Engine):
    name = "marginals"

    def _train(self, data, context, settings, seed, progress):
        return Marginals(context, toy())

    _rebuild = None


Marginals.__abstractmethods__ = frozenset()
MarginalEngine.__abstractmethods__ = frozenset()


def test_marginal_engines_are_truncated_block_by_block():
    posterior = truncated(MarginalEngine(), rounds=2)
    box = rounds_of(posterior)[0].next_box
    spacing = 2 / POOL_POINTS
    for name, centre in zip(("theta_1", "theta_2"), X, strict=True):
        reach = np.abs(np.array(box[name]) - centre)
        assert (np.abs(reach - SIGMAS * NOISE) < 2 * spacing).all()


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


class Broken(KnownEngine):
    def _train(self, data, context, settings, seed, progress):
        posterior = Known(context)
        posterior._log_prob_at = lambda theta, x: np.full(theta.shape[:2], np.nan)
        return posterior


def test_a_density_that_is_not_finite_is_an_error_not_a_box():
    with pytest.raises(ContractError, match="not finite in round 0: .* NaN"):
        truncated(Broken(), Decay(), [1.0, 0.5])


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
    assert posterior.draw(other, 5, rng).theta.shape == (2, 5, 2)
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


# --- resuming -----------------------------------------------------------------------------------


class Counting(ExactEngine):
    """Trains a number of times, then dies."""

    def __init__(self, lives=99):
        self.lives, self.trained = lives, 0

    def train(self, *args, **kwargs):
        if self.trained == self.lives:
            raise KeyboardInterrupt
        self.trained += 1
        return super().train(*args, **kwargs)


def without_times(posterior):
    return [replace(r, seconds=0.0) for r in rounds_of(posterior)]


def test_interrupted_rounds_are_finished_with_the_same_result_on_any_number_of_workers(tmp_path):
    options = {"epsilon": 0.2, "x": X, "simulator": ToyGaussian(noise=0.002), "rounds": 4}
    whole = truncated(**options)
    assert len(rounds_of(whole)) > 1
    places = {"store": tmp_path / "store", "folder": tmp_path / "rounds"}
    dying, again, idle = Counting(lives=1), Counting(), Counting()
    with pytest.raises(KeyboardInterrupt):
        truncated(dying, **options, **places)
    resumed = truncated(again, **options, **places, workers=2)
    assert again.trained == len(rounds_of(whole)) - 1
    assert without_times(resumed) == without_times(whole)
    assert resumed.context.simulations == whole.context.simulations
    told = []
    loaded = truncated(idle, **options, **places, on_round=told.append)
    assert idle.trained == 0
    assert tuple(told) == rounds_of(loaded) == rounds_of(resumed)


def test_a_final_round_is_added_to_finished_ones(tmp_path):
    places = {"store": tmp_path / "store", "folder": tmp_path / "rounds"}
    truncated(rounds=3, **places)
    engine, idle = Counting(), Counting()
    longer = truncated(engine, rounds=3, final_simulations=500, **places)
    assert engine.trained == 1
    assert without_times(longer) == without_times(truncated(rounds=3, final_simulations=500))
    again = truncated(idle, rounds=3, final_simulations=500, **places)
    assert idle.trained == 0
    assert again.context.truncation.final
    shorter = truncated(idle, rounds=3, **places)  # and left out again
    assert (idle.trained, shorter.context.truncation.final) == (0, False)


def test_more_rounds_continue_where_fewer_ended(tmp_path):
    places = {"store": tmp_path / "store", "folder": tmp_path / "rounds"}
    truncated(rounds=1, **places)
    engine = Counting()
    longer = truncated(engine, rounds=3, **places)
    assert engine.trained == 1
    assert without_times(longer) == without_times(truncated(rounds=3))


@pytest.mark.parametrize("change", [{"x": [0.0, 0.0]}, {"epsilon": 1e-3}, {"seed": None}])
def test_posteriors_of_other_rounds_are_not_mistaken_for_these(change, tmp_path):
    places = {"store": tmp_path / "store", "folder": tmp_path / "rounds"}
    truncated(rounds=1, **places)
    engine = Counting()
    truncated(engine, rounds=1, **places, **change)
    assert engine.trained == (0 if "seed" in change else 1)


def test_later_rounds_of_another_box_are_refused_or_replaced(tmp_path):
    store = tmp_path / "store"
    truncated(store=store)
    with pytest.raises(StoreMismatchError, match="round 1"):
        truncated(store=store, x=[0.0, 0.0])
    moved = truncated(store=store, x=[0.0, 0.0], replace_rounds=True)
    fresh = truncated(x=[0.0, 0.0])
    assert without_times(moved) == without_times(fresh)
    assert moved.context.simulations == fresh.context.simulations
