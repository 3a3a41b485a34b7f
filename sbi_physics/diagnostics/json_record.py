"""What results that are kept as JSON files have in common."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sbi_physics.errors import ValidationError


class JsonRecord:
    """A result with a JSON-ready description."""

    __slots__ = ()

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready description, with its `schema`."""

    def to_json(self, path: str | Path | None = None) -> str:
        """Return the record as JSON text and, if a path is given, write it there."""
        text = json.dumps(self.to_dict(), allow_nan=False)
        if path is not None:
            Path(path).write_text(text + "\n", encoding="utf-8")
        return text


def check_schema(data: Mapping[str, Any], subject: str, *readable: int) -> None:
    """Refuse a description of another schema.

    Raises:
        ValidationError: Naming the schema found and those that can be read.
    """
    if data.get("schema") not in readable:
        known = ", ".join(map(str, readable))
        raise ValidationError(
            f"{subject} has schema {data.get('schema')!r}; this version of sbi-physics reads "
            f"schema{'s' if len(readable) > 1 else ''} {known}"
        )


def read_json(path: str | Path, what: str) -> dict[str, Any]:
    """Return the object that a JSON file holds.

    Args:
        path: File to read.
        what: What it should hold, for the error text.

    Raises:
        ValidationError: If it is no JSON object.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValidationError(
            f"{path} is not readable as JSON (line {error.lineno}): it is damaged, or no JSON file"
        ) from error
    except UnicodeDecodeError as error:
        raise ValidationError(f"{path} is no JSON file, so it does not hold {what}") from error
    if not isinstance(data, dict):
        raise ValidationError(f"{path} holds {type(data).__name__}, not {what}")
    return data
