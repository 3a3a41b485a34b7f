from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sbi_physics import cli, registry
from sbi_physics.cli import COMMANDS, main, option_names
from sbi_physics.errors import PluginWarning, StoreLockedError, TrainingError
from sbi_physics.study import page
from sbi_physics.testing.exact import ExactPosterior

SMALL = ["--simulations", "300", "--pairs", "220", "--draws", "99", "--samples", "400"]


@pytest.fixture
def call(capsys, monkeypatch, recwarn):
    """Run a command line; returns (exit code, standard output, standard error)."""
    monkeypatch.setattr(cli, "_show_warnings_as_lines", lambda debug: None)

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return left.value.code, out, err

    return run


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    """Figures take seconds and are tested elsewhere."""

    def write_report(report, folder: Path, progress) -> None:
        (folder / "figures").mkdir()
        (folder / "report.html").write_text("<html>")

    monkeypatch.setattr(page, "write_report", write_report)


def one_paragraph(text: str) -> bool:
    return text.startswith("Error: ") and text.count("\n") == 1 and "Traceback" not in text


# --- list, show, doctor -----------------------------------------------------------------------


def test_list_shows_names_and_summaries(call):
    code, out, err = call("list")
    assert (code, err) == (0, "")
    assert re.search(r"simulators:\n(.*\n)*  toy-gaussian +Linear-Gaussian", out)
    assert re.search(r"engines:\n  exact +Exact posteriors", out)


def test_list_can_be_limited_to_one_kind(call):
    assert "simulators" not in call("list", "engines")[1].replace("of simulators", "")
    assert "engines" not in call("list", "simulators")[1]


def test_list_as_json_is_stable(call):
    record = json.loads(call("list", "--json")[1])
    assert list(record) == ["simulators", "engines", "failures"]
    keys = ["name", "summary", "distribution", "version", "requires", "references"]
    assert list(record["simulators"][0]) == keys
    assert list(record["engines"][0]) == [*keys, "ecosystem"]
    assert list(json.loads(call("list", "engines", "--json")[1])) == ["engines", "failures"]


def test_list_counts_plugins_that_could_not_be_loaded(call, monkeypatch):
    failure = registry.PluginFailure("odd", "odd", "1", "import", "No module.", "Run: pip", "")
    loaded = registry.build([])
    broken = registry.Registry(loaded.simulators, loaded.engines, (failure,), loaded.sources)
    monkeypatch.setattr(registry, "current", lambda: broken)
    code, _, err = call("list")
    assert code == 0
    assert err == "1 plugin problem; explained by: sbi-physics doctor\n"
    failures = json.loads(call("list", "--json")[1])["failures"]
    assert failures[0]["remedy"] == "Run: pip"
    code, out, _ = call("doctor")
    assert code == 3
    assert "No module." in out


def test_show_describes_parameters_options_and_budgets(call):
    code, out, _ = call("show", "toy-two-stage")
    assert code == 0
    assert re.search(r"position +interest +mm +normal: mean 0, sd 1", out)
    assert re.search(r"spread +float +mm +0\.5 +> 0", out)
    assert re.search(r"shifted +position 1, offset -0\.5", out)
    assert re.search(r"quick +4,000 +1,000", out)


def test_show_follows_options(call):
    record = json.loads(call("show", "toy-gaussian", "--set", "dimension=3", "--json")[1])
    assert [p["name"] for p in record["parameters"]] == ["theta_1", "theta_2", "theta_3"]
    (dimension,) = [o for o in record["options"] if o["name"] == "dimension"]
    assert (dimension["value"], dimension["default"]) == (3, 2)
    assert (dimension["minimum"], dimension["maximum"]) == (1, 8)
    (kind,) = [o for o in record["options"] if o["name"] == "kind"]
    assert kind["choices"] == ["vector", "spectrum", "set", "image"]


def test_show_as_json_has_the_documented_keys(call):
    page_text = (Path(__file__).parents[1] / "docs" / "cli.md").read_text()
    section = page_text.partition("## JSON output")[2]
    for command in (["show", "toy-gaussian"], ["show", "exact"], ["doctor"], ["list"]):
        record = json.loads(call(*command, "--json")[1])
        missing = [key for key in record if f"`{key}`" not in section]
        assert missing == []


def test_show_describes_an_engine(call):
    code, out, _ = call("show", "exact")
    assert code == 0
    assert re.search(r"batch_size +int +256 +≥ 2", out)


def test_doctor_reports_a_healthy_installation(call):
    code, out, _ = call("doctor")
    assert code == 0
    assert "everything works" in out
    assert json.loads(call("doctor", "--json")[1])["healthy"] is True


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


# --- draws made elsewhere ----------------------------------------------------------------------


@pytest.fixture
def draws_file(tmp_path):
    rng = np.random.default_rng(1)
    theta = rng.standard_normal((250, 1))
    x = theta + 0.5 * rng.standard_normal((250, 1))
    draws = 0.8 * x[:, None] + np.sqrt(0.2) * rng.standard_normal((250, 99, 1))
    np.savez(tmp_path / "draws.npz", theta=theta, draws=draws, x=x, names=["m_a"])
    return tmp_path / "draws.npz"


def test_draws_from_elsewhere_are_validated(draws_file, call, tmp_path):
    record, html = tmp_path / "c.json", tmp_path / "c.html"
    code, out, err = call(
        "validate", draws_file, "--seed", 1, "-o", record, "-o", html, "--json", "--strict"
    )
    assert code == 0
    assert err == "[validate] 250 pairs with 99 draws of 1 parameter each\n"
    found = json.loads(out)
    assert found["names"] == ["m_a"]
    assert found["verdict"] in ("PASS", "MARGINAL")
    assert json.loads(record.read_text()) == found
    assert "draws.npz: PASS" in html.read_text() or "draws.npz: MARGINAL" in html.read_text()
    # The same seed gives the same record; the time it took is no part of that.
    again = json.loads(call("validate", draws_file, "--seed", 1, "--json")[1])
    assert again["pit"] == found["pit"]


def test_strict_judges_draws_from_elsewhere_too(draws_file, call, tmp_path):
    with np.load(draws_file) as file:
        wrong = {**file, "draws": file["draws"] + 1.0}
    np.savez(tmp_path / "wrong.npz", **wrong)
    code, out, _ = call("validate", tmp_path / "wrong.npz", "--strict", "--seed", 1)
    assert code == 1
    assert re.match(r"FAIL \(.*biased:m_a\)", out)
    assert call("validate", tmp_path / "wrong.npz", "--seed", 1)[0] == 0
    # Of a file, too, only the first pairs and draws may be used.
    code, out, _ = call("validate", draws_file, "--pairs", 50, "--draws", 20, "--strict")
    assert code == 1
    assert "50 of 50 pairs, 20 draws each" in out


def test_dependent_draws_are_warned_about(call, tmp_path):
    rng = np.random.default_rng(1)
    chain = np.repeat(rng.standard_normal((250, 50, 1)), 4, axis=1)
    np.savez(tmp_path / "mcmc.npz", theta=rng.standard_normal((250, 1)), draws=chain)
    with pytest.warns(UserWarning, match="Thin the chains"):
        call("validate", tmp_path / "mcmc.npz", "--seed", 1)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--simulations", "s.zarr"], "holds draws and true values already"),
        (["-o", "c.txt"], "ends in .json or .html"),
        (["-o", "nowhere/c.json"], "there is no folder 'nowhere'"),
        (["--pairs", "5"], "at least 20"),
    ],
)
def test_validating_draws_explains_what_it_cannot_do(draws_file, call, arguments, text):
    code, out, err = call("validate", draws_file, *arguments)
    assert (code, out) == (2, "")
    assert one_paragraph(err), err
    assert text in err


def test_a_malformed_file_of_draws_is_one_paragraph_and_exit_code_2(call, tmp_path):
    np.savez(tmp_path / "bad.npz", theta=np.ones((3, 1)), drawz=np.ones((3, 9, 1)))
    code, out, err = call("validate", tmp_path / "bad.npz")
    assert (code, out) == (2, "")
    assert one_paragraph(err), err
    assert "Did you mean 'draws'?" in err


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
    assert re.search(r"^ run +exact +(PASS|MARGINAL)", out, re.MULTILINE)
    assert re.search(r"^ run +other +-?\d\S+ \+- \S+ +\S+ +same pairs", out, re.MULTILINE)
    assert "Time of run: simulate" in out
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


# --- errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("simulat toy-gaussian", "Did you mean 'simulate'?"),
        ("list simulatrs", "Did you mean 'simulators'?"),
        ("run toy-gaussian --enigne exact", "Did you mean '--engine'?"),
        ("run", "NAME|RUN.YAML"),
        ("run toy-gausian --engine exact", "Did you mean 'toy-gaussian'?"),
        ("run toy-gaussian --engine exct", "Did you mean 'exact'?"),
        ("run toy-gaussian --engine exact --set nose=1", "Did you mean 'noise'?"),
        ("run toy-gaussian --engine exact --set noise=-1", "got '-1'"),
        ("run toy-gaussian --engine exact --set noise", "--set takes name=value"),
        ("run toy-gaussian --engine exact --setting batch=1", "Did you mean 'batch_size'?"),
        ("run toy-gaussian --engine exact --fix theta_1=x", "'x' is not a number"),
        ("run toy-gaussian --engine exact --infer ,", "at least one parameter"),
        ("run toy-gaussian --engine exact --budget fast", "quick, standard, thorough"),
        ("run toy-gaussian --engine exact --seed -1", "at least 0"),
        ("run toy-gaussian --observation a --fiducial b", "not allowed with"),
        ("run nowhere.yaml", "nowhere.yaml"),
        ("simulate toy-gaussian -n none -o s", "got 'none'"),
        ("simulate toy-gaussian -n 9 -o s --fix theta_1=9", "accepted is [-1, 1]"),
        ("train nowhere.zarr --engine exact -o p", "there is no store 'nowhere.zarr'"),
        ("validate nowhere", "there is no folder 'nowhere'"),
        ("infer . -o x.nc", "either --observation FILE or --fiducial NAME"),
        ("report .", "no run directory"),
        ("show toy-gausian", "Did you mean 'toy-gaussian'?"),
        ("show exact --set a=1", "is an engine"),
    ],
)
def test_bad_input_is_one_paragraph_and_exit_code_2(call, tmp_path, monkeypatch, line, text):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(*line.split())
    assert code == 2
    assert out == ""
    assert one_paragraph(err), err
    assert text in err
    assert list(tmp_path.iterdir()) == []


def failing(error: BaseException):
    def command(**_: object) -> int:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (TrainingError("the loss is not finite"), 3, "Error: the loss is not finite\n"),
        (StoreLockedError("held by 7"), 3, "Error: held by 7\n"),
        (OSError(28, "No space left on device"), 3, "No space left on device"),
        (MemoryError(), 3, "out of memory"),
        (KeyError("a\nb"), 3, "unexpected KeyError"),
        (KeyboardInterrupt("100 rows are safe"), 130, "\n100 rows are safe\n"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_failures_have_their_exit_code_and_no_traceback(call, monkeypatch, error, code, text):
    monkeypatch.setitem(COMMANDS, "list", (COMMANDS["list"][0], failing(error)))
    found, _, err = call("list")
    assert found == code
    assert text in err
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize("line", ["--debug list", "list --debug"])
def test_debug_shows_the_traceback_wherever_it_stands(call, monkeypatch, line):
    monkeypatch.setitem(COMMANDS, "list", (COMMANDS["list"][0], failing(KeyError("x"))))
    code, _, err = call(*line.split())
    assert code == 3
    assert "Traceback" in err


def test_a_reader_that_has_seen_enough_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "sbi_physics", "list"],
        check=False,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_warnings_for_users_are_single_lines():
    code = (
        "import warnings\n"
        "from sbi_physics import cli\n"
        "from sbi_physics.errors import PluginWarning\n"
        "cli._show_warnings_as_lines(False)\n"
        "warnings.warn('one\\nplugin', PluginWarning)\n"
        "warnings.warn('old', FutureWarning)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "Warning: one plugin\n"
    assert issubclass(PluginWarning, UserWarning)


# --- help -------------------------------------------------------------------------------------


def test_help_lists_every_command(call):
    code, out, _ = call("--help")
    assert code == 0
    assert [c for c in COMMANDS if f"    {c} " not in out] == []
    assert call()[1] == out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_every_option(call, command):
    code, out, _ = call(command, "--help")
    assert code == 0
    for option in option_names(command):
        assert re.search(rf"^  {option}\b", out, re.MULTILINE), option


def test_the_version_is_printed(call):
    import sbi_physics

    assert call("--version") == (0, f"{sbi_physics.__version__}\n", "")


def test_the_package_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "sbi_physics", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", done.stdout)


def test_free_is_refused_where_nothing_is_fixed(call):
    for command in (
        ("show", "toy-gaussian", "--free", "b0"),
        ("simulate", "toy-gaussian", "-n", 5, "-o", "unused", "--free", "b0"),
        ("run", "toy-gaussian", "--free", "b0", "-o", "unused"),
    ):
        code, _, err = call(*command)
        assert code == 2
        assert one_paragraph(err)
        assert "'toy-gaussian' holds no parameter fixed that could be freed" in err
    code, _, err = call("show", "exact", "--free", "b0")
    assert (code, "--set and --free are for simulators" in err) == (2, True)
