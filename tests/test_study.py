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

import sbi_physics as sp
from sbi_physics.config import read_config
from sbi_physics.errors import (
    ConfigError,
    DataFileError,
    ObservationError,
    StoreLockedError,
    StoreMismatchError,
    UnknownNameError,
)
from sbi_physics.progress import SILENT
from sbi_physics.store_lock import WriterLock
from sbi_physics.study import load_study, page, stages
from sbi_physics.study.ledger import STAGES
from sbi_physics.study.table import summarize
from sbi_physics.study.work import rewrite_report
from sbi_physics.testing.toys import ToyGaussian

SMALL = {"simulations": 300, "pairs": 220, "draws": 99, "samples": 400}


class Log:
    """Collects what a study tells."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def __call__(self, stage: str, line: str) -> None:
        self.lines.append((stage, line))

    @property
    def done(self) -> list[str]:
        return [stage for stage, line in self.lines if line.startswith("done")]

    @property
    def skipped(self) -> list[str]:
        return [stage for stage, line in self.lines if line == "unchanged, skipped"]


def write_nothing(report, folder: Path, progress) -> None:
    (folder / "figures").mkdir()
    (folder / "report.html").write_text("<html>")


@pytest.fixture(autouse=True)
def no_figures(request, monkeypatch):
    """Figures take seconds; one study, `finished`, draws them for all."""
    monkeypatch.setattr(page, "write_report", write_nothing)


def carry_out(directory: Path, study="toy-gaussian", **fields) -> tuple[sp.Study, Log]:
    log = Log()
    fields = {"seed": 1, "engine": "exact", **SMALL, **fields}
    engine = fields.pop("engine")
    if isinstance(study, Path):  # a run file states all of it
        fields, engine = {}, None
    done = sp.run(study, engine, directory=directory, progress=SILENT, tell=log, **fields)
    return done, log


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


def test_an_unset_seed_is_drawn_recorded_and_used_again(tmp_path):
    first, log = carry_out(tmp_path / "run", seed=None)
    assert first.config.seed is not None
    assert any(str(first.config.seed) in line for _, line in log.lines)
    second, log = carry_out(tmp_path / "run", seed=None)
    assert second.config.seed == first.config.seed
    assert log.done == []
    other, _ = carry_out(tmp_path / "other", seed=None)
    assert other.config.seed != first.config.seed


def test_runs_share_a_store_of_simulations(tmp_path):
    store = str(tmp_path / "shared.zarr")
    first, _ = carry_out(tmp_path / "a", simulations_store=store)
    second, log = carry_out(tmp_path / "b", simulations_store=store, seed=None, simulations=200)
    assert second.config.seed == 1
    assert any("from the shared store" in line for _, line in log.lines)
    np.testing.assert_array_equal(second.simulations.x, first.simulations.x[:200])
    assert not (tmp_path / "b" / "simulations.zarr").exists()
    alone, _ = carry_out(tmp_path / "c", simulations=200)
    np.testing.assert_array_equal(alone.samples, second.samples)


def test_a_shared_store_of_another_run_is_refused_not_moved(tmp_path):
    store = tmp_path / "shared.zarr"
    carry_out(tmp_path / "a", simulations_store=str(store))
    with pytest.raises(StoreMismatchError, match="seed"):
        carry_out(tmp_path / "b", simulations_store=str(store), seed=2)
    assert store.is_dir()


def test_a_folder_that_is_no_run_directory_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ConfigError, match=r"no run directory \(it holds thesis\.tex"):
        carry_out(tmp_path)
    file = tmp_path / "thesis.tex"
    with pytest.raises(ConfigError, match="is a file"):
        carry_out(file)


def test_a_second_run_in_the_same_directory_is_refused(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    lock = WriterLock(folder / ".lock", "the run directory")
    lock.acquire()
    try:
        with pytest.raises(StoreLockedError, match=str(os.getpid())):
            carry_out(folder)
    finally:
        lock.release()


def test_an_observation_is_read_from_a_file(tmp_path):
    file = tmp_path / "x.npy"
    np.save(file, np.array([0.5, -0.5]))
    done, _ = carry_out(tmp_path / "run", observation=str(file))
    assert done.truth is None
    assert done.config.observation == str(file)
    assert done.table()[0].truth is None
    np.testing.assert_allclose(done.samples.mean(axis=0), [0.5, -0.5], atol=0.15)


@pytest.mark.parametrize(
    ("fields", "error", "text"),
    [
        ({"study": "toy-gausian"}, UnknownNameError, "Did you mean 'toy-gaussian'"),
        ({"engine": "exct"}, UnknownNameError, "Did you mean 'exact'"),
        ({"budget": "quik"}, UnknownNameError, "Did you mean 'quick'"),
        ({"infer": ["theta_3"]}, UnknownNameError, "theta_3"),
        ({"fix": {"thta_1": 0.0}}, UnknownNameError, "Did you mean 'theta_1'"),
        ({"fix": {"theta_1": 7.0}}, ConfigError, r"theta_1 = 7: .*\[-1, 1\]"),
        ({"fix": {"theta_1": 0.0}, "infer": ["theta_1"]}, ConfigError, "fixed parameter"),
        ({"fiducial": "center"}, UnknownNameError, "Did you mean 'centre'"),
        ({"observation": "nowhere.npy"}, DataFileError, "nowhere.npy"),
        ({"observation": "$NOT_SET_AT_ALL/x.npy"}, ConfigError, "NOT_SET_AT_ALL"),
        ({"simulations": 3}, ConfigError, "simulations"),
        ({"simulation": 300}, ConfigError, "Did you mean 'simulations'"),
    ],
)
def test_bad_input_is_refused_before_anything_is_made(tmp_path, fields, error, text):
    folder = tmp_path / "run"
    with pytest.raises(error, match=text):
        carry_out(folder, **fields)
    assert not folder.exists()


def test_an_observation_of_the_wrong_shape_is_refused_before_anything_is_made(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros(3))
    with pytest.raises(ObservationError):
        carry_out(tmp_path / "run", observation=str(tmp_path / "x.npy"))
    assert not (tmp_path / "run").exists()


def test_a_run_file_of_another_simulator_version_is_refused(finished, tmp_path):
    file = tmp_path / "old.yaml"
    text = (finished.directory / "run.yaml").read_text()
    file.write_text(text.replace("simulator_version: '1'", "simulator_version: '0'"))
    with pytest.raises(ConfigError, match="made with version 0 .* version 1 is installed"):
        carry_out(tmp_path / "run", file)


def test_a_simulator_object_is_run_as_it_is(tmp_path):
    class Mine(ToyGaussian):
        def __init__(self, options=None, **values):
            super().__init__(options, **values)
            vars(self)["fiducial"] = {}

    done, _ = carry_out(tmp_path / "run", Mine(noise=0.2))
    assert done.config.simulator == "toy-gaussian"
    assert done.config.options["noise"] == 0.2
    # Without a fiducial point, the observation comes from the prior.
    assert done.config.fiducial is None
    assert np.all(np.abs(done.truth) < 1)
    assert "prior" in done.observation_source


def test_the_report_is_written_again_on_demand(tmp_path):
    done, _ = carry_out(tmp_path / "run")
    done.report_path.unlink()
    log = Log()
    rewrite_report(tmp_path / "run", log)
    assert log.done == ["report"]
    assert done.report_path.is_file()


def test_an_unfinished_study_says_which_stages_are_missing(tmp_path, finished):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.yaml").write_text((finished.directory / "run.yaml").read_text())
    with pytest.raises(ConfigError, match=r"not finished \(simulate, .*sbi-physics run"):
        load_study(folder)
    with pytest.raises(ConfigError, match=r"no run\.yaml"):
        load_study(tmp_path)


def test_a_damaged_record_says_what_to_do(tmp_path):
    carry_out(tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text('{"schema": 1, "sta')
    with pytest.raises(ConfigError, match="delete it"):
        carry_out(tmp_path / "run")


def test_the_default_directory_is_named_after_simulator_and_engine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    log = Log()
    done = sp.run("toy-gaussian", "exact", seed=1, progress=SILENT, tell=log, **SMALL)
    assert done.directory == Path("runs/toy-gaussian-exact")
    assert read_config(done.directory / "run.yaml") == done.config


# --- the table ---------------------------------------------------------------------------------


def prior_of(distribution, **fields) -> sp.Prior:
    return sp.Prior([sp.Parameter("a", distribution, unit="neV", label="m_a", **fields)])


def test_the_table_gives_equal_tailed_intervals_in_physical_units():
    grid = np.linspace(0, 1, 100_001)[:, None]
    (row,) = summarize(grid * 4 + 3, prior_of(sp.Uniform(-100, 100)), np.array([4.0]))
    assert (row.name, row.unit, row.label, row.truth) == ("a", "neV", "m_a", 4.0)
    assert row.median == pytest.approx(5.0)
    assert row.interval_68 == pytest.approx((3.64, 6.36))
    assert row.interval_95 == pytest.approx((3.1, 6.9))
    assert row.edges == ()


@pytest.mark.parametrize(
    ("distribution", "mean", "sd", "edges"),
    [
        (sp.Uniform(-1, 1), 0.0, 0.1, ()),
        (sp.Uniform(-1, 1), 0.7, 0.1, ()),  # three standard deviations away
        (sp.Uniform(-1, 1), 0.9, 0.1, ("upper",)),
        (sp.Uniform(-1, 1), -0.9, 0.1, ("lower",)),
        (sp.Uniform(-1, 1), 0.0, 5.0, ("lower", "upper")),
        (sp.Normal(0, 1), 0.0, 1.0, ()),
    ],
)
def test_the_table_says_where_the_prior_cuts_the_posterior(distribution, mean, sd, edges):
    draws = np.random.default_rng(1).normal(mean, sd, 50_000)
    low, high = distribution.bounds
    inside = draws[(draws > low) & (draws < high)][:, None]
    assert summarize(inside, prior_of(distribution))[0].edges == edges


def test_edges_are_judged_in_the_scale_of_the_parameter():
    prior = prior_of(sp.LogUniform(1e-3, 1e3))
    draws = 10 ** np.random.default_rng(1).normal(0.0, 0.5, (50_000, 1))
    # On a linear scale 1e-3 would be next to everything.
    assert summarize(draws, prior)[0].edges == ()
    low = 10 ** np.random.default_rng(1).uniform(-3, -1, (50_000, 1))
    assert summarize(low, prior)[0].edges == ("lower",)


def test_a_study_is_a_record_that_can_be_copied(finished):
    assert replace(finished, seconds={}).samples is finished.samples
