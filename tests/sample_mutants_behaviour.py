"""Simulators that misbehave: randomness, side effects, memory, batches, failures, limits."""

from __future__ import annotations

import itertools
import logging
import os
import random
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from sample_mutants import Mutants, with_parameter

from sbi_physics.testing import SimulatorCase, ToyBimodal, ToyGaussian, ToyTwoStage

mutant = Mutants(SimulatorCase)


@mutant("same_generator_state_same_data", "the same object")
class OwnGenerator(ToyGaussian):
    def _simulate(self, theta, rng):
        return super()._simulate(theta, np.random.default_rng())


@mutant("same_generator_state_same_data", "a fresh object")
class OneObjectOneDetector(ToyGaussian):
    def __init__(self, **values):
        super().__init__(**values)
        self.bias = np.random.default_rng().normal()

    def _simulate(self, theta, rng):
        return super()._simulate(theta, rng) + self.bias


@mutant("different_generator_state_different_data", "ignores the generator")
class FixedSeed(ToyGaussian):
    def _simulate(self, theta, rng):
        return super()._simulate(theta, np.random.default_rng(0))


def reseeds():
    np.random.seed(np.random.randint(1000))


LINES = itertools.count(10**6)
CHANGES = {
    "NumPy's global random generator": lambda: np.random.random(),  # one word: the key stays equal
    "NumPy's global random": lambda: np.random.normal(),  # cached normal
    "NumPy's global": reseeds,
    "Python's random generator": random.random,
    "floating-point error handling": lambda: np.seterr(
        over="raise" if np.geterr()["over"] == "warn" else "warn"
    ),
    "print options": lambda: np.set_printoptions(precision=np.get_printoptions()["precision"] + 1),
    # A new line number each time: an equal filter would only be moved.
    "warning filters": lambda: warnings.simplefilter("once", UserWarning, lineno=next(LINES)),
    "the root logger": lambda: logging.getLogger().addHandler(logging.NullHandler()),
    "environment": lambda: os.environ.update(
        TOY_CALLS=str(len(os.environ.get("TOY_CALLS", "")) + 1) * 2
    ),
    "import path": lambda: sys.path.append("/nowhere"),
}


def changing(change):
    class Changing(ToyGaussian):
        def _simulate(self, theta, rng):
            change()
            return super()._simulate(theta, rng)

    return Changing


for _word, _change in CHANGES.items():
    mutant("global_state_is_untouched", _word)(changing(_change))


@mutant("inputs_are_not_modified", "modified theta in place")
class Overwriting(ToyGaussian):
    def _simulate(self, theta, rng):
        theta *= 2
        return super()._simulate(theta, rng)


@mutant("inputs_are_not_modified", "latent 'hits'")
class OverwritingLatents(ToyTwoStage):
    def _observe(self, z, theta, rng):
        z["hits"] += theta[:, 1:2]
        return super()._observe(z, np.zeros_like(theta), rng)


@mutant("inputs_are_not_modified", "_observe")
class OverwritingTheta(ToyTwoStage):
    def _observe(self, z, theta, rng):
        x = super()._observe(z, theta, rng)
        theta[:] = np.nan
        return x

    def _simulate(self, theta, rng):
        return super()._simulate(theta.copy(), rng)


@mutant("output_is_fresh_memory", "overwritten by the next call")
class ReusedBuffer(ToyTwoStage):
    buffer = np.zeros((8, 4))

    def _simulate_latent(self, theta, rng):
        if len(theta) != 8:
            return super()._simulate_latent(theta, rng)
        self.buffer[:] = super()._simulate_latent(theta, rng)["hits"]
        return {"hits": self.buffer}


@mutant("output_is_fresh_memory", "shares memory with theta")
class Passing(ToyTwoStage):
    def simulate_latent(self, theta, rng):
        return {"hits": np.broadcast_to(theta[:, :1], (len(theta), 4))}


@mutant("splitting_a_batch_keeps_the_distribution", "mixed batch")
class OneNoiseForAll(ToyGaussian):
    def _simulate(self, theta, rng):
        return theta + 0.3 * rng.standard_normal((1, theta.shape[1]))


@mutant("splitting_a_batch_keeps_the_distribution", "mixed batch")
class Sorting(ToyGaussian):
    def _simulate(self, theta, rng):
        return np.sort(super()._simulate(theta, rng), axis=0)


@mutant("splitting_a_batch_keeps_the_distribution", "mixed batch")
class FirstRowPedestal(ToyGaussian):
    def _simulate(self, theta, rng):
        x = super()._simulate(theta, rng)
        return x - x[:1] if len(x) else x


@mutant("failures_stay_within_the_declared_fraction", "max_failure_fraction is 0.01")
class Unreliable(ToyGaussian):
    max_failure_fraction = 0.01

    def _simulate(self, theta, rng):
        x = super()._simulate(theta, rng)
        return np.where(rng.random((len(x), 1)) < 0.1, np.nan, x)


@mutant("works_in_another_process", "cannot send")
class Unportable(ToyGaussian):
    def __init__(self, **values):
        super().__init__(**values)
        self.function = lambda x: x


@mutant("values_outside_the_support_are_refused", "accepts theta = nan")
class Tolerant(ToyBimodal):
    def simulate(self, theta, rng):
        return super().simulate(np.clip(np.nan_to_num(theta), -3, 3), rng)


@mutant("values_outside_the_support_are_refused", "accepts theta = -3.6")
class HalfTolerant(ToyBimodal):
    def simulate(self, theta, rng):
        return super().simulate(np.maximum(theta, -3), rng)


@mutant("ends_of_the_prior_can_be_simulated", "leaves the support")
class NarrowSupport(ToyBimodal):
    parameters = property(
        lambda self: with_parameter(ToyBimodal.parameters.fget(self), support=(-4.0, 2.5))
    )


@mutant("ends_of_the_prior_can_be_simulated", "at the end theta = -3")
class LogOfEdge(ToyBimodal):
    def _simulate(self, theta, rng):
        with np.errstate(divide="ignore"):
            return super()._simulate(theta, rng) + np.log(theta + 3)


def acting(action):
    class Acting(ToyGaussian):
        def _simulate(self, theta, rng):
            action()
            return super()._simulate(theta, rng)

    return Acting


def phones_home():
    with socket.socket() as line:
        line.connect_ex(("127.0.0.1", 9))


ACTIONS = {
    "printed": lambda: sys.stdout.write("simulating...\n"),
    "wrote files: log.txt": lambda: Path("log.txt").write_text("done"),
    "wrote files: made": lambda: Path("made").mkdir(exist_ok=True),
    "used the network": phones_home,
    "started commands": lambda: subprocess.run(["true"], check=True),
}
for _word, _action in ACTIONS.items():
    mutant("no_files_network_or_output", _word.split(":")[0])(acting(_action))
