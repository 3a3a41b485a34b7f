"""Checks of an engine's promises, on problems whose posterior is known exactly."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np

from sbi_physics.errors import ConformanceError, OptionError, TrainingError
from sbi_physics.observables import KINDS
from sbi_physics.posterior import Posterior
from sbi_physics.progress import Task
from sbi_physics.testing import accuracy, posterior_checks
from sbi_physics.testing.cases import EngineCase, NotApplicable, PosteriorCase
from sbi_physics.testing.plugin_checks import plugin_module_is_light, spec_loads
from sbi_physics.testing.state import differences, snapshot, watch
from sbi_physics.training import TrainingSettings
from sbi_physics.types import FloatArray

_MIN_ESS = 0.5


def declarations_are_complete(case: EngineCase) -> None:
    """The summary and described settings with defaults are there; some data are supported."""
    engine = case.engine
    if not engine.summary.strip():
        raise ConformanceError(f"engine {case.name!r} has no summary")
    if not issubclass(engine.Settings, TrainingSettings):
        raise ConformanceError(f"the Settings of {case.name!r} must subclass TrainingSettings")
    engine.settings()  # every setting has a default
    bare = [
        n for n, f in engine.Settings.model_fields.items() if not (f.description or "").strip()
    ]
    if bare:
        raise ConformanceError(f"settings of {case.name!r} without description: {', '.join(bare)}")
    answers = {name: engine.supports(p.simulator.observable) for name, p in case.problems.items()}
    for name, answer in answers.items():
        if answer is not None and not answer.strip():
            raise ConformanceError(
                f"supports() of {case.name!r} must return None or a reason, got {answer!r} for "
                f"{name}"
            )
    if all(answers.values()):
        raise ConformanceError(
            f"engine {case.name!r} supports none of the kinds {', '.join(KINDS)}"
        )


def unknown_settings_are_refused(case: EngineCase) -> None:
    """A misspelt or impossible setting raises `OptionError` before any training."""
    simulations = case.simulations("gaussian", 64)
    for values in ({"max_epoch": 1}, {"batch_size": 0}):
        try:
            case.engine.train(simulations, values, seed=case.seed)
        except OptionError:
            continue
        raise ConformanceError(f"engine {case.name!r} accepted the settings {values}")


def unsupported_data_are_refused(case: EngineCase) -> None:
    """Training on unsupported data raises `TrainingError` with the reason."""
    from sbi_physics.simulate import simulate

    refused = {
        name: reason
        for name, problem in case.problems.items()
        if (reason := case.engine.supports(problem.simulator.observable)) is not None
    }
    if not refused:
        raise NotApplicable("the engine supports every kind of data")
    for name, reason in refused.items():
        simulations = simulate(case.problems[name].simulator, 64, seed=case.seed)
        try:
            case.engine.train(simulations, case.brief, seed=case.seed)
        except TrainingError as error:
            if reason in str(error):
                continue
            raise ConformanceError(
                f"the error of {case.name!r} for {name} hides the reason: {error}"
            ) from error
        raise ConformanceError(
            f"engine {case.name!r} trained on {name} although supports() says {reason!r}"
        )


def trains_within_the_budget(case: EngineCase) -> None:
    """A full fit of the Gaussian problem stays within the declared processor time."""
    case.fit("gaussian")
    seconds = case.seconds["gaussian"]
    if seconds > case.budget_seconds:
        raise ConformanceError(
            f"engine {case.name!r} took {seconds:.0f} s of processor time for {case.n_train} "
            "simulations; "
            f"the budget is {case.budget_seconds:.0f} s"
        )


def same_seed_same_fit(case: EngineCase) -> None:
    """Two fits with one seed give equal losses and equal densities."""
    first, second = case.brief_fit(), case.brief_fit()
    histories = [c.posterior.context.history for c in (first, second)]
    losses = [None if h is None else (h.training_loss, h.validation_loss) for h in histories]
    if losses[0] != losses[1]:
        raise ConformanceError(
            f"two fits of {case.name!r} with one seed have other losses: {losses[0]} and "
            f"{losses[1]}"
        )
    points = first.truth[:20, None]
    a, b = (c.posterior.log_prob(points, first.x[:20]) for c in (first, second))
    if not np.allclose(a, b, rtol=0, atol=1e-6):
        raise ConformanceError(
            f"two fits of {case.name!r} with one seed differ by {np.abs(a - b).max():.2g} in log "
            "density"
        )


def history_is_kept(case: EngineCase) -> None:
    """The posterior carries finite loss curves of at most `max_epochs`, and the best epoch."""
    history = case.brief_fit().posterior.context.history
    if history is None:
        raise NotApplicable(
            "the engine keeps no training history (it says that it trains nothing)"
        )
    limit = case.engine.settings(**case.brief).max_epochs
    for curve in (history.training_loss, history.validation_loss):
        if not 0 < len(curve) <= limit or not np.isfinite(curve).all():
            raise ConformanceError(
                f"a loss curve of {case.name!r} has {len(curve)} entries (at most {limit} epochs "
                "were asked "
                f"for), of which {int((~np.isfinite(curve)).sum())} are not finite"
            )
    if not 0 <= history.best_epoch < len(history.validation_loss):
        raise ConformanceError(f"best_epoch {history.best_epoch} of {case.name!r} is not an epoch")


def training_leaves_global_state(case: EngineCase) -> None:
    """Training changes no global generator, flag, thread count, logger, filter or folder."""
    before = snapshot()
    case.brief_fit()
    changed = differences(before, snapshot())
    if changed:
        raise ConformanceError(f"training {case.name!r} changed {', '.join(changed)}")


def training_leaves_no_files(case: EngineCase) -> None:
    """Training writes nothing: no logs, no checkpoints in the working folder."""
    with watch() as first:  # may cache compiled code elsewhere
        case.brief_fit()
    with watch() as activity:
        case.brief_fit()
    found = [*first.left, *activity.left, *activity.written]
    if found:
        raise ConformanceError(f"training {case.name!r} wrote {', '.join(found[:3])}")


def can_be_cancelled(case: EngineCase) -> None:
    """Ctrl-C while training ends it at once, and leaves global state and folder as they were."""
    simulations, progress = case.simulations("gaussian", 512), _Cancelling()
    before, cancelled = snapshot(), False
    with watch() as activity:
        try:
            case.make().train(simulations, case.brief, seed=case.seed, progress=progress)
        except KeyboardInterrupt:
            cancelled = True
    if not progress.asked:
        raise NotApplicable("the engine reports no progress, so there is no place to cancel it")
    if not cancelled:
        raise ConformanceError(f"engine {case.name!r} swallows KeyboardInterrupt")
    found = [*differences(before, snapshot()), *activity.left]
    if found:
        raise ConformanceError(f"cancelling the training of {case.name!r} left {', '.join(found)}")


def infers_the_parameters_asked_for(case: EngineCase) -> None:
    """`infer` decides which parameters the posterior is about, and their order."""
    simulations = case.simulations("two stages", 512)
    names = simulations.parameters.names
    for infer in (names[:1], names[::-1]):
        posterior = case.make().train(simulations, case.brief, infer=infer, seed=case.seed)
        shape = posterior.draw(simulations.x[:2], 3, np.random.default_rng(case.seed)).theta.shape
        if posterior.prior.names != infer or shape != (2, 3, len(infer)):
            raise ConformanceError(
                f"engine {case.name!r} was asked to infer {', '.join(infer)}; its posterior is "
                "about "
                f"{', '.join(posterior.prior.names)} and gives draws of shape {shape}"
            )


def importance_weights_are_healthy(case: EngineCase) -> None:
    """Reweighting draws to the exact posterior keeps over half of the effective sample."""
    fit, exact = case.fit("gaussian"), _exact(case, "gaussian")
    draws = fit.posterior.draw(fit.x[:50], case.n_draws, fit.rng(1), log_prob=True)
    if draws.log_prob is None or len(fit.posterior.blocks) > 1:
        raise NotApplicable("the posterior has no joint density")
    log_weights = exact.log_prob(draws.theta, fit.x[:50]) - draws.log_prob
    weights = np.exp(log_weights - log_weights.max(axis=1, keepdims=True))
    ess: FloatArray = weights.sum(axis=1) ** 2 / (weights**2).sum(axis=1) / case.n_draws
    if not float(ess.mean()) > _MIN_ESS:
        raise ConformanceError(
            f"importance weights of {case.name!r} against the exact posterior keep "
            f"{ess.mean():.0%} of the "
            f"sample; expected over {_MIN_ESS:.0%}"
        )


def accuracy_on(case: EngineCase, problem: str) -> accuracy.Accuracy:
    """Train with the full budget and compare with the exact posterior on fresh pairs."""
    fit = case.fit(problem)
    return accuracy.measure(
        fit.posterior,
        _exact(case, problem),
        fit.truth,
        fit.x,
        n_draws=case.n_draws,
        rng=fit.rng(2),
        fold=case.problems[problem].fold,
    )


def _exact(case: EngineCase, problem: str) -> Posterior:
    chosen = case.problems[problem]
    return chosen.simulator.exact_posterior(chosen.simulator.prior, chosen.infer)


def _accurate_on(problem: str) -> Callable[[EngineCase], None]:
    def check(case: EngineCase) -> None:
        found = accuracy_on(case, problem).problems()
        if found:
            raise ConformanceError(f"engine {case.name!r} on {problem}: {'; '.join(found)}")

    check.__name__ = check.__qualname__ = f"accurate_on_{problem.replace(' ', '_')}"
    check.__doc__ = (
        f"Pulls, widths and coverage on the problem '{problem}' agree with the exact posterior."
    )
    return check


def _on_gaussian(inner: Callable[[PosteriorCase], None]) -> Callable[[EngineCase], None]:
    def check(case: EngineCase) -> None:
        inner(case.fit("gaussian"))

    check.__name__ = check.__qualname__ = inner.__name__
    check.__doc__ = inner.__doc__
    return check


class _Cancelling:
    """Progress that behaves as if Ctrl-C was pressed at the second step."""

    def __init__(self) -> None:
        self.asked = False
        self._steps = 0

    @contextlib.contextmanager
    def task(self, description: str, total: int, unit: str = "it") -> Iterator[Task]:
        yield self

    def advance(self, n: int = 1, note: str = "") -> None:
        self._steps += 1
        if self._steps == 2:
            self.asked = True
            raise KeyboardInterrupt


ENGINE_CHECKS: Final = (
    spec_loads,
    plugin_module_is_light,
    declarations_are_complete,
    unknown_settings_are_refused,
    unsupported_data_are_refused,
    trains_within_the_budget,
    same_seed_same_fit,
    history_is_kept,
    training_leaves_global_state,
    training_leaves_no_files,
    can_be_cancelled,
    infers_the_parameters_asked_for,
    *(_on_gaussian(check) for check in posterior_checks.PROMISES),
    importance_weights_are_healthy,
    *(
        _accurate_on(problem)
        for problem in ("gaussian", "sets", "spectra", "images", "two modes", "two stages")
    ),
)
"""All checks of an engine, in the order of a report."""
