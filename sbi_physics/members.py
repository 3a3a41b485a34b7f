"""Members of an ensemble, trained one after the other or in worker processes.

A member is a function of its number: its seed, shuffles and redraws derive from it, so that it is
the same wherever it is trained. Workers send back configuration and weights, from which the engine
rebuilds the member as it does from a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sbi_physics.executors import ProcessExecutor, check_workers
from sbi_physics.guard import preserve_state
from sbi_physics.posterior import Posterior, PosteriorContext
from sbi_physics.progress import SILENT, Progress
from sbi_physics.seeding import generator
from sbi_physics.training import TrainingData, TrainingHistory, TrainingSettings
from sbi_physics.training_folder import TrainingFolder
from sbi_physics.types import AnyArray

if TYPE_CHECKING:
    from sbi_physics.engine import Engine


@dataclass(frozen=True, slots=True)
class TrainedMember:
    """What a worker sends back.

    Attributes:
        config: Configuration of the posterior.
        weights: Its weights.
        history: Its loss curves, if any.
    """

    config: Mapping[str, Any]
    weights: Mapping[str, AnyArray]
    history: TrainingHistory | None


@dataclass(frozen=True, slots=True)
class Members:
    """The members of one ensemble, to be trained.

    Attributes:
        engine: Trains them.
        data: Simulations, split and transformed; the same for all.
        context: What the posteriors carry.
        settings: Resolved settings.
        folder: Where unfinished training is kept, or None.
    """

    engine: Engine
    data: TrainingData
    context: PosteriorContext
    settings: TrainingSettings
    folder: TrainingFolder | None

    def train(self, workers: int, progress: Progress) -> list[Posterior]:
        """Return the trained members in order, whatever the number of workers.

        Args:
            workers: Number of processes; with one, or for one member, training happens here.
            progress: Shows the epochs of each member, or with several workers whole members.
        """
        n = self.settings.ensemble
        if check_workers(workers) == 1 or n == 1:
            return [self.one(k, progress) for k in range(n)]
        done: dict[int, Posterior] = {}
        executor = ProcessExecutor(min(workers, n))
        with progress.task("ensemble", n, "networks") as task:
            for k, trained in executor.map_unordered(self, range(n)):
                context = replace(self.context, history=trained.history)
                done[k] = self.engine._rebuild(context, trained.config, trained.weights)
                loss = "" if trained.history is None else f", loss {trained.history.best_loss:.3f}"
                task.advance(1, f"member {k + 1}{loss}")
        return [done[k] for k in range(n)]

    def __call__(self, k: int) -> TrainedMember:
        """Train member `k` in a worker."""
        with preserve_state():
            member = self.one(k, SILENT)
        return TrainedMember(member._config(), member._weights(), member.context.history)

    def one(self, k: int, progress: Progress) -> Posterior:
        """Train member `k`, or load it where a killed training had finished it."""
        seed = int(generator(self.context.seed, "training", 2, k).integers(2**31))
        state = None
        if self.folder is not None:
            found = self.folder.finished(k, self.engine)
            if found is not None:
                return found
            state = self.folder.state(k)
        view = self.data.member(k, state)
        member = self.engine._train(view, self.context, self.settings, seed, progress)
        if self.folder is not None:
            self.folder.keep(k, member)
        return member
