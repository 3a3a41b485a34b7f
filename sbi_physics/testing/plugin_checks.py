"""Checks of how a simulator or an engine is registered; the same for both."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata
from typing import Final

from sbi_physics import registry
from sbi_physics.errors import ConformanceError
from sbi_physics.hookspecs import GROUP
from sbi_physics.specs import EngineSpec, SimulatorSpec
from sbi_physics.testing.cases import EngineCase, NotApplicable, SimulatorCase

HEAVY: Final = (
    "torch",
    "tensorflow",
    "jax",
    "keras",
    "sbi",
    "swyft",
    "bayesflow",
    "gammapy",
    "astropy",
    "numba",
    "scipy",
    "matplotlib",
    "pandas",
    "zarr",
    "numpy",
)
"""Packages that listing plugins must not import."""

IMPORT_SECONDS: Final = 0.5

_KEBAB = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def spec_loads(case: SimulatorCase | EngineCase) -> None:
    """The specification is registered, agrees with the class, and loads it."""
    kind = "simulator" if isinstance(case, SimulatorCase) else "engine"
    if not _KEBAB.fullmatch(case.name):
        raise ConformanceError(
            f"the {kind} name {case.name!r} is not kebab-case such as 'my-{kind}'"
        )
    entry = _entry(case)
    load = registry.simulator_class if kind == "simulator" else registry.engine_class
    found = load(case.name)
    if found is not case.subject:
        raise ConformanceError(
            f"the registered {kind} {case.name!r} is {found.__module__}.{found.__qualname__}, the "
            "one "
            f"under test is {case.subject.__module__}.{case.subject.__qualname__}"
        )
    if not entry.spec.summary.strip():
        raise ConformanceError(f"the specification of {case.name!r} has no summary for listings")


def plugin_module_is_light(case: SimulatorCase | EngineCase) -> None:
    """Importing the plugin's light module takes under half a second and nothing heavy."""
    entry = _entry(case)
    module = _light_module(entry.source.plugin)
    code = (
        "import sys, time; start = time.process_time(); "
        f"import {module}; "
        "seconds = time.process_time() - start; "
        f"print(seconds, *(m for m in {HEAVY!r} if m in sys.modules))"
    )
    best = float("inf")
    for _ in range(2):  # a busy machine may be slow once
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise ConformanceError(
                f"importing {module} failed: {done.stderr.strip().splitlines()[-1]}"
            )
        seconds, *heavy = done.stdout.split()
        if heavy:
            raise ConformanceError(
                f"importing {module} also imports {', '.join(heavy)}; only the module a "
                "specification "
                "names as its target may import those"
            )
        best = min(best, float(seconds))
        if best < IMPORT_SECONDS:
            return
    raise ConformanceError(
        f"importing {module} takes {best:.2f} s; at most {IMPORT_SECONDS} s is accepted"
    )


def _entry(
    case: SimulatorCase | EngineCase,
) -> registry.Registered[SimulatorSpec] | registry.Registered[EngineSpec]:
    """Return the registration, or say why there is none."""
    known = registry.current()
    entry = (
        known.simulators.get(case.name)
        if isinstance(case, SimulatorCase)
        else known.engines.get(case.name)
    )
    if entry is not None:
        return entry
    package = case.subject.__module__.partition(".")[0]
    points = {p.value.partition(".")[0] for p in metadata.entry_points(group=GROUP)}
    if package not in points and package != "sbi_physics":
        raise NotApplicable(
            f"{case.name!r} is not registered; list it in a plugin with an entry point in "
            f"{GROUP!r}"
        )
    problems = [str(f) for f in registry.failures()]
    why = f" Plugin problems: {' | '.join(problems)}" if problems else ""
    raise ConformanceError(
        f"{case.name!r} is not registered, although {package!r} is installed as a plugin: does "
        "its hook "
        f"return the specification?{why}"
    )


def _light_module(plugin: str) -> str:
    for point in metadata.entry_points(group=GROUP):
        if point.name == plugin:
            return point.module
    return "sbi_physics.testing.plugin"
