"""What a store was made from: the part of it that never changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from sbi_physics.errors import ContractError, StoreMismatchError, unknown_name
from sbi_physics.observables import Observable
from sbi_physics.priors import Prior
from sbi_physics.seeding import PURPOSES, check_seed
from sbi_physics.simulator import SimulatorIdentity

DEFAULT_CHUNK_SIZE: Final = 256
"""Rows of a chunk. Chosen: a crash costs little work, workers are evenly loaded, and committing
(20 ms for spectra with wide latents, measured) stays far below 5 % of simulating at 2 ms a row and
more."""

_MAX_CHUNK_BYTES: Final = 64 * 2**20
_MAX_LISTED = 6
_COSMETIC = {"role", "label", "edge_label", "description", "scale"}


@dataclass(frozen=True, slots=True)
class StoreHeader:
    """The identity of a store; two calls may fill the same store only if their headers agree.

    Attributes:
        simulator: Name, version and options; None for arrays of unknown origin.
        prior: Prior over all parameters (of round 0; later rounds may record their own).
        observable: The data.
        seed: Seed of all chunks; None for arrays of unknown origin.
        purpose: A key of `seeding.PURPOSES`.
        chunk_size: Rows of a chunk, the unit of drawing and of commit.
    """

    simulator: SimulatorIdentity | None
    prior: Prior
    observable: Observable
    seed: int | None
    purpose: str = "train"
    chunk_size: int = DEFAULT_CHUNK_SIZE

    def __post_init__(self) -> None:
        if self.seed is not None:
            check_seed(self.seed)
        if self.purpose not in PURPOSES:
            raise unknown_name("purpose", self.purpose, PURPOSES)
        if isinstance(self.chunk_size, bool) or not isinstance(self.chunk_size, int):
            raise ContractError(f"chunk_size must be an integer, got {self.chunk_size!r}")
        if self.chunk_size < 1:
            raise ContractError(f"chunk_size must be at least 1, got {self.chunk_size}")

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready description."""
        return {
            "simulator": None if self.simulator is None else self.simulator.to_dict(),
            "prior": self.prior.to_dict(),
            "observable": self.observable.to_dict(),
            "seed": self.seed,
            "purpose": self.purpose,
            "chunk_size": self.chunk_size,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild from `to_dict`."""
        simulator = data["simulator"]
        return cls(
            simulator=None if simulator is None else SimulatorIdentity.from_dict(simulator),
            prior=Prior.from_dict(data["prior"]),
            observable=Observable.from_dict(data["observable"]),
            seed=data["seed"],
            purpose=data["purpose"],
            chunk_size=data["chunk_size"],
        )

    def essence(self) -> dict[str, Any]:
        """`to_dict` without what does not influence simulations: roles, labels, axis scales."""
        description = self.to_dict()
        observable = description["observable"]
        return {
            **description,
            "prior": prior_essence(self.prior),
            "observable": {k: v for k, v in observable.items() if k not in _COSMETIC},
        }

    def require(self, asked: StoreHeader, subject: str) -> None:
        """Check that this (stored) header agrees with the one asked for.

        Raises:
            StoreMismatchError: Naming every difference with both values.
        """
        require_equal(self.essence(), asked.essence(), subject)


def prior_essence(prior: Prior) -> dict[str, Any]:
    """JSON-ready description of a prior without roles, labels and axis scales."""
    description = prior.to_dict()
    parameters = [
        {k: v for k, v in parameter.items() if k not in _COSMETIC}
        for parameter in description["parameters"]
    ]
    return {**description, "parameters": parameters}


def require_equal(stored: Mapping[str, Any], asked: Mapping[str, Any], subject: str) -> None:
    """Compare two JSON-ready descriptions.

    Raises:
        StoreMismatchError: Naming every difference with both values.
    """
    differences = list(_differences("", stored, asked))
    if differences:
        shown = "; ".join(differences[:_MAX_LISTED])
        more = (
            f"; and {len(differences) - _MAX_LISTED} more"
            if len(differences) > _MAX_LISTED
            else ""
        )
        raise StoreMismatchError(
            f"{subject} was made with other settings: {shown}{more}. Use another folder, or "
            "repeat the call with the store's values"
        )


def default_chunk_size(observable: Observable) -> int:
    """Rows of a chunk when the caller does not say: 256, fewer for data of more than 256 kB a row.

    It does not depend on how many rows are asked for, so that a store filled in two steps equals
    one filled at once.
    """
    row_bytes = 4
    for extent in observable.shape:
        row_bytes *= int(extent)
    return max(1, min(DEFAULT_CHUNK_SIZE, _MAX_CHUNK_BYTES // row_bytes))


def _differences(where: str, stored: Any, asked: Any) -> Iterator[str]:
    """Leaves that differ, as 'prior parameters a distribution high: the store has 2.0, ...'."""
    if isinstance(stored, Mapping) and isinstance(asked, Mapping):
        for key in dict.fromkeys([*stored, *asked]):
            yield from _differences(f"{where} {key}", stored.get(key), asked.get(key))
    elif _named(stored) and _named(asked) and _names(stored) == _names(asked):
        for a, b in zip(stored, asked, strict=True):
            yield from _differences(f"{where} {a['name']!r}", a, b)
    elif _plain(stored) != _plain(asked):
        yield f"{where.strip()}: the store has {_shown(stored)}, asked for {_shown(asked)}"


def _named(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(v, Mapping) and "name" in v for v in value)
    )


def _names(value: list[Mapping[str, Any]]) -> list[Any]:
    return [v["name"] for v in value]


def _plain(value: Any) -> Any:
    # JSON turns tuples into lists; that is no difference.
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def _shown(value: Any) -> str:
    text = ", ".join(map(str, _names(value))) if _named(value) else repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
