"""Studies: everything is there and recorded, and only what is missing or changed is done again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
from sample_studies import SMALL, carry_out, without_figures

import sbi_physics as sp
from sbi_physics.errors import ConfigError
from sbi_physics.study import load_study, stages
from sbi_physics.study.ledger import STAGES


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    """Figures take seconds; one study, `finished`, draws them for all."""
    without_figures(monkeypatch)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> sp.Study:
    """A study nobody changes."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SBI_PHYSICS_PLUGINS", "")
        return carry_out(tmp_path_factory.mktemp("study") / "run")[0]


def test_a_study_leaves_a_complete_run_directory(finished):
    names = {p.name for p in finished.directory.iterdir() if not p.name.startswith(".")}
    assert names == {
        "run.yaml",
        "run.json",
        "simulations.zarr",
        "pairs.zarr",
        "posterior",
        "samples.nc",
        "coverage.json",
        "figures",
        "report.html",
    }
    assert list((finished.directory / "figures").glob("*.png"))
    assert "<html" in finished.report_path.read_text()[:500].lower()


def test_a_study_gives_access_to_everything_it_made(finished):
    assert len(finished.simulations) == 300
    assert len(finished.pairs) == 220
    assert finished.samples.shape == (400, 2)
    assert finished.samples.dtype == np.float64
    assert finished.posterior.prior.names == ("theta_1", "theta_2")
    assert finished.coverage.verdict in ("PASS", "MARGINAL")
    assert finished.observation.shape == (2,)
    assert finished.truth.tolist() == [0.0, 0.0]
    assert tuple(finished.seconds) == STAGES


def test_the_written_configuration_leaves_nothing_to_defaults(finished):
    values = yaml.safe_load((finished.directory / "run.yaml").read_text())
    assert values["options"]["noise"] == 0.3
    assert values["settings"]["batch_size"] == 256
    assert values["infer"] == ["theta_1", "theta_2"]
    assert values["fiducial"] == "centre"
    assert values["simulator_version"] == "1"
    assert values["seed"] == 1
    assert (values["simulations"], values["pairs"], values["draws"]) == (300, 220, 99)


def test_the_record_holds_versions_seed_times_and_machine(finished):
    record = json.loads((finished.directory / "run.json").read_text())
    assert record["versions"]["numpy"] == np.__version__
    assert record["seed"] == 1
    assert record["machine"]["cpus"] >= 1
    assert record["verdict"] == finished.coverage.verdict
    assert all(record["stages"][s]["seconds"] >= 0 for s in STAGES)


def test_the_samples_file_has_the_groups_arviz_reads(finished):
    h5netcdf = pytest.importorskip("h5netcdf")
    with h5netcdf.File(str(finished.directory / "samples.nc"), "r") as file:
        assert set(file.groups) == {"posterior", "prior", "observed_data"}
        values = file["posterior"]["theta_2"]
        assert values.dimensions == ("chain", "draw")
        np.testing.assert_array_equal(values[0], finished.samples[:, 1])
        np.testing.assert_array_equal(file["observed_data"]["x"][...], finished.observation)


def test_the_run_file_of_a_study_reproduces_it_elsewhere(finished, tmp_path):
    again, log = carry_out(tmp_path / "again", finished.directory / "run.yaml")
    assert log.done == list(STAGES)
    np.testing.assert_array_equal(again.samples, finished.samples)
    np.testing.assert_array_equal(again.simulations.x, finished.simulations.x)
    assert again.coverage.verdict == finished.coverage.verdict
    assert again.coverage.p_global == finished.coverage.p_global
    assert (again.directory / "run.yaml").read_text() == (
        finished.directory / "run.yaml"
    ).read_text()


def test_a_finished_study_is_loaded_without_simulating(finished):
    loaded = load_study(finished.directory)
    np.testing.assert_array_equal(loaded.samples, finished.samples)
    assert loaded.coverage.p_global == finished.coverage.p_global
    assert loaded.simulations.digest() == finished.simulations.digest()
    assert loaded.table() == finished.table()


def test_running_again_skips_every_stage(tmp_path):
    first, _ = carry_out(tmp_path / "run")
    second, log = carry_out(tmp_path / "run")
    assert (log.done, log.skipped) == ([], list(STAGES))
    np.testing.assert_array_equal(first.samples, second.samples)


@pytest.mark.parametrize(
    ("change", "redone"),
    [
        ({"fiducial": "offset"}, ["infer", "report"]),
        ({"samples": 300}, ["infer", "report"]),
        ({"pairs": 240}, ["pairs", "validate", "report"]),
        ({"draws": 49}, ["validate", "report"]),
        ({"simulations": 320}, ["simulate", "train", "infer", "validate", "report"]),
        ({"settings": {"batch_size": 64}}, ["train", "infer", "validate", "report"]),
        ({"infer": ["theta_2"]}, ["train", "infer", "validate", "report"]),
        ({"seed": 2}, list(STAGES)),
        ({"options": {"noise": 0.5}}, list(STAGES)),
        ({"fix": {"theta_1": 0.5}}, list(STAGES)),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_only_stages_whose_inputs_changed_are_redone(tmp_path, change, redone, finished):
    shutil.copytree(finished.directory, tmp_path / "run")
    changed, log = carry_out(tmp_path / "run", **change)
    assert log.done == redone
    fresh, _ = carry_out(tmp_path / "fresh", **change)
    np.testing.assert_array_equal(changed.samples, fresh.samples)
    assert changed.coverage.p_global == fresh.coverage.p_global


def test_simulations_of_a_changed_run_are_set_aside_not_lost(tmp_path):
    first, _ = carry_out(tmp_path / "run")
    kept = first.simulations.digest()
    _, log = carry_out(tmp_path / "run", seed=2)
    assert any("former simulations are kept" in line for _, line in log.lines)
    with sp.SimulationStore.open(tmp_path / "run" / "superseded" / "simulations.zarr") as store:
        assert store.simulations(n=300).digest() == kept


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_interrupted_in_any_stage_is_finished_by_the_same_call(
    stage, tmp_path, monkeypatch, finished
):
    class Killed(BaseException):
        pass

    def dying(self, stage_name, key, output, seconds):
        if stage_name == stage:
            raise Killed
        return keep(self, stage_name, key, output, seconds)

    keep = stages.Ledger.finish
    monkeypatch.setattr(stages.Ledger, "finish", dying)
    with pytest.raises(Killed):
        carry_out(tmp_path / "run")
    monkeypatch.undo()
    done, log = carry_out(tmp_path / "run")
    assert log.skipped == list(STAGES[: STAGES.index(stage)])
    np.testing.assert_array_equal(done.samples, finished.samples)
    assert done.coverage.p_global == finished.coverage.p_global


def test_a_run_killed_while_simulating_is_finished_by_the_same_command(tmp_path, finished):
    # The process kills itself, as `kill -9` would, once some chunks are there.
    script = textwrap.dedent(
        f"""
        import contextlib, os, signal
        import sbi_physics as sp

        class Deadly:
            @contextlib.contextmanager
            def task(self, description, total, unit="it"):
                yield self
            def advance(self, n=1, note=""):
                os.kill(os.getpid(), signal.SIGKILL)

        sp.run("toy-gaussian", "exact", directory={str(tmp_path / "run")!r}, seed=1,
               progress=Deadly(), **{SMALL!r})
        """
    )
    killed = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    with sp.SimulationStore.open(tmp_path / "run" / "simulations.zarr") as store:
        assert 0 < store.n_rows() < 300
    done, log = carry_out(tmp_path / "run")
    assert log.done == list(STAGES)
    np.testing.assert_array_equal(done.simulations.x, finished.simulations.x)
    np.testing.assert_array_equal(done.samples, finished.samples)


def test_a_half_written_output_is_never_taken_for_whole(tmp_path):
    first, _ = carry_out(tmp_path / "run")
    path = tmp_path / "run" / "samples.nc"
    path.write_bytes(path.read_bytes()[:-100])
    second, log = carry_out(tmp_path / "run")
    assert log.done == ["infer"]
    np.testing.assert_array_equal(first.samples, second.samples)


def test_a_stage_that_failed_half_way_is_not_mistaken_for_the_one_before(tmp_path, monkeypatch):
    first, _ = carry_out(tmp_path / "run")
    with monkeypatch.context() as patched:
        # The new posterior is in place, but the record was not written any more.
        patched.setattr(stages.Ledger, "finish", lambda *_: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            carry_out(tmp_path / "run", infer=["theta_1"])
    back, log = carry_out(tmp_path / "run")
    assert "train" in log.done
    np.testing.assert_array_equal(back.samples, first.samples)


def test_leftovers_of_a_killed_run_are_removed(tmp_path):
    folder = tmp_path / "run"
    carry_out(folder)
    (folder / ".posterior.writing-1").mkdir()
    (folder / ".samples.nc.writing.nc").write_text("half")
    carry_out(folder)
    assert [p.name for p in folder.iterdir() if p.name.startswith(".")] == [".lock"]


def test_a_run_file_of_another_simulator_version_is_refused(finished, tmp_path):
    file = tmp_path / "old.yaml"
    text = (finished.directory / "run.yaml").read_text()
    file.write_text(text.replace("simulator_version: '1'", "simulator_version: '0'"))
    with pytest.raises(ConfigError, match="made with version 0 .* version 1 is installed"):
        carry_out(tmp_path / "run", file)


def test_an_unfinished_study_says_which_stages_are_missing(tmp_path, finished):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.yaml").write_text((finished.directory / "run.yaml").read_text())
    with pytest.raises(ConfigError, match=r"not finished \(simulate, .*sbi-physics run"):
        load_study(folder)
    with pytest.raises(ConfigError, match=r"no run\.yaml"):
        load_study(tmp_path)


def test_a_study_is_a_record_that_can_be_copied(finished):
    assert replace(finished, seconds={}).samples is finished.samples
