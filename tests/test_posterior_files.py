"""Posterior folders: what was saved comes back, and nothing damaged is ever half-loaded."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from sample_engines import BoxRatio, LinearEngine
from sample_simulators import Line

from sbi_physics import load_posterior
from sbi_physics.ensemble import EnsemblePosterior, RatioEnsemble
from sbi_physics.errors import PosteriorFileError, UnknownNameError
from sbi_physics.posterior_files import HEADER, SCHEMA, TRANSFORM, WEIGHTS
from sbi_physics.simulate import simulate

ENGINE = LinearEngine()


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setattr("sbi_physics.registry.engine", {"linear": ENGINE}.__getitem__)


@pytest.fixture(scope="module")
def simulations():
    return simulate(Line(), 300, seed=1)


@pytest.fixture(scope="module")
def posterior(simulations):
    return ENGINE.train(simulations, {"jitter": 0.1}, infer=["a", "b"], seed=2)


@pytest.fixture(scope="module")
def ensemble(simulations):
    return ENGINE.train(simulations, {"ensemble": 3, "jitter": 0.1}, seed=2)


@pytest.fixture
def folder(posterior, tmp_path):
    return posterior.save(tmp_path / "posterior")


def sample(posterior, x):
    return posterior.sample(x[:4], 10, np.random.default_rng(0))


def edit(folder: Path, **changes) -> None:
    header = json.loads((folder / HEADER).read_text())
    (folder / HEADER).write_text(json.dumps({**header, **changes}))


# There and back ----------------------------------------------------------


def test_a_loaded_posterior_answers_as_the_saved_one(posterior, folder, simulations):
    loaded = load_posterior(folder)
    assert type(loaded) is type(posterior)
    assert np.array_equal(sample(loaded, simulations.x), sample(posterior, simulations.x))
    for name in ("prior", "observable", "simulator", "simulation_prior", "transform", "history"):
        assert getattr(loaded.context, name) == getattr(posterior.context, name), name
    for name in ("simulations", "settings", "versions", "seed", "engine"):
        assert getattr(loaded.context, name) == getattr(posterior.context, name), name


def test_an_ensemble_comes_back_with_its_members(ensemble, tmp_path, simulations):
    loaded = load_posterior(ensemble.save(tmp_path / "e"))
    assert isinstance(loaded, EnsemblePosterior)
    assert np.array_equal(sample(loaded, simulations.x), sample(ensemble, simulations.x))
    assert loaded.context.history == ensemble.context.history
    assert {p.name for p in (tmp_path / "e" / "members").iterdir()} == {"0", "1", "2"}


def test_a_folder_holds_json_and_safetensors_only(ensemble, tmp_path):
    files = [p for p in ensemble.save(tmp_path / "e").rglob("*") if p.is_file()]
    assert {p.name for p in files} == {HEADER, WEIGHTS, TRANSFORM}
    assert not any(b"pickle" in p.read_bytes() or p.read_bytes()[:2] == b"\x80\x04" for p in files)


def test_arrays_keep_shape_and_type(tmp_path, posterior, simulations, monkeypatch):
    arrays = {
        "scalar": np.array(3, np.int64),
        "float32": np.arange(6, dtype=np.float32).reshape(2, 3),
        "transposed": np.arange(6.0).reshape(2, 3).T,
        "strided": np.arange(12.0)[::3],
        "empty": np.empty((0, 4)),
        "mask": np.array([True, False]),
    }
    seen = {}
    monkeypatch.setattr(type(posterior), "_weights", lambda self: arrays)
    monkeypatch.setattr(
        LinearEngine, "_rebuild", lambda self, c, f, w: seen.update(w) or posterior
    )
    load_posterior(posterior.save(tmp_path / "p"))
    assert seen.keys() == arrays.keys()
    for name, values in arrays.items():
        assert seen[name].shape == values.shape, name
        assert seen[name].dtype == values.dtype, name
        assert np.array_equal(seen[name], values), name


def test_a_ratio_ensemble_stays_one(tmp_path, monkeypatch):
    members = [BoxRatio(2, 0.3, scale=s) for s in (0.0, 0.1)]
    monkeypatch.setattr(
        "sbi_physics.registry.engine",
        lambda name: type("E", (), {"_rebuild": staticmethod(lambda *_: BoxRatio(2, 0.3))}),
    )
    assert isinstance(load_posterior(RatioEnsemble(members).save(tmp_path / "r")), RatioEnsemble)


def test_saving_again_replaces_and_leaves_nothing_behind(posterior, ensemble, folder):
    ensemble.save(folder)
    assert isinstance(load_posterior(folder), EnsemblePosterior)
    posterior.save(folder)
    assert not (folder / "members").exists()
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


def test_a_relative_or_nested_path_is_made(posterior, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert posterior.save("runs/one/posterior") == Path("runs/one/posterior")
    assert load_posterior("runs/one/posterior").prior == posterior.prior


def test_an_empty_folder_may_be_filled_but_a_strange_one_never(posterior, tmp_path):
    (tmp_path / "empty").mkdir()
    posterior.save(tmp_path / "empty")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("precious")
    (tmp_path / "file").write_text("precious")
    for name in ("thesis", "file"):
        with pytest.raises(PosteriorFileError, match="exists and is not a posterior folder"):
            posterior.save(tmp_path / name)
    assert (tmp_path / "thesis" / "chapter1.tex").read_text() == "precious"


# Failures while writing --------------------------------------------------


def test_a_failed_save_keeps_the_old_posterior_and_no_litter(posterior, folder, monkeypatch):
    def broken(self):
        raise RuntimeError("no weights")

    monkeypatch.setattr(type(posterior), "_weights", broken)
    with pytest.raises(RuntimeError, match="no weights"):
        posterior.save(folder)
    assert load_posterior(folder).prior == posterior.prior
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


KILLED = textwrap.dedent(
    """
    import os, signal, sys
    sys.path.insert(0, sys.argv[1])
    from sample_engines import BoxRatio
    import sbi_physics.posterior_files as files

    def die(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)

    BoxRatio(2, 0.3).save(sys.argv[2])
    if sys.argv[3] == "writing":
        files.json.dumps = die
    else:
        real = files.Path.rename
        files.Path.rename = lambda a, b: die() if "writing" in a.name else real(a, b)
    BoxRatio(2, 0.5).save(sys.argv[2])
    """
)


@pytest.mark.parametrize("moment", ["writing", "renaming"])
def test_a_kill_at_any_moment_leaves_a_whole_posterior(tmp_path, moment):
    target = tmp_path / "p"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(target), moment],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    whole = target
    if moment == "renaming":
        # Between the two renames the old one has moved aside: the error says where.
        with pytest.raises(PosteriorFileError, match=r"is in .*\.p\.old-") as error:
            load_posterior(target)
        whole = Path(str(error.value).rsplit(" is in ", 1)[1])
    header = json.loads((whole / HEADER).read_text())
    assert header["engine"] == "exact"
    assert header["sha256"].keys() == {WEIGHTS, TRANSFORM}
    # And the next save works.
    BoxRatio(2, 0.7).save(target)
    assert (target / HEADER).is_file()


# Damage ------------------------------------------------------------------


@pytest.mark.parametrize("name", [WEIGHTS, TRANSFORM])
@pytest.mark.parametrize("harm", ["flip", "cut", "append", "remove", "swap"])
def test_changed_arrays_are_named_and_refused(folder, name, harm):
    path = folder / name
    content = bytearray(path.read_bytes())
    if harm == "flip":
        content[-1] ^= 1
    elif harm == "cut":
        del content[len(content) // 2 :]
    elif harm == "append":
        content += b"\0"
    elif harm == "swap":
        content = bytearray((folder / (WEIGHTS if name == TRANSFORM else TRANSFORM)).read_bytes())
    path.write_bytes(content)
    if harm == "remove":
        path.unlink()
    expected = "incomplete" if harm == "remove" else "does not match its recorded sha256"
    with pytest.raises(PosteriorFileError, match=rf"{name}|{expected}") as error:
        load_posterior(folder)
    assert expected in str(error.value)
    assert name in str(error.value)


def test_a_damaged_member_spoils_the_ensemble(ensemble, tmp_path):
    folder = ensemble.save(tmp_path / "e")
    weights = folder / "members" / "1" / WEIGHTS
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(PosteriorFileError, match=r"members/1/weights.*sha256"):
        load_posterior(folder)
    shutil.rmtree(folder / "members" / "1")
    with pytest.raises(PosteriorFileError, match=r"no posterior at .*members/1"):
        load_posterior(folder)


@pytest.mark.parametrize("keep", [0, 1, 100, 1000])
def test_a_truncated_description_is_damaged(folder, keep):
    path = folder / HEADER
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(
        PosteriorFileError, match="posterior.json is not readable as JSON.*damaged"
    ):
        load_posterior(folder)


@pytest.mark.parametrize("content", [b"[]", b"3", b"null"])
def test_a_description_of_something_else_is_refused(folder, content):
    (folder / HEADER).write_bytes(content)
    with pytest.raises(PosteriorFileError, match="does not describe a posterior"):
        load_posterior(folder)


def test_bytes_that_are_no_text_are_refused(folder):
    (folder / HEADER).write_bytes(b"\xff\xfe{}")
    with pytest.raises(PosteriorFileError, match="not readable"):
        load_posterior(folder)


@pytest.mark.parametrize(
    "entry",
    [
        "config",
        "engine",
        "history",
        "members",
        "observable",
        "prior",
        "seed",
        "settings",
        "sha256",
    ],
)
def test_a_missing_entry_is_named(folder, entry):
    header = json.loads((folder / HEADER).read_text())
    del header[entry]
    (folder / HEADER).write_text(json.dumps(header))
    with pytest.raises(PosteriorFileError, match=f"lacks the entries {entry}: it is damaged"):
        load_posterior(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"prior": {"parameters": [{"name": "a"}]}},
        {"prior": {"parameters": [{"name": "a", "distribution": {"kind": "strange"}}]}},
        {"prior": None},
        {"observable": {"kind": "vector"}},
        {"simulator": {"name": "line"}},
        {"history": {"loss": [1.0]}},
        {"sha256": None},
    ],
)
def test_an_entry_that_makes_no_sense_is_damage(folder, change):
    edit(folder, **change)
    with pytest.raises(PosteriorFileError, match="cannot be understood .*damaged"):
        load_posterior(folder)


def test_another_schema_is_refused_and_a_newer_one_explained(folder):
    edit(folder, schema=SCHEMA + 1)
    with pytest.raises(PosteriorFileError, match=r"schema 2; this version .* reads 1: a newer"):
        load_posterior(folder)
    edit(folder, schema="draft")
    with pytest.raises(PosteriorFileError, match=r"schema 'draft'; .* reads 1$"):
        load_posterior(folder)


def test_no_folder_no_posterior(tmp_path):
    with pytest.raises(PosteriorFileError, match=r"no posterior at .*nowhere: posterior.json"):
        load_posterior(tmp_path / "nowhere")


def test_a_missing_engine_is_not_called_damage(folder, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("SBI_PHYSICS_PLUGINS", "")
    with pytest.raises(UnknownNameError, match="unknown engine 'linear'"):
        load_posterior(folder)
