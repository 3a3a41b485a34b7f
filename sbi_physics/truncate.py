r"""Sequential truncated rounds, for any engine (after TMNRE, arXiv:2107.01214).

Round r draws parameters from the prior truncated to a box :math:`B_r`, trains on them and on
everything that earlier rounds simulated inside the box, and closes in on what the posterior of the
observation still allows (`epsilon_box`). Rounds end when a box would not halve the volume.

Only inferred parameters are truncated: what is marginalised keeps its whole prior.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from numpy.typing import ArrayLike

from sbi_physics.engine import Engine
from sbi_physics.epsilon_box import epsilon_box
from sbi_physics.errors import ContractError, ObservationError, StoreMismatchError
from sbi_physics.executors import Executor
from sbi_physics.posterior import Posterior
from sbi_physics.posterior_files import HEADER, load_posterior
from sbi_physics.priors import Prior
from sbi_physics.progress import Progress, rich_progress
from sbi_physics.rounds import simulations_within
from sbi_physics.seeding import check_seed, generator
from sbi_physics.simulate import simulate, store_for
from sbi_physics.simulator import Simulator
from sbi_physics.store import Simulations, SimulationStore
from sbi_physics.training import TrainingSettings
from sbi_physics.truncation import Truncation, TruncationRound
from sbi_physics.types import DataArray

EPSILON: Final = 1e-6
"""Relative likelihood below which points are cut off."""

_WORTHWHILE = 0.5
"""A further round needs a box of at most this much of the volume."""

OnRound = Callable[[TruncationRound], None]


def truncate(
    simulator: Simulator | str,
    observation: ArrayLike,
    engine: Engine | str,
    *,
    rounds: int = 5,
    simulations: int,
    final_simulations: int | None = None,
    epsilon: float = EPSILON,
    settings: TrainingSettings | Mapping[str, Any] | None = None,
    infer: Sequence[str] | None = None,
    prior: Prior | None = None,
    seed: int | None = None,
    workers: int = 1,
    executor: str | Executor | None = None,
    store: str | Path | SimulationStore | None = None,
    folder: str | Path | None = None,
    replace_rounds: bool = False,
    on_round: OnRound | None = None,
    progress: Progress | None = None,
) -> Posterior:
    """Train in rounds that close in on one observation, or finish what an earlier call began.

    The result depends on the seed, not on workers or interruptions. With `store`, simulations
    survive an interruption; with `folder`, the posteriors of finished rounds do.

    Args:
        simulator: A simulator or its registered name.
        observation: The observation, shape observable.shape.
        engine: An engine or its registered name.
        rounds: Largest number of rounds.
        simulations: Simulations that each round trains on; those of earlier rounds inside its box
            count, and only the missing ones are made.
        final_simulations: Simulations that one more round trains on, inside the last box; None for
            no such round. Closing in takes few simulations, an accurate posterior many.
        epsilon: Likelihood relative to the best point below which points are cut off.
        settings: Engine settings; a mapping sets some of them.
        infer: Names of the parameters to infer, and to truncate; default those of interest.
        prior: What the first round draws from; None for the simulator's own.
        seed: Seed of everything; None takes an existing store's, or a fresh one.
        workers: Number of local processes that simulate, and train the members of ensembles.
        executor: `serial`, `processes` or an `Executor`; None chooses by the number of workers.
        store: Folder of the store (resumed if it exists), an open store, or None for memory.
        folder: Where to keep the posterior of every round, in `<folder>/<round>`.
        replace_rounds: Discard later rounds of the store that were drawn from other boxes, instead
            of refusing.
        on_round: Called after every round, finished earlier or not.
        progress: Where to show progress; default bars on a terminal.

    Returns:
        The posterior of the last round. Its `prior` is the truncated one and
        `context.truncation` holds observation, boxes, volumes and counts; `sample`,
        `draw` and `log_prob` refuse other observations.

    Raises:
        ContractError: If an argument is out of range or the posterior's density is not finite.
        ObservationError: If the observation does not fit, or there are several.
        StoreMismatchError: If the store was made from something else.
        TrainingError: If the engine cannot handle the data or training fails.

    Example:
        >>> import sbi_physics as sp
        >>> posterior = sp.truncate("toy-gaussian", [0.1, 0.2], "exact", rounds=2, seed=1,
        ...                         simulations=100)
        >>> len(posterior.context.truncation.rounds)
        2
    """
    from sbi_physics import registry

    chosen = registry.simulator(simulator) if isinstance(simulator, str) else simulator
    trainer = registry.engine(engine) if isinstance(engine, str) else engine
    _check_numbers(rounds, simulations, final_simulations, epsilon)
    outer = chosen.prior if prior is None else prior
    if isinstance(infer, str):
        raise ContractError(f"infer takes a list of names, got the string {infer!r}")
    names = tuple(infer) if infer else outer.parameters.interest
    outer.parameters.with_interest(names)  # refuses unknown or fixed parameters
    resolved = (
        trainer.settings(settings)
        if isinstance(settings, TrainingSettings)
        else trainer.settings(**(settings or {}))
    )
    show = rich_progress() if progress is None else progress
    with store_for(chosen, store, prior=outer, seed=seed) as opened:
        assert opened.header.seed is not None
        task = _Task(
            simulator=chosen,
            engine=trainer,
            x=_one(chosen, observation),
            settings=resolved,
            names=names,
            outer=outer,
            n=simulations,
            final=final_simulations,
            epsilon=epsilon,
            seed=check_seed(opened.header.seed),
            workers=workers,
            executor=executor,
            store=opened,
            folder=None if folder is None else Path(folder),
            replace_rounds=replace_rounds,
            progress=show,
        )
        done: tuple[TruncationRound, ...] = ()
        closed = ""  # why there was no further box, once there was none
        while True:
            posterior, last, stopped = task.round(
                done, is_last=len(done) + 1 == rounds, closed=closed
            )
            done = (*done, last)
            if on_round is not None:
                on_round(last)
            if stopped and (closed or final_simulations is None):
                return posterior
            closed = stopped


def training_simulations(
    posterior: Posterior, store: SimulationStore, *, simulator: Simulator | None = None
) -> Simulations:
    """Return the simulations that a truncated posterior was trained on.

    Args:
        posterior: What `truncate` returned.
        store: The store it filled.
        simulator: The simulator behind the store, where the registry does not know it.

    Raises:
        ContractError: If the posterior was not made by `truncate`.
        StoreError: If the store is another one.
    """
    truncation, prior = posterior.context.truncation, posterior.context.simulation_prior
    if truncation is None or prior is None:
        raise ContractError(f"{posterior!r} was not made by truncated rounds")
    rows = {r: done.simulated for r, done in enumerate(truncation.rounds)}
    return simulations_within(store, prior, rows, simulator=simulator)


@dataclass(frozen=True, slots=True, eq=False)
class _Task:
    """What all rounds share; the fields are the arguments of `truncate`, resolved."""

    simulator: Simulator
    engine: Engine
    x: DataArray
    settings: TrainingSettings
    names: tuple[str, ...]
    outer: Prior
    n: int
    final: int | None
    epsilon: float
    seed: int
    workers: int
    executor: str | Executor | None
    store: SimulationStore
    folder: Path | None
    replace_rounds: bool
    progress: Progress

    def round(
        self, done: tuple[TruncationRound, ...], *, is_last: bool, closed: str
    ) -> tuple[Posterior, TruncationRound, str]:
        """Simulate, train and evaluate one round, or load it.

        Returns its posterior, its record and why no box follows, empty if one does. `closed` is
        that reason of an earlier round: then this is the final one.
        """
        start, r = time.perf_counter(), len(done)
        wanted = self.final if closed and self.final is not None else self.n
        box, volume = (done[-1].next_box, done[-1].next_volume) if done else ({}, 1.0)
        prior = self.outer.truncate(box)
        rows = {k: earlier.simulated for k, earlier in enumerate(done)}
        reused = len(simulations_within(self.store, prior, rows)) if done else 0
        rows[r] = max(wanted - reused, 0)
        self._simulate(r, prior, rows[r])
        training = simulations_within(self.store, prior, rows, simulator=self.simulator)
        seed = int(generator(self.seed, "training", 3, r).integers(2**31))
        posterior = self._finished(r, training, seed)
        if posterior is None:
            posterior = self.engine.train(
                training,
                self.settings,
                infer=self.names,
                seed=seed,
                progress=self.progress,
                checkpoint=self._checkpoint,
                workers=self.workers,
            )
            next_box, share, above, evaluated = epsilon_box(
                posterior, self.x, epsilon=self.epsilon, seed=self.seed, round=r
            )
            history = posterior.context.history
            last = TruncationRound(
                box=box,
                volume=volume,
                simulated=rows[r],
                reused=reused,
                trained_on=len(training),
                evaluated=evaluated,
                above=above,
                next_box=next_box,
                next_volume=volume * share,
                loss=None if history is None else history.best_loss,
                seconds=round(time.perf_counter() - start, 3),
            )
        else:
            last = _truncation(posterior).rounds[-1]
        converged = last.next_volume > _WORTHWHILE * last.volume
        stopped = closed or ("converged" if converged else "rounds" if is_last else "")
        ends = bool(closed) or self.final is None
        record = Truncation(
            self.x[0], self.epsilon, (*done, last), stopped if ends else "", bool(closed)
        )
        before = posterior.context.truncation
        if before is None or (before.stopped, before.final) != (record.stopped, record.final):
            _attach(posterior, record)
            if self.folder is not None:
                posterior.save(self.folder / str(r))
        if self._checkpoint is not None:
            shutil.rmtree(self._checkpoint, ignore_errors=True)
        return posterior, last, stopped

    @property
    def _checkpoint(self) -> Path | None:
        return None if self.folder is None else self.folder / ".training"

    def _simulate(self, r: int, prior: Prior, n: int) -> None:
        if self.replace_rounds and r:
            try:
                self.store.begin_round(r, prior)
            except StoreMismatchError:
                for later in {r, *(k for k in self.store.rounds if k > r)}:
                    self.store.discard_round(later)
        simulate(
            self.simulator,
            n,
            store=self.store,
            prior=prior,
            seed=self.seed,
            workers=self.workers,
            executor=self.executor,
            round=r,
            progress=self.progress,
        )

    def _finished(self, r: int, training: Simulations, seed: int) -> Posterior | None:
        """Load the posterior of a round that an earlier call finished on the same inputs."""
        if self.folder is None or not (self.folder / str(r) / HEADER).is_file():
            return None
        posterior = load_posterior(self.folder / str(r), engine=self.engine)
        context, truncation = posterior.context, posterior.context.truncation
        same = (
            truncation is not None
            and truncation.epsilon == self.epsilon
            and bool(truncation.is_for(self.x).all())
            and context.engine == self.engine.name
            and context.settings == self.settings.model_dump(mode="json")
            and context.seed == seed
            and context.prior.names == self.names
            and context.simulations.get("digest") == training.digest()
        )
        return posterior if same else None


def _attach(posterior: Posterior, record: Truncation) -> None:
    posterior.context = replace(posterior.context, truncation=record)
    for inner in posterior._inner():
        _attach(inner, record)


def _truncation(posterior: Posterior) -> Truncation:
    record = posterior.context.truncation
    if record is None:
        raise ContractError(f"{posterior!r} was not made by truncated rounds")
    return record


def _one(simulator: Simulator, observation: ArrayLike) -> DataArray:
    x = simulator.observable.check(observation)
    if len(x) != 1:
        raise ObservationError(
            f"truncated rounds close in on one observation, {len(x)} are given; events of one "
            "observation are an observable of kind 'set'"
        )
    return x


def _check_numbers(rounds: int, simulations: int, final: int | None, epsilon: float) -> None:
    if final is not None and (type(final) is not int or final < simulations):
        raise ContractError(
            f"final_simulations must be an integer of at least simulations ({simulations!r}), got "
            f"{final!r}"
        )
    for name, value, least in (("rounds", rounds, 1), ("simulations", simulations, 3)):
        if type(value) is not int or value < least:  # a bool is no count
            raise ContractError(f"{name} must be an integer of at least {least}, got {value!r}")
    if not 0 < epsilon < 1:
        raise ContractError(f"epsilon must lie between 0 and 1, got {epsilon!r}")
