"""Opening and creating a store's folder: what is there, is it whole, may it be written?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sbi_physics.errors import StoreError
from sbi_physics.store_arrays import (
    SERVICE,
    ZarrArrays,
    has_data,
    is_own_folder,
    read_attributes,
    sweep,
)
from sbi_physics.store_header import StoreHeader
from sbi_physics.store_index import StoreIndex
from sbi_physics.store_lock import WriterLock

_INDEX = Path(SERVICE) / "index.jsonl"
_LOCK = Path(SERVICE) / "lock"


@dataclass(frozen=True, slots=True)
class StoreFolder:
    """The pieces of an open store; `lock` is held, or None for reading."""

    header: StoreHeader
    index: StoreIndex
    arrays: ZarrArrays
    lock: WriterLock | None


def stored_header(root: Path) -> StoreHeader | None:
    """What the store in a folder was made from; None if there is none (or no complete one).

    Raises:
        StoreError: If its metadata is damaged.
    """
    attributes = read_attributes(root)
    if attributes is None:
        return None
    try:
        return StoreHeader.from_dict(attributes)
    except (KeyError, TypeError, ValueError, LookupError) as error:
        raise StoreError(
            f"the store {root} is damaged: its header cannot be read ({error})"
        ) from error


def open_to_read(root: Path, asked: StoreHeader | None) -> StoreFolder:
    """Open an existing store.

    Raises:
        StoreError: If it is absent or damaged.
        StoreMismatchError: If it was made from something else than asked for.
    """
    header = stored_header(root)
    if header is None:
        raise StoreError(_absence(root))
    if asked is not None:
        header.require(asked, f"the store {root}")
    # The index first: a writer may be extending the arrays meanwhile, never shortening them.
    index = StoreIndex.load(root / _INDEX, writable=False)
    return StoreFolder(header, index, ZarrArrays.open(root, header), None)


def open_to_append(root: Path, asked: StoreHeader | None) -> StoreFolder:
    """Lock a store and open it; create it where it is absent and a header is given.

    Raises:
        StoreError: If it is damaged, or the folder holds something else.
        StoreLockedError: If somebody is writing to it.
        StoreMismatchError: If it was made from something else than asked for.
    """
    if asked is None and stored_header(root) is None:
        raise StoreError(_absence(root))
    if root.exists() and not (root.is_dir() and is_own_folder(root)):
        raise StoreError(f"{root} exists and is not a simulation store; choose another folder")
    try:
        (root / SERVICE).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot create the store {root}: {error.strerror}") from error
    lock = WriterLock(root / _LOCK, f"the store {root}")
    lock.acquire()
    try:
        return _open_locked(root, asked, lock)
    except BaseException:
        lock.release()
        raise


def _open_locked(root: Path, asked: StoreHeader | None, lock: WriterLock) -> StoreFolder:
    header = stored_header(root)
    sweep(root)
    if header is not None:
        if asked is not None:
            header.require(asked, f"the store {root}")
        existing = ZarrArrays.open(root, header)
        index = StoreIndex.load(root / _INDEX, writable=True)
        return StoreFolder(header, index, existing, lock)
    if asked is None or has_data(root):
        raise StoreError(_absence(root))
    # New, or killed while being created: nothing was ever written into it, so start over.
    (root / _INDEX).write_bytes(b"")
    arrays = ZarrArrays.create(root, asked)
    return StoreFolder(asked, StoreIndex.load(root / _INDEX, writable=True), arrays, lock)


def _absence(root: Path) -> str:
    if not root.exists():
        return f"there is no store {root}; make one with simulate(..., store=path)"
    if root.is_dir() and has_data(root):
        return (
            f"the store {root} is damaged: {root / 'zarr.json'} is missing or is not a store's. "
            "Restore the file from a backup, or delete the store and simulate again"
        )
    return (
        f"{root} is not a simulation store (or its creation was interrupted); "
        "simulate(..., store=path) makes one"
    )
