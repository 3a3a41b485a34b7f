"""Simulations whose rows can be told apart, and training data made of them."""

from __future__ import annotations

import numpy as np

from sbi_physics.distributions import LogUniform, Uniform
from sbi_physics.observables import Observable
from sbi_physics.parameters import Parameter
from sbi_physics.priors import Prior
from sbi_physics.store import Simulations
from sbi_physics.training import TrainingData, TrainingSettings

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
