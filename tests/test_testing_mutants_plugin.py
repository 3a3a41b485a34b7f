"""The kit tests itself: mutants that need a plugin that can be imported."""

from __future__ import annotations

import sys
import textwrap
from importlib import import_module
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from sample_mutants import undone

from sbi_physics import registry
from sbi_physics.errors import ConformanceError
from sbi_physics.testing import ENGINE_CHECKS, SIMULATOR_CHECKS, EngineCase, SimulatorCase
from sbi_physics.testing.kit import run


@pytest.fixture(autouse=True)
def restored(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with undone():
        yield


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Pretend that a plugin distribution with the given module text is installed."""

    def install(text: str) -> None:
        (tmp_path / "mutant_plugin.py").write_text(textwrap.dedent(text))
        info = tmp_path / "mutant_plugin-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: mutant-plugin\nVersion: 1.0\n"
        )
        (info / "entry_points.txt").write_text("[sbi_physics]\nmutant = mutant_plugin\n")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setenv("SBI_PHYSICS_PLUGINS", "mutant")
        registry.refresh()

    yield install
    sys.modules.pop("mutant_plugin", None)
    registry.refresh()


HEAVY_PLUGIN = """
    {extra}
    from sbi_physics.hookspecs import hookimpl
    from sbi_physics.specs import EngineSpec, SimulatorSpec

    @hookimpl
    def sbi_physics_simulators():
        return [SimulatorSpec("toy-mutant", "A mutant.", "mutant_plugin:Mutant")]

    @hookimpl
    def sbi_physics_engines():
        return [EngineSpec("exact-mutant", "A mutant.", "mutant_plugin:MutantEngine")]

    def __getattr__(name):
        from sbi_physics.testing import ExactEngine, ToyGaussian

        if name not in ("Mutant", "MutantEngine"):
            raise AttributeError(name)
        base = ToyGaussian if name == "Mutant" else ExactEngine
        label = "toy-mutant" if name == "Mutant" else "exact-mutant"
        globals()[name] = type(name, (base,), {{"name": label, "__module__": __name__}})
        return globals()[name]
"""
CHECKS = {"simulator": SIMULATOR_CHECKS, "engine": ENGINE_CHECKS}


@pytest.mark.parametrize("kind", CHECKS)
@pytest.mark.parametrize(
    ("extra", "word"),
    [
        ("import numpy", "also imports numpy"),
        (
            "import time; until = time.process_time() + 0.6\n    while time.process_time() < "
            "until: pass",
            "takes 0.",
        ),
        ("", ""),
    ],
    ids=["heavy", "slow", "light"],
)
def test_a_heavy_plugin_module_is_caught(installed, kind, extra, word):
    installed(HEAVY_PLUGIN.format(extra=extra))
    if kind == "simulator":
        case = SimulatorCase(registry.simulator_class("toy-mutant"))
    else:
        case = EngineCase(registry.engine_class("exact-mutant"))
    checks = {check.__name__: check for check in CHECKS[kind]}
    run(checks["spec_loads"], case)
    if not word:
        run(checks["plugin_module_is_light"], case)
        return
    with pytest.raises(ConformanceError, match=word):
        run(checks["plugin_module_is_light"], case)


PROCESS_DEPENDENT = """
    import os
    from sbi_physics.testing import ToyGaussian

    class Good(ToyGaussian):
        def _simulate(self, theta, rng):
            return super()._simulate(theta, rng)

    class Mutant(Good):
        def _simulate(self, theta, rng):
            return super()._simulate(theta, rng) + os.getpid()
"""


def test_data_that_depend_on_the_process_are_caught(installed):
    installed(PROCESS_DEPENDENT)
    import mutant_plugin

    (check,) = [c for c in SIMULATOR_CHECKS if c.__name__ == "works_in_another_process"]
    run(check, SimulatorCase(mutant_plugin.Good))
    with pytest.raises(ConformanceError, match="other data in another process"):
        run(check, SimulatorCase(mutant_plugin.Mutant))


def test_an_unregistered_class_of_an_installed_plugin_is_caught(installed):
    installed(HEAVY_PLUGIN.format(extra="").replace('Spec("toy-mutant"', 'Spec("toy-other"'))
    with pytest.raises(ConformanceError, match="does its hook"):
        run(SIMULATOR_CHECKS[0], SimulatorCase(import_module("mutant_plugin").Mutant))
