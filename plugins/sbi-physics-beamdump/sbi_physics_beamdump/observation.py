"""Reading measured events from a text table."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Final

import numpy as np

from sbi_physics.errors import DataFileError, ObservationError
from sbi_physics.types import FloatArray

COLUMNS: Final = ("E1", "E2", "x1", "y1", "x2", "y2", "theta1", "theta2", "phi1", "phi2")
"""Header of a table of events: GeV, metres, radians."""

_LOGARITHMIC: Final = ("E1", "E2", "theta1", "theta2")


def read_events(path: str | Path, size: int) -> FloatArray:
    """Read one set of events.

    Args:
        path: Comma-separated text, one event a line, whose header names `COLUMNS` (any order).
            Photon 1 is the one with the larger energy.
        size: Slots of the set; fewer events are padded.

    Returns:
        The ten features and presence of each event, shape (size, 11).

    Raises:
        DataFileError: If there is no such file.
        ObservationError: If columns are missing, numbers are not acceptable, or there are too many
            events or none.
    """
    file = Path(path)
    if not file.is_file():
        raise DataFileError(f"no observation at {file}")
    with file.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, skipinitialspace=True))
    missing = [name for name in COLUMNS if not rows or name not in rows[0]]
    if missing:
        raise ObservationError(
            f"{file} needs a header with {', '.join(COLUMNS)} and at least one event; "
            f"missing: {', '.join(missing)}"
        )
    if len(rows) > size:
        raise ObservationError(
            f"{file} has {len(rows)} events, the sets of this simulator at most {size}; set the "
            f"option events={len(rows)}"
        )
    x = np.zeros((size, len(COLUMNS) + 1))
    for i, row in enumerate(rows):
        for j, name in enumerate(COLUMNS):
            x[i, j] = _feature(row[name], name, f"event {i + 1} of {file}")
    x[: len(rows), -1] = 1.0
    return x


def _feature(text: str | None, name: str, where: str) -> float:
    try:
        value = float(text or "")
    except ValueError as error:
        raise ObservationError(f"{where}: {name} = {text!r} is not a number") from error
    if not np.isfinite(value) or (name in _LOGARITHMIC and value <= 0):
        kind = "positive" if name in _LOGARITHMIC else "finite"
        raise ObservationError(f"{where}: {name} = {value:g}; it must be {kind}")
    return float(np.log(value)) if name in _LOGARITHMIC else value
