"""The training loop on a least-squares problem with a known answer."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from sbi_physics.errors import TrainingError
from sbi_physics.nn.loop import _rate, fit
from sbi_physics.nn.settings import NetworkSettings
from sbi_physics.progress import SILENT
from sbi_physics.training import Batch

pytestmark = pytest.mark.engine


@dataclass
class Line:
    """x = 3 u + noise, in batches; epochs are reshuffled."""

    n_train: int = 512
    noise: float = 0.1
    spoil: int = 0
    weighted: bool = False

    def _batch(self, seed, n):
        rng = np.random.default_rng(seed)
        u = rng.standard_normal((n, 1)).astype(np.float32)
        x = (3 * u + self.noise * rng.standard_normal((n, 1))).astype(np.float32)
        return Batch(u, x, np.ones(n, np.float32) if self.weighted else None)

    def epoch(self, k):
        for i in range(self.n_train // 64):
            batch = self._batch((k, i), 64)
            if i < self.spoil:
                batch.x[0] = np.inf
            yield batch

    def validation(self):
        yield self._batch(10_000, 256)


def _linear():
    torch.manual_seed(0)
    network = torch.nn.Linear(1, 1)

    def loss(u, x, weight):
        error = (network(u) - x) ** 2
        return error.mean() if weight is None else (error[:, 0] * weight).sum() / weight.sum()

    return network, loss


def _settings(**values):
    return NetworkSettings(**{"batch_size": 64, "max_epochs": 20, "learning_rate": 0.1, **values})


@pytest.mark.parametrize(
    "schedule", ["averaged", "one-cycle", "cosine", "plateau", "step", "constant"]
)
def test_every_schedule_finds_the_minimum(schedule):
    network, loss = _linear()
    history = fit(network, loss, Line(), _settings(schedule=schedule), seed=1, progress=SILENT)
    assert network.weight.item() == pytest.approx(3.0, abs=0.03)
    assert history.best_loss == pytest.approx(0.01, rel=0.3)
    assert len(history.training_loss) == len(history.validation_loss) == 20
    assert not network.training


def test_a_planned_length_plans_the_rate_and_an_open_end_averages():
    assert NetworkSettings().schedule == "averaged"
    assert NetworkSettings(max_epochs=20).schedule == "one-cycle"
    assert NetworkSettings(max_epochs=20, schedule="step").schedule == "step"
    stored = NetworkSettings(learning_rate=0.1).model_dump()
    assert NetworkSettings(**stored) == NetworkSettings(learning_rate=0.1)


def test_the_last_weights_are_kept_where_asked_for():
    network, loss = _linear()
    seen = []

    def validation_loss(u, x, weight):
        seen.append(network.weight.detach().clone())
        return torch.tensor(float(len(seen)))  # every epoch looks worse than the first

    fit(
        network, loss, Line(), _settings(keep="last", max_epochs=4), seed=1, progress=SILENT,
        validation_loss=validation_loss,
    )  # fmt: skip
    assert len(seen) == 4
    assert torch.equal(network.weight, seen[-1])
    assert not torch.equal(seen[0], seen[-1])


def test_the_best_weights_are_kept_not_the_last():
    network, loss = _linear()
    data = Line()

    class Drifting(Line):
        def epoch(self, k):
            # From epoch 5 on the data pull the network away from the held-out ones.
            for batch in data.epoch(k):
                sign = 1 if k < 5 else -1
                yield Batch(batch.u, sign * batch.x, None)

    settings = _settings(stop_after_epochs=4, schedule="constant")
    history = fit(network, loss, Drifting(), settings, seed=1, progress=SILENT)
    assert history.stopped == "converged"
    assert history.best_epoch < 5
    assert len(history.validation_loss) == history.best_epoch + 5
    assert network.weight.item() == pytest.approx(3.0, abs=0.2)


def test_averaged_weights_are_validated_and_kept_and_training_goes_on_with_its_own():
    network, loss = _linear()
    trained, validated = [], []

    class Watched(Line):
        def epoch(self, k):
            for batch in Line.epoch(self, k):
                trained.append(network.weight.item())
                yield batch
            trained.append(network.weight.item())

    def validation_loss(u, x, weight):
        validated.append(network.weight.item())
        return loss(u, x, weight)

    settings = _settings(average_epochs=1.5, schedule="averaged", max_epochs=4, keep="last")
    data = Watched()
    fit(network, loss, data, settings, seed=1, progress=SILENT, validation_loss=validation_loss)
    # Exponential average over the eight steps of every epoch, from the first step on.
    steps = np.delete(np.array(trained), np.arange(0, len(trained), 9))
    decay, average, expected = math.exp(-1 / (1.5 * 8)), steps[0], [steps[0]]
    for value in steps[1:]:
        average = decay * average + (1 - decay) * value
        expected.append(average)
    assert validated == pytest.approx(expected[7::8], abs=1e-5)
    assert trained[9::9] == trained[8:-1:9]  # an epoch starts where the last one ended
    assert network.weight.item() == validated[-1]


def test_training_is_a_function_of_the_seed_and_leaves_the_generator():
    def noisy():
        network, _ = _linear()
        dropout = torch.nn.Dropout(0.3)
        return network, lambda u, x, _: ((network(dropout(u)) - x) ** 2).mean()

    torch.manual_seed(5)
    state = torch.get_rng_state()
    histories = []
    for seed in (1, 1, 2):
        network, loss = noisy()
        torch.set_rng_state(state)
        histories.append(fit(network, loss, Line(), _settings(), seed=seed, progress=SILENT))
        assert torch.equal(torch.get_rng_state(), state)
    assert histories[0].training_loss == histories[1].training_loss
    assert histories[0].training_loss != histories[2].training_loss


def test_it_trains_with_gradients_switched_off_outside():
    network, loss = _linear()
    with torch.no_grad():
        fit(network, loss, Line(), _settings(), seed=1, progress=SILENT)
        assert not torch.is_grad_enabled()
    assert network.weight.item() == pytest.approx(3.0, abs=0.03)


def test_a_time_budget_ends_training_even_inside_an_epoch():
    network, loss = _linear()
    settings = _settings(max_seconds=1e-6)
    history = fit(network, loss, Line(), settings, seed=1, progress=SILENT)
    assert history.stopped == "max_seconds"
    assert len(history.validation_loss) == 1


def test_a_rare_bad_step_is_skipped_and_reported(caplog):
    network, loss = _linear()

    class OneBad(Line):
        def epoch(self, k):
            self.spoil = 1 if k == 3 else 0
            return super().epoch(k)

    with caplog.at_level(logging.WARNING, logger="sbi_physics.nn.loop"):
        fit(network, loss, OneBad(), _settings(), seed=1, progress=SILENT)
    assert network.weight.item() == pytest.approx(3.0, abs=0.03)
    assert "skipped 1 of 160 steps" in caplog.text


def test_many_bad_steps_are_an_error():
    network, loss = _linear()
    with pytest.raises(TrainingError, match="non-finite loss or gradients.*learning rate"):
        fit(network, loss, Line(spoil=2), _settings(), seed=1, progress=SILENT)


def test_a_validation_loss_that_is_never_finite_is_an_error():
    network, loss = _linear()
    with pytest.raises(TrainingError, match="never finite"):
        fit(
            network,
            loss,
            Line(),
            _settings(max_epochs=2),
            seed=1,
            progress=SILENT,
            validation_loss=lambda *_: torch.tensor(math.nan),
        )


def test_weights_reach_the_loss():
    network, loss = _linear()
    fit(network, loss, Line(weighted=True), _settings(), seed=1, progress=SILENT)
    assert network.weight.item() == pytest.approx(3.0, abs=0.03)


def test_weight_decay_shrinks_matrices_but_not_biases():
    torch.manual_seed(0)
    network = torch.nn.Linear(1, 1)
    before = network.bias.item(), network.weight.item()
    settings = _settings(weight_decay=0.5, schedule="constant", max_epochs=2)
    fit(
        network,
        lambda *_: 0.0 * (network.weight.sum() + network.bias.sum()),
        Line(),
        settings,
        seed=1,
        progress=SILENT,
    )
    # All validation losses are zero: the first epoch's weights count as the best.
    assert network.bias.item() == before[0]
    assert network.weight.item() == pytest.approx(before[1] * (1 - 0.1 * 0.5) ** 8, rel=1e-4)


def test_the_one_cycle_rises_then_falls_to_almost_nothing():
    factor = _rate(_settings(schedule="one-cycle", max_epochs=100), 10)
    values = [factor(i) for i in range(1000)]
    assert values[0] == pytest.approx(0.04)
    assert max(values) == pytest.approx(1.0)
    assert np.argmax(values) == 200
    assert values[-1] < 0.002
    assert factor(2000) == pytest.approx(0.001)


def test_training_uses_the_threads_asked_for_and_puts_the_count_back():
    network = torch.nn.Linear(1, 1)
    before, seen = torch.get_num_threads(), set()

    def loss(u, x, weight):
        seen.add(torch.get_num_threads())
        return (network(u) - x).square().mean()

    with pytest.raises(ZeroDivisionError):
        fit(network, lambda *_: 1 / 0, Line(), _settings(threads=2), seed=1, progress=SILENT)
    assert torch.get_num_threads() == before
    fit(network, loss, Line(), _settings(max_epochs=1), seed=1, progress=SILENT)
    assert seen == {1}
    fit(network, loss, Line(), _settings(max_epochs=1, threads=2), seed=1, progress=SILENT)
    assert seen == {1, 2}
    assert torch.get_num_threads() == before


def test_the_staircase_falls_by_its_factor_at_the_end_of_every_interval():
    factor = _rate(_settings(schedule="step", decay_factor=0.9, decay_epochs=10), 8)
    assert [factor(step) for step in (0, 79, 80, 159, 160)] == pytest.approx(
        [1.0, 1.0, 0.9, 0.9, 0.81]
    )


@pytest.mark.parametrize("schedule", ["averaged", "plateau", "constant"])
def test_the_rate_warms_up_over_as_many_epochs_as_asked(schedule):
    assert _rate(_settings(schedule=schedule), 8)(0) == 1.0
    factor = _rate(_settings(schedule=schedule, warmup_epochs=1.5), 8)
    assert [factor(step) for step in (0, 5, 12, 13, 500)] == pytest.approx(
        [1 / 13, 6 / 13, 1.0, 1.0, 1.0]
    )


def test_step_counts_epochs_not_steps():
    # One parameter with a constant gradient moves by the learning rate in every step of Adam.
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(network.weight)
    settings = _settings(
        schedule="step", decay_factor=0.5, decay_epochs=2, max_epochs=4, learning_rate=1e-3
    )
    fit(network, lambda *_: network.weight.sum(), Line(), settings, seed=1, progress=SILENT)
    # 8 steps an epoch: two epochs at the full rate, two at half.
    assert network.weight.item() == pytest.approx(-1e-3 * (16 + 8), rel=1e-3)


def _rates(losses, **values):
    """Learning rate of every epoch: one weight with a constant gradient moves by it in Adam."""
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(network.weight)
    seen, remaining = [0.0], iter(losses)

    def validation_loss(u, x, weight):
        seen.append(network.weight.item())
        return torch.tensor(next(remaining))

    settings = _settings(schedule="plateau", learning_rate=1e-3, max_epochs=len(losses), **values)
    fit(
        network, lambda *_: network.weight.sum(), Line(), settings, seed=1, progress=SILENT,
        validation_loss=validation_loss,
    )  # fmt: skip
    return -np.diff(seen) / 8 / 1e-3  # 8 steps an epoch


@pytest.mark.parametrize(
    ("losses", "settings", "expected"),
    [
        # The reference is torch's ReduceLROnPlateau(patience=3): the fourth epoch without
        # improvement is one too many, and counting starts anew behind a reduction.
        (
            [3.0, 2.0] + [2.0] * 10,
            {"plateau_factor": 0.1, "plateau_epochs": 4, "stop_after_epochs": 30},
            [1.0] * 6 + [0.1] * 4 + [0.01] * 2,
        ),
        # An improvement puts it off.
        (
            [3.0, 2.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
            {"plateau_factor": 0.1, "plateau_epochs": 4, "stop_after_epochs": 30},
            [1.0] * 10 + [0.1] * 2,
        ),
        # By default halved after a third of what ends training.
        ([1.0] * 6, {"stop_after_epochs": 6}, [1.0] * 3 + [0.5] * 2 + [0.25]),
    ],
)
def test_the_rate_falls_on_plateaus(losses, settings, expected):
    rates = _rates(losses, **settings)
    assert rates == pytest.approx(expected, rel=1e-3)
    patience = settings.get("plateau_epochs", 2) - 1
    factor = settings.get("plateau_factor", 0.5)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=factor, patience=patience
    )
    reference = []
    for loss in losses:
        reference.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step(loss)
    assert rates == pytest.approx(reference, rel=1e-3)


def test_training_ends_while_the_rate_still_falls():
    rates = _rates([1.0] * 12, plateau_factor=0.1, plateau_epochs=2, stop_after_epochs=5)
    assert len(rates) == 6
    assert rates == pytest.approx([1, 1, 1, 0.1, 0.1, 0.01], rel=1e-3)


@pytest.mark.parametrize(("least", "epochs"), [(0.0, 20), (0.25, 20), (0.5, 4)])
def test_a_smaller_fall_than_min_improvement_does_not_put_off_the_end(least, epochs):
    network, loss = _linear()
    falls = iter(10.0 - 0.1 * k for k in range(20))
    settings = _settings(stop_after_epochs=3, min_improvement=least)
    history = fit(
        network,
        loss,
        Line(),
        settings,
        seed=1,
        progress=SILENT,
        validation_loss=lambda *_: torch.tensor(next(falls)),
    )
    assert len(history.validation_loss) == epochs
    assert history.best_epoch == epochs - 1  # the lowest loss is kept all the same
