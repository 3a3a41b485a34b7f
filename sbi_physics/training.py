r"""Training data for any engine: split, transformed, shuffled and redrawn.

Engines see batches :math:`(u, x)`: unconstrained coordinates of the inferred parameters and
transformed data, both float32. For two-stage simulators the cheap stage is redrawn at every epoch
from the stored latents, and parameters that enter only that stage are redrawn from the prior:
:math:`p(z|\theta)` does not depend on them, so the pairs stay exact draws of the joint
distribution. Train and validation are split by latent, never by redraw.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from sbi_physics.errors import ContractError, TrainingError
from sbi_physics.observables import Observable
from sbi_physics.priors import Prior
from sbi_physics.seeding import generator
from sbi_physics.store import Rows, Simulations
from sbi_physics.transforms import Transform
from sbi_physics.types import DataArray, FloatArray, IntArray

_BUFFER_ROWS = 16_384
_PIECE_ROWS = 1_024
_FIT_ROWS = 10_000
_FIT_ENTRIES = 4_000_000


class TrainingSettings(BaseModel):
    """Settings every engine understands; engines add their network sizes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_epochs: int = Field(
        200, ge=1, description="Largest number of passes over the training simulations."
    )
    batch_size: int = Field(256, ge=2, description="Simulations in one gradient step.")
    learning_rate: float = Field(5e-4, gt=0, le=1, description="Peak learning rate.")
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay (AdamW).")
    validation_fraction: float = Field(
        0.1, gt=0, lt=0.9, description="Share of simulations held out."
    )
    stop_after_epochs: int = Field(
        20, ge=1, description="Stop when the validation loss has not improved for so long."
    )
    clip_max_norm: float = Field(5.0, gt=0, description="Largest gradient norm.")
    ensemble: int = Field(
        1, ge=1, le=100, description="Number of networks whose densities are averaged."
    )
    redraw: bool = Field(
        True, description="Redraw the observation stage of two-stage simulators at every epoch."
    )
    max_seconds: float | None = Field(
        None,
        gt=0,
        description="Time limit for each network; makes results depend on the machine's speed.",
    )
    memory_gb: float = Field(
        4.0, gt=0, description="Load the training set into memory below this size."
    )


@dataclass(frozen=True, slots=True)
class TrainingHistory:
    """What happened during training.

    Attributes:
        training_loss: Mean training loss of each epoch.
        validation_loss: Mean validation loss after each epoch.
        best_epoch: Index of the epoch whose weights were kept.
        seconds: Wall-clock time.
        stopped: Why training ended: `converged`, `max_epochs` or `max_seconds`; `ensemble` for
            the summary of several members.
        members: Histories of the ensemble's members, if any.
    """

    training_loss: tuple[float, ...]
    validation_loss: tuple[float, ...]
    best_epoch: int
    seconds: float
    stopped: str
    members: tuple[TrainingHistory, ...] = ()

    @property
    def best_loss(self) -> float:
        """Validation loss of the kept weights (ensembles: mean over members)."""
        if self.members:
            return float(np.mean([m.best_loss for m in self.members]))
        return self.validation_loss[self.best_epoch]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready description."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild from `to_dict`."""
        values = dict(data)
        values["members"] = tuple(cls.from_dict(m) for m in values.get("members", ()))
        for key in ("training_loss", "validation_loss"):
            values[key] = tuple(values[key])
        return cls(**values)

    @classmethod
    def of_ensemble(cls, members: Sequence[TrainingHistory]) -> TrainingHistory:
        """Combine the histories of an ensemble."""
        return cls((), (), 0, sum(m.seconds for m in members), "ensemble", tuple(members))


@dataclass(frozen=True, slots=True)
class Batch:
    """Training pairs.

    Attributes:
        u: Unconstrained coordinates of the inferred parameters, float32, shape (batch, param).
        x: Transformed data, float32, shape (batch, *observable.shape).
        weight: Importance weights, shape (batch,), or None when all are one.
    """

    u: DataArray
    x: DataArray
    weight: DataArray | None


class TrainingData:
    """Shuffled, transformed and redrawn batches of a set of simulations.

    Args:
        simulations: The training simulations.
        infer: Names of the inferred parameters; the others are marginalised.
        settings: Common training settings.
        seed: Seed of split, shuffling and redraws.

    Attributes:
        prior: Marginal prior of the inferred parameters.
        observable: What the simulations contain.
        transform: The fitted data transform.
        redraws: Whether epochs are redrawn from latents.
        checkpoint: Folder where an engine may keep the state of an unfinished training, or None.
            What it finds there was left by a training on the same data, settings and seed.

    Raises:
        TrainingError: If there are too few valid simulations.
    """

    def __init__(
        self,
        simulations: Simulations,
        *,
        infer: Sequence[str],
        settings: TrainingSettings,
        seed: int,
    ) -> None:
        self.observable: Observable = simulations.observable
        roles = simulations.parameters.with_interest(infer)
        self.prior: Prior = Prior(roles, simulations.prior.constraints).select(infer)
        self.redraws: bool = settings.redraw and _can_redraw(simulations)
        self._simulations = simulations
        self._settings = settings
        self._seed, self._member = seed, 0
        self.checkpoint: Path | None = None
        self._columns = simulations.parameters.indices(infer)
        n = len(simulations)
        # At least one row is held out; of three or more, two are left to train on.
        self.n_validation = max(1, min(round(settings.validation_fraction * n), n - 2))
        self.n_train = n - self.n_validation
        if self.n_train < 2:
            raise TrainingError(f"training needs at least 3 valid simulations, there are {n}")
        order = generator(seed, "training", 0).permutation(n)
        self._validation_rows = np.sort(order[: self.n_validation])
        self._train_rows = np.sort(order[self.n_validation :])
        # What is kept in memory: rows to redraw from, or batches ready for use.
        self._rows: Rows | None = None
        self._ready: Batch | None = None
        self._in_memory = self._bytes() <= settings.memory_gb * 1e9
        if self._in_memory and self.redraws:
            self._rows = self._read(np.arange(n))
        fit_rows = min(
            _FIT_ROWS,
            max(100, _FIT_ENTRIES // int(np.prod(self.observable.shape))),
            self.n_train,
        )
        chosen = generator(seed, "transform", 0).choice(self._train_rows, fit_rows, replace=False)
        fitted_on = self._read(np.sort(chosen)).x
        self.transform: Transform = self.observable.fit_transform(fitted_on)
        if self._in_memory and not self.redraws:
            self._ready = self._all_batches(n)

    @property
    def simulations(self) -> Simulations:
        """What the batches come from, for engines that learn from latents."""
        return self._simulations

    @property
    def train_rows(self) -> IntArray:
        """Rows of `simulations` to train on, sorted."""
        return self._train_rows

    @property
    def validation_rows(self) -> IntArray:
        """Rows of `simulations` held out, sorted."""
        return self._validation_rows

    @property
    def d(self) -> int:
        """Number of inferred parameters."""
        return self.prior.d

    def member(self, k: int, checkpoint: Path | None = None) -> TrainingData:
        """Return a view for member `k` of an ensemble: same split, own shuffles and redraws."""
        view = copy.copy(self)
        view._member, view.checkpoint = k, checkpoint
        return view

    def epoch(self, k: int) -> Iterator[Batch]:
        """Yield the shuffled batches of epoch `k`; the same `k` gives the same batches."""
        rng = generator(self._seed, "training", 1, self._member, k)
        size = self._settings.batch_size
        left: Batch | None = None
        for buffer in self._prefetched(k, self._buffers(rng)):
            joined = buffer if left is None else _concatenate(left, buffer)
            whole = len(joined.u) // size * size
            for start in range(0, whole, size):
                yield _slice(joined, start, start + size)
            left = _slice(joined, whole, len(joined.u)) if whole < len(joined.u) else None
        # A last batch of one row cannot be normalised or contrasted.
        if left is not None and len(left.u) > 1:
            yield left

    def validation(self) -> Iterator[Batch]:
        """Yield the held-out batches, as simulated (never redrawn), always the same."""
        size = max(self._settings.batch_size, 1024)
        for start in range(0, self.n_validation, size):
            yield self._as_simulated(self._validation_rows[start : start + size])

    def sample_rows(self, n: int) -> Batch:
        """Return up to `n` random training rows, for building networks."""
        chosen = generator(self._seed, "transform", 1).permutation(self._train_rows)[:n]
        return self._as_simulated(np.sort(chosen))

    def _bytes(self) -> float:
        first = self._read(np.arange(1))
        row = first.theta.nbytes + first.x.nbytes + sum(v.nbytes for v in first.z.values())
        return float(row) * len(self._simulations)

    def _read(self, rows: IntArray) -> Rows:
        if self._rows is not None:
            return self._rows.take(rows)
        return self._simulations.read(rows, latents=None if self.redraws else ())

    def _as_simulated(self, rows: IntArray) -> Batch:
        return self._batch(self._read(rows)) if self._ready is None else _take(self._ready, rows)

    def _all_batches(self, n: int) -> Batch:
        """All simulations, transformed once; read in pieces so that nothing is held twice."""
        u = np.empty((n, self.d), np.float32)
        x = np.empty((n, *self.observable.shape), np.float32)
        weight = np.ones(n, np.float32)
        for start in range(0, n, _BUFFER_ROWS):
            rows = slice(start, min(start + _BUFFER_ROWS, n))
            piece = self._batch(self._read(np.arange(rows.start, rows.stop)))
            u[rows], x[rows] = piece.u, piece.x
            if piece.weight is not None:
                weight[rows] = piece.weight
        return Batch(u, x, None if bool((weight == 1).all()) else weight)

    def _buffers(self, rng: np.random.Generator) -> list[IntArray]:
        if self._in_memory:
            order = rng.permutation(self._train_rows)
            return [order[i : i + _BUFFER_ROWS] for i in range(0, len(order), _BUFFER_ROWS)]
        # On disk: shuffle contiguous pieces, read several at once and shuffle inside, so that
        # reading stays linear.
        n_pieces = -(-len(self._train_rows) // _PIECE_ROWS)
        pieces = np.array_split(self._train_rows, n_pieces)
        order = rng.permutation(n_pieces)
        together = _BUFFER_ROWS // _PIECE_ROWS
        groups = [order[i : i + together] for i in range(0, n_pieces, together)]
        return [rng.permutation(np.concatenate([pieces[j] for j in group])) for group in groups]

    def _prefetched(self, k: int, buffers: list[IntArray]) -> Iterator[Batch]:
        # Reading and redrawing release the interpreter lock: prepare the next buffer while the
        # network trains.
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="redraw") as pool:
            upcoming = pool.submit(self._prepare, k, 0, buffers[0])
            for i in range(len(buffers)):
                ready = upcoming.result()
                if i + 1 < len(buffers):
                    upcoming = pool.submit(self._prepare, k, i + 1, buffers[i + 1])
                yield ready

    def _prepare(self, k: int, i: int, rows: IntArray) -> Batch:
        if not self.redraws:
            return self._as_simulated(rows)
        rng = generator(self._seed, "redraw", self._member, k, i)
        return self._batch(self._redrawn(self._read(rows), rng))

    def _redrawn(self, rows: Rows, rng: np.random.Generator) -> Rows:
        simulator, prior = self._simulations.simulator, self._simulations.prior
        theta = rows.theta.copy()
        tied = {name for constraint in prior.constraints for name in constraint.names}
        free = [
            n for n in simulator.observe_only if n not in tied and not prior.parameters[n].is_fixed
        ]
        if free:
            theta[:, prior.parameters.indices(free)] = prior.select(free).sample(len(theta), rng)
        x = simulator.observe(rows.z, theta, rng)
        good = np.isfinite(x).reshape(len(x), -1).all(axis=1)
        redrawn = Rows(theta=theta, x=x, z=rows.z, weight=rows.weight)
        return redrawn if good.all() else redrawn.take(np.flatnonzero(good))

    def _batch(self, rows: Rows) -> Batch:
        theta: FloatArray = rows.theta[:, self._columns]
        weight = rows.weight
        return Batch(
            u=self.prior.to_unconstrained(theta).astype(np.float32),
            x=self.transform(rows.x),
            weight=None
            if weight is None or bool((weight == 1).all())
            else weight.astype(np.float32),
        )


def _can_redraw(simulations: Simulations) -> bool:
    if not simulations.latents:
        return False
    if not simulations.simulator.is_two_stage:
        raise ContractError(
            f"the store has latents but simulator {simulations.simulator.name!r} has one stage"
        )
    return True


def _slice(batch: Batch, start: int, stop: int) -> Batch:
    weight = None if batch.weight is None else batch.weight[start:stop]
    return Batch(batch.u[start:stop], batch.x[start:stop], weight)


def _take(batch: Batch, rows: IntArray) -> Batch:
    return Batch(
        batch.u[rows], batch.x[rows], None if batch.weight is None else batch.weight[rows]
    )


def _concatenate(a: Batch, b: Batch) -> Batch:
    weight = None
    if a.weight is not None or b.weight is not None:
        parts = [np.ones(len(p.u), np.float32) if p.weight is None else p.weight for p in (a, b)]
        weight = np.concatenate(parts)
    return Batch(np.concatenate([a.u, b.u]), np.concatenate([a.x, b.x]), weight)
