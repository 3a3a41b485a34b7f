r"""Events with weights at several points, from Les Houches event files of any generator.

A reweighted sample gives for each event its cross section at basis points theta_b. Solving for
the quadratic between them (`conventions.gram_from_weights`) turns these weights into the same
labels that the built-in generator has. What could go wrong silently is checked while reading:
every event has every weight, none is negative, the weights are precise enough, the points
determine the coefficients, the dependence is quadratic, and the Gram matrices are positive.
"""

from __future__ import annotations

import gzip
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import pylhe

from sbi_physics.errors import (
    ContractError,
    DataFileError,
    ObservationError,
    SbiPhysicsError,
    unknown_name,
)
from sbi_physics.types import FloatArray
from sbi_physics_smeft.conventions import gram_from_weights, pack
from sbi_physics_smeft.weight_checks import check_gram, check_precision, check_weights
from sbi_physics_smeft.weighted_events import WeightedEvents
from sbi_physics_smeft.wz_events import wz_leptons

_SET: Final = re.compile(r"set\s+(?:param_card\s+)?(\w+)\s+(\d+)\s+([-+.\deE]+)")


def read_lhe(
    files: Sequence[str | Path],
    points: Mapping[str, Sequence[float]],
    *,
    extract: Callable[[Any], Sequence[float]] = wz_leptons,
    max_label_error: float = 1e-4,
) -> WeightedEvents:
    """Read reweighted events, one at a time, from LHE files (plain or gzip).

    Args:
        files: Files of one process; each is normalised to its own cross section, and events of
            all count alike.
        points: Coefficients of each weight, by its id in the files; one point must be zero. Other
            weights (scales, parton densities) are ignored.
        extract: Called with each pylhe event, returns the numbers to keep of it; default: the
            leptons of a WZ event.
        max_label_error: Largest error of labels that rounding of the printed weights may cause,
            relative to the largest weight of an event and in units of the largest coefficients.

    Raises:
        DataFileError: If a file does not exist.
        UnknownNameError: If a file has no weight of some id.
        ObservationError: If an event lacks weights, weights are negative, too coarsely rounded or
            not quadratic, or a file is damaged; naming file and event.
        ContractError: If the points do not determine the coefficients.
    """
    ids, basis, reference = _basis(points)
    if not files:
        raise ContractError("read_lhe needs at least one file")
    weights: list[FloatArray] = []
    records: list[FloatArray] = []
    cross_sections: list[FloatArray] = []
    for file in files:
        values, record, cross_section = _read_one(Path(file), ids, reference, extract)
        weights.append(values)
        records.append(record)
        cross_sections.append(cross_section * len(values))
    table = np.concatenate(weights)
    source = ", ".join(str(f) for f in files)
    tolerance = check_precision(table, basis, max_label_error, source)
    relative = table / table[:, [reference]]
    gram, residual = gram_from_weights(relative, basis)
    check_gram(gram, residual, np.abs(basis).max(axis=0), relative, tolerance, source)
    return WeightedEvents(
        pack(gram), np.concatenate(cross_sections) / len(table), np.concatenate(records)
    )


def points_from_header(
    file: str | Path, coefficients: Sequence[str]
) -> dict[str, tuple[float, ...]]:
    """Coefficients of each weight as the reweighting commands in a file's header give them.

    Args:
        file: LHE file.
        coefficients: Block and entry of each coefficient in lines such as ``set param_card SMEFT
            2 0.1``, for example ``["SMEFT 1", "SMEFT 2"]``.

    Returns:
        Weight id -> coefficients; weights without such commands are left out.

    Raises:
        DataFileError: If the file does not exist.
        ObservationError: If no weight has any, or one does not set all coefficients.
    """
    wanted = [" ".join(c.split()).lower() for c in coefficients]
    with _opened(Path(file)) as lhe:
        declared = [] if lhe.header is None else list(lhe.header.initrwgt.iter_weights())
    found: dict[str, tuple[float, ...]] = {}
    for weight in declared:
        values = {f"{b.lower()} {k}": float(v) for b, k, v in _SET.findall(weight.name)}
        given = [name in values for name in wanted]
        if not any(given):
            continue
        if not all(given):
            missing = [c for c, there in zip(coefficients, given, strict=True) if not there]
            raise ObservationError(
                f"weight {weight.id!r} of {file} sets {', '.join(values)} but not "
                f"{', '.join(missing)}; give the points by hand"
            )
        found[weight.id] = tuple(values[name] for name in wanted)
    if not found:
        raise ObservationError(
            f"the header of {file} has no commands that set {', '.join(coefficients)}; give the "
            "points by hand"
        )
    return found


def _basis(points: Mapping[str, Sequence[float]]) -> tuple[list[str], FloatArray, int]:
    ids = list(points)
    lengths = sorted({len(points[name]) for name in ids})
    if len(lengths) != 1 or lengths[0] == 0:
        raise ContractError(
            f"points must all have the same number of coefficients, got {lengths or 'no points'}"
        )
    basis = np.array([points[name] for name in ids], dtype=np.float64)
    zero = np.flatnonzero((basis == 0).all(axis=1))
    if len(zero) != 1:
        raise ContractError(
            f"exactly one point must have all coefficients zero, got {len(zero)} among "
            f"{', '.join(ids)}"
        )
    return ids, basis, int(zero[0])


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The file as pylhe reads it; damage is an error, where pylhe warns and stops."""
    if not path.is_file():
        raise DataFileError(f"no LHE file at {path}")
    with path.open("rb") as raw:
        compressed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        file: Any = gzip.GzipFile(fileobj=raw) if compressed else raw
        with file, warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            try:
                yield pylhe.LHEFile.frombuffer(file)
            except (RuntimeWarning, EOFError, ValueError, IndexError, KeyError, OSError) as error:
                if isinstance(error, SbiPhysicsError):
                    raise
                raise ObservationError(f"{path} is damaged or no LHE file: {error}") from error


def _read_one(
    path: Path, ids: Sequence[str], reference: int, extract: Callable[[Any], Sequence[float]]
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Weights (n, B), records (n, k), and cross section of each event at theta = 0 in pb."""
    weights, records, nominal = [], [], []
    with _opened(path) as lhe:
        declared = [] if lhe.header is None else lhe.header.initrwgt.list_weights_ids()
        cross_section = sum(process.xSection for process in lhe.init.procInfo)
        for name in ids:
            if declared and name not in declared:
                raise unknown_name(f"weight of {path}", name, declared)
        for k, event in enumerate(lhe.events):
            _check_ids(event.weights, ids, declared, k, path)
            weights.append([event.weights[name] for name in ids])
            nominal.append(event.eventinfo.weight)
            try:
                records.append(extract(event))
            except ObservationError as error:
                raise ObservationError(f"event {k} of {path}: {error}") from error
    if not weights:
        raise ObservationError(f"{path} has no events")
    values = np.array(weights, dtype=np.float64)
    check_weights(values, ids, reference, str(path))
    total = float(np.sum(nominal))
    if not (cross_section > 0 and total > 0):
        raise ObservationError(
            f"{path} states a cross section of {cross_section:g} pb and event weights that sum to "
            f"{total:g}; both must be positive"
        )
    # Whatever the convention (mean, sum or unit weights), XWGTUP adds up to the cross section.
    per_event = values[:, reference] * (cross_section / total)
    return values, np.array(records, dtype=np.float64), per_event


def _check_ids(
    weights: Mapping[str, float], ids: Sequence[str], declared: Sequence[str], k: int, path: Path
) -> None:
    """Every weight asked for and every weight declared is there."""
    missing = [name for name in ids if name not in weights]
    if missing and k == 0 and not declared:
        raise unknown_name(f"weight of {path}", missing[0], weights)
    if missing or (declared and len(weights) != len(declared)):
        lacks = ", ".join(missing or sorted(set(declared) - set(weights)))
        raise ObservationError(
            f"event {k} of {path} has {len(weights)} weights, the header declares "
            f"{len(declared) or 'none'}{f'; missing: {lacks}' if lacks else ''}. Did reweighting "
            "stop early, or were files of different runs joined?"
        )
