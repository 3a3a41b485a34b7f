"""Engines whose network is one torch module: build, train, store and rebuild, the same for all.

A plugin says how its network is built, what its losses are and which posterior it stands for.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from torch import nn

from sbi_physics.engine import Engine
from sbi_physics.errors import PosteriorFileError
from sbi_physics.nn.device import resolve_device, seeded
from sbi_physics.nn.loop import Loss, fit
from sbi_physics.nn.weights import load_arrays
from sbi_physics.observables import Observable
from sbi_physics.posterior import Posterior, PosteriorContext
from sbi_physics.progress import Progress
from sbi_physics.training import TrainingData
from sbi_physics.types import AnyArray


class TorchEngine(Engine):
    """An engine on one torch network; write `_build`, `_losses` and `_posterior`.

    Class attributes:
        architecture: Settings that shape the network and its posterior: what is needed to rebuild
            them.
    """

    architecture: ClassVar[tuple[str, ...]]

    def supports(self, observable: Observable) -> str | None:
        """Every kind of observable is supported."""
        return None

    @abstractmethod
    def _build(self, context: PosteriorContext, settings: Any, seed: int) -> nn.Module:
        """Return the untrained network, on the processor.

        Args:
            context: Prior and observable.
            settings: Resolved settings.
            seed: Seed of the initial weights; torch's own generator is seeded with it already.
        """

    @abstractmethod
    def _losses(self, network: Any, settings: Any) -> tuple[Loss, Loss]:
        """Return the training and the validation loss; the second is always the same number."""

    @abstractmethod
    def _posterior(self, context: PosteriorContext, network: Any, settings: Any) -> Posterior:
        """Return the posterior that a trained network, in evaluation mode, stands for."""

    def _resolved(self, settings: Any, context: PosteriorContext) -> Any:
        """Decide what settings leave open, or refuse them."""
        return settings

    def config(self, settings: Any) -> dict[str, Any]:
        """Return what a posterior must store to be rebuilt, JSON-ready."""
        chosen: dict[str, Any] = settings.model_dump(include=set(self.architecture), mode="json")
        return chosen

    def _train(
        self,
        data: TrainingData,
        context: PosteriorContext,
        settings: Any,
        seed: int,
        progress: Progress,
    ) -> Posterior:
        settings = self._resolved(settings, context)
        device = resolve_device(settings.device)
        with seeded(seed):
            network = self._build(context, settings, seed)
        network.to(device)
        loss, validation_loss = self._losses(network, settings)
        history = fit(
            network,
            loss,
            data,
            settings,
            seed=seed + 1,
            progress=progress,
            validation_loss=validation_loss,
        )
        network.to("cpu")
        return self._posterior(replace(context, history=history), network, settings)

    def _rebuild(
        self, context: PosteriorContext, config: Mapping[str, Any], weights: Mapping[str, AnyArray]
    ) -> Posterior:
        settings = self.settings(**config)
        with seeded(0):  # initial weights are drawn, then overwritten
            network = self._build(context, settings, 0)
        try:
            load_arrays(network, weights)
        except RuntimeError as error:
            versions = {k: context.versions.get(k, "unknown") for k in self.packages}
            raise PosteriorFileError(
                f"the stored weights do not fit the network that the installed packages build; "
                f"it was trained with {versions}: {error}"
            ) from error
        return self._posterior(context, network, settings)
