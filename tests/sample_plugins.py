"""Plugins as installed distributions: folders on the path with metadata and entry points."""

from __future__ import annotations

import contextlib
import sys
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from sbi_physics import registry
from sbi_physics.errors import PluginWarning

GOOD = """
    from sbi_physics import EngineSpec, SimulatorSpec, hookimpl

    @hookimpl
    def sbi_physics_simulators():
        return [SimulatorSpec("good-detector", "A detector.", "fake_good_simulator:Detector",
                              references=("arXiv:1234.56789",))]

    @hookimpl
    def sbi_physics_engines():
        return [EngineSpec("good-engine", "An engine.", "fake_good_simulator:Missing",
                           ecosystem="fake_ecosystem",
                           native_simulator="fake_good_simulator:as_native",
                           native_posterior="fake_good_simulator:from_native")]
"""
GOOD_SIMULATOR = """
    import numpy as np
    from pydantic import Field
    from sbi_physics import (Observable, Parameter, ParameterSpace, Simulator, SimulatorOptions,
                             Uniform)

    class Options(SimulatorOptions):
        noise: float = Field(0.5, gt=0, json_schema_extra={"unit": "m"})

    class Detector(Simulator):
        name = "good-detector"
        Options = Options
        @property
        def parameters(self):
            return ParameterSpace([Parameter("mu", Uniform(-3, 3))])
        @property
        def observable(self):
            return Observable("vector", (1,))
        def _simulate(self, theta, rng):
            return theta + self.options.noise * rng.normal(size=theta.shape)

    def as_native(simulator):
        return ("native", simulator.name)

    def from_native(native, prior):
        return ("posterior", native, prior)
"""
MISSING = """
    import package_that_is_not_installed
"""
MISSPELT = """
    from sbi_physics import hookimpl

    @hookimpl
    def sbi_physics_simulatrs():
        return []
"""
WRONG_ARGUMENT = """
    from sbi_physics import hookimpl

    @hookimpl
    def sbi_physics_simulators(register):
        return []
"""
RAISING = """
    from sbi_physics import hookimpl

    @hookimpl
    def sbi_physics_engines():
        raise RuntimeError("no licence\\nfound")
"""
CLASH = """
    from sbi_physics import EngineSpec, SimulatorSpec, hookimpl

    @hookimpl
    def sbi_physics_simulators():
        return [SimulatorSpec("good-detector", "Another one.", "elsewhere:Detector"),
                SimulatorSpec("clash-own", "Its own.", "elsewhere:Own")]
"""


class Site:
    """A folder of fake installed distributions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(self, name: str, source: str, requires: tuple[str, ...] = ()) -> None:
        module = f"fake_{name.replace('-', '_')}"
        self.module(module, source)
        info = self.folder / f"fake_{name.replace('-', '_')}-1.2.dist-info"
        info.mkdir()
        needed = "".join(f"Requires-Dist: {r}\n" for r in requires)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: fake-{name}\nVersion: 1.2\n{needed}\n"
        )
        (info / "entry_points.txt").write_text(f"[sbi_physics]\n{name} = {module}\n")
        registry.refresh()

    def module(self, name: str, source: str) -> None:
        (self.folder / f"{name}.py").write_text(textwrap.dedent(source))


@contextlib.contextmanager
def plugin_site(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """An empty site folder first on the path; only its plugins are loaded."""
    monkeypatch.syspath_prepend(str(folder))
    before = set(sys.modules)
    names = "good,missing,misspelt,wrong-argument,raising,clash,odd,second,lazy"
    monkeypatch.setenv("SBI_PHYSICS_PLUGINS", names)
    yield Site(folder)
    for name in set(sys.modules) - before:
        if name.startswith(("fake_", "elsewhere")):
            del sys.modules[name]
    registry.refresh()


def build_quietly() -> registry.Registry:
    """The registry, without complaints about plugins that a test did not install."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PluginWarning)
        return registry.current()


def failure_of(plugin: str) -> registry.PluginFailure:
    found = [f for f in build_quietly().failures if f.plugin == plugin]
    assert len(found) == 1, build_quietly().failures
    return found[0]


SIX = {
    "good": GOOD,
    "missing": MISSING,
    "misspelt": MISSPELT,
    "wrong-argument": WRONG_ARGUMENT,
    "raising": RAISING,
    "clash": CLASH,
}


def install_all(site: Site) -> None:
    for name, source in SIX.items():
        site.install(name, source)
    site.module("fake_good_simulator", GOOD_SIMULATOR)
