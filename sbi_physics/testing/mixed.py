"""Toys for the views of other packages: priors of every kind, data a noisy copy of theta."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from sbi_physics.distributions import Fixed, LogUniform, Normal, Uniform
from sbi_physics.observables import Observable
from sbi_physics.parameters import Parameter, ParameterSpace
from sbi_physics.simulator import Simulator
from sbi_physics.types import FloatArray

_NOISE = 0.1


class ToyMixed(Simulator):
    """One bounded, one logarithmic, one fixed and one unbounded parameter.

    Class attributes:
        bounds: Of the bounded one.
    """

    name = "toy-mixed"
    bounds: ClassVar[tuple[float, float]] = (-1.0, 3.0)

    @property
    def parameters(self) -> ParameterSpace:
        return ParameterSpace(
            [
                Parameter("a", Uniform(*self.bounds)),
                Parameter("b", LogUniform(1e-3, 10.0)),
                Parameter("fixed", Fixed(5.0)),
                Parameter("c", Normal(2.0, 0.5)),
            ]
        )

    @property
    def observable(self) -> Observable:
        return Observable("vector", (4,))

    def _simulate(self, theta: FloatArray, rng: np.random.Generator) -> FloatArray:
        return _noisy(theta, rng)


class ToyOrdered(Simulator):
    """Two parameters, uniform on the part of the unit square where a < b / 2."""

    name = "toy-ordered"
    constraints = ("a < b / 2",)

    @property
    def parameters(self) -> ParameterSpace:
        return ParameterSpace(
            [Parameter("a", Uniform(0.0, 1.0)), Parameter("b", Uniform(0.0, 1.0))]
        )

    @property
    def observable(self) -> Observable:
        return Observable("vector", (2,))

    def _simulate(self, theta: FloatArray, rng: np.random.Generator) -> FloatArray:
        return _noisy(theta, rng)


def _noisy(theta: FloatArray, rng: np.random.Generator) -> FloatArray:
    return theta + _NOISE * rng.standard_normal(theta.shape)
