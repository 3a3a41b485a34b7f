"""Valid simulations of a store, read when asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import ArrayLike

from sbi_physics.errors import ContractError, StoreMismatchError, unknown_name
from sbi_physics.observables import Observable
from sbi_physics.parameters import ParameterSpace
from sbi_physics.priors import Prior
from sbi_physics.simulator import Simulator, SimulatorIdentity
from sbi_physics.store_arrays import LATENTS
from sbi_physics.store_chunk import checksum
from sbi_physics.store_header import prior_essence
from sbi_physics.store_reader import Part, ValidRows
from sbi_physics.types import AnyArray, DataArray, FloatArray, IntArray, Latents

if TYPE_CHECKING:
    from sbi_physics.store import SimulationStore

_ARRAYS_CHUNK = 4096


@dataclass(frozen=True, slots=True)
class Rows:
    """Some simulations in memory.

    Attributes:
        theta: Parameters in physical units, float64, shape (rows, d).
        x: Data, float32, shape (rows, *observable.shape).
        z: Latents, each with leading axis rows; only those asked for.
        weight: Importance weights, shape (rows,), or None when all are one.
    """

    theta: FloatArray
    x: DataArray
    z: Latents
    weight: FloatArray | None

    def __len__(self) -> int:
        return len(self.theta)

    def take(self, rows: IntArray) -> Rows:
        """Return a selection, in the order given."""
        return Rows(
            theta=self.theta[rows],
            x=self.x[rows],
            z={name: values[rows] for name, values in self.z.items()},
            weight=None if self.weight is None else self.weight[rows],
        )


class Simulations:
    """The valid rows of a store, numbered from 0 in the order of (round, chunk, row).

    It is a snapshot of what was committed when it was made; data are read on demand, chunk by
    chunk, so a store may be larger than memory. Obtain one from `simulate`,
    `SimulationStore.simulations` or `from_arrays`.

    Attributes:
        prior: What theta was drawn from.
        rounds: The rounds it spans.
    """

    def __init__(
        self,
        store: SimulationStore,
        parts: Sequence[Part],
        *,
        rounds: tuple[int, ...],
        prior: Prior,
        simulator: Simulator | None = None,
    ) -> None:
        self.prior, self.rounds = prior, rounds
        self._store, self._parts = store, tuple(parts)
        self._rows = ValidRows(store, parts)
        self._simulator = simulator
        if simulator is not None and self.identity is not None:
            self.require_simulator(simulator)

    @classmethod
    def from_arrays(
        cls,
        theta: ArrayLike,
        x: ArrayLike,
        prior: Prior,
        observable: Observable,
        *,
        z: Mapping[str, AnyArray] | None = None,
        simulator: Simulator | None = None,
        purpose: str = "train",
        seed: int | None = None,
    ) -> Self:
        """Wrap simulations made elsewhere.

        Args:
            theta: Parameters drawn from `prior`, shape (n, d).
            x: Data, shape (n, *observable.shape); rows with non-finite entries count as invalid.
            prior: The prior.
            observable: What x is.
            z: Latents, each with leading axis n.
            simulator: The simulator, where one exists.
            purpose: What they are for.
            seed: Their seed, where known.

        Raises:
            ContractError: If shapes disagree or theta lies outside the prior.
        """
        from sbi_physics.store import SimulationStore, StoreHeader

        points, data = np.asarray(theta, dtype=np.float64), np.asarray(x)
        lengths = {
            "theta": len(points),
            "x": len(data),
            **{k: len(v) for k, v in (z or {}).items()},
        }
        if len(set(lengths.values())) > 1:
            raise ContractError(f"arrays have different numbers of simulations: {lengths}")
        outside = np.flatnonzero(~prior.contains(points) & np.isfinite(points).all(axis=-1))
        if len(outside):
            values = ", ".join(
                f"{k} = {v:g}" for k, v in zip(prior.names, points[outside[0]], strict=True)
            )
            raise ContractError(
                f"{len(outside)} of {len(points)} rows of theta lie outside the prior, the first "
                f"is row {outside[0]}: {values}. Pass the prior they were drawn from"
            )
        identity = None if simulator is None else simulator.identity
        store = SimulationStore.open(
            None, "a", StoreHeader(identity, prior, observable, seed, purpose, _ARRAYS_CHUNK)
        )
        for chunk, start in enumerate(range(0, len(points), _ARRAYS_CHUNK)):
            rows = slice(start, start + _ARRAYS_CHUNK)
            latents = {k: np.asarray(v)[rows] for k, v in (z or {}).items()}
            store.append(0, chunk, points[rows], data[rows], latents)
        entries = store.simulations((0,))
        return cls(store, entries._parts, rounds=(0,), prior=prior, simulator=simulator)

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        name = "arrays" if self.identity is None else self.identity.name
        count = f"{len(self)} valid of {self.n_simulated}"
        return f"Simulations({name}, {count}, purpose {self.purpose!r})"

    @property
    def identity(self) -> SimulatorIdentity | None:
        """Name, version and options of the simulator; None for bare arrays."""
        return self._store.header.simulator

    @property
    def simulator(self) -> Simulator:
        """The simulator, rebuilt through the registry where it was not given.

        Raises:
            ContractError: If these simulations come from bare arrays.
            UnknownNameError: If the simulator is not installed.
            StoreMismatchError: If the installed one has another version or other options.
        """
        if self._simulator is None:
            from sbi_physics import registry

            identity = self.identity
            if identity is None:
                raise ContractError(
                    "these simulations come from bare arrays; pass simulator= to from_arrays, "
                    "or train with redraw=False"
                )
            simulator = registry.simulator(identity.name, **identity.options)
            _require_same(identity, simulator, "the installed simulator")
            self._simulator = simulator
        return self._simulator

    def require_simulator(self, simulator: Simulator) -> None:
        """Refuse another simulator than the one these simulations were made by.

        Simulations from bare arrays know none and match any with the same parameters.

        Raises:
            StoreMismatchError: If name, version or options differ, saying which.
            ContractError: If the parameters have other names.
        """
        if self.identity is not None:
            _require_same(self.identity, simulator, "the given simulator")
        if self.parameters.names != simulator.parameters.names:
            raise ContractError(
                f"the simulations have the parameters {', '.join(self.parameters.names)}, "
                f"{simulator.name!r} has {', '.join(simulator.parameters.names)}"
            )

    @property
    def parameters(self) -> ParameterSpace:
        """The parameters, in the order of theta's columns."""
        return self.prior.parameters

    @property
    def observable(self) -> Observable:
        """What x is."""
        return self._store.header.observable

    @property
    def seed(self) -> int | None:
        """Seed of the store."""
        return self._store.header.seed

    @property
    def purpose(self) -> str:
        """Purpose of the store."""
        return self._store.header.purpose

    @property
    def latents(self) -> tuple[str, ...]:
        """Names of the latents."""
        return self._store.latents

    @property
    def n_simulated(self) -> int:
        """Number of rows, valid or not."""
        return sum(
            part.rows if part.within is None else int(self._rows.inside(i).sum())
            for i, part in enumerate(self._parts)
        )

    @property
    def n_invalid(self) -> int:
        """Number of rows left out because the simulation failed or was not selected."""
        return self.n_simulated - len(self)

    @property
    def valid_fraction(self) -> float:
        """Fraction of rows that are valid (1 when there are none)."""
        return len(self) / self.n_simulated if self.n_simulated else 1.0

    @property
    def theta(self) -> FloatArray:
        """All parameters, shape (n, d), read anew at each access."""
        theta: FloatArray = self._rows.read("theta", np.arange(len(self)))
        return theta

    @property
    def x(self) -> DataArray:
        """All data, shape (n, *observable.shape), read anew at each access."""
        x: DataArray = self._rows.read("x", np.arange(len(self)))
        return x

    def invalid_theta(self) -> FloatArray:
        """Parameters of the rows left out, shape (n_invalid, d): where does the simulator fail?"""
        found = [np.empty((0, self.prior.d))]
        for i, part in enumerate(self._parts):
            if part.entry.invalid:
                valid = self._store.read(part.entry, "valid")[: part.rows].astype(np.bool_)
                theta = self._store.read(part.entry, "theta")[: part.rows].astype(np.float64)
                found.append(theta[~valid & self._rows.inside(i)])
        return np.concatenate(found)

    def read(self, rows: slice | ArrayLike, *, latents: Sequence[str] | None = None) -> Rows:
        """Read some rows, touching only their chunks.

        Args:
            rows: A slice or row numbers; sorted ones read each chunk once.
            latents: Which latents; None for all.

        Raises:
            ContractError: If a row number is out of range.
            UnknownNameError: If a latent is unknown.
            StoreError: If data is missing or damaged.
        """
        index = self._row_numbers(rows)
        names = self.latents if latents is None else tuple(latents)
        for name in names:
            if name not in self.latents:
                raise unknown_name("latent", name, self.latents)
        weighted = any(part.entry.weighted for part in self._parts)
        return Rows(
            theta=self._rows.read("theta", index),
            x=self._rows.read("x", index),
            z={name: self._rows.read(f"{LATENTS}/{name}", index) for name in names},
            weight=self._rows.read("weight", index) if weighted else None,
        )

    def blocks(self, size: int = 4096, *, latents: Sequence[str] | None = None) -> Iterator[Rows]:
        """Yield all rows in order, `size` at a time."""
        for start in range(0, len(self), size):
            yield self.read(slice(start, start + size), latents=latents)

    def digest(self) -> str:
        """SHA-256 of header and content; equal for equal simulations wherever they are stored."""
        made_from = [self._store.header.essence(), prior_essence(self.prior)]
        content = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode())
        for part in self._parts:
            line = [
                part.entry.round,
                part.entry.chunk,
                part.rows,
                sorted(self._sums(part).items()),
            ]
            content.update(json.dumps(line).encode())
        return content.hexdigest()

    def overlaps(self, other: Simulations) -> bool:
        """Whether the two share random streams, so that one cannot test what the other trained."""
        if self.seed is None or other.seed is None:
            return self.seed == other.seed and len(self) > 0 and self.digest() == other.digest()
        if (self.seed, self.purpose) != (other.seed, other.purpose):
            return False
        mine = {(p.entry.round, p.entry.chunk) for p in self._parts}
        return any((p.entry.round, p.entry.chunk) in mine for p in other._parts)

    def _row_numbers(self, rows: slice | ArrayLike) -> IntArray:
        n = len(self)
        if isinstance(rows, slice):
            return np.arange(*rows.indices(n), dtype=np.int64)
        index = np.asarray(rows)
        if index.ndim != 1 or (index.dtype.kind not in "iu" and len(index)):
            raise ContractError(
                f"rows must be a slice or a 1-d array of row numbers, got {index.dtype} of shape "
                f"{index.shape}"
            )
        bad = index[(index < 0) | (index >= n)]
        if len(bad):
            raise ContractError(f"row {bad[0]} is out of range: there are {n} valid simulations")
        return index.astype(np.int64)

    def _sums(self, part: Part) -> dict[str, str]:
        """Checksums of the part's arrays, computed from the data if only some rows are used."""
        if part.rows == part.entry.rows:
            return dict(part.entry.sums)
        return {
            name: checksum(self._store.read(part.entry, name)[: part.rows])
            for name in part.entry.sums
        }


def _require_same(identity: SimulatorIdentity, simulator: Simulator, subject: str) -> None:
    stored, have = identity.to_dict(), simulator.identity.to_dict()
    differing = [
        f"{k}: the store has {stored[k]!r}, {subject} has {have[k]!r}"
        for k in stored
        if stored[k] != have[k]
    ]
    if differing:
        raise StoreMismatchError(
            f"the simulations were made by another simulator: {'; '.join(differing)}"
        )
