"""What is wrong with an option or setting, in sentences without the insides of pydantic."""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from sbi_physics.errors import nearest_name

_KINDS: Final = {int: "an integer", float: "a number", str: "a text", bool: "true or false"}


def explain_options(owner: str, model: type[BaseModel], error: ValidationError, noun: str) -> str:
    """Return one sentence for each bad field: its name, its value and what is accepted.

    Args:
        owner: Name of the simulator or engine.
        model: The model that refused.
        error: What it said.
        noun: What the fields are called.
    """
    lines, unions = [], set()
    for item in error.errors():
        field = str(item["loc"][0]) if item["loc"] else ""
        if item["type"] == "extra_forbidden":
            lines.append(_unknown(owner, model, ".".join(map(str, item["loc"])), noun))
            continue
        if not field:
            lines.append(f"{noun}s of {owner!r}: {item['msg'].removeprefix('Value error, ')}.")
            continue
        info = model.model_fields.get(field)
        extra = info.json_schema_extra if info is not None else None
        unit = f" [{extra['unit']}]" if isinstance(extra, dict) and "unit" in extra else ""
        if info is not None and len(item["loc"]) > 1 and len(_members(info.annotation)) > 1:
            # Pydantic has one error for each member of a union; a person made one mistake.
            if field not in unions:
                unions.add(field)
                accepted = " or ".join(_texts(info.annotation))
                guess = _guess(item["input"], info)
                lines.append(
                    f"{noun} {field!r} of {owner!r}{unit}: got {item['input']!r}; accepted is "
                    f"{accepted}.{guess}"
                )
            continue
        name = ".".join(map(str, item["loc"]))
        message = item["msg"].removeprefix("Value error, ")
        accepted = "" if info is None else _accepted_range(info)
        guess = _guess(item["input"], info) if item["type"] == "literal_error" else ""
        lines.append(
            f"{noun} {name!r} of {owner!r}{unit}: got {item['input']!r}; {message}{accepted}."
            f"{guess}"
        )
    return " ".join(lines)


def _unknown(owner: str, model: type[BaseModel], name: str, noun: str) -> str:
    known = list(model.model_fields)
    nearest = nearest_name(name, known)
    guess = f" Did you mean {nearest!r}?" if nearest else ""
    return f"unknown {noun} {name!r} of {owner!r}.{guess} Known: {', '.join(known) or 'none'}."


def _guess(value: Any, info: FieldInfo | None) -> str:
    """The accepted text that is nearest to a wrong one."""
    if info is None or not isinstance(value, str):
        return ""
    known = [c for c in _choices(info.annotation) if isinstance(c, str)]
    nearest = nearest_name(value, known)
    return f" Did you mean {nearest!r}?" if nearest else ""


def _members(annotation: Any) -> list[Any]:
    """The members of a union without None; of anything else, itself."""
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [m for a in get_args(annotation) if a is not type(None) for m in _members(a)]
    return [annotation]


def _choices(annotation: Any) -> Iterator[Any]:
    for member in _members(annotation):
        if get_origin(member) is Literal:
            yield from get_args(member)


def _texts(annotation: Any) -> Iterable[str]:
    """What each member of a union accepts, in words."""
    texts = []
    for member in _members(annotation):
        if get_origin(member) is Literal:
            texts += [repr(choice) for choice in get_args(member)]
        else:
            kind = get_origin(member) or member
            listed = isinstance(kind, type) and issubclass(kind, tuple | list)
            named = str(getattr(kind, "__name__", kind))
            texts.append("a list" if listed else _KINDS.get(kind, named))
    if any(a is type(None) for a in get_args(annotation)):
        texts.append("null")
    return dict.fromkeys(texts)


def _accepted_range(info: FieldInfo) -> str:
    """The whole range of a bounded field: a message of pydantic names only the broken bound."""
    low = high = ""
    for rule in info.metadata:
        if hasattr(rule, "ge") or hasattr(rule, "gt"):
            low = f"[{rule.ge}" if hasattr(rule, "ge") else f"({rule.gt}"
        if hasattr(rule, "le") or hasattr(rule, "lt"):
            high = f"{rule.le}]" if hasattr(rule, "le") else f"{rule.lt})"
    return f" (accepted: {low or '(-inf'}, {high or 'inf)'})" if low or high else ""
