"""Truncated rounds use again what is there: simulations inside the box, and finished rounds."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

sys.path.insert(0, str(Path(__file__).parent))
from sample_simulators import Patchy
from sample_truncation import X, header_of, rounds_of, toy, truncated, without_times

import sbi_physics as sp
from sbi_physics.errors import ContractError, StoreError, StoreMismatchError
from sbi_physics.progress import SILENT
from sbi_physics.rounds import simulations_within
from sbi_physics.testing.exact import ExactEngine
from sbi_physics.testing.toys import ToyGaussian

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
