"""What goes into one chunk: checked arrays, which rows are usable, and checksums."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sbi_physics.errors import ContractError
from sbi_physics.store_arrays import LATENTS
from sbi_physics.store_header import StoreHeader
from sbi_physics.types import AnyArray, BoolArray

_LATENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


def chunk_arrays(
    header: StoreHeader,
    theta: ArrayLike,
    x: ArrayLike,
    z: Mapping[str, AnyArray],
    valid: ArrayLike | None,
    weight: ArrayLike | None,
) -> dict[str, AnyArray]:
    """Check one chunk.

    Args:
        header: What the store is made from.
        theta: Parameters, shape (rows, d).
        x: Data, shape (rows, *observable.shape).
        z: Latents, each with leading axis rows.
        valid: Rows that may be used, shape (rows,), or None for all finite ones.
        weight: Importance weights, shape (rows,), or None.

    Returns:
        Arrays under the names they have in the store; `valid` is False where anything is
        non-finite.

    Raises:
        ContractError: Naming the array, its shape or type, and what was expected.
    """
    values: dict[str, AnyArray] = {
        "theta": np.ascontiguousarray(theta, dtype=np.float64),
        "x": np.ascontiguousarray(x, dtype=np.float32),
    }
    rows = len(values["theta"])
    if not 1 <= rows <= header.chunk_size:
        raise ContractError(f"a chunk has 1 to {header.chunk_size} rows, got {rows}")
    for name, row in (("theta", (header.prior.d,)), ("x", tuple(header.observable.shape))):
        if values[name].shape != (rows, *row):
            raise ContractError(f"{name} has shape {values[name].shape}, expected {(rows, *row)}")
    for key, latent in z.items():
        array = np.ascontiguousarray(latent)
        if not _LATENT_NAME.fullmatch(key):
            raise ContractError(
                f"latent name {key!r} must consist of letters, digits, '_', '-' and '.'"
            )
        usual = array.dtype.kind in "biufc" and array.size
        if array.shape[:1] != (rows,) or not usual:
            raise ContractError(
                f"latent {key!r} has shape {array.shape} and type {array.dtype}, expected "
                f"numbers for {rows} rows"
            )
        values[f"{LATENTS}/{key}"] = array
    usable: BoolArray = np.logical_and.reduce([finite_rows(v) for v in values.values()])
    if valid is not None:
        chosen = np.asarray(valid, dtype=np.bool_)
        if chosen.shape != (rows,):
            raise ContractError(f"valid has shape {chosen.shape}, expected {(rows,)}")
        usable = usable & chosen
    values["valid"] = usable
    if weight is not None:
        weights = np.ascontiguousarray(weight, dtype=np.float64)
        if weights.shape != (rows,) or not (np.isfinite(weights).all() and (weights >= 0).all()):
            raise ContractError(f"weights must be {rows} finite numbers >= 0")
        values["weight"] = weights
    return values


def finite_rows(values: AnyArray) -> BoolArray:
    """Rows without a non-finite entry, shape (rows,); integers are always finite."""
    if values.dtype.kind not in "fc":
        return np.ones(len(values), dtype=np.bool_)
    finite: BoolArray = np.isfinite(values)
    return np.asarray(finite.all(axis=tuple(range(1, finite.ndim))), dtype=np.bool_)


def checksum(values: AnyArray) -> str:
    """First 128 bits of the SHA-256 of an array's type, shape and bytes."""
    array = np.ascontiguousarray(values)
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    # Arrays without entries have no memory to view.
    if array.size:
        content: Any = array.reshape(-1).view(np.uint8)
        digest.update(content)
    return digest.hexdigest()[:32]
