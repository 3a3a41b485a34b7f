"""The engine contract: simulations in, posterior out.

To write an engine, subclass `Engine`, give it a `name` and a `Settings` model, and implement
`_train` (one network) and `_rebuild` (the network from its stored configuration and weights).
Splitting, transforms, unconstrained coordinates, redraws, ensembles, state protection and storage
are done here, the same way for every engine.
"""

from __future__ import annotations

import copy
import platform
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, Self

from sbi_physics.ensemble import ensemble_of
from sbi_physics.errors import ContractError, TrainingError, unknown_name
from sbi_physics.guard import preserve_state
from sbi_physics.members import Members
from sbi_physics.observables import Observable
from sbi_physics.posterior import Posterior, PosteriorContext
from sbi_physics.progress import SILENT, Progress, rich_progress
from sbi_physics.seeding import check_seed, fresh_seed
from sbi_physics.simulator import make_options
from sbi_physics.store import Simulations
from sbi_physics.training import TrainingData, TrainingSettings
from sbi_physics.training_folder import TrainingFolder
from sbi_physics.types import AnyArray


class Engine(ABC):
    """An inference method.

    Class attributes:
        name: Kebab-case name, as registered.
        summary: One line.
        Settings: Pydantic model of the settings, a subclass of `TrainingSettings`.
        packages: Distributions whose versions are recorded with every posterior.
        presets: Named settings, such as the network and schedule of a publication; users write
            `ENGINE:PRESET`.
    """

    name: ClassVar[str]
    summary: ClassVar[str] = ""
    Settings: ClassVar[type[TrainingSettings]] = TrainingSettings
    packages: ClassVar[tuple[str, ...]] = ()
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    _preset: str = ""

    def supports(self, observable: Observable) -> str | None:
        """Return None if data of this kind can be handled, else the reason why not."""
        return None

    @abstractmethod
    def _train(
        self,
        data: TrainingData,
        context: PosteriorContext,
        settings: Any,
        seed: int,
        progress: Progress,
    ) -> Posterior:
        """Train one network.

        Args:
            data: Batches of unconstrained parameters and transformed data. Where
                `data.checkpoint` is a folder, an unfinished training may be kept and continued
                there (`sbi_physics.nn.loop.fit` does), with the same result.
            context: What the posterior must carry; add the history with `dataclasses.replace`.
            settings: Resolved settings, an instance of `Settings`.
            seed: Seed of this network; derive every randomness from it.
            progress: Where to show epochs.
        """

    @abstractmethod
    def _rebuild(
        self, context: PosteriorContext, config: Mapping[str, Any], weights: Mapping[str, AnyArray]
    ) -> Posterior:
        """Rebuild a posterior from `Posterior._config()` and `Posterior._weights()`."""

    def with_preset(self, name: str) -> Self:
        """Return this engine with the settings of a preset in place of its defaults.

        Raises:
            UnknownNameError: If it has no such preset.
        """
        if name not in self.presets:
            raise unknown_name(f"preset of {self.name!r}", name, self.presets)
        chosen = copy.copy(self)
        chosen._preset = name
        return chosen

    @property
    def preset_settings(self) -> Mapping[str, Any]:
        """What the chosen preset sets; empty without one."""
        return self.presets[self._preset] if self._preset else {}

    def settings(self, settings: TrainingSettings | None = None, **values: Any) -> Any:
        """Return resolved settings: the values over a preset over the defaults.

        Args:
            settings: Settings to start from instead, complete as they are.
            **values: Settings by name.

        Raises:
            OptionError: Naming the setting, its value and what is accepted.
        """
        if settings is None:
            values = {**self.preset_settings, **values}
        return make_options(self.name, self.Settings, settings, values, "setting")

    def train(
        self,
        simulations: Simulations,
        settings: TrainingSettings | Mapping[str, Any] | None = None,
        *,
        infer: Sequence[str] | None = None,
        seed: int,
        progress: Progress = SILENT,
        checkpoint: str | Path | None = None,
        workers: int = 1,
    ) -> Posterior:
        """Train on simulations.

        Args:
            simulations: Training simulations.
            settings: Engine settings; a mapping sets some of them.
            infer: Names of the parameters to infer; default those with role `interest`.
            seed: Seed of split, initialisation, shuffling and redraws.
            progress: Where to show progress.
            checkpoint: Folder for what a killed training needs to continue: the same call then
                ends with the same posterior. Remove it when that is safe.
            workers: Processes that train the members of an ensemble; results don't depend on it.

        Raises:
            TrainingError: If the engine cannot handle the data or training fails.
            OptionError: If a setting is wrong.
        """
        seed = check_seed(seed)
        resolved = (
            self.settings(settings)
            if isinstance(settings, TrainingSettings)
            else self.settings(**(settings or {}))
        )
        reason = self.supports(simulations.observable)
        if reason:
            raise TrainingError(
                f"engine {self.name!r} cannot train on {simulations.observable.kind} data: "
                f"{reason}"
            )
        if isinstance(infer, str):
            raise ContractError(f"infer takes a list of names, got the string {infer!r}")
        names = tuple(infer) if infer else simulations.parameters.interest
        with preserve_state():
            data = TrainingData(simulations, infer=names, settings=resolved, seed=seed)
            context = self._context(simulations, data, resolved, seed)
            folder = None if checkpoint is None else TrainingFolder(Path(checkpoint), context)
            members = Members(self, data, context, resolved, folder).train(workers, progress)
        return members[0] if len(members) == 1 else ensemble_of(members)

    def _context(
        self, simulations: Simulations, data: TrainingData, settings: TrainingSettings, seed: int
    ) -> PosteriorContext:
        return PosteriorContext(
            engine=self.name,
            prior=data.prior,
            observable=data.observable,
            simulator=simulations.identity,
            simulation_prior=simulations.prior,
            simulations={
                "seed": simulations.seed,
                "purpose": simulations.purpose,
                "rounds": list(simulations.rounds),
                "n": len(simulations),
                "digest": simulations.digest(),
                "redrawn": data.redraws,
            },
            settings=settings.model_dump(mode="json"),
            seed=seed,
            versions=package_versions(("sbi-physics", "numpy", *self.packages)),
            transform=data.transform,
        )


def package_versions(packages: Sequence[str]) -> dict[str, str]:
    """Return installed versions, and that of Python."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed as a distribution"
    return found


def train(
    simulations: Simulations,
    engine: str | Engine,
    *,
    settings: TrainingSettings | Mapping[str, Any] | None = None,
    infer: Sequence[str] | None = None,
    seed: int | None = None,
    progress: Progress | None = None,
    checkpoint: str | Path | None = None,
    workers: int = 1,
) -> Posterior:
    """Train an engine, by name, on simulations.

    Args:
        simulations: Training simulations.
        engine: Registered name (`ENGINE` or `ENGINE:PRESET`), or an engine.
        settings: Engine settings; a mapping sets some of them.
        infer: Names of the parameters to infer; default those with role `interest`.
        seed: Seed; drawn and recorded in the posterior when None.
        progress: Default: bars on a terminal.
        checkpoint: Folder for what a killed training needs to continue, see `Engine.train`.
        workers: Processes that train the members of an ensemble; results don't depend on it.

    Raises:
        UnknownNameError: If there is no such engine.
        TrainingError: If the engine cannot handle the data or training fails.
    """
    from sbi_physics import registry

    chosen = registry.engine(engine) if isinstance(engine, str) else engine
    return chosen.train(
        simulations,
        settings,
        infer=infer,
        seed=fresh_seed() if seed is None else seed,
        progress=rich_progress() if progress is None else progress,
        checkpoint=checkpoint,
        workers=workers,
    )
