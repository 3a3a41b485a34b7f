"""Random generators derived from one seed.

Every use of randomness has a purpose; a stream is `SeedSequence(seed, spawn_key=(purpose, *key))`.
Streams with different purposes or keys are independent, so results depend neither on the number of
workers nor on their order, and test pairs never repeat training simulations under one seed.
"""

from __future__ import annotations

import secrets
from typing import Any, Final

import numpy as np

from sbi_physics.errors import ContractError, unknown_name

PURPOSES: Final[dict[str, int]] = {
    "train": 0,
    "test": 1,
    "pairs": 2,
    "posterior": 3,
    "training": 4,
    "redraw": 5,
    "validation": 6,
    "observation": 7,
    "transform": 8,
    "pool": 9,
    "scan": 10,
}
"""Numbers are part of the storage format: never renumber, only append."""

_LIMIT: Final = 2**63


def check_seed(seed: Any) -> int:
    """Return `seed` as a plain int.

    Raises:
        ContractError: If it is not an integer in [0, 2^63).
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < _LIMIT:
        raise ContractError(f"seed must be an integer in [0, 2**63), got {seed!r}")
    return int(seed)


def fresh_seed() -> int:
    """Return a seed from the operating system's entropy; the caller records it."""
    return secrets.randbelow(2**31)


def generator(seed: int, purpose: str, *key: int) -> np.random.Generator:
    """Return the generator of one stream.

    Args:
        seed: The run's seed.
        purpose: A key of `PURPOSES`.
        *key: Non-negative integers that identify the stream within its purpose (round, chunk,
            epoch, ...).

    Raises:
        UnknownNameError: If the purpose is unknown.
    """
    if purpose not in PURPOSES:
        raise unknown_name("purpose", purpose, PURPOSES)
    sequence = np.random.SeedSequence(check_seed(seed), spawn_key=(PURPOSES[purpose], *key))
    return np.random.Generator(np.random.PCG64(sequence))
