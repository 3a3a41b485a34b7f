"""Seeding: streams depend on seed, purpose and key, and on nothing else."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbi_physics.errors import ContractError, UnknownNameError
from sbi_physics.seeding import PURPOSES, check_seed, fresh_seed, generator


def test_purposes_keep_their_numbers():
    # Stored simulations name their streams by these numbers.
    first = ["train", "test", "pairs", "posterior", "training", "redraw", "validation"]
    first += ["observation", "transform", "pool"]
    assert [PURPOSES[name] for name in first] == list(range(10))
    assert len(set(PURPOSES.values())) == len(PURPOSES)


def test_a_stream_is_the_documented_seed_sequence():
    sequence = np.random.SeedSequence(7, spawn_key=(PURPOSES["pairs"], 2, 5))
    expected = np.random.Generator(np.random.PCG64(sequence)).random(4)
    assert np.array_equal(generator(7, "pairs", 2, 5).random(4), expected)


@given(
    st.integers(0, 2**63 - 1),
    st.sampled_from(sorted(PURPOSES)),
    st.lists(st.integers(0, 2**31), max_size=3),
)
def test_the_same_stream_twice_gives_the_same_numbers(seed, purpose, key):
    a, b = generator(seed, purpose, *key), generator(seed, purpose, *key)
    assert np.array_equal(a.integers(2**62, size=8), b.integers(2**62, size=8))


def test_streams_of_different_seed_purpose_or_key_differ():
    streams = [(1, "train", 0, 0), (2, "train", 0, 0), (1, "pairs", 0, 0), (1, "train", 0, 1)]
    streams += [(1, "train", 1, 0), (1, "train", 0), (1, "train"), (1 + 2**32, "train", 0, 0)]
    first = {int(generator(s, p, *key).integers(2**62)) for s, p, *key in streams}
    assert len(first) == len(streams)


def test_an_unknown_purpose_names_the_nearest():
    with pytest.raises(UnknownNameError, match="Did you mean 'pairs'"):
        generator(1, "pair")


@pytest.mark.parametrize("bad", [-1, 2**63, 1.0, "1", None, True, np.float64(3)])
def test_a_seed_that_is_no_seed_is_refused_with_its_value(bad):
    with pytest.raises(ContractError, match=r"integer in \[0, 2\*\*63\)"):
        check_seed(bad)


def test_numpy_integers_are_seeds_and_become_plain():
    assert type(check_seed(np.int64(5))) is int


def test_fresh_seeds_differ_and_are_accepted():
    seeds = {check_seed(fresh_seed()) for _ in range(20)}
    assert len(seeds) > 15


def test_no_global_generator_is_touched():
    before = (random.getstate(), np.random.get_state(legacy=False))
    generator(fresh_seed(), "train").random(1000)
    after = (random.getstate(), np.random.get_state(legacy=False))
    assert before[0] == after[0]
    assert before[1]["state"]["pos"] == after[1]["state"]["pos"]
    assert np.array_equal(before[1]["state"]["key"], after[1]["state"]["key"])
