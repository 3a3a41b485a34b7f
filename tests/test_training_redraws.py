"""Redraws: a new observation of the same latents in every epoch, made by a thread that ends."""

from __future__ import annotations

import gc
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from sample_training import TINY, data

from sbi_physics.distributions import Fixed, Normal, Uniform
from sbi_physics.errors import ContractError
from sbi_physics.observables import Observable
from sbi_physics.parameters import Parameter, ParameterSpace
from sbi_physics.simulate import simulate
from sbi_physics.simulator import Simulator
from sbi_physics.store import Simulations


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
