"""OGIP spectra (PHA files): what a file names and masks, checked before gammapy reads it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sbi_physics.errors import ContractError, DataFileError
from sbi_physics_alp.data_files import NOT_FITS

_ACCEPTED = (
    "accepted is an OGIP spectrum that names its effective area (ANCRFILE), energy migration "
    "(RESPFILE) and off spectrum (BACKFILE)"
)
_NEEDED = {
    "ANCRFILE": "effective area (ARF)",
    "RESPFILE": "energy migration (RMF)",
    "BACKFILE": "off spectrum (BKG)",
}


@dataclass(frozen=True, slots=True)
class SpectrumFile:
    """What a PHA file says about itself.

    Attributes:
        path: The file.
        named: Files named in its header, by keyword: of ANCRFILE, RESPFILE and BACKFILE those
            that are neither empty nor "none".
        columns: Names of the columns of its table SPECTRUM.
        masked: Bins that its QUALITY masks, counted from 0.
    """

    path: Path
    named: dict[str, str]
    columns: tuple[str, ...]
    masked: tuple[int, ...]

    def check_on_off(self) -> None:
        """Check that it has all that an on-off observation needs.

        Raises:
            ContractError: If a keyword or column is missing.
            DataFileError: If a file that it names is.
        """
        for keyword, what in _NEEDED.items():
            if keyword not in self.named:
                raise ContractError(
                    f"{self.path} names no {what}: its header has no {keyword}; {_ACCEPTED}"
                )
            if not self.companion(keyword).is_file():
                raise DataFileError(
                    f"{self.path} names its {what} as {keyword}={self.named[keyword]!r}, which is "
                    f"not there: looked for at {self.companion(keyword)}"
                )
        self._has_columns("COUNTS", "QUALITY", "BACKSCAL")
        inspect_spectrum(self.companion("BACKFILE"))._has_columns("COUNTS", "BACKSCAL")

    def companion(self, keyword: str) -> Path:
        """Path of a file that it names, found as gammapy finds it: from here, then beside it."""
        path = Path(os.path.expandvars(self.named[keyword])).expanduser()
        return path if path.exists() else self.path.parent / path

    def _has_columns(self, *names: str) -> None:
        missing = [name for name in names if name not in self.columns]
        if missing:
            raise ContractError(
                f"the table SPECTRUM of {self.path} has no column {', '.join(missing)}; it has "
                f"{', '.join(self.columns)}"
            )


def inspect_spectrum(path: Path) -> SpectrumFile:
    """Read the header and the quality mask of a PHA file.

    Raises:
        ContractError: If it is no FITS file with a table SPECTRUM.
    """
    from astropy.io import fits

    try:
        with fits.open(path, memmap=False) as hdus:
            names = [hdu.name for hdu in hdus]
            if "SPECTRUM" not in names:
                raise ContractError(
                    f"{path} is no OGIP spectrum (PHA file): it has no table SPECTRUM, but "
                    f"{', '.join(names)}"
                )
            table = hdus["SPECTRUM"]
            named = {k: str(table.header.get(k, "")).strip() for k in _NEEDED}
            columns = tuple(table.columns.names)
            # The standard allows one quality for all bins as a keyword.
            quality = (
                table.data["QUALITY"] if "QUALITY" in columns else table.header.get("QUALITY", 0)
            )
            masked = np.flatnonzero(np.broadcast_to(np.asarray(quality) != 0, len(table.data)))
    except NOT_FITS as error:
        raise ContractError(f"{path} is no FITS file: {error}") from error
    given = {k: name for k, name in named.items() if name and name.lower() != "none"}
    return SpectrumFile(path, given, columns, tuple(masked.tolist()))


def has_off_spectrum(path: Path) -> bool:
    """Whether a file is an OGIP spectrum that names an off spectrum."""
    try:
        return "BACKFILE" in inspect_spectrum(path).named
    except ContractError:
        return False
