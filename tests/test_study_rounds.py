"""Studies in truncated rounds, and of all engines at once."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
from sample_commands import command_line
from sample_studies import SMALL, without_figures

import sbi_physics as sp
from sbi_physics import registry
from sbi_physics.config import make_config
from sbi_physics.errors import ConfigError, OptionError
from sbi_physics.progress import SILENT
from sbi_physics.specs import EngineSpec
from sbi_physics.study import load_study, page, run_engines
from sbi_physics.study.ledger import STAGES

NARROW = {"engine": "exact", "options": {"noise": 0.02}, "fiducial": "offset", "rounds": 3}


class Log(list):
    def __call__(self, stage, line):
        self.append((stage, line))

    @property
    def done(self):
        return [stage for stage, line in self if line.startswith("done")]


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    without_figures(monkeypatch)


def carry_out(directory, **fields):
    log = Log()
    fields = {"seed": 1, **SMALL, **NARROW, **fields}
    done = sp.run(
        "toy-gaussian",
        fields.pop("engine"),
        directory=directory,
        progress=SILENT,
        tell=log,
        **fields,
    )
    return done, log


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study in rounds that nobody changes."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SBI_PHYSICS_PLUGINS", "")
        without_figures(patched)
        return carry_out(tmp_path_factory.mktemp("study") / "run")[0]


def test_a_study_in_rounds_records_them_and_validates_on_the_truncated_prior(finished):
    record = finished.posterior.context.truncation
    assert len(record.rounds) == 2
    prior = finished.posterior.context.simulation_prior
    assert prior.bounds[0, 1] - prior.bounds[0, 0] < 0.3
    assert finished.pairs.prior == prior
    assert prior.contains(finished.pairs.theta).all()
    assert len(finished.simulations) == record.rounds[-1].trained_on == 300
    assert finished.coverage.verdict in ("PASS", "MARGINAL")
    assert yaml.safe_load((finished.directory / "run.yaml").read_text())["rounds"] == 3
    noted = json.loads((finished.directory / "run.json").read_text())["truncation"]
    assert noted == record.to_dict()


def test_a_finished_study_in_rounds_is_loaded_and_skipped(finished, tmp_path):
    loaded = load_study(finished.directory)
    assert loaded.simulations.digest() == finished.simulations.digest()
    np.testing.assert_array_equal(loaded.samples, finished.samples)
    folder = tmp_path / "run"
    shutil.copytree(finished.directory, folder)
    again, log = carry_out(folder)
    assert log.done == []
    assert again.simulations.digest() == finished.simulations.digest()


def test_another_observation_redoes_the_rounds_but_not_the_first_simulations(finished, tmp_path):
    shutil.copytree(finished.directory, tmp_path / "run")
    changed, log = carry_out(tmp_path / "run", fiducial="centre")
    assert log.done == ["train", "infer", "pairs", "validate", "report"]
    fresh, _ = carry_out(tmp_path / "fresh", fiducial="centre")
    np.testing.assert_array_equal(changed.samples, fresh.samples)
    assert changed.simulations.digest() == fresh.simulations.digest()
    assert changed.coverage.p_global == fresh.coverage.p_global


def test_a_study_goes_back_to_no_rounds(finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished.directory, folder)
    plain, log = carry_out(folder, rounds=1)
    assert "simulate" not in log.done
    assert plain.posterior.context.truncation is None
    assert json.loads((folder / "run.json").read_text())["truncation"] is None
    assert load_study(folder).simulations.digest() == plain.simulations.digest()


def test_a_run_killed_in_a_later_round_is_finished_by_the_same_command(tmp_path, finished):
    # The process kills itself, as `kill -9` would, at the first chunk of the second round.
    script = textwrap.dedent(
        f"""
        import contextlib, os, signal
        import sbi_physics as sp
        from sbi_physics.progress import SILENT
        from sbi_physics.study import page
        from sbi_physics.store import SimulationStore

        keep = SimulationStore.append
        def append(self, round, *rest):
            entry = keep(self, round, *rest)
            if round == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return entry
        SimulationStore.append = append
        sp.run("toy-gaussian", directory={str(tmp_path / "run")!r}, seed=1, progress=SILENT,
               **{ {**SMALL, **NARROW}!r})
        """
    )
    killed = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert (tmp_path / "run" / "rounds" / "0" / "posterior.json").is_file()
    done, log = carry_out(tmp_path / "run")
    assert log.done == list(STAGES[1:])
    assert done.simulations.digest() == finished.simulations.digest()
    np.testing.assert_array_equal(done.samples, finished.samples)
    assert done.coverage.p_global == finished.coverage.p_global


@pytest.mark.parametrize("name", ["simulations_store", "pairs_store"])
def test_rounds_and_shared_stores_exclude_each_other(name):
    with pytest.raises(ConfigError, match=f"{name}.*exclude each other"):
        make_config({"simulator": "toy-gaussian", "rounds": 2, name: "x.zarr"}, "test")


def test_a_final_round_without_rounds_is_refused():
    with pytest.raises(ConfigError, match="final_simulations: 500 is for truncated rounds"):
        make_config({"simulator": "toy-gaussian", "final_simulations": 500}, "test")


def test_the_report_has_a_section_about_rounds(finished):
    from sbi_physics.report.page import render_report
    from sbi_physics.study.ledger import Ledger
    from sbi_physics.study.plan import make_plan
    from sbi_physics.study.stages import Workplace

    plan = make_plan(finished.config, 1)
    work = Workplace(plan, Ledger(finished.directory), lambda *_: None, SILENT)
    html = render_report(page._record(work, finished))
    section = html.partition("<h2>Truncated rounds</h2>")[2].partition("</section>")[0]
    assert "whole prior" in section
    low, high = finished.posterior.context.truncation.box["theta_1"]
    assert f"{low:.4g} – {high:.4g}" in section
    assert "would not have halved" in section


# --- the command line ---------------------------------------------------------------------------


@pytest.fixture
def call(capsys, monkeypatch):
    return command_line(capsys, monkeypatch)


FLAGS = [x for k, v in SMALL.items() for x in (f"--{k}", v)]


def test_run_takes_rounds_and_infer_refuses_other_observations(call, tmp_path):
    folder = tmp_path / "run"
    command = ["run", "toy-gaussian", "--engine", "exact", "--set", "noise=0.02", "--seed", 1]
    code, out, err = call(*command, "--rounds", 2, "--fiducial", "offset", *FLAGS, "-o", folder)
    assert code == 0
    assert "Truncated rounds" in out
    assert "whole prior" in out
    assert "[train] 1 of the prior: 300 simulations, 0 reused" in err
    code, out, _ = call(
        *command,
        "--rounds",
        2,
        "--final-simulations",
        700,
        "--fiducial",
        "offset",
        *FLAGS,
        "-o",
        folder,
    )
    assert code == 0
    assert "then trained on more simulations inside the last box" in out
    infer = ["infer", folder, "-o", tmp_path / "x.nc", "--samples", 100]
    assert call(*infer, "--fiducial", "offset", "--seed", 1)[0] == 0
    code, _, err = call(*infer, "--fiducial", "centre", "--seed", 1)
    assert code == 2
    assert "truncated rounds closed in on" in err
    assert "--any-observation" in err
    assert call(*infer, "--fiducial", "centre", "--seed", 1, "--any-observation")[0] == 0
    validate = ["validate", folder, "--pairs", 220, "--draws", 99, "--seed", 2]
    code, out, _ = call(*validate)
    assert code == 0
    assert "PASS" in out or "MARGINAL" in out


# --- all engines --------------------------------------------------------------------------------


@pytest.fixture
def engines(monkeypatch):
    """Replace the registered engines by small ones."""
    loaded = registry.build([])
    source = loaded.engines["exact"].source

    def choose(*classes):
        found = {"exact": loaded.engines["exact"]}
        for name in classes:
            target = f"sample_engines:{name.capitalize()}Engine"
            found[name] = registry.Registered(EngineSpec(name, "a test", target), source)
        chosen = registry.Registry(loaded.simulators, found, (), loaded.sources)
        monkeypatch.setattr(registry, "current", lambda: chosen)

    return choose


def test_all_engines_run_on_the_same_simulations_and_pairs(engines, tmp_path):
    engines("linear", "second", "vectorless")
    config = make_config({"simulator": "toy-gaussian", "seed": 1, **SMALL}, "test")
    log = Log()
    done = run_engines(config, tmp_path / "all", tell=log, progress=SILENT)
    assert list(done.studies) == ["linear", "second"]
    assert done.failed == {}
    assert done.skipped == {"exact": "it trains nothing", "vectorless": "it knows sets only"}
    first, second = done.studies.values()
    assert first.pairs.digest() == second.pairs.digest()
    assert first.simulations.digest() == second.simulations.digest()
    assert {p.name for p in (tmp_path / "all").iterdir()} == {
        "simulations.zarr",
        "pairs.zarr",
        "all.yaml",
        "linear",
        "second",
    }
    assert not (tmp_path / "all" / "linear" / "pairs.zarr").exists()
    assert load_study(tmp_path / "all" / "second").pairs.digest() == first.pairs.digest()
    again = Log()
    run_engines(config, tmp_path / "all", tell=again, progress=SILENT)
    assert again.done == []


def test_all_engines_end_in_one_page(engines, call, tmp_path):
    engines("linear", "second")
    folder = tmp_path / "all"
    code, out, _ = call(
        "run", "toy-gaussian", "--engine", "all", "--seed", 1, *FLAGS, "-o", folder
    )
    assert code == 0
    assert "NLL differences, pair by pair" in out
    assert f"Page: {folder / 'compare.html'}" in out.replace("\n", "")
    assert (folder / "compare.html").is_file()


def test_an_engine_that_fails_leaves_the_others_alone(engines, call, tmp_path):
    engines("failing", "linear")
    code, out, err = call(
        "run", "toy-gaussian", "--engine", "all", "--seed", 1, *FLAGS, "-o", tmp_path / "all"
    )
    assert code == 3
    assert "1 engines did not finish. failing: the losses are not finite" in err
    assert "Report of linear" in out
    assert str(tmp_path / "all" / "linear" / "report.html") in out
    assert "exact is left out: it trains nothing" in err


def test_bad_input_for_all_engines_is_refused_before_anything_is_made(engines, tmp_path):
    engines("linear", "second")
    base = {"simulator": "toy-gaussian", "seed": 1, **SMALL}
    for fields, error, text in (
        ({"settings": {"jiter": 0.1}}, OptionError, "jiter"),
        ({"rounds": 2}, ConfigError, "one by one"),
    ):
        with pytest.raises(error, match=text):
            run_engines(
                make_config({**base, **fields}, "test"),
                tmp_path / "all",
                tell=Log(),
                progress=SILENT,
            )
        assert not (tmp_path / "all").exists()
    engines("vectorless")
    with pytest.raises(ConfigError, match="no installed engine .*knows sets only"):
        run_engines(make_config(base, "test"), tmp_path / "all", tell=Log(), progress=SILENT)
