"""Exact engines with one planted defect each."""

from __future__ import annotations

import contextlib
import logging
import random
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from sample_mutants import Mutants
from sample_mutants_posteriors import Defective, posterior_mutant

from sbi_physics.posterior import Draws
from sbi_physics.testing import EngineCase, ExactEngine
from sbi_physics.testing.posterior_checks import PROMISES
from sbi_physics.training import TrainingHistory, TrainingSettings

engine_mutant = Mutants(EngineCase)


def engine_with(posterior_class):
    """An engine that returns defective posteriors."""

    class Mutated(ExactEngine):
        def _train(self, data, context, settings, seed, progress):
            return posterior_class(
                context, super()._train(data, context, settings, seed, progress).reference
            )

    return Mutated


for _check in PROMISES:
    _make, _word = posterior_mutant.by_check[_check.__name__][0]
    engine_mutant(_check.__name__, _word)(engine_with(_make().make))


@engine_mutant("spec_loads", "the one under test is")
class ImpostorEngine(ExactEngine):
    pass


@engine_mutant("declarations_are_complete", "no summary")
class Anonymous(ExactEngine):
    summary = " "


class BareSettings(TrainingSettings):
    hidden: int = 64


@engine_mutant("declarations_are_complete", "hidden")
class UndocumentedSetting(ExactEngine):
    Settings = BareSettings


@engine_mutant("declarations_are_complete", "None or a reason")
class Wordless(ExactEngine):
    def supports(self, observable):
        return ""


@engine_mutant("declarations_are_complete", "supports none")
class Useless(ExactEngine):
    def supports(self, observable):
        return "no data at all"


@engine_mutant("unknown_settings_are_refused", "max_epoch")
class Lenient(ExactEngine):
    def settings(self, settings=None, **values):
        return super().settings(
            settings, **{k: v for k, v in values.items() if k in TrainingSettings.model_fields}
        )


@engine_mutant("unsupported_data_are_refused", "although supports() says")
class TrainsAnyway(ExactEngine):
    asked = 0

    def supports(self, observable):
        return "too many pixels" if observable.kind == "image" and not self.inside else None

    inside = False

    def train(self, *arguments, **options):
        self.inside = True
        try:
            return super().train(*arguments, **options)
        finally:
            self.inside = False


@engine_mutant("trains_within_the_budget", "the budget is", budget_seconds=1e-4)
class Slow(ExactEngine):
    pass


class Recording(ExactEngine):
    """A good engine with epochs: reports progress, keeps losses, ends on Ctrl-C."""

    losses: Any = staticmethod(lambda k, seed: 1.0 / (k + 1) + seed * 1e-12)

    def _train(self, data, context, settings, seed, progress):
        losses = []
        with progress.task("training", settings.max_epochs, "epoch") as task:
            for k in range(settings.max_epochs):
                losses.append(float(self.losses(k, seed)))
                self.step(task)
        history = TrainingHistory(tuple(losses), tuple(losses), len(losses) - 1, 0.1, "max_epochs")
        return super()._train(data, replace(context, history=history), settings, seed, progress)

    def step(self, task):
        task.advance()


@engine_mutant("same_seed_same_fit", "other losses")
class RandomLosses(Recording):
    losses = staticmethod(lambda k, seed: random.Random().random())


class Jittering(Defective):
    def _log_prob_at(self, theta, x):
        return super()._log_prob_at(theta, x) + self.jitter


class Jitter(ExactEngine):
    def _train(self, data, context, settings, seed, progress):
        exact = super()._train(data, context, settings, seed, progress)
        posterior = Jittering(context, exact.reference)
        posterior.jitter = random.Random().random()
        return posterior


engine_mutant("same_seed_same_fit", "log density")(Jitter)


@engine_mutant("history_is_kept", "1 are not finite")
class NotConverged(Recording):
    losses = staticmethod(lambda k, seed: float("nan") if k == 1 else 1.0)


@engine_mutant("history_is_kept", "at most 3 epochs")
class TooLong(Recording):
    def _train(self, data, context, settings, seed, progress):
        longer = settings.model_copy(update={"max_epochs": 7})
        return super()._train(data, context, longer, seed, progress)


@engine_mutant("training_leaves_global_state", "NumPy's global random generator")
class UsesGlobalGenerator(ExactEngine):
    def train(self, *arguments, **options):
        np.random.random()
        return super().train(*arguments, **options)


@engine_mutant("training_leaves_global_state", "logger 'toy.trainer'")
class Chatty(ExactEngine):
    def train(self, *arguments, **options):
        logging.getLogger("toy.trainer").addHandler(logging.NullHandler())
        return super().train(*arguments, **options)


logging.getLogger("toy.trainer")  # exists before, as that of an imported trainer does


@engine_mutant("training_leaves_no_files", "trainer_logs")
class LeavesLogs(ExactEngine):
    def _train(self, *arguments):
        Path("trainer_logs").mkdir(exist_ok=True)
        return super()._train(*arguments)


@engine_mutant("can_be_cancelled", "swallows")
class Unstoppable(Recording):
    def step(self, task):
        with contextlib.suppress(KeyboardInterrupt):
            task.advance()


@engine_mutant("can_be_cancelled", "checkpoint")
class LeavesCheckpoint(Recording):
    def step(self, task):
        Path("checkpoint").write_text("half")
        task.advance()
        Path("checkpoint").unlink()


@engine_mutant("infers_the_parameters_asked_for", "was asked to infer")
class OwnOrder(ExactEngine):
    def train(self, simulations, settings=None, *, infer=None, seed, **options):
        infer = sorted(infer, key=simulations.parameters.names.index) if infer else None
        return super().train(simulations, settings, infer=infer, seed=seed, **options)


class Overconfident(Defective):
    """Half as wide as it should be, and it believes it."""

    def _draw(self, x, n, rng, log_prob, at):
        theta = self.reference._draw(x, n, rng, False, None).theta
        centre = theta.mean(axis=1, keepdims=True)
        theta = centre + 0.4 * (theta - centre)
        density = self._log_prob_at(theta, x) if log_prob else None
        return Draws(theta, density, None if at is None else self._log_prob_at(at, x))

    def _log_prob_at(self, theta, x):
        centre, width = x[:, None], 0.2
        z = (theta - centre) / width
        return (-0.5 * z**2 - np.log(width) - 0.5 * np.log(2 * np.pi)).sum(axis=-1)


engine_mutant("importance_weights_are_healthy", "of the sample")(engine_with(Overconfident))


def spoiling(function):
    class Spoiling(Defective):
        def spoil(self, theta, x):
            low, high = self.prior.bounds.T
            return np.clip(function(theta, x), low, high)

    return engine_with(Spoiling)


def shift(theta, x):
    return theta + 0.4 * theta.std(axis=1, keepdims=True).mean(axis=0)


def narrow(theta, x):
    centre = theta.mean(axis=1, keepdims=True)
    return centre + 0.75 * (theta - centre)


for _problem in ("gaussian", "sets", "spectra", "images", "two_stages"):
    engine_mutant(f"accurate_on_{_problem}", "mean pull")(spoiling(shift))
    engine_mutant(f"accurate_on_{_problem}", "widths")(spoiling(narrow))
engine_mutant("accurate_on_two_modes", "cover")(spoiling(lambda theta, x: np.abs(theta)))
engine_mutant("accurate_on_two_modes", "widths")(
    spoiling(lambda theta, x: np.sign(theta) * (np.abs(theta) + 0.1 * np.sin(40 * theta)))
)
