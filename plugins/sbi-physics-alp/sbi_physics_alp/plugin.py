"""What this plugin offers, as data: nothing heavy is imported here."""

from __future__ import annotations

from sbi_physics import SimulatorSpec, hookimpl

_REQUIRES = ("numba", "astropy", "gammapy")


@hookimpl
def sbi_physics_simulators() -> list[SimulatorSpec]:
    """Return the simulators of this plugin."""
    return [
        SimulatorSpec(
            name="alp-ngc1275",
            summary="photon-ALP mixing towards NGC 1275 (Perseus) seen by CTAO",
            target="sbi_physics_alp.ngc1275:AlpNgc1275",
            requires=_REQUIRES,
            references=("arXiv:2509.20578", "arXiv:1603.06978", "arXiv:1406.5972"),
        ),
        SimulatorSpec(
            name="alp-source",
            summary="photon-ALP mixing towards any source behind a cluster, by configuration",
            target="sbi_physics_alp.source:AlpSource",
            requires=_REQUIRES,
            references=("arXiv:1406.5972",),
        ),
        SimulatorSpec(
            name="alp-pks2155",
            summary="photon-ALP mixing towards PKS 2155-304 seen by a H.E.S.S.-like array",
            target="sbi_physics_alp.pks2155:AlpPks2155",
            requires=_REQUIRES,
            references=("arXiv:1311.3148", "arXiv:1406.5972"),
        ),
    ]
