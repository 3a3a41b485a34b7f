"""What this plugin offers, as data: nothing heavy is imported here."""

from __future__ import annotations

from sbi_physics import SimulatorSpec, hookimpl


@hookimpl
def sbi_physics_simulators() -> list[SimulatorSpec]:
    """Return the simulators of this plugin."""
    return [
        SimulatorSpec(
            name="beamdump-alp",
            summary="ALP from B decays in a beam dump, a -> 2 photons in a calorimeter",
            target="sbi_physics_beamdump.simulator:BeamdumpAlp",
            requires=("numba", "astropy"),
            references=("arXiv:2308.01353", "arXiv:2407.20329", "arXiv:2201.05170"),
        )
    ]
