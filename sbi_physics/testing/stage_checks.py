r"""Checks of a simulator's optional parts: two stages, exact answers, summaries.

Two stages must agree with one another,

.. math:: p(x|\theta) = \int dz\, p(x|z, \theta)\, p(z|\theta),

and an exact likelihood :math:`\ell = \log p(x|\theta)` obeys Bartlett's identities at every theta,

.. math:: E[\partial\ell] = 0, \qquad E[(\partial\ell)^2 + \partial^2\ell] = 0 .
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from sbi_physics.errors import ConformanceError, OptionError
from sbi_physics.simulator import Simulator
from sbi_physics.testing import two_sample
from sbi_physics.testing.cases import NotApplicable, SimulatorCase
from sbi_physics.types import AnyArray, FloatArray

_STEP = 1e-3
_N_SIGMA = 5.0
_N_RANKS = 99


def stages_compose(case: SimulatorCase) -> None:
    """`simulate` has the same distribution as `observe` after `simulate_latent`."""
    _needs_stages(case)
    theta = case.at(case.theta(1, 3)[0], case.n_draws)
    whole = case.simulator.simulate(theta, case.rng(21))
    z = case.simulator.simulate_latent(theta, case.rng(22))
    composed = case.simulator.observe(z, theta, case.rng(23))
    _same(whole, composed, f"simulate of {case.name!r} and observe after simulate_latent differ")


def redrawing_keeps_the_distribution(case: SimulatorCase) -> None:
    """Latents observed again, also with new observe-only values, give data like fresh ones."""
    _needs_stages(case)
    simulator, n = case.simulator, case.n_draws
    point, other = case.theta(2, 4)
    columns = simulator.parameters.indices(simulator.observe_only)
    redrawn = point.copy()
    redrawn[columns] = other[columns]
    z = simulator.simulate_latent(case.at(point, n), case.rng(24))
    simulator.observe(z, case.at(point, n), case.rng(25))
    for which, target in (("the same", point), ("new observe-only", redrawn)):
        again = simulator.observe(z, case.at(target, n), case.rng(26))
        fresh = simulator.simulate(case.at(target, n), case.rng(27))
        _same(
            again,
            fresh,
            f"redrawn data of {case.name!r} at {which} parameters differ from fresh ones",
        )


def redrawing_gives_new_data(case: SimulatorCase) -> None:
    """`observe` draws from its generator: the same latents give other data next time."""
    _needs_stages(case)
    theta = case.theta(8, 5)
    z = case.simulator.simulate_latent(theta, case.rng(28))
    first = case.simulator.observe(z, theta, case.rng(29))
    if not np.array_equal(first, case.simulator.observe(z, theta, case.rng(29)), equal_nan=True):
        raise ConformanceError(
            f"observe of {case.name!r} is not a function of latents, theta and generator"
        )
    if np.array_equal(first, case.simulator.observe(z, theta, case.rng(30)), equal_nan=True):
        raise ConformanceError(
            f"observe of {case.name!r} ignores the generator, so redrawing it would add nothing; "
            "move "
            "randomness into observe or write a one-stage simulator"
        )


def observe_only_parameters_stay_out_of_the_latents(case: SimulatorCase) -> None:
    """Latents are the same bits whatever the values of the observe-only parameters."""
    _needs_stages(case)
    simulator = case.simulator
    if not simulator.observe_only:
        raise NotApplicable("the simulator declares no observe_only parameters")
    theta, other = case.theta(8, 6), case.theta(8, 7)
    changed = theta.copy()
    columns = simulator.parameters.indices(simulator.observe_only)
    changed[:, columns] = other[:, columns]
    first = simulator.simulate_latent(theta, case.rng(31))
    second = simulator.simulate_latent(changed, case.rng(31))
    for name, values in first.items():
        if not _equal(values, second.get(name)):
            raise ConformanceError(
                f"latent {name!r} of {case.name!r} depends on "
                f"{', '.join(simulator.observe_only)}, declared "
                "observe_only: training would redraw them and learn a wrong posterior"
            )


def observe_options_stay_out_of_the_latents(case: SimulatorCase) -> None:
    """Latents are the same bits under other values of the numbers in `observe_options`."""
    simulator = case.simulator
    if not simulator.observe_options:
        raise NotApplicable("the simulator declares no observe_options")
    unknown = [n for n in simulator.observe_options if n not in simulator.Options.model_fields]
    if unknown or not simulator.is_two_stage:
        raise ConformanceError(
            f"observe_options of {case.name!r} name options of a two-stage simulator; "
            + (f"it has no option {unknown[0]!r}" if unknown else "it has one stage")
        )
    theta = case.theta(8, 10)
    first = simulator.simulate_latent(theta, case.rng(39))
    values = simulator.options.model_dump()
    for name in simulator.observe_options:
        other = _changed(simulator, values, name)
        if other is None:
            continue
        second = other.simulate_latent(theta, case.rng(39))
        if first.keys() != second.keys() or not all(
            _equal(v, second[k]) for k, v in first.items()
        ):
            raise ConformanceError(
                f"latents of {case.name!r} depend on the option {name!r}, declared to enter only "
                "the observation: a scan over it would share latents that are wrong"
            )


def summaries_have_one_row_for_each_input(case: SimulatorCase) -> None:
    """`summary_statistics` gives finite (n, k); `labels` keep the leading axis."""
    simulator, n = case.simulator, 16
    theta = case.theta(n, 8)
    abilities = [a for a in ("summary_statistics", "labels") if simulator.can(a)]
    if not abilities:
        raise NotApplicable("the simulator provides neither summary_statistics nor labels")
    if "summary_statistics" in abilities:
        x = simulator.simulate(theta, case.rng(32))
        x = x[np.isfinite(x).reshape(n, -1).all(axis=1)]
        summaries = np.asarray(simulator.summary_statistics(x))
        if summaries.ndim != 2 or len(summaries) != len(x) or not np.isfinite(summaries).all():
            raise ConformanceError(
                f"summary_statistics of {case.name!r} gave shape {summaries.shape} for {len(x)} "
                "finite "
                "observations; expected finite numbers of shape (n, k)"
            )
    if "labels" in abilities:
        labels = simulator.labels(simulator.simulate_latent(theta, case.rng(33)))
        for name, values in labels.items():
            if np.shape(values)[:1] != (n,):
                raise ConformanceError(
                    f"label {name!r} of {case.name!r} has shape {np.shape(values)} for {n} rows"
                )


def log_likelihood_fits_the_simulator(case: SimulatorCase) -> None:
    """The exact likelihood obeys Bartlett's identities on simulated data, in every parameter."""
    simulator = case.simulator
    if not simulator.can("log_likelihood"):
        raise NotApplicable("the simulator provides no log_likelihood")
    n = 4 * case.n_draws
    theta = case.at(_interior(case), n)
    x = simulator.simulate(theta, case.rng(34))
    centre = np.asarray(simulator.log_likelihood(x, theta))
    if centre.shape != (n,) or not np.isfinite(centre).all():
        raise ConformanceError(
            f"log_likelihood of {case.name!r} gave shape {centre.shape} for {n} points; expected "
            f"finite ({n},)"
        )
    quartiles = simulator.prior.from_unit(np.array([[0.25], [0.75]]) * np.ones(simulator.prior.d))
    for column, parameter in enumerate(simulator.parameters):
        if parameter.is_fixed:
            continue
        step = _STEP * float(quartiles[1, column] - quartiles[0, column])
        shift = np.zeros(simulator.prior.d)
        shift[column] = step
        up = np.asarray(simulator.log_likelihood(x, theta + shift))
        down = np.asarray(simulator.log_likelihood(x, theta - shift))
        score = (up - down) / (2 * step)
        curvature = (up - 2 * centre + down) / step**2
        for what, values in (
            ("score", score),
            ("squared score plus curvature", score**2 + curvature),
        ):
            pull = values.mean() / max(values.std() / np.sqrt(n), 1e-12)
            if not abs(pull) < _N_SIGMA:
                raise ConformanceError(
                    f"log_likelihood of {case.name!r} does not fit its simulations: the mean "
                    f"{what} in "
                    f"{parameter.name} is {pull:.1f} standard errors from zero"
                )


def reference_posterior_fits_the_simulator(case: SimulatorCase) -> None:
    """Ranks of the truth among its draws are uniform; it is about what is inferred."""
    simulator = case.simulator
    if not simulator.can("reference_posterior"):
        raise NotApplicable("the simulator provides no reference_posterior")
    posterior = simulator.reference_posterior()
    if posterior.prior.names != simulator.parameters.interest:
        raise ConformanceError(
            f"the reference posterior of {case.name!r} is about "
            f"{', '.join(posterior.prior.names)}; expected "
            f"are the parameters of interest, {', '.join(simulator.parameters.interest)}"
        )
    theta = case.theta(case.n_draws, 9)
    x = simulator.simulate(theta, case.rng(35))
    truth = theta[:, simulator.parameters.indices(posterior.prior.names)]
    draws = posterior.draw(x, _N_RANKS, case.rng(36)).theta
    below = (draws < truth[:, None]).sum(axis=1)
    # Spread within its rank's cell, so that ranks are continuous and the test exact.
    u = (below + case.rng(37).random(below.shape)) / (_N_RANKS + 1)
    p = two_sample.uniform_p_value(u)
    if p < two_sample.LIMIT:
        raise ConformanceError(
            f"the reference posterior of {case.name!r} is not calibrated on its own simulations "
            f"(p = {p:.1e})"
        )


def _needs_stages(case: SimulatorCase) -> None:
    if not case.simulator.is_two_stage:
        raise NotApplicable("the simulator has one stage")


def _same(a: AnyArray, b: AnyArray, claim: str) -> None:
    p = two_sample.p_value(a, b)
    if p < two_sample.LIMIT:
        raise ConformanceError(f"{claim} (p = {p:.1e})")


def _changed(simulator: Simulator, values: dict[str, Any], name: str) -> Simulator | None:
    """The simulator with another value of a number or switch; None where none is accepted."""
    value = values[name]
    candidates: tuple[Any, ...] = ()
    if isinstance(value, bool):
        candidates = (not value,)
    elif isinstance(value, float):
        candidates = (1.25 * value, 0.75 * value, value + 0.1)
    elif isinstance(value, int):
        candidates = (value + 1, value - 1)
    for candidate in candidates:
        try:
            other = type(simulator)(**{**values, name: candidate})
        except OptionError:
            continue
        # Options may decide what parameters there are.
        if other.identity != simulator.identity and other.prior == simulator.prior:
            return other
    return None


def _equal(a: AnyArray, b: Any) -> bool:
    return b is not None and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def _interior(case: SimulatorCase) -> FloatArray:
    """A point well inside the prior, shape (d,), so that small steps stay in its support."""
    prior = case.simulator.prior
    candidates = prior.from_unit(0.3 + 0.4 * case.rng(38).random((256, prior.d)))
    allowed = candidates[prior.contains(candidates)]
    if not len(allowed):
        raise NotApplicable("no point in the middle of the prior satisfies its constraints")
    point: FloatArray = allowed[0]
    return point


STAGE_CHECKS: Final = (
    stages_compose,
    redrawing_keeps_the_distribution,
    redrawing_gives_new_data,
    observe_only_parameters_stay_out_of_the_latents,
    observe_options_stay_out_of_the_latents,
    summaries_have_one_row_for_each_input,
    log_likelihood_fits_the_simulator,
    reference_posterior_fits_the_simulator,
)
"""Checks of optional parts; skipped with a reason where a simulator has none."""
