"""Posterior samples read back from the netCDF file of a study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sbi_physics.errors import PosteriorFileError
from sbi_physics.types import FloatArray


def read_samples(path: str | Path, names: Sequence[str]) -> FloatArray:
    """Read samples, shape (n, param), of the named parameters.

    Raises:
        PosteriorFileError: If the file is missing, damaged, or lacks a parameter.
    """
    import h5netcdf  # type: ignore[import-untyped]

    try:
        with h5netcdf.File(str(path), "r") as file:
            group = file["posterior"]
            columns = [np.asarray(group[name][...], dtype=np.float64).ravel() for name in names]
    except (OSError, KeyError) as error:
        raise PosteriorFileError(
            f"cannot read samples of {', '.join(names)} from {path}: {error}. Delete the file and "
            "run the same command again"
        ) from error
    return np.stack(columns, axis=-1)
