"""Training data: an honest split, shuffled batches, and the records of a training."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from sample_training import NUMBERED, PRIOR, TINY, data, numbered, rows

from sbi_physics.errors import ContractError, TrainingError, UnknownNameError
from sbi_physics.observables import Observable
from sbi_physics.priors import Prior
from sbi_physics.seeding import generator
from sbi_physics.store import Simulations
from sbi_physics.training import TrainingHistory, TrainingSettings

# Split, shuffle and batches ----------------------------------------------


@settings(max_examples=25)
@given(
    st.integers(3, 200),
    st.integers(2, 64),
    st.floats(0.01, 0.5),
    st.integers(0, 2**40),
    st.booleans(),
)
def test_every_training_row_comes_once_and_validation_never(n, size, fraction, seed, on_disk):
    made = data(
        numbered(n),
        seed=seed,
        batch_size=size,
        validation_fraction=fraction,
        memory_gb=TINY if on_disk else 1.0,
    )
    held_out = rows(made.validation())
    assert len(held_out) == len(set(held_out)) == made.n_validation
    assert made.n_train + made.n_validation == n
    for k in range(2):
        batches = list(made.epoch(k))
        sizes = [len(b.u) for b in batches]
        assert all(s == size for s in sizes[:-1])
        assert 2 <= sizes[-1] <= size
        seen = rows(batches)
        assert len(seen) == len(set(seen))
        assert not set(seen) & set(held_out)
        # Only a single left-over row may be missing.
        lost = set(range(n)) - set(held_out) - set(seen)
        assert len(lost) == (1 if made.n_train % size == 1 else 0)


def test_a_batch_pairs_parameters_with_their_data():
    made = data(numbered(500), infer=("b", "a"))
    for batch in [*made.epoch(0), *made.validation(), made.sample_rows(50)]:
        theta = made.prior.from_unconstrained(batch.u)
        assert batch.u.dtype == batch.x.dtype == np.float32
        assert batch.u.shape == (len(batch.x), 2)
        assert np.allclose(theta[:, 1], batch.x[:, 1], atol=1e-5)
    assert made.prior.names == ("b", "a")
    assert made.d == 2


def test_epochs_are_reproducible_shuffled_and_different():
    one, two = data(numbered(300)), data(numbered(300))
    assert rows(one.epoch(3)) == rows(two.epoch(3))
    assert rows(one.epoch(3)) == rows(one.epoch(3))
    assert rows(one.epoch(3)) != rows(one.epoch(4))
    assert rows(one.epoch(3)) != sorted(rows(one.epoch(3)))
    assert rows(one.validation()) == rows(two.validation())


def test_another_seed_gives_another_split():
    assert set(rows(data(numbered(300), seed=1).validation())) != set(
        rows(data(numbered(300), seed=2).validation())
    )


def test_members_share_the_split_and_shuffle_for_themselves():
    made = data(numbered(300))
    other = made.member(1)
    assert rows(made.member(0).epoch(0)) == rows(made.epoch(0))
    assert rows(other.epoch(0)) != rows(made.epoch(0))
    assert sorted(rows(other.epoch(0))) == sorted(rows(made.epoch(0)))
    assert rows(other.validation()) == rows(made.validation())
    assert rows(other.epoch(0)) == rows(made.member(1).epoch(0))


def test_sampled_rows_are_training_rows():
    made = data(numbered(300))
    chosen = rows([made.sample_rows(20)])
    assert len(set(chosen)) == 20
    assert not set(chosen) & set(rows(made.validation()))
    assert len(made.sample_rows(10_000).u) == made.n_train


def test_the_inferred_parameters_have_the_role_of_interest():
    roles = Prior(PRIOR.parameters.with_interest(["a"]))
    theta = roles.sample(20, np.random.default_rng(0))
    made = data(Simulations.from_arrays(theta, theta, roles, NUMBERED), infer=("b",))
    assert made.prior.parameters.interest == ("b",)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_too_few_simulations_are_an_error(n):
    with pytest.raises(TrainingError, match=f"at least 3 valid simulations, there are {n}"):
        data(numbered(n))


@pytest.mark.parametrize(
    ("infer", "error", "message"),
    [
        (("c",), UnknownNameError, "'c'"),
        ((), ContractError, "at least one"),
        (("a", "a"), ContractError, "unique"),
    ],
)
def test_a_wrong_choice_of_parameters_is_explained(infer, error, message):
    with pytest.raises(error, match=message):
        data(numbered(20), infer=infer)


def test_the_transform_is_fitted_on_training_rows_alone():
    simulations = numbered(100)
    observable = Observable("vector", (2,))
    x = simulations.x.copy()
    held_out = rows(data(simulations).validation())
    x[held_out] = 1e6  # a leak would shift the mean by far
    simulations = Simulations.from_arrays(simulations.theta, x, PRIOR, observable)
    made = data(simulations)
    assert np.abs(made.transform.arrays()["mean"]).max() < 100
    assert np.isclose(np.concatenate([b.x for b in made.epoch(0)]).std(axis=0), 1.0, 0.05).all()


# Records -----------------------------------------------------------------


def test_a_history_survives_json():
    member = TrainingHistory((3.0, 2.0), (3.1, 2.5), 1, 4.0, "converged")
    whole = TrainingHistory.of_ensemble([member, member])
    for history in (member, whole):
        again = TrainingHistory.from_dict(json.loads(json.dumps(history.to_dict())))
        assert again == history
    assert member.best_loss == whole.best_loss == 2.5
    assert whole.seconds == 8.0


def test_settings_refuse_what_cannot_train():
    for values in ({"batch_size": 1}, {"validation_fraction": 0.0}, {"epochs": 3}):
        with pytest.raises(ValueError, match=next(iter(values))):
            TrainingSettings(**values)


def test_streams_of_split_shuffle_and_redraw_never_meet():
    keys = [("training", 0), ("training", 1, 0, 0), ("training", 1, 1, 0), ("redraw", 0, 0, 0)]
    keys += [("redraw", 1, 0, 0), ("transform", 0), ("transform", 1), ("training", 2, 0)]
    assert len({int(generator(1, *key).integers(2**62)) for key in keys}) == len(keys)
