"""Scans: one validated study for every point of a grid of options."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

import sbi_physics as sp
from sbi_physics.cli import main
from sbi_physics.errors import ConfigError, ContractError, OptionError, TrainingError
from sbi_physics.progress import SILENT
from sbi_physics.scan import ScanPoint
from sbi_physics.scan.grid import parse_vary
from sbi_physics.scan.record import Scan
from sbi_physics.scan.truth import check_same_latents
from sbi_physics.store import SimulationStore
from sbi_physics.study import page
from sbi_physics.testing import ToyTwoStage

SMALL = {"budget": "quick", "simulations": 300, "pairs": 250, "draws": 99, "samples": 200}
VARY = {"resolution": [0.1, 0.5], "hits": [2, 4]}


def write_nothing(report, folder: Path, progress) -> None:
    (folder / "figures").mkdir(exist_ok=True)
    (folder / "report.html").write_text("<html>")


@pytest.fixture(autouse=True)
def no_reports(monkeypatch):
    """Reports of studies take seconds each and are tested elsewhere."""
    monkeypatch.setattr(page, "write_report", write_nothing)


def carry_out(directory, vary=None, study="toy-two-stage", **fields):
    lines = []
    found = sp.scan(
        study,
        VARY if vary is None else vary,
        "exact",
        directory=directory,
        progress=SILENT,
        tell=lambda stage, line: lines.append((stage, line)),
        **{"seed": 1, **SMALL, **fields},
    )
    return found, lines


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Scan:
    """A scan nobody changes."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SBI_PHYSICS_PLUGINS", "")
        patched.setattr(page, "write_report", write_nothing)
        return carry_out(tmp_path_factory.mktemp("scan") / "scan")[0]


def exact_width(resolution: float, hits: int) -> float:
    """Posterior sd of the position: mean readout and monitor, offset integrated out."""
    offset = 1 / (1 / 0.5**2 + 1 / 0.3**2)
    noise = offset + (0.5**2 + resolution**2) / hits
    return 1 / np.sqrt(1 + 1 / noise)


def test_widths_are_those_of_the_closed_form(finished):
    assert finished.varied == {"resolution": ("0.1", "0.5"), "hits": ("2", "4")}
    expected = [[exact_width(r, h) for h in VARY["hits"]] for r in VARY["resolution"]]
    for place in ("prior", "centre", "shifted"):
        widths = finished.widths("position", place)
        # The median over at least 200 observations of an sd from 400 draws.
        tolerance = 5 * 1.25 / np.sqrt(2 * 400 * 200)
        np.testing.assert_allclose(widths, expected, rtol=tolerance)
    assert all(point.verdict in ("PASS", "MARGINAL") for point in finished.points)
    assert all(point.nll is not None and point.gain is not None for point in finished.points)


def test_every_point_is_a_study_and_the_table_names_them(finished):
    values = [tuple(point.values.values()) for point in finished.points]
    assert values == list(itertools.product(("0.1", "0.5"), ("2", "4")))
    for point in finished.points:
        config = (finished.directory / point.directory / "run.yaml").read_text()
        assert f"hits: {point.values['hits']}" in config
        assert (finished.directory / point.directory / "coverage.json").is_file()
    table = (finished.directory / "scan.md").read_text()
    assert table == finished.summary() + "\n"
    head, _, *rows = table.splitlines()
    assert head.startswith("| resolution | hits | verdict |")
    assert "sd position [mm] (shifted)" in head
    assert len(rows) == 4
    assert (finished.directory / "widths.png").stat().st_size > 10_000


def test_latents_are_simulated_once_where_only_the_observation_differs(finished):
    assert finished.shared_truth
    truths = list((finished.directory / "truth").iterdir())
    assert len(truths) == 2  # one for each number of hits
    rows = {}
    for point in finished.points:
        for purpose in ("train", "pairs"):
            path = finished.directory / "observed" / point.directory / f"{purpose}.zarr"
            with SimulationStore.open(path, "r") as store:
                simulations = store.simulations((0,))
                z = simulations.read(slice(0, 50), latents=("hits",))
                key = (point.values["resolution"], point.values["hits"], purpose)
                rows[key] = (z.theta, z.z["hits"], z.x)
    for hits, purpose in itertools.product(("2", "4"), ("train", "pairs")):
        (theta, z, x), (theta_2, z_2, x_2) = (rows[r, hits, purpose] for r in ("0.1", "0.5"))
        np.testing.assert_array_equal(theta, theta_2)
        np.testing.assert_array_equal(z, z_2)
        # The same noise in other units of size: resolution 0.5 for 0.1.
        noise, noise_2 = (d[:, :-1] - z - theta[:, 1:] for d in (x, x_2))
        np.testing.assert_allclose(noise_2, 5 * noise, atol=1e-5)
    assert not np.array_equal(rows["0.1", "2", "train"][0], rows["0.1", "2", "pairs"][0])


def test_a_scan_resumes_and_grows(finished, tmp_path):
    folder = tmp_path / "scan"
    shutil.copytree(finished.directory, folder)
    shutil.rmtree(folder / finished.points[2].directory)
    shutil.rmtree(folder / "observed")  # as if killed before the end
    vary = {"resolution": [0.1, 0.2, 0.5], "hits": [2, 4]}
    again, lines = carry_out(folder, vary, seed=None)
    assert again.seed == finished.seed
    truths = {str(p.relative_to(folder)) for p in (folder / "truth").iterdir()}
    assert len(truths) == 2
    for k, k_again in ((0, 0), (1, 1), (2, 4), (3, 5)):
        old, new = finished.points[k], again.points[k_again]
        assert new.values == old.values
        assert new.nll == old.nll
        assert new.widths == old.widths
    assert sum(line == "unchanged, skipped" and stage == "train" for stage, line in lines) == 3


def test_points_may_be_worked_on_in_other_processes(finished, tmp_path):
    vary = {"resolution": [0.1, 0.5], "hits": [2]}
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SBI_PHYSICS_PLUGINS", "")
        there, lines = carry_out(tmp_path / "scan", vary, workers=2)
    assert [p.nll for p in there.points] == [finished.points[0].nll, finished.points[2].nll]
    assert [p.widths for p in there.points] == [
        finished.points[0].widths,
        finished.points[2].widths,
    ]
    done = [line for stage, line in lines if stage == "scan" and "done" in line]
    assert done[-1].startswith("2 of 2 done")


def test_simulators_of_one_stage_and_single_values_are_scanned_too(tmp_path):
    found, _ = carry_out(tmp_path / "scan", {"noise": ["0.05"]}, "toy-gaussian")
    assert not found.shared_truth
    assert not (tmp_path / "scan" / "truth").exists()
    assert found.widths("theta_1", "centre") == pytest.approx([0.05], rel=0.02)


def test_a_simulator_object_keeps_its_other_options(tmp_path):
    found, _ = carry_out(tmp_path / "scan", {"resolution": [0.1]}, ToyTwoStage(hits=4))
    assert found.widths("position")[0] == pytest.approx(exact_width(0.1, 4), rel=0.02)


def test_a_point_that_fails_does_not_stop_the_others(tmp_path, monkeypatch):
    from sbi_physics.scan import work

    real = work.carry_out

    def breaks(config, directory, **rest):
        if "resolution=0.5" in directory.name:
            raise TrainingError("no luck")
        return real(config, directory, **rest)

    monkeypatch.setattr(work, "carry_out", breaks)
    found, lines = carry_out(tmp_path / "scan", {"resolution": [0.5, 0.1]})
    assert [p.title for p in found.failed] == ["resolution = 0.5"]
    assert found.points[0].error == "no luck"
    assert found.points[1].verdict
    assert np.isnan(found.widths("position")[0])
    assert "| 0.5 | failed |" in found.summary()
    assert ("scan", "1 of 2 done: resolution = 0.5: failed: no luck") in lines
    found.plot()


class Liar(ToyTwoStage):
    observe_options: ClassVar = ("resolution", "spread")


def test_a_wrong_declaration_is_found_out(tmp_path):
    check_same_latents(Liar(), Liar(resolution=0.4), seed=1)
    with pytest.raises(ContractError, match="declares that spread enter only its observation"):
        carry_out(tmp_path / "scan", {"spread": [0.4, 0.5]}, Liar())


def test_records_survive_their_file(finished):
    data = json.loads((finished.directory / "scan.json").read_text())
    again = Scan.from_dict(data, finished.directory)
    assert again.to_dict() == finished.to_dict()
    assert again.points == finished.points
    assert again.summary() == finished.summary()
    empty = ScanPoint({"a": "1"}, "a=1", error="x")
    assert ScanPoint.from_dict(json.loads(json.dumps(empty.to_dict()))).error == "x"


def test_the_figure_shows_every_point(finished):
    figure = finished.plot("shifted")
    (axes,) = figure.axes
    shown = [line for line in axes.lines if line.get_linestyle() != "None"]
    assert [tuple(line.get_ydata()) for line in shown] == [
        tuple(row) for row in finished.widths("position", "shifted")
    ]
    assert axes.get_ylabel() == "sd position [mm], shifted"
    assert axes.get_xlabel() == "hits"
    bottom, top = axes.get_ylim()
    assert bottom == 0.0
    assert top > 1.05 * finished.widths("position", "shifted").max()  # nothing is cut off


@pytest.mark.parametrize(
    ("vary", "fields", "error", "message"),
    [
        ({}, {}, ConfigError, "nothing is varied"),
        ({"hits": []}, {}, ConfigError, "give a list of values"),
        ({"hits": "24"}, {}, ConfigError, "varied over '24'; give a list"),
        ({"hitz": [2]}, {}, OptionError, "Did you mean 'hits'"),
        ({"hits": [2, 0]}, {}, OptionError, r"'hits' of 'toy-two-stage': got 0"),
        ({"hits": [2, "2"]}, {}, ConfigError, "two points are the same: hits = 2 and hits = 2"),
        (
            {"hits": [2]},
            {"options": {"hits": 3}},
            ConfigError,
            "hits: set to one value and varied",
        ),
        ({"hits": [2]}, {"rounds": 3}, ConfigError, "answer for one observation only"),
        ({"hits": [2]}, {"simulations_store": "s"}, ConfigError, "the points of a scan are many"),
    ],
)
def test_what_cannot_be_scanned_is_explained(tmp_path, vary, fields, error, message):
    with pytest.raises(error, match=message):
        carry_out(tmp_path / "scan", vary, **fields)
    assert not (tmp_path / "scan").exists()


def test_foreign_folders_are_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ConfigError, match=r"no scan \(it holds thesis.tex"):
        carry_out(tmp_path)
    with pytest.raises(ConfigError, match="is a file"):
        carry_out(tmp_path / "thesis.tex")


def test_values_are_parsed_as_options_are():
    assert parse_vary(["a=1mrad, 5mrad", "b=[1, 2],[3]", "c=null,x"]) == {
        "a": ["1mrad", "5mrad"],
        "b": [[1, 2], [3]],
        "c": [None, "x"],
    }
    for bad in ("a", "=1", "a=", "a=1,,2"):
        with pytest.raises(ConfigError, match="takes option=a,b,c"):
            parse_vary([bad])
    with pytest.raises(ConfigError, match="gives 'a' twice"):
        parse_vary(["a=1", "a=2"])


def test_the_command_line(tmp_path, capsys):
    command = ["scan", "toy-two-stage", "--engine", "exact", "--vary", "resolution=0.1,0.5"]
    command += ["--set", "hits=2", "--budget", "quick", "--simulations", "300", "--pairs", "100"]
    command += ["--draws", "99", "--seed", "1", "-o", str(tmp_path / "scan")]
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == 0
    out, err = capsys.readouterr()
    assert "INCONCLUSIVE" in out
    assert "sd position [mm] (centre)" in out
    assert str(tmp_path / "scan" / "widths.png") in out
    assert "[scan] 2 of 2 done" in err
    with pytest.raises(SystemExit) as ended:
        main([*command, "--json", "--strict"])
    assert ended.value.code == 1
    assert json.loads(capsys.readouterr().out)["varied"] == {"resolution": ["0.1", "0.5"]}
    with pytest.raises(SystemExit) as ended:
        main([*command, "--vary", "hits=3"])
    assert ended.value.code == 2
    assert "hits: set to one value and varied" in capsys.readouterr().err
