"""Members of an ensemble: the same here and in workers, kept when they are finished."""

from __future__ import annotations

import contextlib
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from sample_engines import FailingEngine, LinearEngine
from sample_simulators import Line, TwoStage

from sbi_physics.errors import ContractError, TrainingError
from sbi_physics.simulate import simulate, store_for
from sbi_physics.store import Simulations

SETTINGS = {"ensemble": 3, "jitter": 0.1}


@pytest.fixture(scope="module")
def simulations() -> Simulations:
    return simulate(Line(), 300, seed=1)


class Notes:
    """Progress that remembers what it was told."""

    def __init__(self):
        self.tasks, self.notes = [], []

    @contextlib.contextmanager
    def task(self, description, total, unit="it"):
        self.tasks.append((description, total, unit))
        yield self

    def advance(self, n=1, note=""):
        self.notes.append(note)


def weights(posterior):
    return [member._weights()["matrix"] for member in posterior.members]


@pytest.mark.parametrize("simulator", [Line(), TwoStage()], ids=["plain", "redrawn"])
def test_any_number_of_workers_gives_the_same_members_in_order(simulator):
    data, notes = simulate(simulator, 300, seed=1), Notes()
    here = LinearEngine().train(data, SETTINGS, seed=4)
    apart = LinearEngine().train(data, SETTINGS, seed=4, workers=2, progress=notes)
    for one, other in zip(weights(here), weights(apart), strict=True):
        assert np.array_equal(one, other)
    assert not np.array_equal(*weights(here)[:2])
    assert here.context == apart.context
    assert notes.tasks == [("ensemble", 3, "networks")]
    assert sorted(note.partition(",")[0] for note in notes.notes) == [
        f"member {k}" for k in (1, 2, 3)
    ]
    points = data.theta[:5, None, :1]
    assert np.array_equal(here.log_prob(points, data.x[:5]), apart.log_prob(points, data.x[:5]))


def test_a_single_network_is_trained_here(simulations, monkeypatch):
    monkeypatch.setattr("sbi_physics.members.ProcessExecutor", None)
    LinearEngine().train(simulations, {"ensemble": 1}, seed=4, workers=4)
    with pytest.raises(TypeError):
        LinearEngine().train(simulations, SETTINGS, seed=4, workers=4)


def test_members_that_workers_finished_are_not_trained_again(simulations, tmp_path):
    folder = tmp_path / "unfinished"
    first = LinearEngine().train(simulations, SETTINGS, seed=4, workers=2, checkpoint=folder)

    class Never(LinearEngine):
        def _train(self, *arguments):
            raise AssertionError("trained again")

    again = Never().train(simulations, SETTINGS, seed=4, checkpoint=folder)
    assert all(np.array_equal(a, b) for a, b in zip(weights(first), weights(again), strict=True))


def test_what_goes_wrong_in_a_worker_is_raised_here(simulations):
    with pytest.raises(TrainingError, match="the losses are not finite"):
        FailingEngine().train(simulations, SETTINGS, seed=4, workers=2)


@pytest.mark.parametrize("workers", [0, True, 1.5])
def test_a_number_of_workers_that_is_none_is_refused(simulations, workers):
    with pytest.raises(ContractError, match="workers must be a positive integer"):
        LinearEngine().train(simulations, seed=4, workers=workers)


def test_simulations_of_a_store_that_is_being_filled_travel_to_workers(tmp_path):
    with store_for(Line(), tmp_path / "s.zarr", prior=Line().prior, seed=1) as store:
        simulate(Line(), 50, store=store, seed=1)
        there = pickle.loads(pickle.dumps(store.simulations()))
        assert np.array_equal(there.x, store.simulations().x)
        with pytest.raises(Exception, match=r"read|closed|append"):
            simulate(Line(), 100, store=there._store, seed=1)
