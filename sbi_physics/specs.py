"""Plugin specifications: plain data, so that listing plugins imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

API_VERSION = 1
"""Version of the plugin contract; raised when a contract changes."""


@dataclass(frozen=True, slots=True)
class SimulatorSpec:
    """What the registry knows of a simulator before importing it.

    Attributes:
        name: Kebab-case name users type, for example `alp-ngc1275`.
        summary: One line for listings.
        target: `"module:attribute"` of the `Simulator` subclass, imported at first use.
        requires: Distributions the target needs, for error messages.
        references: arXiv numbers or DOIs.
        api_version: Plugin contract this was written for.
    """

    name: str
    summary: str
    target: str
    requires: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    api_version: int = API_VERSION


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What the registry knows of an inference engine before importing it.

    Attributes:
        name: Kebab-case name users type, for example `sbi-npe`.
        summary: One line for listings.
        target: `"module:attribute"` of the `Engine` subclass, imported at first use.
        requires: Distributions the target needs, for error messages.
        references: arXiv numbers or DOIs.
        api_version: Plugin contract this was written for.
        ecosystem: Top-level package of the ecosystem's own objects (`"sbi"`); empty if none.
        native_simulator: `"module:function"` called with a simulator, returning its native view.
        native_posterior: `"module:function"` called with a native object and a prior, returning a
            `Posterior`; a third parameter `observable`, if it has one, receives the data's
            `Observable` or None.
        probe: `"module:function"` that `doctor` calls without arguments; it imports what the
            target imports only when used, and raises what that raises. Empty if there is nothing.
        trains: Whether it learns from simulations; references that do not are left out of
            `sbi-physics run --engine all`.
        needs_labels: Whether it learns from `Simulator.labels`; `--engine all` leaves it out for
            simulators that have none.
    """

    name: str
    summary: str
    target: str
    requires: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    api_version: int = API_VERSION
    ecosystem: str = ""
    native_simulator: str = ""
    native_posterior: str = ""
    probe: str = ""
    trains: bool = True
    needs_labels: bool = False
