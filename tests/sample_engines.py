"""Engines and posteriors of a few lines of numpy, for tests; no deep-learning package needed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from pydantic import Field
from scipy import special

from sbi_physics.distributions import Uniform
from sbi_physics.engine import Engine
from sbi_physics.errors import TrainingError
from sbi_physics.observables import Observable
from sbi_physics.parameters import Parameter
from sbi_physics.posterior import NeuralPosterior, PosteriorContext
from sbi_physics.priors import Prior
from sbi_physics.ratio import RatioPosterior
from sbi_physics.training import TrainingHistory, TrainingSettings


class LinearSettings(TrainingSettings):
    jitter: float = Field(0.0, ge=0, le=1, json_schema_extra={"unit": "sd"})


class LinearPosterior(NeuralPosterior):
    """q(u|x) normal with a mean linear in x."""

    def __init__(self, context, matrix, root):
        super().__init__(context)
        self.matrix, self.root = matrix, root

    def _mean(self, xt):
        flat = xt.reshape(len(xt), -1).astype(np.float64)
        return np.column_stack([np.ones(len(xt)), flat]) @ self.matrix

    def _sample_u(self, xt, n, rng, log_prob):
        noise = rng.standard_normal((len(xt), n, self.prior.d))
        u = self._mean(xt)[:, None] + noise @ self.root.T
        return u, self._log_prob_u(u, xt) if log_prob else None

    def _log_prob_u(self, u, xt):
        z = (u - self._mean(xt)[:, None]) @ np.linalg.inv(self.root).T
        constant = np.log(np.diag(self.root)).sum() + 0.5 * self.prior.d * np.log(2 * np.pi)
        return -0.5 * (z**2).sum(axis=-1) - constant

    def _config(self):
        return {"note": "linear"}

    def _weights(self):
        return {"matrix": self.matrix, "root": self.root}


class LinearEngine(Engine):
    """Least squares of unconstrained parameters on data."""

    name = "linear"
    summary = "Least squares."
    Settings = LinearSettings
    packages = ("scipy", "no-such-distribution")

    def supports(self, observable):
        return "it has no place for sets" if observable.kind == "set" else None

    def _train(self, data, context, settings, seed, progress):
        batches = list(data.epoch(0))
        u = np.concatenate([b.u for b in batches]).astype(np.float64)
        x = np.concatenate([b.x for b in batches]).astype(np.float64).reshape(len(u), -1)
        design = np.column_stack([np.ones(len(u)), x])
        matrix = np.linalg.lstsq(design, u, rcond=None)[0]
        root = np.linalg.cholesky(np.atleast_2d(np.cov((u - design @ matrix).T)))
        shift = np.random.default_rng(seed).standard_normal(matrix.shape)
        matrix = matrix + settings.jitter * shift
        with progress.task("least squares", 1) as task:
            task.advance()
        posterior = LinearPosterior(context, matrix, root)
        loss = -np.mean(posterior._log_prob_u(u[:, None], x.astype(np.float32)))
        history = TrainingHistory((float(loss),), (float(loss),), 0, 0.5, "converged")
        posterior.context = replace(context, history=history)
        return posterior

    def _rebuild(self, context, config, weights):
        assert config == {"note": "linear"}
        return LinearPosterior(context, weights["matrix"], weights["root"])


class BoxRatio(RatioPosterior):
    """The exact ratio of x = theta + noise with theta uniform between -1 and 1.

    Its posterior is a truncated normal, which scipy knows.
    """

    def __init__(self, d, sd, *, constraints=(), pool_size=16_384, scale=0.0):
        parameters = [Parameter(f"t{i}", Uniform(-1.0, 1.0)) for i in range(d)]
        observable = Observable("vector", (d,), transform=())
        transform = observable.fit_transform(np.eye(d + 1)[:, :d])
        prior = Prior(parameters, constraints)
        super().__init__(
            PosteriorContext("exact", prior, observable, seed=3, transform=transform),
            pool_size=pool_size,
        )
        self.sd, self.scale = sd, scale
        self.points = 0

    def ends(self, x):
        x = np.asarray(x, np.float64)
        return (-1 - x) / self.sd, (1 - x) / self.sd

    def truth(self, x):
        """The posterior without constraints, broadcastable to (batch, d)."""
        from scipy import stats  # slow to import, and not needed by the processes tests start

        low, high = self.ends(x)
        return stats.truncnorm(low, high, np.asarray(x, np.float64), self.sd)

    def _log_ratio(self, u, xt):
        theta = self.prior.from_unconstrained(u)
        theta = theta[None] if theta.ndim == 2 else theta
        x = xt.astype(np.float64)[:, None]
        self.points += len(xt) * theta.shape[1]
        likelihood = -0.5 * ((x - theta) / self.sd) ** 2 - np.log(self.sd * np.sqrt(2 * np.pi))
        low, high = self.ends(x)
        log_evidence = np.log((special.ndtr(high) - special.ndtr(low)) / 2)
        return (likelihood - log_evidence).sum(axis=-1) + self.scale


class SecondEngine(LinearEngine):
    """The same under another name."""

    name = "second"


class VectorlessEngine(LinearEngine):
    name = "vectorless"

    def supports(self, observable):
        return "it knows sets only" if observable.kind != "set" else None


class FailingEngine(LinearEngine):
    name = "failing"

    def _train(self, data, context, settings, seed, progress):
        raise TrainingError("the losses are not finite")
