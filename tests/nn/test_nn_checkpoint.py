"""A killed training continues and ends as if nothing had happened, to the last bit."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from sample_torch import LinearTorchEngine

import sbi_physics as sp
from sbi_physics.errors import TrainingError
from sbi_physics.nn import loop
from sbi_physics.nn.checkpoint import read_checkpoint, write_checkpoint
from sbi_physics.nn.loop import fit
from sbi_physics.nn.settings import NetworkSettings
from sbi_physics.progress import SILENT
from sbi_physics.training import Batch

pytestmark = pytest.mark.engine


class Killed(BaseException):
    pass


class Noise:
    """Batches that are a function of the epoch; dies before epoch `last`."""

    n_train = 96

    def __init__(self, checkpoint=None, last=None):
        self.checkpoint, self.last, self.seen = checkpoint, last, []

    def epoch(self, k):
        if k == self.last:
            raise Killed
        self.seen.append(k)
        rng = np.random.default_rng(k)
        for _ in range(3):
            u = rng.standard_normal((32, 1)).astype(np.float32)
            yield Batch(u, (u + rng.standard_normal((32, 1))).astype(np.float32), None)

    def validation(self):
        u = np.random.default_rng(99).standard_normal((64, 1)).astype(np.float32)
        yield Batch(u, u, None)


def train(data, **settings):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = torch.nn.Sequential(
            torch.nn.BatchNorm1d(1),
            torch.nn.Linear(1, 4),
            torch.nn.Dropout(0.3),
            torch.nn.Linear(4, 1),
        )
    history = fit(
        network,
        lambda u, x, _: ((network(x) - u) ** 2).mean(),
        data,
        NetworkSettings(**{"batch_size": 32, "max_epochs": 12, **settings}),
        seed=1,
        progress=SILENT,
    )
    return network, history


@pytest.fixture(autouse=True)
def always_due(monkeypatch):
    monkeypatch.setattr(loop, "_CHECKPOINT_SECONDS", 0.0)


def assert_same(a, b):
    assert a[1].training_loss == b[1].training_loss
    assert a[1].validation_loss == b[1].validation_loss
    assert (a[1].best_epoch, a[1].stopped) == (b[1].best_epoch, b[1].stopped)
    for name, value in a[0].state_dict().items():
        assert torch.equal(value, b[0].state_dict()[name]), name


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"schedule": "plateau", "stop_after_epochs": 3, "learning_rate": 0.5},
        {"schedule": "cosine", "weight_decay": 0.1},
        {"stop_after_epochs": 1, "learning_rate": 0.5},
        {"stop_after_epochs": 3, "min_improvement": 0.05},
        {"schedule": "averaged", "learning_rate": 0.1},
    ],
    ids=lambda s: s.get("schedule", "one-cycle"),
)
def test_an_interrupted_training_ends_as_an_uninterrupted_one(settings, tmp_path):
    whole = train(Noise(), **settings)
    epochs = len(whole[1].validation_loss)
    for last in sorted({1, epochs // 2, epochs - 1} - {0}):
        folder = tmp_path / str(last)
        with pytest.raises(Killed):
            train(Noise(folder, last), **settings)
        rest = Noise(folder)
        assert_same(train(rest, **settings), whole)
        assert rest.seen == list(range(last, epochs))


def test_a_finished_training_is_not_repeated(tmp_path):
    first = train(Noise(tmp_path))
    again = Noise(tmp_path)
    assert_same(train(again), first)
    assert again.seen == []


def test_time_spent_before_counts_against_the_budget(tmp_path, monkeypatch):
    with pytest.raises(Killed):
        train(Noise(tmp_path, 2), max_seconds=1000.0)
    tensors, record = read_checkpoint(tmp_path / "1.safetensors")
    write_checkpoint(tmp_path / "1.safetensors", tensors, {**record, "seconds": 999.9999})
    _, history = train(Noise(tmp_path), max_seconds=1000.0)
    assert history.stopped == "max_seconds"
    assert history.seconds > 999


def test_checkpoints_are_written_no_more_often_than_every_few_seconds(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_CHECKPOINT_SECONDS", 1e6)
    with pytest.raises(Killed):
        train(Noise(tmp_path, 5))
    assert list(tmp_path.iterdir()) == []
    train(Noise(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["1.safetensors"]


def test_a_damaged_checkpoint_is_reported_and_training_starts_anew(tmp_path, caplog):
    with pytest.raises(Killed):
        train(Noise(tmp_path, 5))
    file = tmp_path / "1.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    data = Noise(tmp_path)
    with caplog.at_level(logging.WARNING, logger="sbi_physics.nn.checkpoint"):
        again = train(data)
    assert "damaged" in caplog.text
    assert data.seen[0] == 0
    assert_same(again, train(Noise()))


# --- through an engine -------------------------------------------------------------------------

SETTINGS = {"max_epochs": 6, "batch_size": 32, "ensemble": 2}


def simulations():
    return sp.simulate("toy-gaussian", 300, seed=3, progress=SILENT)


def test_a_training_killed_by_the_system_ends_with_the_same_posterior(tmp_path):
    # The process kills itself, as `kill -9` would, in epoch 3 of the second member.
    script = textwrap.dedent(
        f"""
        import os, signal, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from sample_torch import LinearTorchEngine
        import sbi_physics as sp
        from sbi_physics.nn import loop
        from sbi_physics.progress import SILENT
        from sbi_physics.training import TrainingData

        loop._CHECKPOINT_SECONDS = 0.0
        keep = TrainingData.epoch
        def epoch(self, k):
            if (self._member, k) == (1, 3):
                os.kill(os.getpid(), signal.SIGKILL)
            return keep(self, k)
        TrainingData.epoch = epoch
        simulations = sp.simulate("toy-gaussian", 300, seed=3, progress=SILENT)
        LinearTorchEngine().train(
            simulations, {SETTINGS!r}, seed=5, checkpoint={str(tmp_path / "c")!r}
        )
        """
    )
    killed = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert (tmp_path / "c" / "0" / "posterior").is_dir()
    assert list((tmp_path / "c" / "1" / "state").glob("*.safetensors"))

    trained = []

    class Watched(LinearTorchEngine):
        def _train(self, data, *rest):
            keep = data.epoch
            data.epoch = lambda k: (trained.append((data._member, k)), keep(k))[1]
            return super()._train(data, *rest)

    resumed = Watched().train(simulations(), SETTINGS, seed=5, checkpoint=tmp_path / "c")
    assert trained == [(1, k) for k in range(3, 6)]
    whole = LinearTorchEngine().train(simulations(), SETTINGS, seed=5)
    for ours, theirs in zip(resumed.members, whole.members, strict=True):
        assert ours.context.history.training_loss == theirs.context.history.training_loss
        assert ours.context.history.best_epoch == theirs.context.history.best_epoch
        for name, value in theirs._weights().items():
            np.testing.assert_array_equal(ours._weights()[name], value)
    theta, x = simulations().theta[:5, None], simulations().x[:5]
    np.testing.assert_array_equal(resumed.log_prob(theta, x), whole.log_prob(theta, x))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 6}, "(seed: 5, now 6)"),
        ({"infer": ["theta_1"]}, "(infer: ['theta_1', 'theta_2'], now ['theta_1'])"),
        ({"lr": 0.01}, "(settings learning_rate: 0.001, now 0.01)"),
    ],
)
def test_what_another_training_left_is_not_used_and_this_is_said(change, said, tmp_path, caplog):
    engine, folder = LinearTorchEngine(), tmp_path / "c"
    settings = {**SETTINGS, "ensemble": 1}
    engine.train(simulations(), settings, seed=5, checkpoint=folder)
    options = {"seed": 5, **change}
    if "lr" in options:
        settings["learning_rate"] = options.pop("lr")
    with caplog.at_level(logging.WARNING, logger="sbi_physics.training_folder"):
        again = engine.train(simulations(), settings, checkpoint=folder, **options)
    assert f"interrupted training of other inputs {said}; it begins anew" in caplog.text
    fresh = engine.train(simulations(), settings, **options)
    assert again.context.history.training_loss == fresh.context.history.training_loss


def test_a_folder_whose_record_is_damaged_begins_anew(tmp_path, caplog):
    engine, folder = LinearTorchEngine(), tmp_path / "c"
    settings = {**SETTINGS, "ensemble": 1}
    first = engine.train(simulations(), settings, seed=5, checkpoint=folder)
    (folder / "inputs.json").write_text("{", encoding="utf-8")
    with caplog.at_level(logging.WARNING, logger="sbi_physics.training_folder"):
        again = engine.train(simulations(), settings, seed=5, checkpoint=folder)
    assert "inputs.json is damaged" in caplog.text
    assert again.context.history.training_loss == first.context.history.training_loss


def test_a_folder_that_holds_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(TrainingError, match="no interrupted training"):
        LinearTorchEngine().train(simulations(), SETTINGS, seed=5, checkpoint=tmp_path)
    assert (tmp_path / "thesis.tex").is_file()
