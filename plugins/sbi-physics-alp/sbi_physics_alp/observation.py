"""Reading measured counts of one region from files."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from sbi_physics.errors import ContractError, ObservationError
from sbi_physics_alp.data_files import NOT_READ, load_arrays, locate
from sbi_physics_alp.ogip import inspect_spectrum

Array = np.ndarray[Any, np.dtype[np.float64]]

_EDGE_TOLERANCE = 1e-4  # relative; FITS files hold energies in single precision


def read_counts(path: str | Path, edges_gev: Array) -> Array:
    """Counts of one spectrum, shape (n_bins,).

    Args:
        path: An npz file with an array ``counts`` and, to be checked, ``edges_gev``; or an OGIP
            spectrum (FITS) without off spectrum and masked bins, whose own response is not used,
            which a warning says.
        edges_gev: Energy edges that the counts must have, in GeV, shape (n_bins + 1,).

    Raises:
        DataFileError: If there is no such file.
        ObservationError: If it cannot be read or has other bins.
    """
    file = locate(path, names=())
    counts, edges = _read_npz(file) if file.suffix == ".npz" else _read_ogip(file)
    if edges is not None:
        check_edges(file, edges, edges_gev)
    if counts.shape != (edges_gev.size - 1,):
        raise ObservationError(
            f"{file} holds counts of shape {counts.shape}; expected ({edges_gev.size - 1},)"
        )
    return counts


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
        data = load_arrays(file)
        if names[0] not in data:
            raise ObservationError(f"{file} has no array {names[0]!r}; it has {list(data)}")
        return [
            np.asarray(data[name], dtype=np.float64) if name in data else None for name in names
        ]
    except ObservationError:
        raise
    except ValueError as error:  # of the file, or of values that are no numbers
        raise ObservationError(str(error)) from error


def _read_npz(file: Path) -> tuple[Array, Array | None]:
    counts, edges = read_arrays(file, ("counts", "edges_gev"))
    assert counts is not None  # read_arrays insists on the first
    return counts, edges


def _read_ogip(file: Path) -> tuple[Array, Array]:
    from gammapy.maps import RegionNDMap

    try:
        spectrum = inspect_spectrum(file)
    except ContractError as error:
        raise ObservationError(str(error)) from error
    off = spectrum.named.get("BACKFILE")
    lost = [f"off counts (BACKFILE={off!r})"] if off else []
    if spectrum.masked:
        lost.append(f"masked bins (QUALITY): {list(spectrum.masked)}")
    if lost:
        raise ObservationError(
            f"{file} has {' and '.join(lost)}, for which counts over a known background have no "
            f"place. Analyse it with alp-source and background=off, which takes its response, "
            f"background and mask; or give the counts alone, as array 'counts' of an npz file"
        )
    if spectrum.named:
        warnings.warn(
            f"{file} names a response of its own ({', '.join(spectrum.named)}), which is not "
            f"used: its counts are taken as measured with the simulator's response",
            stacklevel=2,
        )
    try:
        counts = RegionNDMap.read(file, format="ogip")
    except NOT_READ as error:
        raise ObservationError(f"gammapy cannot read {file}: {error}") from error
    edges = counts.geom.axes["energy"].edges.to_value("GeV")
    return np.asarray(counts.data.reshape(-1), dtype=np.float64), edges
