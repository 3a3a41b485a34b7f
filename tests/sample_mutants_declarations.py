"""Simulators whose declarations are wrong, or whose data do not fit them."""

from __future__ import annotations

import itertools
import sys
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

sys.path.insert(0, str(Path(__file__).parent))
from sample_mutants import Mutants, with_parameter

from sbi_physics.distributions import Uniform
from sbi_physics.simulator import SimulatorOptions
from sbi_physics.testing import SimulatorCase, ToyBimodal, ToyGaussian, ToyTwoStage

mutant = Mutants(SimulatorCase)


@mutant("spec_loads", "the one under test is")
class Impostor(ToyGaussian):
    """Another class under a registered name."""


@mutant("spec_loads", "not kebab-case")
class BadlyNamed(ToyGaussian):
    name = "Toy_Gaussian"


@mutant("declarations_are_complete", "has no description")
class Terse(ToyGaussian):
    parameters = property(
        lambda self: with_parameter(ToyGaussian.parameters.fget(self), description="")
    )


@mutant("declarations_are_complete", "no budget thorough")
class Thrifty(ToyGaussian):
    budgets: ClassVar = {k: ToyGaussian.budgets[k] for k in ("quick", "standard")}


@mutant("declarations_are_complete", "no free parameter of interest")
class Uninteresting(ToyBimodal):
    parameters = property(
        lambda self: with_parameter(ToyBimodal.parameters.fget(self), role="nuisance")
    )


@mutant("declarations_are_complete", "bin edges")
class Unordered(ToyGaussian):
    def __init__(self):
        super().__init__(kind="spectrum")

    @property
    def observable(self):
        good = super().observable
        return replace(good, edges=good.edges[::-1])


class BareOptions(SimulatorOptions):
    noise: float = 0.3


@mutant("options_are_documented_and_rebuild", "'noise'")
class UndocumentedOption(ToyBimodal):
    Options = BareOptions


@mutant("options_are_documented_and_rebuild", "another identity or prior")
class HiddenOption(ToyBimodal):
    counter = itertools.count(1)

    def __init__(self, **values):
        super().__init__(**values)
        self.width = next(self.counter)

    parameters = property(
        lambda self: with_parameter(
            ToyBimodal.parameters.fget(self), distribution=Uniform(0.0, float(self.width))
        )
    )


class InfiniteOptions(SimulatorOptions):
    noise: float = Field(
        float("inf"), description="Not a JSON number.", json_schema_extra={"unit": "mm"}
    )


@mutant("fiducial_points_are_valid", "'far'")
class FarFiducial(ToyBimodal):
    fiducial: ClassVar = {"far": {"theta": 17.0}}


@mutant("fiducial_points_are_valid", "missing")
class PartialFiducial(ToyTwoStage):
    fiducial: ClassVar = {"half": {"position": 0.0}}


@mutant("output_follows_theta", "shape")
class AlwaysOneRow(ToyGaussian):
    def _simulate(self, theta, rng):
        return super()._simulate(theta[:1], rng)


@mutant("output_follows_theta", "output_follows_theta")
class NeedsRows(ToyGaussian):
    def _simulate(self, theta, rng):
        return super()._simulate(theta, rng) + 0 * theta.max()


class Sets(ToyGaussian):
    def __init__(self):
        super().__init__(kind="set")


@mutant("data_fit_the_observable", "last column")
class FractionalMask(Sets):
    def _simulate(self, theta, rng):
        x = super()._simulate(theta, rng)
        x[..., -1] *= 0.5
        return x


@mutant("data_fit_the_observable", "padding rows")
class FilledPadding(Sets):
    def _simulate(self, theta, rng):
        x = super()._simulate(theta, rng)
        return np.where(x[..., -1:] == 0, np.r_[7.0, 7.0, 0.0], x)


@mutant("data_fit_the_observable", "log1p")
class NegativeCounts(ToyGaussian):
    observable = property(
        lambda self: replace(ToyGaussian.observable.fget(self), transform=("log1p",))
    )

    def _simulate(self, theta, rng):
        return super()._simulate(theta, rng) - 5
