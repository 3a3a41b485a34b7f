"""Stores for tests, what is in them byte for byte, and a display that watches them grow."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import numpy as np
import zarr

sys.path.insert(0, str(Path(__file__).parent))
from sample_simulators import Line

from sbi_physics.store import Simulations, SimulationStore, StoreHeader

SIZE = 10


def header_of(**changes):
    simulator = Line()
    values = {
        "simulator": simulator.identity,
        "prior": simulator.prior,
        "observable": simulator.observable,
        "seed": 5,
        "purpose": "train",
        "chunk_size": SIZE,
    }
    return StoreHeader(**{**values, **changes})


def rows_of(simulator, n, seed):
    rng = np.random.default_rng(seed)
    theta = simulator.prior.sample(n, rng)
    return theta, simulator.simulate(theta, rng)


def fill(store, chunks, round=0, rows=SIZE):
    for chunk in chunks:
        theta, x = rows_of(Line(), rows, seed=chunk)
        store.append(round, chunk, theta, x)


def store_of_three_chunks(path):
    """The folder of a store of three chunks, 25 rows."""
    with SimulationStore.open(path, "a", header_of()) as store:
        fill(store, [0, 1])
        fill(store, [2], rows=5)
    return path


def content(source):
    """Bytes of every array, from simulations or from a store's folder by way of plain zarr."""
    if isinstance(source, Simulations):
        rows = source.read(slice(None))
        arrays = {"theta": rows.theta, "x": rows.x, **rows.z}
    else:
        group = zarr.open_group(source, mode="r")
        arrays = {name: group[name][:] for name in ("theta", "x")}
        arrays |= {name: a[:] for name, a in group["z"].arrays()} if "z" in group else {}
    return {name: values.tobytes() for name, values in arrays.items()}


def files(folder):
    """Content of every chunk file of a store."""
    return {p.relative_to(folder): p.read_bytes() for p in folder.glob("**/c/**/*") if p.is_file()}


class Watch:
    """A progress display that records, and can act after some chunks."""

    def __init__(self, act_after=None, action=None):
        self.tasks, self.advances, self.notes = [], [], []
        self._act_after, self._action = act_after, action

    @contextlib.contextmanager
    def task(self, description, total, unit="it"):
        self.tasks.append((description, total, unit))
        yield self

    def advance(self, n=1, note=""):
        self.advances.append(n)
        self.notes.append(note)
        if len(self.advances) == self._act_after:
            self._action()
