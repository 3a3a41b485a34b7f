from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from sbi_physics.config import (
    RunConfig,
    dump_config,
    expand_path,
    make_config,
    parse_assignments,
    parse_numbers,
    read_config,
)
from sbi_physics.errors import ConfigError


def write(folder: Path, text: str) -> Path:
    file = folder / "study.yaml"
    file.write_text(text)
    return file


def message(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read_config(write(folder, text))
    return str(caught.value)


def test_a_minimal_run_file_names_only_the_simulator(tmp_path):
    config = read_config(write(tmp_path, "simulator: toy-gaussian\n"))
    assert config == RunConfig(simulator="toy-gaussian")
    assert config.seed is None


def test_a_written_configuration_reads_back_equal(tmp_path):
    config = RunConfig(
        simulator="alp",
        options={"exposure": "50 h", "noise": 1e-5, "flag": False},
        fix={"b0": 10.0},
        infer=["m_a", "g"],
        settings={"learning_rate": 5e-4, "hidden": [64, 64]},
        observation="/data/obs.fits",
        seed=2**63 - 1,
    )
    text = dump_config(config, "made by a test\nsecond line")
    assert text.startswith("# made by a test\n# second line\nsimulator: alp\n")
    assert read_config(write(tmp_path, text)) == config


def test_numbers_that_yaml_reads_as_text_are_still_numbers(tmp_path):
    text = "simulator: a\nfix: {b0: 1e1}\nsimulations: 2_000\n"
    config = read_config(write(tmp_path, text))
    assert config.fix == {"b0": 10.0}
    assert config.simulations == 2000


def test_names_to_infer_may_be_separated_by_commas(tmp_path):
    config = read_config(write(tmp_path, "simulator: a\ninfer: m_a, g\n"))
    assert config.infer == ["m_a", "g"]


def test_an_unknown_field_is_named_with_its_line_and_the_nearest_field(tmp_path):
    text = message(tmp_path, "simulator: a\nseed: 1\nsimulatons: 100\n")
    assert "line 3" in text
    assert "'simulatons'" in text
    assert "Did you mean 'simulations'?" in text


def test_a_bad_value_is_shown_with_what_is_accepted(tmp_path):
    text = message(tmp_path, "simulator: a\nsimulations: -5\nseed: x\n")
    assert "line 2: field 'simulations': got -5; " in text
    assert "greater than or equal to 10" in text
    assert "line 3: field 'seed': got 'x'" in text


def test_broken_yaml_is_reported_with_line_and_column(tmp_path):
    text = message(tmp_path, "simulator: a\noptions: {exposure: 50 h\nseed: 1\n")
    assert "not valid YAML at line 3" in text
    assert "'seed: 1'" in text


def test_a_field_given_twice_is_refused_with_both_lines(tmp_path):
    assert "'seed' is given twice, in lines 2 and 3" in message(
        tmp_path, "simulator: a\nseed: 1\nseed: 2\n"
    )
    assert "'b0' is given twice" in message(tmp_path, "simulator: a\nfix: {b0: 1, b0: 2}\n")


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just text\n"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text):
    assert "expected fields such as" in message(tmp_path, text)


def test_a_missing_simulator_is_reported(tmp_path):
    assert "field 'simulator' is missing" in message(tmp_path, "seed: 1\n")


def test_a_missing_run_file_is_an_error_that_names_it(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        read_config(tmp_path / "nowhere.yaml")


def test_an_observation_and_a_fiducial_point_together_are_refused(tmp_path):
    text = message(tmp_path, "simulator: a\nobservation: x.npy\nfiducial: b\n")
    assert "both an observation" in text


def test_relative_paths_are_relative_to_the_run_file(tmp_path):
    config = read_config(write(tmp_path, "simulator: a\nobservation: data/x.npy\n"))
    assert config.observation == str(tmp_path / "data" / "x.npy")
    kept = read_config(write(tmp_path, "simulator: a\nobservation: $DATA/x.npy\n"))
    assert kept.observation == "$DATA/x.npy"


def test_environment_variables_in_paths_are_expanded_or_named(monkeypatch):
    monkeypatch.setenv("SOME_DATA", "/data")
    assert expand_path("$SOME_DATA/x.npy", "observation") == Path("/data/x.npy")
    monkeypatch.delenv("SOME_DATA")
    with pytest.raises(ConfigError, match="SOME_DATA"):
        expand_path("${SOME_DATA}/x.npy", "observation")


def test_command_line_values_replace_the_file_and_mappings_merge():
    base = RunConfig(simulator="a", options={"x": 1, "y": 2}, seed=3)
    changed = base.updated({"options": {"y": 5}, "seed": None, "workers": 2})
    assert changed.options == {"x": 1, "y": 5}
    assert (changed.seed, changed.workers) == (3, 2)


def test_another_engine_drops_the_settings_of_the_first():
    base = RunConfig(simulator="a", engine="one", settings={"hidden": 64})
    assert base.updated({"engine": "two"}).settings == {}
    assert base.updated({"engine": "two", "settings": {"k": 1}}).settings == {"k": 1}
    assert base.updated({"engine": "one"}).settings == {"hidden": 64}


def test_another_budget_contradicts_stated_numbers():
    base = RunConfig(simulator="a", budget="quick", simulations=100, pairs=50)
    with pytest.raises(ConfigError, match=r"budget 'thorough' contradicts .*pairs: 50"):
        base.updated({"budget": "thorough", "simulations": 1000})
    assert base.updated({"budget": "quick"}).simulations == 100


def test_an_observation_replaces_a_fiducial_point():
    base = RunConfig(simulator="a", fiducial="point")
    changed = base.updated({"observation": "x.npy"})
    assert (changed.observation, changed.fiducial) == ("x.npy", None)


def test_assignments_keep_text_as_text_and_read_lists():
    parsed = parse_assignments(
        ["mode=off", "n=50", "sizes=[1, 2]", "none=null", "url=a=b"], "--set"
    )
    assert parsed == {"mode": "off", "n": "50", "sizes": [1, 2], "none": None, "url": "a=b"}


@pytest.mark.parametrize("item", ["exposure", "=3", " =3"])
def test_an_assignment_without_name_or_value_is_refused(item):
    with pytest.raises(ConfigError, match="--set takes name=value"):
        parse_assignments([item], "--set")


def test_an_assignment_given_twice_is_refused():
    with pytest.raises(ConfigError, match="twice"):
        parse_assignments(["a=1", "a=2"], "--set")


def test_a_fixed_value_must_be_a_number():
    assert parse_numbers(["b0=1e1"], "--fix") == {"b0": 10.0}
    with pytest.raises(ConfigError, match="'ten' is not a number"):
        parse_numbers(["b0=ten"], "--fix")


def test_every_field_survives_yaml():
    config = make_config({"simulator": "a", "samples": 200}, "test")
    assert yaml.safe_load(dump_config(config, ""))["samples"] == 200
