"""Small simulators for tests; in a module of their own, so that worker processes find them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
from pydantic import Field

from sbi_physics.distributions import Normal, Uniform
from sbi_physics.observables import Observable
from sbi_physics.parameters import Parameter, ParameterSpace
from sbi_physics.simulator import Simulator, SimulatorOptions


class LineOptions(SimulatorOptions):
    noise: float = Field(0.5, gt=0)
    seconds_per_row: float = Field(0.0, ge=0)


class Line(Simulator):
    """x = a + b t + noise on four points t."""

    name = "line"
    summary = "a straight line"
    Options = LineOptions

    @property
    def parameters(self):
        return ParameterSpace(
            [
                Parameter("a", Uniform(-1.0, 2.0), unit="m"),
                Parameter("b", Normal(0.0, 1.0), unit="m/s", role="nuisance"),
            ]
        )

    @property
    def observable(self):
        return Observable(kind="vector", shape=(4,), unit="m")

    def _simulate(self, theta, rng):
        if self.options.seconds_per_row:
            time.sleep(self.options.seconds_per_row * len(theta))
        t = np.arange(4.0)
        noise = self.options.noise * rng.standard_normal((len(theta), 4))
        return theta[:, :1] + theta[:, 1:] * t + noise


class NewerLine(Line):
    version = "2"


class TwoStage(Line):
    """A line with latents: true positions, and an integer count."""

    name = "two-stage"
    observe_only = ("b",)

    def _simulate_latent(self, theta, rng):
        return {
            "true": (theta[:, :1] + rng.standard_normal((len(theta), 3))).astype(np.float32),
            "count": rng.poisson(4.0, len(theta)),
        }

    def _observe(self, z, theta, rng):
        x = np.repeat(z["true"].sum(axis=1, keepdims=True) + theta[:, 1:], 4, axis=1)
        return x + z["count"][:, None] + rng.standard_normal(x.shape)

    _simulate = Simulator._simulate


class Patchy(Line):
    """Fails (NaN) where a is above 1.4: a fifth of the prior."""

    name = "patchy"
    max_failure_fraction = 0.5

    def _simulate(self, theta, rng):
        x = super()._simulate(theta, rng)
        x[theta[:, 0] > 1.4, 2] = np.nan
        return x


class StrictPatchy(Patchy):
    name = "strict-patchy"
    max_failure_fraction = 0.01


class Hopeless(Line):
    name = "hopeless"
    max_failure_fraction = 1.0

    def _simulate(self, theta, rng):
        return np.full((len(theta), 4), np.inf)


class RaisesOnce(Line):
    """Raises where the first a of a block is above 1.6, unless the file $MENDED exists."""

    name = "raises-once"

    def _simulate(self, theta, rng):
        x = super()._simulate(theta, rng)
        if theta[0, 0] > 1.6 and not Path(os.environ["MENDED"]).exists():
            raise ZeroDivisionError("the bar is bent")
        return x


class Killed(Line):
    """Dies like a process that the system killed for using too much memory."""

    name = "killed"

    def _simulate(self, theta, rng):
        os.kill(os.getpid(), signal.SIGKILL)


class Wide(Line):
    """Rows of 8 kB."""

    name = "wide"

    @property
    def observable(self):
        return Observable(kind="vector", shape=(2000,))

    def _simulate(self, theta, rng):
        return rng.random((len(theta), 2000), dtype=np.float32)
