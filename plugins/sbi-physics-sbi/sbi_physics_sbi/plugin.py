"""What this plugin offers, as data: nothing heavy is imported here."""

from __future__ import annotations

from sbi_physics import EngineSpec, hookimpl

_REQUIRES = ("sbi", "torch")


@hookimpl
def sbi_physics_engines() -> list[EngineSpec]:
    """Return the engines of this plugin."""
    return [
        EngineSpec(
            name="sbi-npe",
            summary="neural posterior estimation with a conditional density (sbi)",
            target="sbi_physics_sbi.npe:NeuralPosteriorEngine",
            requires=_REQUIRES,
            references=("arXiv:1605.06376", "arXiv:1905.07488", "arXiv:1906.04032"),
            ecosystem="sbi",
            native_simulator="sbi_physics_sbi.native:native_simulator",
            native_posterior="sbi_physics_sbi.native_posterior:native_posterior",
        ),
        EngineSpec(
            name="sbi-fmpe",
            summary="flow matching posterior estimation with a velocity network (sbi)",
            target="sbi_physics_sbi.fmpe:FlowMatchingEngine",
            requires=_REQUIRES,
            references=("arXiv:2305.17161", "arXiv:2210.02747", "arXiv:2209.03003"),
            ecosystem="sbi",
            native_simulator="sbi_physics_sbi.native:native_simulator",
            native_posterior="sbi_physics_sbi.native_posterior:native_posterior",
        ),
        EngineSpec(
            name="sbi-nre",
            summary="neural ratio estimation with a classifier, no MCMC (sbi)",
            target="sbi_physics_sbi.nre:NeuralRatioEngine",
            requires=_REQUIRES,
            references=(
                "arXiv:1903.04057",
                "arXiv:2002.03712",
                "arXiv:2208.13624",
                "arXiv:2210.06170",
            ),
            ecosystem="sbi",
            native_simulator="sbi_physics_sbi.native:native_simulator",
            native_posterior="sbi_physics_sbi.native_posterior:native_posterior",
        ),
    ]
