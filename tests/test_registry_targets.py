"""What plugins point to: imported when it is used, and checked then; frameworks and natives."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from sample_plugins import GOOD, GOOD_SIMULATOR, build_quietly, install_all, plugin_site

from sbi_physics import doctor, registry
from sbi_physics.errors import PluginError, UnknownNameError


@pytest.fixture
def site(tmp_path, monkeypatch):
    with plugin_site(tmp_path, monkeypatch) as site:
        yield site


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
