"""From a physics simulator to a validated posterior.

    import sbi_physics as sp

    sp.simulators()                                            # what is installed
    simulator = sp.simulator("alp-ngc1275", exposure="50 h")   # options are checked and documented

    train = sp.simulate(simulator, 20_000, seed=1, workers=2)
    posterior = sp.train(train, "sbi-npe", seed=1)             # swap the engine by name

    pairs = sp.simulate(simulator, 1000, seed=1, purpose="pairs")
    coverage = sp.validate(posterior, pairs, seed=1)           # the verdict
    print(coverage.summary())

    near = sp.truncate(simulator, x, "sbi-nre", simulations=5000)  # rounds for one observation

    study = sp.run("alp-ngc1275", "sbi-npe", budget="quick")   # all of it, with a report

Names are imported at first use, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from sbi_physics.compare import compare
    from sbi_physics.comparison import Comparison
    from sbi_physics.confidence import confidence_regions, frequentist_coverage
    from sbi_physics.constraints import Constraint
    from sbi_physics.coverage import Coverage
    from sbi_physics.diagnostics.balance import check_balance
    from sbi_physics.diagnostics.local import local_map
    from sbi_physics.distributions import (
        Fixed,
        Log10Normal,
        LogNormal,
        LogUniform,
        Mirrored,
        Normal,
        Uniform,
    )
    from sbi_physics.engine import Engine, train
    from sbi_physics.hookspecs import hookimpl
    from sbi_physics.interop import to_arviz
    from sbi_physics.observables import Observable
    from sbi_physics.parameters import Parameter, ParameterSpace
    from sbi_physics.posterior import Posterior
    from sbi_physics.posterior_files import load_posterior
    from sbi_physics.priors import Prior
    from sbi_physics.recalibrate import recalibrate
    from sbi_physics.registry import engine, engines, simulator, simulators
    from sbi_physics.scan import Scan, scan
    from sbi_physics.simulate import simulate
    from sbi_physics.simulator import Budget, DataFile, Simulator, SimulatorOptions
    from sbi_physics.specs import EngineSpec, SimulatorSpec
    from sbi_physics.store import Simulations, SimulationStore
    from sbi_physics.study import Study, run
    from sbi_physics.training import TrainingData, TrainingHistory, TrainingSettings
    from sbi_physics.truncate import truncate
    from sbi_physics.validate import validate
    from sbi_physics.validate_arrays import validate_draws
    from sbi_physics.validate_local import validate_local

_HOMES = {
    "compare": ("compare",),
    "comparison": ("Comparison",),
    "confidence": ("confidence_regions", "frequentist_coverage"),
    "constraints": ("Constraint",),
    "coverage": ("Coverage",),
    "diagnostics.balance": ("check_balance",),
    "diagnostics.local": ("local_map",),
    "distributions": (
        "Fixed",
        "Log10Normal",
        "LogNormal",
        "LogUniform",
        "Mirrored",
        "Normal",
        "Uniform",
    ),
    "engine": ("Engine", "train"),
    "hookspecs": ("hookimpl",),
    "interop": ("to_arviz",),
    "observables": ("Observable",),
    "parameters": ("Parameter", "ParameterSpace"),
    "posterior": ("Posterior",),
    "posterior_files": ("load_posterior",),
    "priors": ("Prior",),
    "recalibrate": ("recalibrate",),
    "registry": ("engine", "engines", "simulator", "simulators"),
    "scan": ("Scan", "scan"),
    "simulate": ("simulate",),
    "simulator": ("Budget", "DataFile", "Simulator", "SimulatorOptions"),
    "specs": ("EngineSpec", "SimulatorSpec"),
    "store": ("SimulationStore", "Simulations"),
    "study": ("Study", "run"),
    "training": ("TrainingData", "TrainingHistory", "TrainingSettings"),
    "truncate": ("truncate",),
    "validate": ("validate",),
    "validate_arrays": ("validate_draws",),
    "validate_local": ("validate_local",),
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Budget",
    "Comparison",
    "Constraint",
    "Coverage",
    "DataFile",
    "Engine",
    "EngineSpec",
    "Fixed",
    "Log10Normal",
    "LogNormal",
    "LogUniform",
    "Mirrored",
    "Normal",
    "Observable",
    "Parameter",
    "ParameterSpace",
    "Posterior",
    "Prior",
    "Scan",
    "SimulationStore",
    "Simulations",
    "Simulator",
    "SimulatorOptions",
    "SimulatorSpec",
    "Study",
    "TrainingData",
    "TrainingHistory",
    "TrainingSettings",
    "Uniform",
    "__version__",
    "check_balance",
    "compare",
    "confidence_regions",
    "engine",
    "engines",
    "frequentist_coverage",
    "hookimpl",
    "load_posterior",
    "local_map",
    "recalibrate",
    "run",
    "scan",
    "simulate",
    "simulator",
    "simulators",
    "to_arviz",
    "train",
    "truncate",
    "validate",
    "validate_draws",
    "validate_local",
]


class _Package(ModuleType):
    """Public names win over submodules of the same name (`simulate`, `engine`, ...)."""

    def __setattr__(self, name: str, value: Any) -> None:
        # The import system binds every imported submodule here; it must not shadow a public name.
        if not (name in _MODULE_OF and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if name not in _MODULE_OF:
            raise AttributeError(f"module 'sbi_physics' has no attribute {name!r}")
        return getattr(importlib.import_module(f"sbi_physics.{_MODULE_OF[name]}"), name)

    def __dir__(self) -> list[str]:
        return sorted(__all__)


sys.modules[__name__].__class__ = _Package
