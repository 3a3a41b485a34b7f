"""Training data: an honest split, exact redraws, the same batches from memory and from disk."""

from __future__ import annotations

import gc
import json
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sbi_physics.distributions import Fixed, LogUniform, Normal, Uniform
from sbi_physics.errors import ContractError, TrainingError, UnknownNameError
from sbi_physics.observables import Observable
from sbi_physics.parameters import Parameter, ParameterSpace
from sbi_physics.priors import Prior
from sbi_physics.seeding import generator
from sbi_physics.simulate import simulate
from sbi_physics.simulator import Simulator
from sbi_physics.store import Simulations, SimulationStore, StoreHeader
from sbi_physics.training import TrainingData, TrainingHistory, TrainingSettings

TINY = 1e-9
"""A memory limit (GB) that sends everything to the disk path."""

PRIOR = Prior([Parameter("a", Uniform(-1.0, 1.0)), Parameter("b", LogUniform(0.1, 10.0))])
NUMBERED = Observable("vector", (2,), transform=())


def numbered(n: int) -> Simulations:
    """Simulations whose data are (row number, a), so that rows can be told apart in a batch."""
    theta = PRIOR.sample(n, np.random.default_rng(0))
    return Simulations.from_arrays(
        theta, np.column_stack([np.arange(n), theta[:, 0]]), PRIOR, NUMBERED
    )


def data(simulations: Simulations, *, infer=("a",), seed: int = 1, **values) -> TrainingData:
    return TrainingData(simulations, infer=infer, settings=TrainingSettings(**values), seed=seed)


def rows(batches) -> list[int]:
    return [int(r) for batch in batches for r in batch.x[:, 0]]


class Readout(Simulator):
    """True energy, and a readout with gain offset b (known to the readout only) and noise.

    Data are (readout, monitor of b, true energy): the last tells which latent a row came from.
    """

    name = "readout"
    observe_only = ("b", "held")

    @property
    def parameters(self):
        return ParameterSpace(
            [
                Parameter("a", Uniform(-1.0, 1.0)),
                Parameter("b", Normal(0.0, 2.0), role="nuisance"),
                Parameter("held", Fixed(0.25), role="nuisance"),
            ]
        )

    @property
    def observable(self):
        return Observable("vector", (3,), transform=())

    def _simulate_latent(self, theta, rng):
        return {"energy": theta[:, 0] + 0.5 * rng.standard_normal(len(theta))}

    def _observe(self, z, theta, rng):
        noise = rng.standard_normal((len(theta), 2))
        readout = z["energy"] + theta[:, 1] + theta[:, 2] + 0.3 * noise[:, 0]
        return np.column_stack([readout, theta[:, 1] + 0.1 * noise[:, 1], z["energy"]])


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


# Memory and disk ---------------------------------------------------------


def by_row(batches) -> dict[int, tuple[list[float], list[float]]]:
    found = {}
    for batch in batches:
        for u, x in zip(batch.u, batch.x, strict=True):
            found[int(x[0])] = (u.tolist(), x.tolist())
    return found


def test_disk_and_memory_give_the_same_rows(tmp_path):
    theta = PRIOR.sample(5000, np.random.default_rng(0))
    x = np.column_stack([np.arange(5000), theta[:, 0]])
    with SimulationStore.open(
        tmp_path / "s.zarr", "a", StoreHeader(None, PRIOR, NUMBERED, 1, chunk_size=512)
    ) as store:
        for k, start in enumerate(range(0, 5000, 512)):
            part = slice(start, start + 512)
            store.append(0, k, theta[part], x[part], valid=x[part, 0] % 7 > 0)
        simulations = store.simulations()
    memory, disk = data(simulations), data(simulations, memory_gb=TINY)
    assert len(simulations) == np.count_nonzero(x[:, 0] % 7)
    assert disk.transform == memory.transform
    assert rows(disk.validation()) == rows(memory.validation())
    in_memory = by_row(memory.epoch(0))
    assert by_row(disk.epoch(0)) == in_memory
    assert not any(row % 7 == 0 for row in in_memory)
    assert rows(disk.epoch(0)) == rows(disk.epoch(0))
    assert rows(disk.epoch(0)) != rows(disk.epoch(1))


def test_on_disk_rows_are_mixed_beyond_their_neighbourhood(tmp_path):
    simulations = numbered(40_000)
    order = np.array(rows(data(simulations, memory_gb=TINY).epoch(0)))
    # Rows are read in pieces of 1024 neighbours, 16 pieces at once, and shuffled together: within
    # a batch of 256 most of the 16 pieces must appear.
    pieces = [len(set(order[i : i + 256] // 1100)) for i in range(0, 16_384 - 256, 256)]
    assert min(pieces) >= 12


def test_the_memory_limit_counts_what_is_kept(monkeypatch):
    reads = []
    simulations = numbered(1000)
    original = Simulations.read

    def counted(self, rows, **kwargs):
        reads.append(len(np.arange(len(self))[rows]))
        return original(self, rows, **kwargs)

    monkeypatch.setattr(Simulations, "read", counted)
    row_bytes = 2 * 8 + 2 * 4
    for limit, touches_disk in [(1001 * row_bytes, False), (999 * row_bytes, True)]:
        made = data(simulations, memory_gb=limit / 1e9)
        reads.clear()
        list(made.epoch(0))
        assert bool(reads) == touches_disk


# Weights -----------------------------------------------------------------


def weighted(n: int, weight) -> Simulations:
    theta = PRIOR.sample(n, np.random.default_rng(0))
    store = SimulationStore.open(None, "a", StoreHeader(None, PRIOR, NUMBERED, 1, chunk_size=n))
    store.append(
        0, 0, theta, np.column_stack([np.arange(n), theta[:, 0]]), weight=weight(np.arange(n))
    )
    return store.simulations()


@pytest.mark.parametrize("memory_gb", [1.0, TINY])
def test_weights_stay_with_their_rows(memory_gb):
    made = data(weighted(300, lambda i: 1.0 + i), memory_gb=memory_gb, batch_size=32)
    for batch in [*made.epoch(0), *made.validation(), made.sample_rows(9)]:
        assert batch.weight.dtype == np.float32
        assert np.array_equal(batch.weight, 1.0 + batch.x[:, 0])


@pytest.mark.parametrize("memory_gb", [1.0, TINY])
def test_weights_of_one_are_left_out(memory_gb):
    made = data(weighted(300, np.ones_like), memory_gb=memory_gb)
    assert all(b.weight is None for b in [*made.epoch(0), *made.validation()])


# Redraws -----------------------------------------------------------------


def readout(n: int = 4000) -> Simulations:
    return simulate(Readout(), n, seed=5)


@pytest.mark.parametrize("memory_gb", [1.0, TINY])
def test_epochs_redraw_the_observation_and_keep_the_latent(memory_gb):
    made = data(readout(1000), memory_gb=memory_gb)
    assert made.redraws
    first = {float(x[2]): (u[0], x) for b in made.epoch(0) for u, x in zip(b.u, b.x, strict=True)}
    second = {float(x[2]): (u[0], x) for b in made.epoch(1) for u, x in zip(b.u, b.x, strict=True)}
    assert first.keys() == second.keys()
    assert all(first[z][0] == second[z][0] for z in first)  # a belongs to the latent
    assert all(first[z][1][0] != second[z][1][0] for z in first)
    again = {float(x[2]): x.tolist() for b in made.epoch(1) for x in b.x}
    assert again == {z: x.tolist() for z, (_, x) in second.items()}


def test_redrawn_pairs_follow_the_joint_distribution():
    # Over 25 epochs of 3600 latents, against moments known in closed form: with
    # x0 = z + b + 0.25 + 0.3 e, x1 = b + 0.1 e' and z = a + 0.5 e''.
    made = data(readout(), infer=("a", "b"))
    batches = [batch for k in range(25) for batch in made.epoch(k)]
    theta = made.prior.from_unconstrained(np.concatenate([b.u for b in batches]))
    a, b = theta.T
    x0, x1, z = np.concatenate([b.x for b in batches]).astype(np.float64).T
    noise = x0 - z - b - 0.25
    count = len(a)
    assert count == 25 * made.n_train
    # What is redrawn has errors of 1/sqrt(count); what belongs to the latents is kept exactly.
    assert abs(noise.mean()) < 5 * 0.3 / np.sqrt(count)
    assert abs(noise.std() / 0.3 - 1) < 5 / np.sqrt(2 * count)
    assert abs(b.mean()) < 5 * 2 / np.sqrt(count)
    assert abs(b.std() / 2 - 1) < 5 / np.sqrt(2 * count)
    assert abs((x1 - b).std() / 0.1 - 1) < 5 / np.sqrt(2 * count)
    for independent in ((b, a), (b, z), (noise, b), (noise, z), (x1 - b, noise)):
        assert abs(np.corrcoef(*independent)[0, 1]) < 5 / np.sqrt(count)
    # Each latent sees many values of b: the spread inside one latent is that of the prior.
    order = np.argsort(z, kind="stable")
    inside = b[order].reshape(made.n_train, 25).std(axis=1, ddof=1)
    assert abs(np.sqrt((inside**2).mean()) / 2 - 1) < 5 / np.sqrt(2 * count)


def test_validation_is_never_redrawn():
    simulations = readout(1000)
    made = data(simulations)
    stored = {float(x[2]): x.tolist() for x in simulations.x}
    held_out = [x.tolist() for b in made.validation() for x in b.x]
    assert all(stored[float(np.float32(x[2]))] == x for x in held_out)
    trained = {float(x[2]) for b in made.epoch(0) for x in b.x}
    assert not trained & {x[2] for x in held_out}


def test_members_redraw_for_themselves():
    made = data(readout(500))
    mine = {float(x[2]): x[0] for b in made.epoch(0) for x in b.x}
    theirs = {float(x[2]): x[0] for b in made.member(1).epoch(0) for x in b.x}
    assert mine.keys() == theirs.keys()
    assert all(mine[z] != theirs[z] for z in mine)


def test_redrawing_may_be_switched_off():
    simulations = readout(500)
    made = data(simulations, redraw=False)
    assert not made.redraws
    stored = {tuple(x) for x in simulations.x.tolist()}
    assert {tuple(x) for b in made.epoch(1) for x in b.x.tolist()} <= stored


def test_parameters_tied_by_a_constraint_or_fixed_are_not_redrawn():
    class Tied(Readout):
        @property
        def constraints(self):
            return ("b < a + 3",)

    simulations = simulate(Tied(), 500, seed=5)
    stored = {float(x[2]): t for t, x in zip(simulations.theta, simulations.x, strict=True)}
    made = data(simulations, infer=("a", "b"))
    for batch in made.epoch(0):
        theta = made.prior.from_unconstrained(batch.u)
        expected = np.array([stored[float(z)][:2] for z in batch.x[:, 2]])
        assert np.allclose(theta, expected, atol=1e-4)


def test_rows_that_fail_when_redrawn_are_left_out():
    class Fragile(Readout):
        max_failure_fraction = 0.5

        def _observe(self, z, theta, rng):
            x = super()._observe(z, theta, rng)
            x[rng.random(len(x)) < 0.2, 0] = np.nan
            return x

    made = data(simulate(Fragile(), 2000, seed=1))
    seen = np.concatenate([b.x for b in made.epoch(0)])
    assert np.isfinite(seen).all()
    assert 0.75 < len(seen) / made.n_train < 0.85


def test_latents_without_a_simulator_need_a_decision():
    simulations = readout(50)
    rows = simulations.read(slice(0, 50))
    bare = Simulations.from_arrays(
        rows.theta, rows.x, simulations.prior, simulations.observable, z=rows.z
    )
    with pytest.raises(ContractError, match=r"redraw=False"):
        data(bare)
    assert not data(bare, redraw=False).redraws


# The reading thread ------------------------------------------------------


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("redraw")]


class Moody(Readout):
    """Observes slowly, or not at all."""

    raises = False
    started = threading.Semaphore(0)

    def _observe(self, z, theta, rng):
        if self.raises:
            raise ZeroDivisionError("no gain")
        if len(theta) > 1000:
            self.started.release()
            time.sleep(0.2)
        return super()._observe(z, theta, rng)


def test_an_error_of_the_simulator_surfaces_in_the_training_loop():
    simulator = Moody()
    made = data(simulate(simulator, 200, seed=1))
    made._simulations.simulator.raises = True
    with pytest.raises(ZeroDivisionError, match="no gain"):
        list(made.epoch(0))
    assert threads() == []


def test_an_epoch_left_early_ends_its_thread_soon():
    made = data(simulate(Moody(), 20_000, seed=1))
    epoch = made.epoch(0)
    next(epoch)
    start = time.perf_counter()
    epoch.close()
    assert time.perf_counter() - start < 5.0
    assert threads() == []


def test_an_interrupted_epoch_ends_its_thread():
    made = data(simulate(Moody(), 20_000, seed=1))

    def train():
        for _ in made.epoch(0):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train()
    gc.collect()
    deadline = time.perf_counter() + 5.0
    while threads() and time.perf_counter() < deadline:
        time.sleep(0.05)
    assert threads() == []


def test_the_next_buffer_is_prepared_while_the_first_is_used():
    made = data(simulate(Moody(), 20_000, seed=1))
    started = made._simulations.simulator.started = threading.Semaphore(0)
    epoch = made.epoch(0)
    next(epoch)
    # Nothing more is asked for: the second buffer must be on its way all the same.
    assert all(started.acquire(timeout=10.0) for _ in range(2))
    epoch.close()


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
