"""Finding files of public gamma-ray data sets, and saying how to get those that are missing."""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sbi_physics import DataFile
from sbi_physics.errors import ContractError, DataFileError

VARIABLE = "GAMMAPY_DATA"
"""Environment variable that names the folder of gammapy's public data sets."""


NOT_FITS: tuple[type[Exception], ...] = (OSError, EOFError, zipfile.BadZipFile)
"""What astropy raises where a file is no FITS file: it unpacks zip and gzip files by itself."""

NOT_READ: tuple[type[Exception], ...] = (*NOT_FITS, KeyError, ValueError)
"""The same, or what gammapy raises where a table lacks what it reads."""


class MissingDataError(DataFileError):
    """A data file was not found where it was looked for."""


@dataclass(frozen=True, slots=True)
class PublicFile:
    """A file of a public data set.

    Attributes:
        path: Path below $GAMMAPY_DATA.
        dataset: Name by which ``gammapy download datasets`` knows the data set.
        description: What it is.
    """

    path: str
    dataset: str
    description: str


PUBLIC_FILES: dict[str, PublicFile] = {
    "cta-prod3b-south-z20-50h": PublicFile(
        "cta-1dc/caldb/data/cta/1dc/bcf/South_z20_50h/irf_file.fits",
        "cta-1dc",
        "CTA South prod3b response, 20 deg zenith, 50 h",
    ),
    "cta-prod5-north-20deg-50h": PublicFile(
        "cta-caldb/Prod5-North-20deg-AverageAz-4LSTs09MSTs.180000s-v0.1.fits.gz",
        "cta-caldb",
        "CTAO North prod5 response, 20 deg zenith, 50 h",
    ),
    "cta-prod5-south-20deg-50h": PublicFile(
        "cta-caldb/Prod5-South-20deg-AverageAz-14MSTs37SSTs.180000s-v0.1.fits.gz",
        "cta-caldb",
        "CTAO South prod5 response, 20 deg zenith, 50 h",
    ),
    "hess-dl3-dr1": PublicFile(
        "hess-dl3-dr1/obs-index.fits.gz",
        "hess-dl3-dr1",
        "H.E.S.S. public test data (DL3 DR1): index of the runs",
    ),
    "hess-pks2155-steady": PublicFile(
        "PKS2155-steady/pks2155-304_steady.fits.gz",
        "PKS2155-steady",
        "H.E.S.S. spectrum of PKS 2155-304 with its response (OGIP)",
    ),
}
"""Names that stand for files below $GAMMAPY_DATA."""


def locate(name_or_path: str | Path, names: Iterable[str] = tuple(PUBLIC_FILES)) -> Path:
    """Path of an existing file, given by name or by path.

    Args:
        name_or_path: A key of `PUBLIC_FILES`, or a path, in which ~ and environment variables are
            expanded.
        names: Names accepted where the question comes from, for the error.

    Raises:
        MissingDataError: Which file, where it was looked for, and the command that gets it.
    """
    known = PUBLIC_FILES.get(str(name_or_path))
    if known is None:
        path = Path(os.path.expandvars(name_or_path)).expanduser()
        if path.is_file():
            return path
        raise MissingDataError(
            f"there is no file {path}. Give the path of a file{_or_one_of(names)}."
        )
    command = f"gammapy download datasets --src {known.dataset}"
    folder = os.environ.get(VARIABLE)
    if not folder:
        raise MissingDataError(
            f"{name_or_path} is the file {known.path} below ${VARIABLE}, which is not set. Set it "
            f"to the folder of your gammapy data sets, or get the file with "
            f"`{command} --out DIR` and set {VARIABLE}=DIR."
        )
    path = Path(folder).expanduser() / known.path
    if not path.is_file():
        raise MissingDataError(
            f"{name_or_path} was looked for at {path} and is not there. "
            f"Get it with `{command} --out {folder}`."
        )
    return path


def _or_one_of(names: Iterable[str]) -> str:
    listed = ", ".join(names)
    return f", or one of the names {listed}" if listed else ""


def load_arrays(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """All arrays of an npz file without pickles, by name.

    Raises:
        ContractError: If it is no such file.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise TypeError("it holds one array without a name")
        with loaded as data:
            return {name: data[name] for name in data.files}
    except (TypeError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ContractError(f"{path} is not an npz file of arrays: {error}") from error


def found_files(prefix: str = "") -> list[DataFile]:
    """Public files whose name begins with ``prefix``: where each was looked for, if it is there.

    Args:
        prefix: Beginning of the names, such as ``cta-``.
    """
    folder = os.environ.get(VARIABLE)
    listed = []
    for name, known in PUBLIC_FILES.items():
        if not name.startswith(prefix):
            continue
        path = Path(folder).expanduser() / known.path if folder else None
        listed.append(
            DataFile(
                name=name,
                path=f"${VARIABLE}/{known.path}" if path is None else str(path),
                found=path is not None and path.is_file(),
                how_to_get=f"gammapy download datasets --src {known.dataset}"
                + ("" if folder else f", then set {VARIABLE}"),
            )
        )
    return listed


def public_name(path: Path) -> str | None:
    """Name of the public file that a path is, below the current $GAMMAPY_DATA; None if none."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        return None
    for name, known in PUBLIC_FILES.items():
        if (Path(folder).expanduser() / known.path).resolve() == path.resolve():
            return name
    return None


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


class _Savable(Protocol):
    def save(self, path: str | Path) -> Path: ...


def keep(record: _Savable, path: Path) -> None:
    """Save a derived record under another name and rename it, never leaving half a file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(dir=path.parent, suffix=".npz")
        os.close(handle)
        record.save(draft)
        Path(draft).replace(path)
    except OSError:
        # A read-only home costs time at every start, not a failure.
        return


def cache_folder() -> Path:
    """Where derived files are kept: $XDG_CACHE_HOME/sbi-physics-alp, ~/.cache/... by default."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "sbi-physics-alp"
