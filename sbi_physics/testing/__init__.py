"""For plugin authors: the conformance kit, toy simulators and the exact engine.

    from sbi_physics.testing import SIMULATOR_CHECKS, check_simulator, conformance

    check_simulator(MySimulator)                       # in a notebook: a table of what holds

    @conformance(SIMULATOR_CHECKS, MySimulator)        # in a test file: one test for each check
    def test_conformance(check):
        check()

Names are imported at first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sbi_physics.testing.benchmark_toys import ToyMixture, ToySlcp, ToyTwoMoons
    from sbi_physics.testing.cases import (
        EngineCase,
        NotApplicable,
        PosteriorCase,
        ReferencePoint,
        SimulatorCase,
    )
    from sbi_physics.testing.engine_checks import ENGINE_CHECKS
    from sbi_physics.testing.exact import ExactEngine, ExactPosterior
    from sbi_physics.testing.kit import (
        CheckRecord,
        ConformanceReport,
        check_engine,
        check_posterior,
        check_simulator,
        conformance,
    )
    from sbi_physics.testing.mixed import ToyMixed, ToyOrdered
    from sbi_physics.testing.posterior_checks import POSTERIOR_CHECKS
    from sbi_physics.testing.reference import reference_point
    from sbi_physics.testing.simulator_checks import SIMULATOR_CHECKS
    from sbi_physics.testing.toys import ToyBimodal, ToyGaussian, ToySimulator, ToyTwoStage

__all__ = [
    "ENGINE_CHECKS",
    "POSTERIOR_CHECKS",
    "SIMULATOR_CHECKS",
    "CheckRecord",
    "ConformanceReport",
    "EngineCase",
    "ExactEngine",
    "ExactPosterior",
    "NotApplicable",
    "PosteriorCase",
    "ReferencePoint",
    "SimulatorCase",
    "ToyBimodal",
    "ToyGaussian",
    "ToyMixed",
    "ToyMixture",
    "ToyOrdered",
    "ToySimulator",
    "ToySlcp",
    "ToyTwoMoons",
    "ToyTwoStage",
    "check_engine",
    "check_posterior",
    "check_simulator",
    "conformance",
    "reference_point",
]

_HOMES = {
    "benchmark_toys": ("ToyMixture", "ToySlcp", "ToyTwoMoons"),
    "cases": (
        "EngineCase",
        "NotApplicable",
        "PosteriorCase",
        "ReferencePoint",
        "SimulatorCase",
    ),
    "engine_checks": ("ENGINE_CHECKS",),
    "exact": (
        "ExactEngine",
        "ExactPosterior",
    ),
    "kit": (
        "CheckRecord",
        "ConformanceReport",
        "check_engine",
        "check_posterior",
        "check_simulator",
        "conformance",
    ),
    "mixed": ("ToyMixed", "ToyOrdered"),
    "posterior_checks": ("POSTERIOR_CHECKS",),
    "reference": ("reference_point",),
    "simulator_checks": ("SIMULATOR_CHECKS",),
    "toys": (
        "ToyBimodal",
        "ToyGaussian",
        "ToySimulator",
        "ToyTwoStage",
    ),
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
