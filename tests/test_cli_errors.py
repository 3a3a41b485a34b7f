"""Mistakes and failures on the command line: one paragraph, an exit code, no traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from sample_commands import command_line, one_paragraph

from sbi_physics.cli import COMMANDS
from sbi_physics.errors import PluginWarning, StoreLockedError, TrainingError


@pytest.fixture
def call(capsys, monkeypatch, recwarn):
    return command_line(capsys, monkeypatch)


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
