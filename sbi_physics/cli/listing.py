"""`list`, `show` and `doctor`: what is there."""

from __future__ import annotations

import warnings
from argparse import ArgumentParser
from collections.abc import Sequence
from typing import Any

from sbi_physics.cli.options import add_free, add_json, add_set, with_free
from sbi_physics.cli.terminal import remark, say, say_json


def list_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of `list`."""
    parser.add_argument(
        "kind", nargs="?", choices=("simulators", "engines"), help="what to list (default: both)"
    )
    add_json(parser)


def list_(*, kind: str | None, as_json: bool) -> None:
    """List simulators and engines."""
    from sbi_physics import registry
    from sbi_physics.errors import PluginWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PluginWarning)  # told below
        loaded = registry.current()
    sections: dict[str, list[dict[str, Any]]] = {}
    if kind != "engines":
        sections["simulators"] = [_spec_record(e) for e in loaded.simulators.values()]
    if kind != "simulators":
        sections["engines"] = [_spec_record(e) for e in loaded.engines.values()]
    if as_json:
        problems = [_failure_record(f) for f in loaded.failures]
        say_json({**sections, "failures": problems})
        return
    width = max((len(r["name"]) for rows in sections.values() for r in rows), default=0)
    for title, rows in sections.items():
        say(f"{title}:")
        for row in rows:
            say(f"  {row['name']:<{width}}  {row['summary']}")
    if loaded.failures:
        count = len(loaded.failures)
        noun = "plugin problem" if count == 1 else "plugin problems"
        remark(f"{count} {noun}; explained by: sbi-physics doctor")


def show_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of `show`."""
    parser.add_argument("name", metavar="NAME", help="a simulator or an engine")
    add_set(parser)
    add_free(parser)
    add_json(parser)


def show(*, name: str, options: Sequence[str], free: list[str] | None, as_json: bool) -> None:
    """Show what a simulator or an engine takes and gives."""
    from sbi_physics import registry
    from sbi_physics.cli import describe
    from sbi_physics.config import parse_assignments
    from sbi_physics.errors import ConfigError

    values = parse_assignments(options, "--set")
    if registry.kind_of(name) == "simulator":
        values = with_free(values, name, free)
        with registry.building(name, values):
            record = describe.simulator_record(registry.simulator(name, **values))
    elif values or free:
        raise ConfigError(f"{name!r} is an engine; --set and --free are for simulators")
    else:
        record = describe.engine_record(registry.engine(name))
    if as_json:
        say_json(record)
        return
    from sbi_physics.cli import render

    render.show_record(record)


def doctor_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of `doctor`."""
    add_json(parser)


def doctor(*, as_json: bool) -> int:
    """Say what is installed, what is broken and how to mend it."""
    from sbi_physics import doctor as physician
    from sbi_physics.errors import PluginWarning

    remark("importing every simulator and engine ...")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PluginWarning)  # told below, with tracebacks
        diagnosis = physician.examine()
    if as_json:
        say_json(diagnosis.to_dict())
    else:
        from sbi_physics.cli import render

        render.show_diagnosis(diagnosis)
    return 0 if diagnosis.is_healthy else 3


def _spec_record(entry: Any) -> dict[str, Any]:
    record = {
        "name": entry.spec.name,
        "summary": entry.spec.summary,
        "distribution": entry.source.distribution,
        "version": entry.source.version,
        "requires": list(entry.spec.requires),
        "references": list(entry.spec.references),
    }
    if hasattr(entry.spec, "ecosystem"):
        record["ecosystem"] = entry.spec.ecosystem
    return record


def _failure_record(failure: Any) -> dict[str, str]:
    fields = ("plugin", "distribution", "version", "stage", "error", "remedy")
    return {field: getattr(failure, field) for field in fields}
