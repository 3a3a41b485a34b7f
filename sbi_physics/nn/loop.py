"""The training loop of torch engines: AdamW, learning-rate schedule, early stopping, best weights.

How long a problem needs is not known beforehand: smooth posteriors are learned, and then
overfitted, in a tenth of the passes that thin ones take. By default the rate is therefore
constant, an exponential average of the weights (Polyak & Juditsky 1992) does what a falling rate
would, at any moment, and the loss of held-out simulations decides when to stop.

Networks come from their packages, the loop is ours: data come in batches from a store that may be
larger than memory and are redrawn at every epoch, which native trainers do not offer. The loop
runs on the device that the network is on. On a CPU the result depends on seed and settings only,
unless `max_seconds` cuts it short. Where the data name a folder for checkpoints, a training that
was killed continues there and ends with the same result.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sbi_physics.errors import TrainingError
from sbi_physics.nn.checkpoint import read_checkpoint, write_checkpoint
from sbi_physics.nn.device import CPU, device_of, seeded
from sbi_physics.nn.settings import OptimizerSettings
from sbi_physics.progress import Progress
from sbi_physics.training import Batch, TrainingHistory

logger = logging.getLogger(__name__)

Loss = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""(u, x, weight) -> mean loss of a batch."""

_ONE_CYCLE_RISE = 0.2
_COSINE_RISE = 0.05
_ONE_CYCLE_START = 0.04
_LAST_RATE = 1e-3
_MAX_SKIPPED = 0.01

_CHECKPOINT_SECONDS = 10.0
"""Least time between two checkpoints: about what a kill costs."""

_COUNTS = (
    "best_epoch",
    "last_improvement",
    "last_reduction",
    "level",
    "scale",
    "skipped",
    "steps",
    "stopped",
)


class BatchSource(Protocol):
    """What the loop needs of `TrainingData`."""

    n_train: int

    def epoch(self, k: int) -> Iterable[Batch]:
        """Return the shuffled training batches of epoch k."""

    def validation(self) -> Iterable[Batch]:
        """Return the held-out batches, always the same."""


def fit(
    network: nn.Module,
    loss: Loss,
    data: BatchSource,
    settings: OptimizerSettings,
    *,
    seed: int,
    progress: Progress,
    validation_loss: Loss | None = None,
) -> TrainingHistory:
    """Train a network in place and leave it with its best weights, in evaluation mode.

    Args:
        network: The network whose parameters are trained.
        loss: Training loss of a batch.
        data: Where batches come from.
        settings: Optimiser settings.
        seed: Seed of dropout and of random pairs; the generators are restored afterwards. An
            engine that trains several networks gives each its own: checkpoints are named by it.
        progress: Where epochs are shown.
        validation_loss: Loss of a held-out batch; default `loss`.

    Raises:
        TrainingError: If losses stop being finite.
    """
    run = _Run(network, loss, validation_loss or loss, data, settings)
    # Only `TrainingData` names a folder; other sources of batches need not.
    folder: Path | None = getattr(data, "checkpoint", None)
    file = None if folder is None else folder / f"{seed}.safetensors"
    with (
        seeded(seed, run.device),
        torch.enable_grad(),
        _threads(settings.threads),
        progress.task("training", settings.max_epochs, "epoch") as task,
    ):
        if file is not None and run.resume(file):
            task.advance(len(run.validation), "resumed")
        for note in run.epochs():
            if file is not None:
                run.save(file)
            task.advance(1, note)
    return run.finish()


class _Run:
    """The state of one training run."""

    def __init__(
        self,
        network: nn.Module,
        loss: Loss,
        validation_loss: Loss,
        data: BatchSource,
        settings: OptimizerSettings,
    ) -> None:
        self.network, self.loss, self.validation_loss = network, loss, validation_loss
        self.data, self.settings = data, settings
        self.device = device_of(network)
        self.start = time.perf_counter()
        self.optimizer = _optimizer(network, settings)
        self.steps_per_epoch = max(1, math.ceil(data.n_train / settings.batch_size))
        self.rate_at = _rate(settings, self.steps_per_epoch)
        self.average: AveragedModel | None = None
        if settings.schedule == "averaged":
            decay = math.exp(-1 / (settings.average_epochs * self.steps_per_epoch))
            self.average = AveragedModel(network, multi_avg_fn=_averaging(decay), use_buffers=True)
        self.scale = 1.0
        self.training: list[float] = []
        self.validation: list[float] = []
        self.best: dict[str, Tensor] = {}
        self.best_epoch = -1
        self.level, self.last_improvement = math.inf, -1
        self.last_reduction = 0
        self.steps = self.skipped = 0
        self.stopped = ""
        self.saved = self.start

    def epochs(self) -> Iterator[str]:
        """Run epochs until a criterion stops them, yielding a note after each."""
        while not self.stopped:
            k = len(self.validation)
            self.training.append(self._train_epoch(k))
            with self._evaluated_weights():
                self._keep_best(k, self._validate())
            if self._out_of_time():
                self.stopped = "max_seconds"
            elif k - self.last_improvement >= self.settings.stop_after_epochs:
                self.stopped = "converged"
            elif k + 1 == self.settings.max_epochs:
                self.stopped = "max_epochs"
            elif self.settings.schedule == "plateau":
                self._reduce_on_plateau(k)
            yield f"loss {self.validation[-1]:.3f} (best {self.validation[self.best_epoch]:.3f})"

    def save(self, file: Path) -> None:
        """Write what later epochs depend on, if it is time or training has ended."""
        now = time.perf_counter()
        if not self.stopped and now - self.saved < _CHECKPOINT_SECONDS:
            return
        tensors = {f"network/{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"best/{k}": v for k, v in self.best.items()}
        if self.average is not None:
            tensors |= {f"average/{k}": v for k, v in self.average.state_dict().items()}
        for i, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{i}/{k}": v for k, v in values.items()}
        tensors["random"] = torch.get_rng_state()
        record = {name: getattr(self, name) for name in _COUNTS}
        losses = {"training": self.training, "validation": self.validation}
        write_checkpoint(file, tensors, {**record, **losses, "seconds": now - self.start})
        self.saved = time.perf_counter()

    def resume(self, file: Path) -> bool:
        """Continue from a checkpoint, if there is one."""
        found = read_checkpoint(file)
        if found is None:
            return False
        tensors, record = found
        self.network.load_state_dict(_below("network", tensors))
        self.best = _below("best", tensors)
        if self.average is not None:
            self.average.load_state_dict(_below("average", tensors))
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in _below("optimizer", tensors).items():
            i, _, key = name.partition("/")
            state.setdefault(int(i), {})[key] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        torch.set_rng_state(tensors["random"])
        for name in _COUNTS:
            setattr(self, name, record[name])
        self.training, self.validation = record["training"], record["validation"]
        self.start -= record["seconds"]
        return True

    def finish(self) -> TrainingHistory:
        """Put the best weights back and return the history."""
        if not self.best:
            raise TrainingError(
                "the validation loss was never finite; lower the learning rate "
                f"(now {self.settings.learning_rate:g}) or look for extreme values in the data"
            )
        self.network.load_state_dict(self.best)
        self.network.eval()
        if self.skipped:
            logger.warning(
                "skipped %d of %d steps with non-finite gradients", self.skipped, self.steps
            )
        return TrainingHistory(
            training_loss=tuple(self.training),
            validation_loss=tuple(self.validation),
            best_epoch=self.best_epoch,
            seconds=time.perf_counter() - self.start,
            stopped=self.stopped,
        )

    def _train_epoch(self, k: int) -> float:
        self.network.train()
        total, rows = 0.0, 0
        for batch in self.data.epoch(k):
            value = self.loss(*tensors(batch, self.device))
            if self._step(value):
                total += value.item() * len(batch.u)
                rows += len(batch.u)
            if self._out_of_time():
                break
        return total / rows if rows else math.nan

    def _step(self, value: Tensor) -> bool:
        # Redrawn epochs may take a step more or less than planned: the rate ends at its minimum.
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * self.scale * self.rate_at(self.steps)
        self.optimizer.zero_grad(set_to_none=True)
        value.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip_max_norm)
        self.steps += 1
        finite = bool(torch.isfinite(norm)) and bool(torch.isfinite(value))
        if finite:
            self.optimizer.step()
            if self.average is not None:
                self.average.update_parameters(self.network)
        else:
            self.skipped += 1
            if self.skipped > 1 + _MAX_SKIPPED * self.steps:
                raise TrainingError(
                    f"{self.skipped} of {self.steps} steps had non-finite loss or gradients "
                    f"(last loss {value.item():g}); lower the learning rate "
                    f"(now {self.settings.learning_rate:g}) or look for extreme values in the data"
                )
        return finite

    @contextlib.contextmanager
    def _evaluated_weights(self) -> Iterator[None]:
        """Give the network its averaged weights for a while, if weights are averaged."""
        if self.average is None:
            yield
            return
        trained = copy.deepcopy(self.network.state_dict())
        self.network.load_state_dict(self.average.module.state_dict())
        try:
            yield
        finally:
            self.network.load_state_dict(trained)

    def _validate(self) -> float:
        self.network.eval()
        total, rows = 0.0, 0
        with torch.no_grad():
            for batch in self.data.validation():
                total += self.validation_loss(*tensors(batch, self.device)).item() * len(batch.u)
                rows += len(batch.u)
        return total / rows

    def _keep_best(self, k: int, value: float) -> None:
        self.validation.append(value)
        better = not self.best or value < self.validation[self.best_epoch]
        if math.isfinite(value) and (better or self.settings.keep == "last"):
            self.best = copy.deepcopy(self.network.state_dict())
            self.best_epoch = k
        elif not self.best:
            self.best_epoch = self.last_improvement = k
        if value < self.level - self.settings.min_improvement:
            self.level, self.last_improvement = value, k

    def _reduce_on_plateau(self, k: int) -> None:
        patience = self.settings.plateau_epochs or max(1, self.settings.stop_after_epochs // 3)
        if k - max(self.last_improvement, self.last_reduction) >= patience:
            self.last_reduction = k
            self.scale *= self.settings.plateau_factor

    def _out_of_time(self) -> bool:
        limit = self.settings.max_seconds
        return limit is not None and time.perf_counter() - self.start > limit


def tensors(batch: Batch, device: torch.device = CPU) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return a batch's arrays as tensors on a device; on the processor they share memory."""
    u, x = (torch.from_numpy(a).to(device) for a in (batch.u, batch.x))
    return u, x, None if batch.weight is None else torch.from_numpy(batch.weight).to(device)


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    start = f"{prefix}/"
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}


@contextlib.contextmanager
def _threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _optimizer(network: nn.Module, settings: OptimizerSettings) -> Optimizer:
    # Decaying biases and normalisation constants would only shift the output.
    matrices = [p for p in network.parameters() if p.dim() > 1]
    others = [p for p in network.parameters() if p.dim() <= 1]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=settings.learning_rate, fused=True)


def _averaging(decay: float) -> Callable[..., None]:
    """Return what updates an average: statistics of batch normalisation are averaged with weights.

    They belong to the weights they were measured with. Counters and permutations are copied.
    """
    average = get_ema_multi_avg_fn(decay)

    def update(averaged: list[Tensor], current: list[Tensor], count: Tensor) -> None:
        if averaged[0].is_floating_point():
            average(averaged, current, count)
        else:
            for old, new in zip(averaged, current, strict=True):
                old.copy_(new)

    return update


def _rate(settings: OptimizerSettings, steps_per_epoch: int) -> Callable[[int], float]:
    """Return the learning rate at a step as a fraction of its peak."""
    if settings.schedule in ("one-cycle", "cosine"):
        rise = _ONE_CYCLE_RISE if settings.schedule == "one-cycle" else _COSINE_RISE
        return _rise_and_fall(rise, steps_per_epoch * settings.max_epochs)
    warmup = settings.warmup_epochs * steps_per_epoch
    every = settings.decay_epochs * steps_per_epoch
    decay = settings.decay_factor if settings.schedule == "step" else 1.0
    return lambda step: min(1.0, (step + 1) / (warmup + 1)) * decay ** (step // every)


def _rise_and_fall(rise: float, total: int) -> Callable[[int], float]:
    def factor(step: int) -> float:
        where = min(step / total, 1.0)
        if where < rise:
            return _ONE_CYCLE_START + (1 - _ONE_CYCLE_START) * where / rise
        fall = 0.5 * (1 + math.cos(math.pi * (where - rise) / (1 - rise)))
        return _LAST_RATE + (1 - _LAST_RATE) * fall

    return factor
