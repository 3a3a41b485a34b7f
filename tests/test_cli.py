"""list, show and doctor; help, version, and the package as a program."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from sample_commands import command_line

from sbi_physics import registry
from sbi_physics.cli import COMMANDS, option_names


@pytest.fixture
def call(capsys, monkeypatch, recwarn):
    return command_line(capsys, monkeypatch)


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


# --- the program -------------------------------------------------------------------------------


def test_the_package_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "sbi_physics", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", done.stdout)


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
