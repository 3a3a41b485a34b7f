"""Plugins are found and listed; a broken one says why and does not hide the others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from sample_plugins import (
    CLASH,
    GOOD,
    GOOD_SIMULATOR,
    MISSING,
    MISSPELT,
    RAISING,
    SIX,
    WRONG_ARGUMENT,
    build_quietly,
    failure_of,
    install_all,
    plugin_site,
)

from sbi_physics import registry
from sbi_physics.errors import OptionError, PluginWarning, UnknownNameError


@pytest.fixture
def site(tmp_path, monkeypatch):
    with plugin_site(tmp_path, monkeypatch) as site:
        yield site


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


def test_listing_imports_neither_arrays_nor_models():
    code = (
        "import sys; from sbi_physics import registry; registry.simulators(); registry.engines();"
        "print([m for m in ('numpy', 'scipy', 'torch', 'pydantic', 'zarr') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
