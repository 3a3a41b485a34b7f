"""What a study starts from: seeds, stores, observations and folders, and which it refuses."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from sample_studies import SMALL, Log, carry_out, without_figures

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
from sbi_physics.study.work import rewrite_report
from sbi_physics.testing.toys import ToyGaussian


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    without_figures(monkeypatch)


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
