"""The kit tests itself: every check of a posterior or an engine has mutants that it must catch.

A mutant is the exact posterior, or the exact engine, with one planted defect, registered with the
check that must fail on it and a word that the message must contain.
"""

from __future__ import annotations

import contextlib
import logging
import random
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sbi_physics.errors import ConformanceError
from sbi_physics.guard import preserve_state
from sbi_physics.posterior import Draws
from sbi_physics.testing import (
    ENGINE_CHECKS,
    POSTERIOR_CHECKS,
    EngineCase,
    ExactEngine,
    ExactPosterior,
    NotApplicable,
    PosteriorCase,
    ToyGaussian,
)
from sbi_physics.testing.kit import run
from sbi_physics.testing.posterior_checks import PROMISES
from sbi_physics.training import TrainingHistory, TrainingSettings

MUTANTS: dict[str, dict[str, list[tuple[Any, str]]]] = {
    "posterior": defaultdict(list),
    "engine": defaultdict(list),
}


def posterior_mutant(check: str, word: str, **options: Any):
    """Register a mutant: the check it must fail, a word of the message, options of its case."""

    def register(make):
        MUTANTS["posterior"][check].append((lambda: PosteriorCase(make, **options), word))
        return make

    return register


def engine_mutant(check: str, word: str, **options: Any):
    """Register a mutant: the check it must fail, a word of the message, options of its case."""

    def register(make):
        MUTANTS["engine"][check].append((lambda: EngineCase(make, **options), word))
        return make

    return register


# --- posteriors ------------------------------------------------------------------------------


class Defective(ExactPosterior):
    """An exact posterior of the Gaussian toy with a planted defect."""

    def __init__(self, context=None, reference=None):
        if reference is None:
            toy = ToyGaussian(dimension=2, half_width=3.0, noise=0.5)
            reference = toy.reference_posterior()
            context = reference.context
        super().__init__(context, reference)

    def _draw(self, x, n, rng, log_prob, at):
        draws = super()._draw(x, n, rng, log_prob, at)
        return replace(draws, theta=self.spoil(draws.theta, x))

    def spoil(self, theta, x):
        return theta


@posterior_mutant("draws_are_inside_the_prior", "outside its prior")
class Leaking(Defective):
    def spoil(self, theta, x):
        return 1.5 * theta


@posterior_mutant("draws_are_inside_the_prior", "float64")
class SinglePrecision(Defective):
    def spoil(self, theta, x):
        return theta.astype(np.float32)


@posterior_mutant("draws_are_inside_the_prior", "non-finite")
class Holes(Defective):
    def spoil(self, theta, x):
        return np.where(theta > 2.9, np.nan, theta)


@posterior_mutant("draws_are_inside_the_prior", "shape")
class DrawsFirst(Defective):
    def draw(self, x, n, rng, **more):
        draws = super().draw(x, n, rng, **more)
        return replace(draws, theta=draws.theta.swapaxes(0, 1))


@posterior_mutant("same_generator_state_same_draws", "other draws for the same")
class OwnEntropy(Defective):
    def _draw(self, x, n, rng, log_prob, at):
        return super()._draw(x, n, np.random.default_rng(), log_prob, at)


@posterior_mutant("same_generator_state_same_draws", "ignores the generator")
class FixedPool(Defective):
    def _draw(self, x, n, rng, log_prob, at):
        return super()._draw(x, n, np.random.default_rng(0), log_prob, at)


@posterior_mutant("batched_equals_one_by_one", "in a batch and alone")
class BatchNormalised(Defective):
    def _log_prob_at(self, theta, x):
        return super()._log_prob_at(theta, x - x.mean(axis=0))


@posterior_mutant("batched_equals_one_by_one", "draws of")
class BatchCentred(Defective):
    def spoil(self, theta, x):
        return np.clip(theta - x.mean(axis=0), -3, 3)


@posterior_mutant("one_pass_equals_separate_calls", "draw and log_prob")
class UnconstrainedDensity(Defective):
    def _draw(self, x, n, rng, log_prob, at):
        draws = super()._draw(x, n, rng, log_prob, at)
        if draws.log_prob is None:
            return draws
        return replace(
            draws, log_prob=draws.log_prob - self.prior.log_abs_det_unconstrained(draws.theta)
        )


@posterior_mutant("one_pass_equals_separate_calls", "outside its prior")
class Borderless(Defective):
    def _log_prob_at(self, theta, x):
        low, high = self.prior.bounds.T
        return super()._log_prob_at(np.clip(theta, low, high), x)


@posterior_mutant("one_pass_equals_separate_calls", "no densities")
class Mute(Defective):
    def _draw(self, x, n, rng, log_prob, at):
        return Draws(super()._draw(x, n, rng, False, None).theta)


@posterior_mutant("densities_are_normalised", "integrates to")
class Unnormalised(Defective):
    def _log_prob_at(self, theta, x):
        return super()._log_prob_at(theta, x) + 0.3


@posterior_mutant("densities_match_draws", "do not follow its density")
class WiderDraws(Defective):
    def spoil(self, theta, x):
        centre = theta.mean(axis=1, keepdims=True)
        return np.clip(centre + 1.3 * (theta - centre), -3, 3)


@posterior_mutant("densities_match_draws", "do not follow its density")
class ShiftedDraws(Defective):
    def spoil(self, theta, x):
        return np.clip(theta + 0.15, -3, 3)


@posterior_mutant("unusable_observations_are_refused", "a NaN")
class Forgiving(Defective):
    def draw(self, x, n, rng, **more):
        return super().draw(np.nan_to_num(x), n, rng, **more)


@posterior_mutant("unusable_observations_are_refused", "a wrong shape")
class Cutting(Defective):
    def draw(self, x, n, rng, **more):
        return super().draw(np.asarray(x)[..., :2], n, rng, **more)


@posterior_mutant("drawing_leaves_no_trace", "cache.npy")
class Caching(Defective):
    def _log_prob_at(self, theta, x):
        np.save("cache.npy", theta)
        return super()._log_prob_at(theta, x)


@posterior_mutant("drawing_leaves_no_trace", "NumPy's global")
class GlobalDraws(Defective):
    def draw(self, x, n, rng, **more):
        np.random.random()
        return super().draw(x, n, rng, **more)


@posterior_mutant("saved_and_loaded_elsewhere_is_the_same", "after loading")
class Forgetful(Defective):
    """Its defect is not in what it saves."""

    def spoil(self, theta, x):
        return np.clip(theta + 0.3, -3, 3)


@posterior_mutant("saved_and_loaded_elsewhere_is_the_same", "weights.pkl")
class Pickling(Defective):
    def save(self, folder):
        path = super().save(folder)
        (path / "weights.pkl").write_bytes(b"")
        return path


def spoiled(**defect):
    def make():
        posterior = Defective()
        shift, scale = defect.get("shift", 0.0), defect.get("scale", 1.0)

        def spoil(theta, x):
            centre = theta.mean(axis=1, keepdims=True)
            return np.clip(centre + shift + scale * (theta - centre), -3, 3)

        posterior.spoil = spoil
        return posterior

    return make


# The verdict's own power is tested with the validator; these defects are far beyond its threshold.
for _defect in ({"shift": 0.3}, {"scale": 0.6}, {"scale": 1.6}):
    posterior_mutant("passes_the_validator", "FAIL", n_pairs=500)(spoiled(**_defect))


@posterior_mutant("passes_the_validator", "x-dependent", n_pairs=500)
class PriorItself(Defective):
    def _draw(self, x, n, rng, log_prob, at):
        theta = self.prior.sample(len(x) * n, rng).reshape(len(x), n, -1)
        density = self._log_prob_at(theta, x) if log_prob else None
        return Draws(theta, density, None if at is None else self._log_prob_at(at, x))

    def _log_prob_at(self, theta, x):
        return self.prior.log_prob(theta)


posterior_mutant("spoilt_copies_are_rejected", "use more pairs", n_pairs=40)(Defective)


# --- engines ---------------------------------------------------------------------------------


def engine_with(posterior_class):
    """An engine that returns defective posteriors."""

    class Mutated(ExactEngine):
        def _train(self, data, context, settings, seed, progress):
            return posterior_class(
                context, super()._train(data, context, settings, seed, progress).reference
            )

    return Mutated


for _check in PROMISES:
    _make, _word = MUTANTS["posterior"][_check.__name__][0]
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


# --- the tests -------------------------------------------------------------------------------

CHECKS = {"posterior": POSTERIOR_CHECKS, "engine": ENGINE_CHECKS}

PLANTED = [
    pytest.param(check, case, word, id=f"{kind}-{check.__name__}-{i}")
    for kind, checks in CHECKS.items()
    for check in checks
    for i, (case, word) in enumerate(MUTANTS[kind].get(check.__name__, []))
]


@pytest.fixture(autouse=True)
def restored(tmp_path, monkeypatch):
    """Undo what mutants change on purpose."""
    monkeypatch.chdir(tmp_path)
    with preserve_state():
        yield
    logging.getLogger("toy.trainer").handlers.clear()


@pytest.mark.parametrize(("check", "case", "word"), PLANTED)
def test_the_mutant_is_caught(check, case, word):
    with pytest.raises(ConformanceError) as caught:
        run(check, case())
    assert word in str(caught.value)


@pytest.mark.parametrize("kind", CHECKS)
def test_every_check_has_a_mutant(kind):
    names = {check.__name__ for check in CHECKS[kind]}
    tested = set(MUTANTS[kind])
    if kind == "engine":
        tested.add("plugin_module_is_light")  # tested with that of simulators
    assert names - tested == set(), "checks without a mutant prove nothing"
    assert tested - names == set(), "mutants of checks that do not exist"


def test_an_engine_with_epochs_passes_what_the_exact_one_skips():
    case = EngineCase(Recording)
    by_name = {check.__name__: check for check in ENGINE_CHECKS}
    for name in ("history_is_kept", "can_be_cancelled", "same_seed_same_fit"):
        run(by_name[name], case)


def test_refusing_unsupported_data_with_the_reason_passes():
    class NoImages(ExactEngine):
        def supports(self, observable):
            return "too many pixels" if observable.kind == "image" else None

    by_name = {check.__name__: check for check in ENGINE_CHECKS}
    run(by_name["unsupported_data_are_refused"], EngineCase(NoImages))
    with pytest.raises(NotApplicable, match="too many pixels"):
        run(by_name["accurate_on_images"], EngineCase(NoImages))
