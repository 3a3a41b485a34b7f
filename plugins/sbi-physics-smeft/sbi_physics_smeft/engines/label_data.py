"""Batches for learning from labels: data, labels and weights of single events.

Splits are by latent event. Data are redrawn from the latents at every epoch (several times where
fractional smearing asks for it), labels never change. Columns of a batch's `u` are the regression
labels, then one weight for each member of the ensemble.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from sbi_physics import Simulator, TrainingData
from sbi_physics.errors import TrainingError
from sbi_physics.seeding import generator
from sbi_physics.training import Batch
from sbi_physics.types import DataArray, FloatArray, IntArray, Latents
from sbi_physics_smeft.engines.smearing import Copies, fractional_copies

_VALIDATION_BATCH = 8192
_OBSERVE_ROWS = 65_536
_BOOTSTRAP, _COPIES, _HELD = 5, 6, 7


@dataclass(frozen=True, slots=True, eq=False)
class Events:
    """Labelled events.

    Attributes:
        x: Data as simulated, shape (n, features).
        z: Latents.
        theta: Parameters of the rows, which observing may ask for, shape (n, d).
        gram: Packed matrices with G_00 = 1, shape (n, entries).
        source: Mixture point of each event, -1 where drawn from its row's theta, shape (n,).
    """

    x: DataArray
    z: Latents
    theta: FloatArray
    gram: FloatArray
    source: IntArray


def labelled_events(data: TrainingData) -> Events:
    """Read all events and their labels.

    Raises:
        TrainingError: If the simulations carry no labels of single events.
    """
    simulations = data.simulations
    missing = [name for name in ("gram", "source") if name not in simulations.latents]
    if missing:
        there = ", ".join(simulations.latents) or "none"
        raise TrainingError(
            f"learning from labels needs the latents {', '.join(missing)}, as the simulators "
            f"smeft-* store them; these simulations have {there}"
        )
    rows = simulations.read(slice(None))
    gram = np.asarray(rows.z["gram"], dtype=np.float64)
    if not np.isfinite(gram).all() or np.abs(gram[:, 0] - 1).max() > 1e-9:
        raise TrainingError("labels must be finite matrices relative to zero parameters, G_00 = 1")
    if rows.weight is not None and not bool((rows.weight == 1).all()):
        raise TrainingError("learning from labels takes unweighted simulations")
    source = np.asarray(rows.z["source"], dtype=np.int64)
    return Events(rows.x, rows.z, rows.theta, gram, source)


class LabelData:
    """Shuffled batches of events with labels; a source for `sbi_physics.nn.loop.fit`.

    Args:
        data: Split and transform.
        events: All events.
        labels: Regression labels, shape (n, columns).
        copies: Labels that decide on fractional smearing, shape (n, columns); None for none.
        threshold: Its threshold.
        max_copies: Its largest number of copies.
        inputs: Map from data (n, features) to network inputs.
        members: Networks trained at once.
        bootstrap: Whether each member sees events with weights Poisson(1).
        redraw: Whether data are redrawn at every epoch.
        batch_size: Rows of a batch.
        seed: Seed of everything random.

    Attributes:
        n_train: Rows of an epoch.
        copies: How often training events are observed.
    """

    def __init__(
        self,
        data: TrainingData,
        events: Events,
        labels: FloatArray,
        *,
        copies: FloatArray | None,
        threshold: float,
        max_copies: int,
        inputs: Callable[[DataArray], DataArray],
        members: int,
        bootstrap: bool,
        redraw: bool,
        batch_size: int,
        seed: int,
    ) -> None:
        self._events, self._inputs, self._seed = events, inputs, seed
        self._labels = labels.astype(np.float32)
        self._members, self._batch, self._redraw = members, batch_size, redraw
        self._simulator: Simulator | None = None
        if redraw or copies is not None:
            self._simulator = data.simulations.simulator
        rows = data.train_rows
        n = np.ones(len(labels), dtype=np.int64)
        self.copies = Copies(n[rows], 0)
        if copies is not None:
            self.copies = fractional_copies(copies[rows], threshold, max_copies=max_copies)
            n[rows] = self.copies.n
            held = data.validation_rows
            n[held] = fractional_copies(copies[held], threshold, max_copies=max_copies).n
        self._weight = (1.0 / n).astype(np.float32)
        self._train = np.repeat(rows, n[rows])
        self._validation = np.repeat(data.validation_rows, n[data.validation_rows])
        self.n_train = len(self._train)
        self.checkpoint = data.checkpoint
        self._fixed: DataArray | None = None
        if copies is not None and not redraw:
            self._fixed = self._observed(self._train, generator(seed, "redraw", _COPIES))
        elif not redraw:
            self._fixed = inputs(events.x[self._train])
        self._held = (
            inputs(events.x[self._validation])
            if copies is None
            else self._observed(self._validation, generator(seed, "redraw", _HELD))
        )
        self._counts: DataArray | None = None
        if bootstrap:
            # One weight for each latent event and member, shared by its copies.
            rng = generator(seed, "training", _BOOTSTRAP)
            drawn = rng.poisson(1.0, (len(labels), members))
            self._counts = drawn.astype(np.float32)

    def epoch(self, k: int) -> Iterator[Batch]:
        """Yield the shuffled batches of epoch `k`; the same `k` gives the same batches."""
        order = generator(self._seed, "training", 1, k).permutation(self.n_train)
        x = self._fixed
        if x is None:
            x = self._observed(self._train, generator(self._seed, "redraw", k))
        for start in range(0, self.n_train, self._batch):
            chosen = order[start : start + self._batch]
            if len(chosen) > 1:
                yield self._of(self._train[chosen], x[chosen], train=True)

    def validation(self) -> Iterator[Batch]:
        """Yield the held-out batches, always the same."""
        for start in range(0, len(self._validation), _VALIDATION_BATCH):
            rows = slice(start, start + _VALIDATION_BATCH)
            yield self._of(self._validation[rows], self._held[rows], train=False)

    def _of(self, rows: IntArray, x: DataArray, *, train: bool) -> Batch:
        weight = np.repeat(self._weight[rows][:, None], self._members, axis=1)
        if train and self._counts is not None:
            weight = weight * self._counts[rows]
        return Batch(np.concatenate([self._labels[rows], weight], axis=1), x, None)

    def _observed(self, rows: IntArray, rng: np.random.Generator) -> DataArray:
        simulator, events = self._simulator, self._events
        if simulator is None:  # pragma: no cover - set whenever this is called
            raise TrainingError("there is no simulator to observe with")
        parts = []
        for start in range(0, len(rows), _OBSERVE_ROWS):
            some = rows[start : start + _OBSERVE_ROWS]
            z = {name: values[some] for name, values in events.z.items()}
            x = simulator.observe(z, events.theta[some], rng)
            # What an observation loses is replaced by the simulated one: labels stay with rows.
            bad = ~np.isfinite(x).all(axis=1)
            x[bad] = events.x[some[bad]]
            parts.append(self._inputs(x))
        return np.concatenate(parts)
