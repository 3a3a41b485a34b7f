"""Reading one observation of a toy from a small file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from sbi_physics.errors import DataFileError, ObservationError
from sbi_physics.observables import Observable
from sbi_physics.types import DataArray

SUFFIXES = (".npy", ".csv", ".json")


def read_array(path: str | Path, observable: Observable) -> DataArray:
    """Read one observation, shape observable.shape.

    Args:
        path: An array (`.npy`), comma-separated numbers (`.csv`), or a list or an object with the
            entry `x` (`.json`).
        observable: What it must look like.

    Raises:
        DataFileError: If there is no such file.
        ObservationError: If it cannot be read, or has a wrong number of values.
    """
    file = Path(path)
    if not file.is_file():
        raise DataFileError(f"no observation file at {file}")
    if file.suffix not in SUFFIXES:
        raise ObservationError(
            f"{file}: unknown file type {file.suffix!r}; known: {', '.join(SUFFIXES)}"
        )
    try:
        values = _read(file)
    except (ValueError, KeyError, TypeError) as error:
        raise ObservationError(f"{file} does not hold an array of numbers: {error}") from error
    if values.size != int(np.prod(observable.shape)):
        raise ObservationError(
            f"{file} holds values of shape {values.shape}; "
            f"the observable has shape {observable.shape}"
        )
    x: DataArray = observable.check(values.reshape(observable.shape), str(file))[0]
    return x


def _read(file: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    if file.suffix == ".npy":
        return np.asarray(np.load(file, allow_pickle=False), dtype=np.float64)
    if file.suffix == ".csv":
        return np.loadtxt(file, delimiter=",", dtype=np.float64)
    content = json.loads(file.read_text(encoding="utf-8"))
    return np.asarray(content["x"] if isinstance(content, dict) else content, dtype=np.float64)
