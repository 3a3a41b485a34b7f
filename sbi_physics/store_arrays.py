"""The arrays of a store, on disk (one zarr group) or in memory.

Every array is cut into slots of `chunk_size` rows. On disk a slot is one zarr chunk: writing it
touches one file, and reading some rows touches only their slots. Which slots hold data is not
known here; the index decides that.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, Self

import numpy as np

from sbi_physics.errors import StoreError
from sbi_physics.store_header import StoreHeader
from sbi_physics.types import AnyArray

FORMAT: Final = 1
"""Version of the layout on disk."""

LATENTS: Final = "z"
"""Group of the latents, so that latent `p` is the array `z/p`."""

SERVICE: Final = "valid"
"""The index and the lock live in this array's folder: zarr looks for members in groups only."""

_KEY = "sbi_physics"
_ZSTD_LEVEL = 1
_UNCOMPRESSED = ("theta", "valid")  # random digits and a few bytes
_OWN = ("theta", "x", SERVICE, "weight", "round")
_FAULTS = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError)
"""What zarr and its codecs raise on damaged metadata or chunks."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """One array: shape and type of a row, and attributes for people who open it with zarr."""

    row: tuple[int, ...]
    dtype: np.dtype[Any]
    fill: float | bool = 0
    attributes: Mapping[str, Any] | None = None


class StoreArrays(Protocol):
    """Arrays in slots."""

    def latents(self) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
        """Row shape and type of each latent."""

    def add_latent(self, name: str, row: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Create the array of a latent."""

    def ensure_length(self, rows: int) -> None:
        """Make every array at least this long."""

    def write(self, slot: int, values: Mapping[str, AnyArray]) -> None:
        """Write rows from the start of a slot; they are durable when this returns."""

    def read(self, name: str, slot: int, rows: int) -> AnyArray:
        """Read the first rows of a slot; do not write to the result."""


class MemoryArrays:
    """Slots held in memory."""

    def __init__(self) -> None:
        self._slots: dict[tuple[str, int], AnyArray] = {}
        self._latents: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}

    def latents(self) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
        """Row shape and type of each latent."""
        return dict(self._latents)

    def add_latent(self, name: str, row: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Note the layout of a latent."""
        self._latents[name] = (row, dtype)

    def ensure_length(self, rows: int) -> None:
        """Do nothing: memory grows slot by slot."""

    def write(self, slot: int, values: Mapping[str, AnyArray]) -> None:
        """Keep a copy of the rows."""
        for name, rows in values.items():
            self._slots[name, slot] = rows.copy()

    def read(self, name: str, slot: int, rows: int) -> AnyArray:
        """Return a read-only view."""
        view = self._slots[name, slot][:rows]
        view.flags.writeable = False
        return view


class ZarrArrays:
    """Slots in a zarr group.

    Args:
        root: The group's folder.
        chunk_size: Rows of a slot.
    """

    def __init__(self, root: Path, chunk_size: int) -> None:
        from zarr.storage import LocalStore

        self._root, self._chunk_size = root, chunk_size
        self._store = LocalStore(root)
        self._arrays: dict[str, Any] = {}

    @classmethod
    def create(cls, root: Path, header: StoreHeader) -> Self:
        """Create empty arrays; the group's attributes come last and mark it complete."""
        import zarr

        for name in (*_OWN, LATENTS):
            if name != SERVICE:
                shutil.rmtree(root / name, ignore_errors=True)
        (root / SERVICE / "zarr.json").unlink(missing_ok=True)
        (root / "zarr.json").unlink(missing_ok=True)
        arrays = cls(root, header.chunk_size)
        for name, layout in _layouts(header).items():
            arrays._create(name, layout)
        group = zarr.open_group(arrays._store, mode="a")
        group.attrs.put({_KEY: {"format": FORMAT, "header": header.to_dict()}})
        for file in (root / "zarr.json", *(root / name / "zarr.json" for name in _OWN)):
            _flush(file)
        return arrays

    @classmethod
    def open(cls, root: Path, header: StoreHeader) -> Self:
        """Open the arrays of an existing group.

        Raises:
            StoreError: If an array's metadata is missing or damaged.
        """
        arrays = cls(root, header.chunk_size)
        for name, layout in _layouts(header).items():
            arrays._open(name, layout)
        for folder in sorted((root / LATENTS).glob("*/zarr.json")):
            arrays._open(f"{LATENTS}/{folder.parent.name}", None)
        return arrays

    def latents(self) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
        """Row shape and type of each latent."""
        prefix = f"{LATENTS}/"
        return {
            name.removeprefix(prefix): (array.shape[1:], array.dtype)
            for name, array in self._arrays.items()
            if name.startswith(prefix)
        }

    def add_latent(self, name: str, row: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Create the array of a latent."""
        self._create(f"{LATENTS}/{name}", _Layout(row, dtype))

    def ensure_length(self, rows: int) -> None:
        """Make every array at least this long, and all of them equally long."""
        rows = max(rows, *(array.shape[0] for array in self._arrays.values()))
        for array in self._arrays.values():
            if array.shape[0] < rows:
                array.resize((rows, *array.shape[1:]))

    def write(self, slot: int, values: Mapping[str, AnyArray]) -> None:
        """Write rows from the start of a slot; they are on disk when this returns."""
        try:
            for name, rows in values.items():
                self._write_slot(self._file(name, slot), self._arrays[name], rows)
        except OSError as error:
            reason = error.strerror or str(error)
            raise StoreError(f"cannot write to the store {self._root}: {reason}") from error

    def read(self, name: str, slot: int, rows: int) -> AnyArray:
        """Read the first rows of a slot.

        Raises:
            StoreError: If the slot's file is missing, cut short or damaged.
        """
        array = self._arrays.get(name)
        if array is None or array.shape[0] < slot * self._chunk_size + rows:
            have = "is missing" if array is None else f"has only {array.shape[0]} rows"
            raise StoreError(f"array {name!r} of the store {self._root} {have}")
        file = self._file(name, slot)
        try:
            raw = file.read_bytes()
        except FileNotFoundError as error:
            raise StoreError(f"{file} is missing") from error
        except OSError as error:
            raise StoreError(f"{file} cannot be read ({error.strerror})") from error
        return self._decoded(file, array, raw)[:rows]

    # Slots are written and read as the zarr 3 specification lays out a chunk, in place of zarr's
    # own calls: those take several times longer, and do not sync to disk before they rename.

    def _write_slot(self, file: Path, array: Any, rows: AnyArray) -> None:
        block = np.full(array.chunks, array.fill_value, dtype=array.dtype.newbyteorder("<"))
        block[: len(rows)] = rows
        content = block.tobytes()
        if _is_compressed(file, self._root):
            content = _zstd().encode(content)
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_name(f"{file.name}.partial")
        with draft.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(file)

    def _decoded(self, file: Path, array: Any, raw: bytes) -> AnyArray:
        dtype = array.dtype.newbyteorder("<")
        try:
            content = _zstd().decode(raw) if _is_compressed(file, self._root) else raw
            block: AnyArray = np.frombuffer(content, dtype=dtype).reshape(array.chunks)
        except (ValueError, RuntimeError) as error:
            raise StoreError(f"{file} is damaged or cut short ({error})") from error
        return block.astype(array.dtype, copy=False)

    def _file(self, name: str, slot: int) -> Path:
        trailing = self._arrays[name].ndim - 1
        return self._root.joinpath(name, "c", str(slot), *["0"] * trailing)

    def _create(self, name: str, layout: _Layout) -> None:
        import zarr
        from zarr.codecs import BytesCodec, ZstdCodec

        axes = (
            "simulation",
            *(f"{name.rpartition('/')[2]}_{i}" for i in range(len(layout.row))),
        )
        self._arrays[name] = zarr.create_array(
            self._store,
            name=name,
            shape=(0, *layout.row),
            chunks=(self._chunk_size, *layout.row),
            dtype=layout.dtype,
            fill_value=layout.fill,
            serializer=BytesCodec(endian="little"),
            compressors=None if name in _UNCOMPRESSED else ZstdCodec(level=_ZSTD_LEVEL),
            dimension_names=axes,
            attributes=None if layout.attributes is None else dict(layout.attributes),
        )

    def _open(self, name: str, layout: _Layout | None) -> None:
        import zarr

        file = self._root / name / "zarr.json"
        try:
            array = zarr.open_array(self._store, path=name, mode="r+")
        except FileNotFoundError as error:
            raise StoreError(f"the store {self._root} is damaged: {file} is missing") from error
        except _FAULTS as error:
            raise StoreError(
                f"the store {self._root} is damaged: {file} cannot be read ({error})"
            ) from error
        agrees = array.chunks == (self._chunk_size, *array.shape[1:])
        if layout is not None:
            agrees = agrees and array.shape[1:] == layout.row and array.dtype == layout.dtype
        if not agrees:
            raise StoreError(
                f"the store {self._root} is damaged: {file} describes rows of shape "
                f"{array.shape[1:]} and type {array.dtype} in chunks of {array.chunks[0]}, which "
                "disagrees with the store's header"
            )
        self._arrays[name] = array


def read_attributes(root: Path) -> dict[str, Any] | None:
    """Return the header of the group in a folder, or None if it is absent or no store (yet).

    Raises:
        StoreError: If the metadata is damaged or comes from a newer version.
    """
    file = root / "zarr.json"
    try:
        attributes = json.loads(file.read_bytes()).get("attributes", {}).get(_KEY)
        if attributes is None:
            return None
        format, header = attributes["format"], attributes["header"]
    except FileNotFoundError:
        return None
    except _FAULTS as error:
        raise StoreError(
            f"the store {root} is damaged: {file} cannot be read ({error}). Restore the file "
            "from a backup, or delete the store and simulate again"
        ) from error
    if format != FORMAT:
        raise StoreError(
            f"the store {root} has format {format!r}; this version reads {FORMAT}: update "
            "sbi-physics"
        )
    result: dict[str, Any] = header
    return result


def is_own_folder(root: Path) -> bool:
    """Whether a folder holds nothing but what a store consists of."""
    return {p.name for p in root.iterdir() if not p.name.endswith(".partial")} <= {
        *_OWN,
        LATENTS,
        "zarr.json",
    }


def has_data(root: Path) -> bool:
    """Whether any slot was ever written in a folder."""
    return (root / "theta" / "c").exists()


def sweep(root: Path) -> None:
    """Delete temporary files of writes that a crash interrupted."""
    for file in root.rglob("*.partial"):
        file.unlink(missing_ok=True)


def _layouts(header: StoreHeader) -> dict[str, _Layout]:
    parameters, observable = header.prior.parameters, header.observable
    theta = {"names": list(parameters.names), "units": [p.unit for p in parameters]}
    real, flag = np.dtype(np.float64), np.dtype(np.bool_)
    return {
        "theta": _Layout((len(parameters),), real, attributes=theta),
        "x": _Layout(
            tuple(observable.shape), np.dtype(np.float32), attributes={"unit": observable.unit}
        ),
        "valid": _Layout((), flag, fill=False),
        "weight": _Layout((), real, fill=1.0),
        "round": _Layout((), np.dtype(np.int32)),
    }


def _is_compressed(file: Path, root: Path) -> bool:
    return file.relative_to(root).parts[0] not in _UNCOMPRESSED


@functools.cache
def _zstd() -> Any:
    from numcodecs.zstd import Zstd  # type: ignore[import-untyped]

    return Zstd(level=_ZSTD_LEVEL)


def _flush(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def described(latents: Mapping[str, Any]) -> str:
    """Return the names, row shapes and types of latents as text."""
    return ", ".join(f"{k} {row} {dtype}" for k, (row, dtype) in sorted(latents.items())) or "none"
