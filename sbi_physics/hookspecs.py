"""The two hooks a plugin may implement.

A plugin is an installed distribution with an entry point in the group `sbi_physics` whose value is
a *light* module (it imports nothing heavy). That module marks its functions with `hookimpl`::

    from sbi_physics import SimulatorSpec, hookimpl

    @hookimpl
    def sbi_physics_simulators() -> list[SimulatorSpec]:
        return [SimulatorSpec("my-detector", "A detector.", "my_package.simulator:MyDetector")]
"""

from __future__ import annotations

from typing import Final

import pluggy

from sbi_physics.specs import EngineSpec, SimulatorSpec

GROUP: Final = "sbi_physics"
"""Name of the entry-point group and of the pluggy project."""

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)
"""Marks a plugin's implementation of a hook."""


@hookspec
def sbi_physics_simulators() -> list[SimulatorSpec]:  # type: ignore[empty-body]  # a hook has no body
    """Return the specifications of the simulators this plugin provides."""


@hookspec
def sbi_physics_engines() -> list[EngineSpec]:  # type: ignore[empty-body]  # a hook has no body
    """Return the specifications of the inference engines this plugin provides."""


HOOKS: Final = ("sbi_physics_simulators", "sbi_physics_engines")
