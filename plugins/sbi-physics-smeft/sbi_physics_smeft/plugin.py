"""What this plugin offers, as data: nothing heavy is imported here."""

from __future__ import annotations

from sbi_physics import EngineSpec, SimulatorSpec, hookimpl


@hookimpl
def sbi_physics_simulators() -> list[SimulatorSpec]:
    """Return the simulators of this plugin."""
    return [
        SimulatorSpec(
            name="smeft-toy",
            summary="1-d toy of effective field theory: background plus theta^2 signal, exact",
            target="sbi_physics_smeft.smeft_toy:SmeftToy",
            references=("arXiv:2410.07315",),
        ),
        SimulatorSpec(
            name="smeft-wz",
            summary="pp -> WZ -> three leptons at 13.6 TeV with C_HWB, C_W and C_Hq3",
            target="sbi_physics_smeft.smeft_wz:SmeftWz",
            requires=("numba",),
            references=("arXiv:2410.07315", "arXiv:1902.05759", "arXiv:2203.05506"),
        ),
        SimulatorSpec(
            name="smeft-lhe",
            summary="WZ events from LHE files with weights at several Wilson coefficients",
            target="sbi_physics_smeft.smeft_lhe:SmeftLhe",
            requires=("numba", "pylhe"),
            references=("arXiv:2410.07315", "arXiv:hep-ph/0609017", "arXiv:1405.1067"),
        ),
        SimulatorSpec(
            name="smeft-madminer",
            summary="events and weights of a sample analysed by MadMiner, from its HDF5 file",
            target="sbi_physics_smeft.smeft_madminer:SmeftMadminer",
            requires=("numba", "h5py"),
            references=("arXiv:1907.10621", "arXiv:1805.00013"),
        ),
    ]


@hookimpl
def sbi_physics_engines() -> list[EngineSpec]:
    """Return the engines of this plugin."""
    return [
        EngineSpec(
            name="smeft-derivative",
            summary="regression of the quadratic coefficients from parton-level labels",
            target="sbi_physics_smeft.engines.derivative:DerivativeEngine",
            requires=("torch",),
            needs_labels=True,
            references=("arXiv:2410.07315", "arXiv:2107.10859", "arXiv:2007.10356"),
        ),
        EngineSpec(
            name="smeft-morphing",
            summary="ratios at basis points from parton-level labels, joined by morphing",
            target="sbi_physics_smeft.engines.morphing_engine:MorphingEngine",
            requires=("torch",),
            needs_labels=True,
            references=("arXiv:2410.07315", "arXiv:1805.00013", "arXiv:1808.00973"),
        ),
    ]
