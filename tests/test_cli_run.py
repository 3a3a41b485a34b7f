"""From simulations to a report on the command line: the steps, run, report and compare."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from sample_commands import SMALL, command_line, one_paragraph
from sample_draws import write_draws
from sample_studies import without_figures

from sbi_physics.testing.exact import ExactPosterior


@pytest.fixture
def call(capsys, monkeypatch, recwarn):
    return command_line(capsys, monkeypatch)


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    without_figures(monkeypatch)


# --- the steps --------------------------------------------------------------------------------


def test_a_killed_training_leaves_its_state_beside_and_is_continued(call, tmp_path, monkeypatch):
    store, posterior = tmp_path / "s.zarr", tmp_path / "p"
    call("simulate", "toy-gaussian", "-n", 300, "-o", store, "--seed", 1)
    command = ["train", store, "--engine", "exact", "-o", posterior, "--seed", 1]

    def dying(self, folder):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ExactPosterior, "save", dying)
        assert call(*command)[0] == 130
    assert (tmp_path / ".p.training" / "inputs.json").is_file()
    assert call(*command)[0] == 0
    assert {p.name for p in tmp_path.iterdir()} == {"s.zarr", "p"}


def test_the_steps_can_be_taken_one_by_one(call, tmp_path):
    store, posterior = tmp_path / "s.zarr", tmp_path / "p"
    code, out, _ = call("simulate", "toy-gaussian", "-n", 300, "-o", store, "--seed", 1)
    assert (code, out) == (0, f"{store}: 300 simulations of toy-gaussian, seed 1\n")
    code, out, _ = call("train", store, "--engine", "exact", "-o", posterior, "--seed", 1)
    assert code == 0
    assert "posterior of theta_1, theta_2 by exact, trained on 300 simulations, seed 1" in out
    code, out, _ = call(
        "infer", posterior, "--fiducial", "offset", "-o", tmp_path / "x.nc", "--seed", 1
    )
    assert code == 0
    assert "theta_2" in out
    assert (tmp_path / "x.nc").is_file()
    code, out, _ = call("validate", posterior, "--pairs", 220, "--draws", 99, "--seed", 1)
    assert code == 0
    assert out.startswith(("PASS", "MARGINAL"))


def test_pairs_for_validation_may_come_from_a_store(call, tmp_path):
    store, pairs, posterior = tmp_path / "s.zarr", tmp_path / "q.zarr", tmp_path / "p"
    call("simulate", "toy-gaussian", "-n", 300, "-o", store, "--seed", 1)
    call("simulate", "toy-gaussian", "-n", 220, "-o", pairs, "--seed", 1, "--purpose", "pairs")
    call("train", store, "--engine", "exact", "-o", posterior, "--infer", "theta_2")
    record = tmp_path / "c.json"
    code, out, _ = call(
        "validate", posterior, "--simulations", pairs, "--draws", 99, "-o", record, "--json"
    )
    assert code == 0
    assert json.loads(out)["names"] == ["theta_2"]
    assert json.loads(record.read_text()) == json.loads(out)
    code, _, err = call("validate", posterior, "--simulations", store)
    assert code == 2
    assert "overlap the training simulations" in err


def test_fixed_parameters_stay_fixed_down_to_the_pairs(call, tmp_path):
    store, posterior = tmp_path / "s.zarr", tmp_path / "p"
    call("simulate", "toy-gaussian", "-n", 300, "-o", store, "--fix", "theta_1=0.5", "--seed", 1)
    call("train", store, "--engine", "exact", "-o", posterior)
    code, out, _ = call("infer", posterior, "--fiducial", "centre", "-o", tmp_path / "x.nc")
    assert code == 0
    assert "theta_1" not in out
    assert call("validate", posterior, "--pairs", 220, "--draws", 99, "--seed", 1)[0] == 0


# --- run and report ---------------------------------------------------------------------------


@pytest.fixture
def finished(call, tmp_path):
    folder = tmp_path / "run"
    code, out, err = call(
        "run", "toy-gaussian", "--engine", "exact", *SMALL, "--seed", 1, "-o", folder
    )
    assert code == 0, err
    return folder, out, err


def test_run_prints_table_verdict_times_and_report(finished):
    folder, out, err = finished
    assert re.search(r"theta_1 +\S+ +\[\S+, \S+\] +\[\S+, \S+\] +0 *\n", out)
    assert re.search(r"Verdict: (PASS|MARGINAL)", out)
    assert re.search(r"Time: simulate .* · train .* · infer .* · pairs .* · validate ", out)
    assert out.endswith(f"Report: {folder / 'report.html'}\n")
    # Standard error is no terminal here: lines, no bars.
    assert "[simulate] 300 simulations of toy-gaussian" in err
    assert "\x1b" not in err + out


def test_run_accepts_its_own_run_file(finished, call, tmp_path):
    folder, out, _ = finished
    code, again, _ = call("run", folder / "run.yaml", "-o", tmp_path / "again")
    assert code == 0
    table = re.compile(r"theta_\d.*")
    assert table.findall(again) == table.findall(out)


def test_command_line_options_win_over_the_run_file(finished, call):
    folder, _, _ = finished
    code, out, err = call("run", folder / "run.yaml", "-o", folder, "--fiducial", "offset")
    assert code == 0
    assert "[train] unchanged, skipped" in err
    assert "offset" in out


def test_report_is_written_again(finished, call):
    folder, _, _ = finished
    (folder / "report.html").unlink()
    code, out, _ = call("report", folder)
    assert code == 0
    assert "Verdict" in out
    assert (folder / "report.html").is_file()


def test_infer_and_validate_accept_a_run_directory(finished, call, tmp_path):
    folder, _, _ = finished
    file = tmp_path / "x.npy"
    np.save(file, np.array([0.1, 0.2]))
    code, out, _ = call("infer", folder, "--observation", file, "-o", tmp_path / "x.nc")
    assert code == 0
    assert str(file) in out
    assert call("validate", folder, "--pairs", 220, "--draws", 99, "--seed", 5)[0] == 0


def test_strict_turns_a_verdict_that_is_not_good_enough_into_exit_code_1(call, tmp_path):
    command = ["run", "toy-gaussian", "--engine", "exact", *SMALL, "--seed", 1]
    command += ["--pairs", 100, "-o", tmp_path / "run"]  # too few for a verdict
    code, out, _ = call(*command)
    assert code == 0
    assert "INCONCLUSIVE" in out
    assert call(*command, "--strict")[0] == 1
    code, out, _ = call("validate", tmp_path / "run", "--pairs", 100, "--strict", "--draws", 99)
    assert code == 1


# --- compare ----------------------------------------------------------------------------------


@pytest.fixture
def two_runs(finished, call, tmp_path):
    folder, _, _ = finished
    record = tmp_path / "other.json"
    call("validate", folder, "--simulations", folder / "pairs.zarr", "--draws", 99, "-o", record)
    return folder, record


def test_compare_prints_verdicts_differences_and_times(two_runs, call):
    code, out, err = call("compare", *two_runs)
    assert (code, err) == (0, "")
    assert re.search(r"^ ?run +exact +(PASS|MARGINAL)", out, re.MULTILINE)
    assert re.search(r"^ run +other +-?\d\S+ \+- \S+ +\S+ +same pairs", out, re.MULTILINE)
    assert "Not calibrated at a false-discovery rate of 5%: none" in out


def test_compare_as_json_has_the_documented_keys(two_runs, call, tmp_path):
    code, out, _ = call("compare", *two_runs, "--json", "-o", tmp_path / "side")
    assert code == 0
    record = json.loads(out)
    assert [r["name"] for r in record["table"]] == ["run", "other"]
    page_text = (Path(__file__).parents[1] / "docs" / "cli.md").read_text()
    section = page_text.partition("## JSON output")[2]
    keys = {*record, *record["table"][0], *record["differences"][0], *record["table"][0]["nll"]}
    assert [k for k in sorted(keys) if f"`{k}`" not in section] == []
    assert json.loads((tmp_path / "side" / "compare.json").read_text()) == record
    assert (tmp_path / "side" / "compare.html").is_file()
    assert len(list((tmp_path / "side" / "figures").iterdir())) >= 4


@pytest.fixture
def draws_file(tmp_path):
    return write_draws(tmp_path / "draws.npz")


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("compare", "RUNDIR"),
        ("compare one.json", "at least two runs, got 1"),
        ("compare one.json nowhere", "no run directory or file 'nowhere'"),
        ("compare one.json .", "holds no coverage.json"),
        ("compare one.json two.json", "not readable as JSON"),
        ("compare one.json three.json", "schema None"),
        ("compare one.json one.json -o two.json", "this is a file"),
    ],
)
def test_what_cannot_be_compared_is_one_paragraph(
    call, tmp_path, monkeypatch, draws_file, line, text
):
    monkeypatch.chdir(tmp_path)
    assert call("validate", draws_file, "-o", "one.json", "--seed", 1)[0] == 0
    Path("two.json").write_text("PASS")
    Path("three.json").write_text("{}")
    code, out, err = call(*line.split())
    assert (code, out) == (2, "")
    assert one_paragraph(err), err
    assert text in err
