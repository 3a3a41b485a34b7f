"""Plugins as installed distributions: folders on the path with metadata and entry points."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import pytest

from sbi_physics import doctor, registry
from sbi_physics.errors import OptionError, PluginError, PluginWarning, UnknownNameError

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


@pytest.fixture
def site(tmp_path, monkeypatch):
    """An empty site folder first on the path; only its plugins are loaded."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    names = "good,missing,misspelt,wrong-argument,raising,clash,odd,second,lazy"
    monkeypatch.setenv("SBI_PHYSICS_PLUGINS", names)
    yield Site(tmp_path)
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


def test_a_good_plugin_is_listed_and_usable(site):
    site.install("good", GOOD)
    site.module("fake_good_simulator", GOOD_SIMULATOR)
    loaded = build_quietly()
    assert loaded.simulators["good-detector"].spec.references == ("arXiv:1234.56789",)
    assert str(loaded.simulators["good-detector"].source) == "fake-good 1.2"
    assert registry.simulator("good-detector", noise=0.1).options.noise == 0.1
    with pytest.raises(OptionError, match="noise"):
        registry.simulator("good-detector", noise=-1)


def test_listing_does_not_import_the_target(site):
    site.install("good", GOOD)  # the module its specifications point to does not exist
    build_quietly()
    assert "good-detector" in [s.name for s in registry.simulators()]
    assert "good-engine" in [s.name for s in registry.engines()]
    assert "fake_good_simulator" not in sys.modules


def test_broken_plugins_do_not_hide_the_good_ones(site):
    install_all(site)
    loaded = build_quietly()
    assert "good-engine" in loaded.engines
    assert "clash-own" in loaded.simulators
    stages = {f.plugin: f.stage for f in loaded.failures if f.plugin in SIX or " and " in f.plugin}
    assert stages == {
        "missing": "import",
        "misspelt": "register",
        "wrong-argument": "register",
        "raising": "hook",
        "clash and good": "name",
    }


def test_a_missing_import_names_the_package_and_the_pip_command(site):
    site.install("missing", MISSING, requires=("package_that_is_not_installed>=2", "numpy"))
    failure = failure_of("missing")
    assert (failure.distribution, failure.version) == ("fake-missing", "1.2")
    assert "package_that_is_not_installed" in failure.error
    assert failure.remedy == 'Run: pip install "package_that_is_not_installed>=2"'
    assert "ModuleNotFoundError" in failure.traceback


def test_a_misspelt_hook_is_told_its_right_name(site):
    site.install("misspelt", MISSPELT)
    failure = failure_of("misspelt")
    assert "sbi_physics_simulatrs" in failure.error
    assert failure.remedy == "Rename the hook to 'sbi_physics_simulators'."


def test_a_hook_with_a_wrong_argument_is_refused_with_the_argument(site):
    site.install("wrong-argument", WRONG_ARGUMENT)
    assert "register" in failure_of("wrong-argument").error


def test_a_raising_hook_becomes_one_line_with_its_traceback_kept(site):
    site.install("raising", RAISING)
    failure = failure_of("raising")
    assert failure.error == "RuntimeError: no licence found"
    assert "sbi_physics_engines" in failure.traceback


def test_a_name_claimed_twice_names_both_distributions_and_serves_neither(site):
    site.install("good", GOOD)
    site.install("clash", CLASH)
    failure = failure_of("clash and good")
    assert "fake-good 1.2" in failure.error
    assert "fake-clash 1.2" in failure.error
    assert "good-detector" not in build_quietly().simulators
    with pytest.raises(UnknownNameError, match="claimed by"):
        registry.simulator("good-detector")


def test_the_user_settles_a_clash_by_limiting_the_plugins(site, monkeypatch):
    install_all(site)
    monkeypatch.setenv("SBI_PHYSICS_PLUGINS", "good")
    assert registry.simulator("good-detector").name == "good-detector"
    assert not registry.failures()


@pytest.mark.parametrize(
    ("returned", "stage", "expected"),
    [
        ("'not a list'", "hook", "must return a list of SimulatorSpec"),
        ("[SimulatorSpec('Odd_Name', '', 'a:b')]", "name", "kebab-case"),
        ("[SimulatorSpec('odd', '', 'no-target')]", "hook", "module:attribute"),
        ("[SimulatorSpec('odd', '', 'a:b', api_version=99)]", "api", "version 99"),
    ],
)
def test_what_a_hook_returns_is_checked(site, returned, stage, expected):
    site.install(
        "odd",
        f"""
        from sbi_physics import SimulatorSpec, hookimpl

        @hookimpl
        def sbi_physics_simulators():
            return {returned}
        """,
    )
    failure = failure_of("odd")
    assert failure.stage == stage
    assert expected in failure.error


def test_a_refused_specification_does_not_take_its_neighbours_along(site):
    site.install(
        "odd",
        """
        from sbi_physics import SimulatorSpec, hookimpl

        @hookimpl
        def sbi_physics_simulators():
            return [
                SimulatorSpec("old", "", "a:b", api_version=0),
                SimulatorSpec("new", "", "a:b"),
            ]
        """,
    )
    loaded = build_quietly()
    assert "new" in loaded.simulators
    assert "old" not in loaded.simulators


def test_a_plugin_without_hooks_is_a_failure(site):
    site.install("odd", "VALUE = 1\n")
    assert "implements no hook" in failure_of("odd").error


def test_a_plugin_that_tries_to_leave_the_program_is_caught(site):
    site.install("odd", "raise SystemExit('usage: odd')\n")
    assert "SystemExit" in failure_of("odd").error


def test_failures_are_announced_by_one_warning(site, monkeypatch):
    install_all(site)
    monkeypatch.setenv("SBI_PHYSICS_PLUGINS", ",".join(SIX))
    with pytest.warns(PluginWarning, match="5 plugin problems"):
        registry.simulators()
    # The next one would be an error.
    assert "good-engine" in [s.name for s in registry.engines()]
    assert len(registry.failures()) == 5


def test_an_unknown_name_lists_the_known_ones_the_nearest_and_possible_reasons(site):
    site.install("good", GOOD)
    site.install("missing", MISSING)
    build_quietly()
    with pytest.raises(UnknownNameError) as caught:
        registry.simulator("good-detectr")
    text = str(caught.value)
    assert "Did you mean 'good-detector'?" in text
    assert "package_that_is_not_installed" in text
    assert "SBI_PHYSICS_PLUGINS" in text


def test_an_empty_variable_loads_no_plugin_but_keeps_what_ships_with_the_core(site, monkeypatch):
    install_all(site)
    monkeypatch.setenv("SBI_PHYSICS_PLUGINS", "")
    assert registry.failures() == ()
    names = [s.name for s in registry.simulators()]
    assert "good-detector" not in names
    assert "toy-gaussian" in names
    assert "exact" in [s.name for s in registry.engines()]


def test_a_misspelt_plugin_in_the_variable_is_a_failure(site, monkeypatch):
    site.install("good", GOOD)
    monkeypatch.setenv("SBI_PHYSICS_PLUGINS", "goood")
    failure = failure_of("goood")
    assert "Did you mean 'good'?" in failure.error


def test_a_target_whose_requirement_is_missing_names_the_pip_command(site):
    site.install(
        "odd",
        """
        from sbi_physics import SimulatorSpec, hookimpl

        @hookimpl
        def sbi_physics_simulators():
            return [SimulatorSpec("odd", "", "fake_odd_target:Odd", requires=("heavy-thing>=2",))]
        """,
    )
    site.module("fake_odd_target", "import heavy_thing\n")
    build_quietly()
    with pytest.raises(PluginError, match=r'needs heavy-thing>=2.*pip install "heavy-thing>=2"'):
        registry.simulator("odd")


def test_a_target_that_raises_while_imported_is_a_plugin_error(site):
    site.install("good", GOOD)
    site.module("fake_good_simulator", "raise TypeError('old numpy')\n")
    build_quietly()
    with pytest.raises(PluginError, match=r"'good-detector' of fake-good 1\.2 .*old numpy"):
        registry.simulator("good-detector")


@pytest.fixture
def lazy(site):
    """An engine that imports its framework when it is used; the test says how that goes."""

    def install(framework: str) -> None:
        site.install(
            "lazy",
            """
            from sbi_physics import EngineSpec, hookimpl

            @hookimpl
            def sbi_physics_engines():
                return [EngineSpec("lazy", "", "fake_lazy_engine:Lazy",
                                   requires=("fake-frame>=1",), probe="fake_lazy_engine:probe")]
            """,
        )
        site.module(
            "fake_lazy_engine",
            """
            from sbi_physics import Engine

            class Lazy(Engine):
                name = "lazy"

            def probe():
                import fake_frame
            """,
        )
        site.module("fake_frame", framework)
        info = site.folder / "fake_frame-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-frame\nVersion: 1.5\n")
        (info / "top_level.txt").write_text("fake_frame\n")
        build_quietly()

    return install


@pytest.mark.parametrize("error", ["ImportError('libframe.so')", "AttributeError('old numpy')"])
def test_a_framework_that_is_broken_is_found_by_the_doctor_with_the_command(lazy, error):
    lazy(f"raise {error}\n")
    assert registry.engine_class("lazy").name == "lazy"
    (found,) = [c for c in doctor.examine().components if c.name == "lazy"]
    assert not found.works
    assert 'Run: pip install --force-reinstall --no-deps "fake-frame==1.5"' in found.error
    assert error.partition("'")[2].rstrip("')") in found.error


def test_what_a_framework_misses_is_installed_with_its_dependencies(lazy):
    lazy("import package_that_is_not_installed\n")
    (found,) = [c for c in doctor.examine().components if c.name == "lazy"]
    assert not found.works
    assert "package_that_is_not_installed" in found.error
    assert "Run: pip install " in found.error
    assert "--no-deps" not in found.error


def test_a_framework_that_works_is_healthy(lazy):
    lazy("")
    (found,) = [c for c in doctor.examine().components if c.name == "lazy"]
    assert found.works, found.error


def test_a_target_that_is_something_else_is_refused(site):
    site.install("good", GOOD)
    site.module("fake_good_simulator", "class Detector: name = 'good-detector'\n")
    build_quietly()
    with pytest.raises(PluginError, match="is no Simulator class"):
        registry.simulator("good-detector")


def test_a_target_with_another_name_is_refused(site):
    site.install("good", GOOD)
    site.module("fake_good_simulator", GOOD_SIMULATOR.replace('"good-detector"', '"other"'))
    build_quietly()
    with pytest.raises(PluginError, match="calls itself 'other'"):
        registry.simulator("good-detector")


def test_native_objects_are_handled_by_the_engine_of_their_package(site):
    install_all(site)
    site.module("fake_ecosystem", "class Net: pass\n")
    build_quietly()
    net = __import__("fake_ecosystem").Net
    own = type("Own", (net,), {"__module__": "__main__"})()
    assert registry.native_posterior_for(own, "prior") == ("posterior", own, "prior")
    with pytest.raises(UnknownNameError, match=r"unknown ecosystem 'pathlib'.*fake_ecosystem"):
        registry.native_posterior_for(Path(), "prior")


def test_native_simulators_come_from_the_ecosystem_asked_for(site):
    site.install("good", GOOD)
    site.module("fake_good_simulator", GOOD_SIMULATOR)
    build_quietly()
    simulator = registry.simulator("good-detector")
    assert simulator.native("fake_ecosystem") == ("native", "good-detector")
    with pytest.raises(UnknownNameError, match="unknown ecosystem 'fake_ecosystm'"):
        simulator.native("fake_ecosystm")


def test_listing_imports_neither_arrays_nor_models():
    code = (
        "import sys; from sbi_physics import registry; registry.simulators(); registry.engines();"
        "print([m for m in ('numpy', 'scipy', 'torch', 'pydantic', 'zarr') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
