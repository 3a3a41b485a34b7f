"""Mistakes at the command line that need more than a name: the message leads to the right one."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from sample_commands import SMALL, command_line, one_paragraph
from sample_studies import without_figures

from sbi_physics import Observable, Parameter, ParameterSpace, Simulator, Uniform, registry
from sbi_physics.config import read_config
from sbi_physics.report import comparison
from sbi_physics.simulator import SimulatorOptions
from sbi_physics.specs import EngineSpec, SimulatorSpec


class FieldOptions(SimulatorOptions):
    b0: float | None = None
    exposure: float = 50.0
    free: tuple[str, ...] = ()

    @staticmethod
    def refuse(names):
        for name in names:
            if name != "b0":
                raise ValueError(f"{name!r} is not b0")

    def model_post_init(self, context):
        self.refuse(self.free)


class Field(Simulator):
    """Has options that look like parameters, one of which can be freed."""

    name = "field"
    Options = FieldOptions

    @property
    def parameters(self):
        names = ["m_a", *self.options.free]
        return ParameterSpace([Parameter(n, Uniform(0, 1)) for n in names])

    @property
    def observable(self):
        return Observable("vector", (1,))

    def _simulate(self, theta, rng):
        return theta[:, :1] + rng.standard_normal((len(theta), 1))

    def read_observation(self, path):
        return np.array([{"1": 1.0}[path.read_text()]])


class FragileOptions(SimulatorOptions):
    bins: int = 3
    where: str = ""
    late: bool = False
    clean: bool = False


class Fragile(Field):
    """Raises whatever comes, where an author did not think of it."""

    name = "fragile"
    Options = FragileOptions
    fiducial = {"middle": {"m_a": 0.5}}

    def __init__(self, options=None, **values):
        super().__init__(options, **values)
        if self.options.where:
            Path(self.options.where).read_text()
        if not self.options.late:
            self._check()

    def _check(self):
        if self.options.bins < 0:
            raise ValueError("negative dimensions are not allowed")
        if self.options.bins > 10:
            raise KeyError("bin 11")

    @property
    def parameters(self):
        self._check()
        return ParameterSpace([Parameter("m_a", Uniform(0, 1))])

    def _simulate(self, theta, rng):
        raise ValueError("a bug in the simulation")


class Broken(Field):
    name = "broken"
    Options = SimulatorOptions

    def __init__(self, options=None, **values):
        raise ValueError("never worked")


@pytest.fixture
def call(capsys, monkeypatch):
    return command_line(capsys, monkeypatch)


@pytest.fixture
def installed(monkeypatch):
    """Registers the simulators above and small engines."""
    loaded = registry.build([])
    source = loaded.engines["exact"].source

    def choose(*engines):
        sys.modules.setdefault("user_mistakes", sys.modules[__name__])
        simulators = dict(loaded.simulators)
        for cls in (Field, Fragile, Broken):
            spec = SimulatorSpec(cls.name, "a test", f"user_mistakes:{cls.__name__}")
            simulators[cls.name] = registry.Registered(spec, source)
        found = {"exact": loaded.engines["exact"]}
        for name in engines:
            spec = EngineSpec(name, "a test", f"sample_engines:{name.capitalize()}Engine")
            found[name] = registry.Registered(spec, source)
        chosen = registry.Registry(simulators, found, (), loaded.sources)
        monkeypatch.setattr(registry, "current", lambda: chosen)

    without_figures(monkeypatch)
    monkeypatch.setattr(comparison, "draw_all", lambda *args, **more: {})
    choose("linear")
    return choose


# --- options taken for parameters ----------------------------------------------------------------


@pytest.mark.parametrize("flags", [["--infer", "m_a,b0"], ["--fix", "b0=10"]])
def test_an_option_is_no_parameter_but_may_be_freed(flags, installed, call, tmp_path):
    command = ["run", "field", "--engine", "linear", *SMALL, "-o", tmp_path / "run", *flags]
    code, _, err = call(*command)
    assert code == 2
    assert one_paragraph(err)
    assert (
        "unknown parameter of 'field' 'b0'. Known: m_a. 'b0' is an option of 'field': set it with "
        "--set b0=..., or vary it under its prior with --free b0." in err
    )


def test_an_option_that_cannot_be_freed_is_only_set(installed, call, tmp_path):
    command = ["run", "field", "--engine", "linear", "-o", tmp_path / "run"]
    code, _, err = call(*command, "--fix", "exposure=10")
    assert code == 2
    assert "set it with --set exposure=...." in err
    assert "--free" not in err


def test_the_hint_is_there_when_only_simulations_are_made(installed, call, tmp_path):
    code, _, err = call("simulate", "field", "-n", 20, "-o", tmp_path / "store", "--fix", "b0=1")
    assert code == 2
    assert "with --free b0" in err
    assert not (tmp_path / "store").exists()


def test_options_of_stored_simulations_cannot_be_inferred(installed, call, tmp_path):
    store = tmp_path / "store"
    assert call("simulate", "field", "-n", 20, "-o", store, "--set", "exposure=7")[0] == 0
    train = ["train", store, "--engine", "linear", "-o", tmp_path / "p", "--infer", "exposure"]
    code, _, err = call(*train)
    assert code == 2
    assert "'exposure' is an option of 'field', held at 7.0 in these simulations" in err


def test_a_freed_option_is_a_parameter(installed, call, tmp_path):
    command = ["simulate", "field", "-n", 20, "-o", tmp_path / "s", "--free", "b0"]
    assert call(*command, "--fix", "b0=0.5")[0] == 0


# --- simulators that fail on options and files ---------------------------------------------------


@pytest.mark.parametrize(
    ("options", "given", "text"),
    [
        (["bins=-1"], "bins='-1'", "ValueError: negative dimensions are not allowed"),
        (["bins=11"], "bins='11'", "KeyError: 'bin 11'"),
        (["bins=-1", "late=yes"], "bins='-1', late='yes'", "ValueError: negative dimensions"),
        (["where=nowhere.fits"], "where='nowhere.fits'", "FileNotFoundError: "),
    ],
)
@pytest.mark.parametrize("command", ["run", "simulate", "show"])
def test_a_simulator_that_fails_on_options_names_them(
    command, options, given, text, installed, call, tmp_path
):
    more = {
        "run": ["--engine", "linear", "-o", tmp_path / "run"],
        "simulate": ["-n", 20, "-o", tmp_path / "store"],
        "show": [],
    }[command]
    flags = [part for option in options for part in ("--set", option)]
    code, _, err = call(command, "fragile", *more, *flags)
    assert code == 2
    assert one_paragraph(err)
    assert f"simulator 'fragile' cannot be built with {given}: {text}" in err
    assert "it is a bug in" in err
    code, _, err = call("--debug", command, "fragile", *more, *flags)
    assert code == 2
    assert "in _check\n" in err or "read_text" in err  # where it happened


def test_what_nobody_asked_for_stays_a_bug(installed, call, tmp_path):
    code, _, err = call("simulate", "broken", "-n", 20, "-o", tmp_path / "store")
    assert code == 3
    assert "unexpected ValueError: never worked. This is a bug" in err
    code, _, err = call("run", "fragile", "--engine", "linear", "-o", tmp_path / "run")
    assert code == 3
    assert "unexpected ValueError: a bug in the simulation. This is a bug" in err


def test_an_observation_that_cannot_be_read_is_named(installed, call, tmp_path):
    file = tmp_path / "data.txt"
    file.write_text("2")
    command = ["run", "field", "--engine", "linear", "-o", tmp_path / "run", "--observation"]
    code, _, err = call(*command, file)
    assert code == 2
    assert one_paragraph(err)
    assert f"simulator 'field' cannot read the observation '{file}': KeyError: '2'" in err


# --- all engines ---------------------------------------------------------------------------------


def run_all(call, folder, *more):
    return call("run", "toy-gaussian", "--engine", "all", "--seed", 1, *SMALL, "-o", folder, *more)


def test_a_setting_of_some_engines_names_both_kinds(installed, call, tmp_path, monkeypatch):
    import sample_engines
    from pydantic import Field as Setting

    class Settings(sample_engines.LinearSettings):
        variant: str = Setting("A")

    monkeypatch.setattr(sample_engines.SecondEngine, "Settings", Settings)
    installed("linear", "second")
    code, _, err = run_all(call, tmp_path / "all", "--setting", "variant=A")
    assert code == 2
    assert err.count("Error: ") == 1
    assert (
        "with engine 'all' every engine must know a setting; 'variant' is a setting of second, "
        "not of linear. Common to all: " in err
    )
    assert not (tmp_path / "all").exists()
    code, _, err = run_all(call, tmp_path / "all", "--setting", "jiter=0.1")
    assert code == 2
    assert "'jiter' is not one of linear, second. Did you mean 'jitter'?" in err


def test_unfinished_engines_are_finished_by_the_command_that_compare_gives(
    installed, call, tmp_path, monkeypatch
):
    import sample_engines

    folder = tmp_path / "all"
    installed("failing", "linear")
    assert run_all(call, folder)[0] == 3
    resume = f"sbi-physics run {folder / 'all.yaml'} -o {folder}"
    for target in (folder, folder / "failing"):
        code, _, err = call("compare", target, folder / "linear")
        assert code == 2
        assert "run all/run.yaml" not in err
    code, _, err = call("compare", folder, folder / "linear")
    assert (
        "runs of several engines, and is none itself. Finish them (failing not finished) " in err
    )
    assert err.strip().endswith(f"with: {resume}")
    assert read_config(folder / "all.yaml").engine == "all"

    monkeypatch.setattr(sample_engines.FailingEngine, "_train", sample_engines.LinearEngine._train)
    code, _, err = call(*resume.split()[1:])
    assert code == 0, err
    assert (folder / "failing" / "coverage.json").is_file()
    code, _, err = call("compare", folder, folder / "linear")
    assert code == 2
    assert f"compare {folder / 'failing'} {folder / 'linear'}" in err


def test_a_folder_of_something_else_is_given_no_command(call, tmp_path):
    (tmp_path / "a").mkdir()
    code, _, err = call("compare", tmp_path / "a", tmp_path / "a")
    assert code == 2
    assert "is no run directory: it holds no coverage.json and no run.yaml" in err
    assert "sbi-physics run" not in err


def test_an_unfinished_run_is_finished_by_its_own_file(installed, call, tmp_path):
    installed("failing")
    folder = tmp_path / "run"
    call("run", "toy-gaussian", "--engine", "failing", *SMALL, "-o", folder)
    _, _, err = call("compare", folder, folder)
    assert f"Finish it with: sbi-physics run {folder / 'run.yaml'} -o {folder}" in err
