"""Simulators, engines and verdicts as JSON-ready records: what `--json` prints and tables show."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pydantic import BaseModel

from sbi_physics import registry
from sbi_physics.engine import Engine
from sbi_physics.parameters import Parameter
from sbi_physics.simulator import Simulator

_RANGE_KEYS = {
    "minimum": "minimum",
    "exclusiveMinimum": "exclusive_minimum",
    "maximum": "maximum",
    "exclusiveMaximum": "exclusive_maximum",
}


def simulator_record(simulator: Simulator) -> dict[str, Any]:
    """Describe a simulator with its options."""
    entry = registry.current().simulators[simulator.name]
    observable = simulator.observable
    return {
        "kind": "simulator",
        "name": simulator.name,
        "summary": entry.spec.summary,
        "distribution": entry.source.distribution,
        "distribution_version": entry.source.version,
        "version": simulator.version,
        "references": list(entry.spec.references),
        "citation": list(simulator.citation),
        "two_stage": simulator.is_two_stage,
        "reads_observations": simulator.can("read_observation"),
        "parameters": [_parameter_record(p) for p in simulator.parameters],
        "constraints": [str(getattr(c, "expression", c)) for c in simulator.constraints],
        "observable": {
            "kind": observable.kind,
            "shape": list(observable.shape),
            "unit": observable.unit,
            "transform": list(observable.transform),
        },
        "options": field_records(type(simulator.options), simulator.options),
        "fiducials": {name: dict(point) for name, point in simulator.fiducial.items()},
        "budgets": {
            name: {
                "simulations": budget.simulations,
                "pairs": budget.pairs,
                "draws": budget.draws,
                "training": dict(budget.training),
            }
            for name, budget in simulator.budgets.items()
        },
        "data_files": [asdict(f) for f in simulator.data_files()],
    }


def engine_record(engine: Engine) -> dict[str, Any]:
    """Describe an engine."""
    entry = registry.current().engines[engine.name]
    return {
        "kind": "engine",
        "name": engine.name,
        "summary": entry.spec.summary,
        "distribution": entry.source.distribution,
        "distribution_version": entry.source.version,
        "references": list(entry.spec.references),
        "ecosystem": entry.spec.ecosystem,
        "presets": {name: dict(values) for name, values in engine.presets.items()},
        "settings": field_records(engine.Settings, engine.settings()),
    }


def field_records(
    model: type[BaseModel], instance: BaseModel | None = None
) -> list[dict[str, Any]]:
    """Describe the fields of an options or settings model.

    Args:
        model: The model.
        instance: Its values are given as `value`, besides the defaults.
    """
    properties: Mapping[str, Mapping[str, Any]] = model.model_json_schema()["properties"]
    values = None if instance is None else instance.model_dump(mode="json")
    records = []
    for name, schema in properties.items():
        variants = [v for v in schema.get("anyOf", (schema,)) if v.get("type") != "null"]
        limits = {
            key: variant[source]
            for variant in variants
            for source, key in _RANGE_KEYS.items()
            if source in variant
        }
        record = {
            "name": name,
            "type": " or ".join(_type_name(v) for v in variants) or "any",
            "optional": any(v.get("type") == "null" for v in schema.get("anyOf", ())),
            "choices": next((v["enum"] for v in variants if "enum" in v), None),
            "default": schema.get("default"),
            "unit": schema.get("unit", ""),
            "description": schema.get("description", ""),
            **limits,
        }
        if values is not None:
            record["value"] = values[name]
        records.append(record)
    return records


def _parameter_record(parameter: Parameter) -> dict[str, Any]:
    low, high = parameter.bounds
    return {
        "name": parameter.name,
        "label": parameter.label,
        "unit": parameter.unit,
        "role": "fixed" if parameter.is_fixed else parameter.role,
        "scale": parameter.scale,
        "prior": parameter.distribution.to_dict(),
        "prior_text": _prior_text(parameter),
        "low": low if math.isfinite(low) else None,
        "high": high if math.isfinite(high) else None,
        "description": parameter.description,
    }


def _prior_text(parameter: Parameter) -> str:
    return _distribution_text(parameter.distribution.to_dict())


def _distribution_text(described: Mapping[str, Any]) -> str:
    if "base" in described:
        return f"minus {_distribution_text(described['base'])}"
    numbers = {k: float(v) for k, v in described.items() if k != "kind"}
    listed = ", ".join(f"{k} {v:.4g}" for k, v in numbers.items() if math.isfinite(v))
    return f"{described['kind']}: {listed}"


def _type_name(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return "choice"
    if "const" in schema:
        return repr(schema["const"])
    kind = str(schema.get("type", "any"))
    return {"integer": "int", "number": "float", "boolean": "bool", "string": "text"}.get(
        kind, kind
    )
