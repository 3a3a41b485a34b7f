"""What this plugin offers, as data: nothing heavy is imported here."""

from __future__ import annotations

from sbi_physics import EngineSpec, hookimpl


@hookimpl
def sbi_physics_engines() -> list[EngineSpec]:
    """Return the engine of this plugin."""
    return [
        EngineSpec(
            name="swyft-tmnre",
            summary="marginal neural ratio estimation, joint up to six parameters (swyft)",
            target="sbi_physics_swyft.tmnre:MarginalRatioEngine",
            requires=("swyft", "pytorch-lightning", "torch"),
            references=("arXiv:2011.13951", "arXiv:2107.01214"),
            ecosystem="swyft",
            native_simulator="sbi_physics_swyft.native:native_simulator",
            native_posterior="sbi_physics_swyft.native_posterior:native_posterior",
        )
    ]
