"""Stores, posteriors and simulators named on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sbi_physics.posterior import Posterior
    from sbi_physics.simulator import Simulator
    from sbi_physics.store import Simulations


def open_store(store: Path, n: int | None) -> Simulations:
    """Open the first `n` simulations of a store, or all."""
    from sbi_physics.errors import ConfigError
    from sbi_physics.store import SimulationStore

    if not store.is_dir():
        raise ConfigError(f"there is no store {str(store)!r} (current folder: {Path.cwd()})")
    with SimulationStore.open(store, "r") as opened:
        return opened.simulations(n=n)


def read_posterior(folder: Path) -> Posterior:
    """Load a posterior; a run directory holds its own in the folder `posterior`."""
    from sbi_physics.errors import ConfigError
    from sbi_physics.posterior_files import load_posterior

    if not folder.is_dir():
        raise ConfigError(f"there is no folder {str(folder)!r} (current folder: {Path.cwd()})")
    inner = folder / "posterior"
    return load_posterior(inner if (inner / "posterior.json").is_file() else folder)


def simulator_of(posterior: Posterior) -> Simulator:
    """Rebuild the simulator a posterior was trained on."""
    from sbi_physics import registry
    from sbi_physics.errors import ConfigError

    identity = posterior.context.simulator
    if identity is None:
        raise ConfigError(
            "this posterior was trained on bare arrays: it knows no simulator to read or simulate "
            "observations with"
        )
    simulator = registry.simulator(identity.name, **identity.options)
    if simulator.version != identity.version:
        raise ConfigError(
            f"the posterior was trained with version {identity.version} of {identity.name!r}; "
            f"version {simulator.version} is installed. Install the older one, or train again"
        )
    return simulator
