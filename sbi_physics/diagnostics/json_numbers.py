"""Numbers that JSON lacks: NaN is written as null, infinities as the words `inf` and `-inf`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sbi_physics.types import FloatArray


def to_list(values: FloatArray) -> list[Any]:
    """Return an array as nested lists of numbers, null and words."""
    if values.ndim > 1:
        return [to_list(v) for v in values]
    plain: list[Any] = values.tolist()
    return plain if np.isfinite(values).all() else [to_number(v) for v in plain]


def from_list(values: Sequence[Any]) -> FloatArray:
    """Return the array that `to_list` wrote."""
    return np.array(_numbers(values), dtype=np.float64)


def to_number(value: Any) -> Any:
    """Return a float as JSON can hold it; anything else as it is."""
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return None if math.isnan(value) else ("inf" if value > 0 else "-inf")


def to_record(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a flat record whose numbers, and tuples of numbers, JSON can hold."""
    return {
        k: [to_number(x) for x in v] if isinstance(v, tuple) else to_number(v)
        for k, v in values.items()
    }


def from_record(values: Mapping[str, Any], text: Sequence[str] = ()) -> dict[str, Any]:
    """Return the record that `to_record` wrote; `text` names the fields that are no numbers."""
    return {
        k: v if k in text else (tuple(_numbers(v)) if isinstance(v, list) else _number(v))
        for k, v in values.items()
    }


def _numbers(values: Sequence[Any]) -> list[Any]:
    return [_numbers(v) if isinstance(v, list) else _number(v) for v in values]


def _number(value: Any) -> Any:
    if value is None:
        return math.nan
    return float(value) if value in ("inf", "-inf") else value
