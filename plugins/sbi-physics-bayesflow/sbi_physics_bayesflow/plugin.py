"""What this plugin offers, as data: nothing heavy is imported here."""

from __future__ import annotations

from sbi_physics import EngineSpec, hookimpl


@hookimpl
def sbi_physics_engines() -> list[EngineSpec]:
    """Return the engine of this plugin."""
    return [
        EngineSpec(
            name="bayesflow-cinn",
            summary="conditional invertible network of coupling layers (BayesFlow)",
            target="sbi_physics_bayesflow.cinn:CouplingEngine",
            requires=("bayesflow", "keras", "torch"),
            references=(
                "arXiv:2003.06281",
                "arXiv:1907.02392",
                "arXiv:1906.04032",
                "arXiv:2306.16015",
            ),
            ecosystem="bayesflow",
            native_simulator="sbi_physics_bayesflow.native:native_simulator",
            native_posterior="sbi_physics_bayesflow.native_posterior:native_posterior",
            probe="sbi_physics_bayesflow.backend:probe",
        )
    ]
