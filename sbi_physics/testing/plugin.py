"""What the core itself offers: toy simulators, and the engine that asks them for their posterior.

They are registered through the same hooks as any plugin. Like any plugin's, this module is light.
"""

from __future__ import annotations

from sbi_physics.hookspecs import hookimpl
from sbi_physics.specs import EngineSpec, SimulatorSpec


@hookimpl
def sbi_physics_simulators() -> list[SimulatorSpec]:
    """Return the toy simulators."""
    return [
        SimulatorSpec(
            "toy-gaussian",
            "Linear-Gaussian data of any kind with uniform priors; exact posterior known.",
            "sbi_physics.testing.toys:ToyGaussian",
        ),
        SimulatorSpec(
            "toy-bimodal",
            "The square of one parameter plus noise; exact posterior with two modes known.",
            "sbi_physics.testing.toys:ToyBimodal",
        ),
        SimulatorSpec(
            "toy-two-stage",
            "Hits with a common offset that enters only the readout; exact posterior known.",
            "sbi_physics.testing.toys:ToyTwoStage",
        ),
        SimulatorSpec(
            "toy-two-moons",
            "Two thin crescents in two parameters (sbibm); exact posterior known.",
            "sbi_physics.testing.benchmark_toys:ToyTwoMoons",
        ),
        SimulatorSpec(
            "toy-mixture",
            "A broad and a narrow Gaussian with common mean (sbibm); exact posterior known.",
            "sbi_physics.testing.benchmark_toys:ToyMixture",
        ),
        SimulatorSpec(
            "toy-slcp",
            "Mean and covariance from four points, four modes (sbibm); exact posterior known.",
            "sbi_physics.testing.benchmark_toys:ToySlcp",
        ),
    ]


@hookimpl
def sbi_physics_engines() -> list[EngineSpec]:
    """Return the engine that needs no training."""
    return [
        EngineSpec(
            "exact",
            "Exact posteriors of simulators that know them (toys); trains nothing.",
            "sbi_physics.testing.exact:ExactEngine",
            trains=False,
        )
    ]
