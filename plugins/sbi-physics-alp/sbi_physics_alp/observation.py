"""Reading measured counts of one region from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sbi_physics.errors import DataFileError, ObservationError
from sbi_physics_alp.data_files import MissingDataError, locate

Array = np.ndarray[Any, np.dtype[np.float64]]

_EDGE_TOLERANCE = 1e-4  # relative; FITS files hold energies in single precision


def read_counts(path: str | Path, edges_gev: Array) -> Array:
    """Counts of one spectrum, shape (n_bins,).

    Args:
        path: An npz file with an array ``counts`` and, to be checked, ``edges_gev``; or an OGIP
            spectrum (FITS), which needs gammapy.
        edges_gev: Energy edges that the counts must have, in GeV, shape (n_bins + 1,).

    Raises:
        DataFileError: If there is no such file.
        ObservationError: If it cannot be read or has other bins.
    """
    file = find(path)
    counts, edges = _read_npz(file) if file.suffix == ".npz" else _read_ogip(file)
    if edges is not None:
        check_edges(file, edges, edges_gev)
    if counts.shape != (edges_gev.size - 1,):
        raise ObservationError(
            f"{file} holds counts of shape {counts.shape}; expected ({edges_gev.size - 1},)"
        )
    return counts


def find(path: str | Path) -> Path:
    """Path of an existing file.

    Raises:
        DataFileError: If there is no such file.
    """
    try:
        return locate(path)
    except MissingDataError as error:
        raise DataFileError(str(error)) from error


def check_edges(file: Path, edges: Array, expected: Array) -> None:
    """Check that a file has the expected energy bins, in GeV.

    Raises:
        ObservationError: If it has others.
    """
    if edges.shape != expected.shape or not np.allclose(
        edges, expected, rtol=_EDGE_TOLERANCE, atol=0
    ):
        raise ObservationError(
            f"{file} has {edges.size - 1} bins from {edges[0]:g} to {edges[-1]:g} GeV; the "
            f"simulator has {expected.size - 1} from {expected[0]:g} to {expected[-1]:g} GeV"
        )


def read_arrays(file: Path, names: tuple[str, ...]) -> list[Array | None]:
    """Arrays of an npz file, None for those that it does not have.

    Raises:
        ObservationError: If it is no npz file, or lacks the first array.
    """
    try:
        with np.load(file, allow_pickle=False) as data:
            if names[0] not in data.files:
                raise ObservationError(f"{file} has no array {names[0]!r}; it has {data.files}")
            return [
                np.asarray(data[name], dtype=np.float64) if name in data.files else None
                for name in names
            ]
    except (ValueError, OSError) as error:
        if isinstance(error, ObservationError):
            raise
        raise ObservationError(f"{file} is not an npz file of arrays: {error}") from error


def _read_npz(file: Path) -> tuple[Array, Array | None]:
    counts, edges = read_arrays(file, ("counts", "edges_gev"))
    assert counts is not None  # read_arrays insists on the first
    return counts, edges


def _read_ogip(file: Path) -> tuple[Array, Array]:
    from gammapy.datasets import SpectrumDatasetOnOff

    dataset = SpectrumDatasetOnOff.read(file)
    edges = dataset.counts.geom.axes["energy"].edges.to_value("GeV")
    return np.asarray(dataset.counts.data.reshape(-1), dtype=np.float64), edges
