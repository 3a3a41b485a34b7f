"""Simulations: what identifies them, with whom they overlap, and which simulator made them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from sample_simulators import Line, NewerLine
from sample_stores import SIZE, rows_of, store_of_three_chunks

from sbi_physics.errors import ContractError, StoreMismatchError, UnknownNameError
from sbi_physics.simulate import simulate
from sbi_physics.store import Simulations, SimulationStore


@pytest.fixture
def folder(tmp_path):
    return store_of_three_chunks(tmp_path / "line.zarr")


def test_equal_simulations_have_equal_digests_wherever_they_are(tmp_path):
    make = lambda **changes: simulate(  # noqa: E731
        Line(), **{"n": 25, "seed": 1, "chunk_size": SIZE, **changes}
    )
    digest = make().digest()
    assert make(store=tmp_path / "s").digest() == digest
    make(store=tmp_path / "s", n=48)
    assert make(store=tmp_path / "s").digest() == digest
    others = [make(n=24), make(seed=2), make(purpose="pairs"), make(n=48)]
    assert len({digest, *(s.digest() for s in others)}) == 5


def test_only_shared_streams_overlap():
    def some(n=25, **changes):
        return simulate(Line(), n, **{"seed": 1, "chunk_size": SIZE, **changes})

    train = some()
    assert train.overlaps(some(5))
    assert train.overlaps(simulate(Line(noise=2.0), 5, seed=1, chunk_size=SIZE))
    assert not train.overlaps(some(purpose="pairs"))
    assert not train.overlaps(some(seed=2))
    assert not train.overlaps(some(round=1))
    theta, x = rows_of(Line(), 5, seed=0)
    bare = [Simulations.from_arrays(t, x, Line().prior, Line().observable) for t in (theta, theta)]
    assert bare[0].overlaps(bare[1])
    assert not bare[0].overlaps(train)
    other = Simulations.from_arrays(*rows_of(Line(), 5, 1), Line().prior, Line().observable)
    assert not bare[0].overlaps(other)


def test_arrays_made_elsewhere_become_simulations():
    simulator = Line()
    theta, x = rows_of(simulator, 5000, seed=0)
    x[7] = np.nan
    z = {"k": np.arange(5000)}
    simulations = Simulations.from_arrays(
        theta, x, simulator.prior, simulator.observable, z=z, purpose="pairs"
    )
    kept = np.delete(np.arange(5000), 7)
    np.testing.assert_array_equal(simulations.theta, theta[kept])
    np.testing.assert_array_equal(simulations.x, x[kept])
    np.testing.assert_array_equal(simulations.read([4998]).z["k"], [4999])
    assert (simulations.n_invalid, simulations.purpose, simulations.seed) == (1, "pairs", None)
    assert simulations.identity is None
    with pytest.raises(ContractError, match="bare arrays"):
        _ = simulations.simulator
    named = Simulations.from_arrays(
        theta, x, simulator.prior, simulator.observable, simulator=simulator
    )
    assert named.simulator is simulator
    assert named.identity == simulator.identity


def test_arrays_that_do_not_belong_together_are_refused():
    simulator = Line()
    theta, x = rows_of(simulator, 5, seed=0)
    with pytest.raises(ContractError, match=r"\{'theta': 5, 'x': 4\}"):
        Simulations.from_arrays(theta, x[:4], simulator.prior, simulator.observable)
    theta[3, 0] = 7.0
    with pytest.raises(ContractError, match=r"1 of 5 rows .* outside the prior.* row 3: a = 7"):
        Simulations.from_arrays(theta, x, simulator.prior, simulator.observable)


def test_a_store_gives_its_simulator_only_if_it_is_the_same(folder):
    store = SimulationStore.open(folder)
    assert store.simulations(simulator=Line()).simulator.name == "line"
    with pytest.raises(StoreMismatchError, match=r"version: the store has '1', the given .* '2'"):
        store.simulations(simulator=NewerLine())
    with pytest.raises(UnknownNameError, match="'line'"):
        _ = store.simulations().simulator
