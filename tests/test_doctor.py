from __future__ import annotations

import json
from pathlib import Path

import pytest

from sbi_physics import doctor, registry
from sbi_physics.errors import PluginError
from sbi_physics.simulator import DataFile
from sbi_physics.testing.toys import ToyGaussian


def test_a_healthy_installation_is_described_completely():
    found = doctor.examine()
    assert found.is_healthy
    assert {c.name for c in found.components} >= {"toy-gaussian", "exact"}
    assert all(c.works for c in found.components)
    assert found.api_version == 1
    assert found.machine.cpus >= 1
    assert found.machine.disk_free_gb > 0


def test_the_description_is_json():
    record = json.loads(json.dumps(doctor.examine().to_dict(), allow_nan=False))
    assert record["healthy"] is True
    assert record["plugins"][0]["distribution"] == "sbi-physics"


def test_a_component_that_cannot_be_imported_is_shown_with_its_traceback(monkeypatch):
    original = registry.simulator_class

    def broken(name):
        if name == "toy-bimodal":
            raise PluginError("needs gammapy; run: pip install gammapy")
        return original(name)

    monkeypatch.setattr(registry, "simulator_class", broken)
    found = doctor.examine()
    assert not found.is_healthy
    (bad,) = [c for c in found.components if not c.works]
    assert (bad.name, bad.error) == ("toy-bimodal", "needs gammapy; run: pip install gammapy")
    assert "PluginError" in bad.traceback


def test_a_failed_plugin_is_no_healthy_installation(monkeypatch):
    failure = registry.PluginFailure(
        "odd", "odd", "1", "import", "No module.", "Run: pip", "trace"
    )
    loaded = registry.build([])
    broken = registry.Registry(loaded.simulators, loaded.engines, (failure,), loaded.sources)
    monkeypatch.setattr(registry, "current", lambda: broken)
    found = doctor.examine()
    assert not found.is_healthy
    assert found.to_dict()["failures"][0]["remedy"] == "Run: pip"


def test_data_files_that_simulators_report_are_listed_once(monkeypatch):
    file = DataFile("response", "/nowhere/irf.fits", False, "gammapy download datasets")
    monkeypatch.setattr(ToyGaussian, "data_files", classmethod(lambda cls: [file]))
    other = registry.simulator_class("toy-bimodal")
    monkeypatch.setattr(other, "data_files", classmethod(lambda cls: [file]))
    found = doctor.examine()
    (listed,) = [f for f in found.files if f.name == "response"]
    assert listed.owner == "toy-bimodal, toy-gaussian"
    assert not listed.found
    assert listed.how_to_get == "gammapy download datasets"
    assert found.is_healthy  # optional data


def test_the_data_variable_is_looked_up(monkeypatch, tmp_path):
    def variable() -> doctor.FileStatus:
        (status,) = [f for f in doctor.examine().files if f.name == "$GAMMAPY_DATA"]
        return status

    monkeypatch.delenv("GAMMAPY_DATA", raising=False)
    assert not variable().found
    assert "export GAMMAPY_DATA=" in variable().how_to_get
    monkeypatch.setenv("GAMMAPY_DATA", str(tmp_path / "missing"))
    assert "which is no folder" in variable().how_to_get
    monkeypatch.setenv("GAMMAPY_DATA", str(tmp_path))
    assert variable().found


def test_thread_limits_of_the_environment_are_reported(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert doctor.describe_machine().threads["OMP_NUM_THREADS"] == "3"


@pytest.mark.parametrize(
    ("disk", "memory", "expected"),
    [(0.5, 8.0, ["only 0.5 GB of disk"]), (50.0, 1.0, ["only 1 GB of memory"]), (50.0, None, [])],
)
def test_little_room_is_remarked(disk, memory, expected):
    machine = doctor.Machine("Linux", 2, {}, memory, disk)
    remarks = doctor._remarks(machine)
    assert len(remarks) == len(expected)
    assert all(text in remark for text, remark in zip(expected, remarks, strict=True))


def test_memory_is_read_where_the_system_tells_it():
    memory = doctor.describe_machine().memory_available_gb
    assert (memory is not None) == Path("/proc/meminfo").is_file()
    assert memory is None or memory > 0
