"""Checks of a simulator's promises; `stage_checks` has those of optional abilities."""

from __future__ import annotations

import functools
import importlib
import json
from typing import Any, Final

import numpy as np

from sbi_physics.errors import ConformanceError, ContractError, SbiPhysicsError
from sbi_physics.executors import ProcessExecutor
from sbi_physics.simulator import Simulator, SimulatorIdentity
from sbi_physics.testing import two_sample
from sbi_physics.testing.cases import NotApplicable, SimulatorCase
from sbi_physics.testing.plugin_checks import plugin_module_is_light, spec_loads
from sbi_physics.testing.reference import reference_points_are_reproduced
from sbi_physics.testing.stage_checks import STAGE_CHECKS
from sbi_physics.testing.state import differences, snapshot, watch
from sbi_physics.types import DataArray, FloatArray

_PIECE = 16


def declarations_are_complete(case: SimulatorCase) -> None:
    """Summary, version, descriptions, readable units and budgets are set."""
    simulator = case.simulator
    if not simulator.summary.strip() or not str(simulator.version).strip():
        raise ConformanceError(f"{case.name!r} lacks a summary or a version")
    space, observable = simulator.parameters, simulator.observable
    if not space.interest:
        raise ConformanceError(f"{case.name!r} has no free parameter of interest")
    for parameter in space:
        if not parameter.description.strip():
            raise ConformanceError(
                f"parameter {parameter.name!r} of {case.name!r} has no description"
            )
        _check_unit(parameter.unit, f"parameter {parameter.name!r}")
    _check_unit(observable.unit, "the observable")
    _check_unit(observable.edge_unit, "the bin edges")
    for name in simulator.observe_only:
        space.index(name)
    missing = [b for b in ("quick", "standard", "thorough") if b not in simulator.budgets]
    if missing:
        raise ConformanceError(f"{case.name!r} has no budget {', '.join(missing)}")


def options_are_documented_and_rebuild(case: SimulatorCase) -> None:
    """Every option has a description; the identity survives JSON and rebuilds an equal one."""
    simulator = case.simulator
    for name, info in simulator.Options.model_fields.items():
        if not (info.description or "").strip():
            raise ConformanceError(f"option {name!r} of {case.name!r} has no description")
    try:
        text = json.dumps(simulator.identity.to_dict(), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConformanceError(
            f"the options of {case.name!r} cannot be written as JSON: {error}"
        ) from error
    identity = SimulatorIdentity.from_dict(json.loads(text))
    again = type(simulator)(**identity.options)
    if again.identity != simulator.identity or again.prior != simulator.prior:
        raise ConformanceError(
            f"{case.name!r} rebuilt from its identity {text} has another identity or prior"
        )


def fiducial_points_are_valid(case: SimulatorCase) -> None:
    """Every fiducial point names all free parameters, inside their range, and can be simulated."""
    simulator = case.simulator
    if not simulator.fiducial:
        raise NotApplicable("the simulator has no fiducial points")
    for name in simulator.fiducial:
        try:
            theta = simulator.theta(name)
        except SbiPhysicsError as error:
            raise ConformanceError(f"fiducial point {name!r} of {case.name!r}: {error}") from error
        if not np.isfinite(simulator.simulate(theta[None], case.rng(1))).all():
            raise ConformanceError(
                f"{case.name!r} returns non-finite data at fiducial point {name!r}"
            )


def output_follows_theta(case: SimulatorCase) -> None:
    """The first axis follows theta for 0, 1 and 3 points; shape and dtype are as declared."""
    simulator = case.simulator
    for n in (0, 1, 3):
        x = _simulate(case, case.theta(n), case.rng(2))
        expected = (n, *simulator.observable.shape)
        if x.shape != expected or x.dtype != np.float32:
            raise ConformanceError(
                f"{case.name!r} returned x of shape {x.shape}, dtype {x.dtype} for {n} points; "
                "expected "
                f"{expected}, float32"
            )


def data_fit_the_observable(case: SimulatorCase) -> None:
    """Data pass the observable's own check and transform; sets are masked and zero-padded."""
    simulator, observable = case.simulator, case.simulator.observable
    x = simulator.simulate(case.theta(64), case.rng(3))
    x = x[np.isfinite(x).reshape(len(x), -1).all(axis=1)]
    if not len(x):
        raise ConformanceError(f"{case.name!r} returned no finite simulation out of 64")
    transform = observable.fit_transform(x)
    if not np.isfinite(transform(x)).all():
        raise ConformanceError(
            f"the transform {observable.transform} of {case.name!r} gives non-finite values"
        )
    if observable.kind == "set" and x[x[..., -1] == 0].any():
        raise ConformanceError(f"padding rows of the sets of {case.name!r} must be zero")


def same_generator_state_same_data(case: SimulatorCase) -> None:
    """The same generator state gives the same bits, from the same or from a fresh object."""
    theta = case.theta(8)
    first = _simulate(case, theta, case.rng(4))
    for which, simulator in (("the same", case.simulator), ("a fresh", case.make())):
        again = simulator.simulate(theta, case.rng(4))
        if not np.array_equal(first, again, equal_nan=True):
            raise ConformanceError(
                f"{case.name!r} gave other data for the same theta and generator state on {which} "
                "object: "
                "draw every random number from the generator you are given"
            )


def different_generator_state_different_data(case: SimulatorCase) -> None:
    """Different generator states give different data."""
    theta = case.theta(8)
    if np.array_equal(_simulate(case, theta, case.rng(5)), _simulate(case, theta, case.rng(6))):
        raise ConformanceError(
            f"{case.name!r} ignores the generator: two states gave the same data"
        )


def global_state_is_untouched(case: SimulatorCase) -> None:
    """Simulating changes no global generator, flag, logger, filter, folder or variable."""
    theta = case.theta(8)
    case.make().simulate(theta, case.rng(7))  # what imports do at first use is not asked here
    before = snapshot()
    case.make().simulate(theta, case.rng(7))
    changed = differences(before, snapshot())
    if changed:
        raise ConformanceError(f"simulating with {case.name!r} changed {', '.join(changed)}")


def inputs_are_not_modified(case: SimulatorCase) -> None:
    """Kernels write neither into theta nor into latents, which are shared with the store."""
    simulator, theta = case.simulator, case.theta(8)
    points = theta.copy()
    simulator._simulate(points, case.rng(8))
    if not np.array_equal(points, theta):
        raise ConformanceError(
            f"_simulate of {case.name!r} modified theta in place; work on a copy"
        )
    if not simulator.is_two_stage:
        return
    z = simulator.simulate_latent(theta, case.rng(8))
    kept = {name: values.copy() for name, values in z.items()}
    simulator._observe(z, points, case.rng(8))
    if not np.array_equal(points, theta):
        raise ConformanceError(
            f"_observe of {case.name!r} modified theta in place; work on a copy"
        )
    for name, values in kept.items():
        if name not in z or not np.array_equal(z[name], values):
            raise ConformanceError(
                f"_observe of {case.name!r} modified the latent {name!r} in place"
            )


def output_is_fresh_memory(case: SimulatorCase) -> None:
    """A result shares no memory with its input and is not overwritten by the next call."""
    simulator, theta = case.simulator, case.theta(8)

    def results(stream: int) -> dict[str, Any]:
        found: dict[str, Any] = {"x": simulator.simulate(theta, case.rng(stream))}
        if simulator.is_two_stage:
            z = simulator.simulate_latent(theta, case.rng(stream))
            found.update({f"latent {name!r}": values for name, values in z.items()})
        return found

    first = results(9)
    kept = {name: values.copy() for name, values in first.items()}
    results(10)
    for name, values in first.items():
        if np.shares_memory(values, theta):
            raise ConformanceError(f"{name} of {case.name!r} shares memory with theta")
        if not np.array_equal(values, kept[name], equal_nan=values.dtype.kind == "f"):
            raise ConformanceError(
                f"{name} of {case.name!r} was overwritten by the next call: return a new array "
                "each time"
            )


def splitting_a_batch_keeps_the_distribution(case: SimulatorCase) -> None:
    """Rows are independent and belong to their theta, however they are grouped into batches."""
    first, second = case.theta(2, 1)
    n = case.n_draws
    mixed = _simulate(case, np.tile(np.stack([first, second]), (n, 1)), case.rng(11))
    for which, point in ((0, first), (1, second)):
        rng = case.rng(12, which)
        pieces = [
            case.simulator.simulate(case.at(point, min(_PIECE, n - start)), rng)
            for start in range(0, n, _PIECE)
        ]
        p = two_sample.p_value(mixed[which::2], np.concatenate(pieces))
        if p < two_sample.LIMIT:
            raise ConformanceError(
                f"{case.name!r} draws other data in one mixed batch of {2 * n} points than in "
                "batches of "
                f"{_PIECE} (p = {p:.1e}): rows must be independent and stay in the order of theta"
            )


def failures_stay_within_the_declared_fraction(case: SimulatorCase) -> None:
    """The share of non-finite simulations over the prior is at most `max_failure_fraction`."""
    simulator, n = case.simulator, case.n_draws
    x = _simulate(case, case.theta(n, 2), case.rng(13))
    failed = int((~np.isfinite(x).reshape(n, -1).all(axis=1)).sum())
    allowed = simulator.max_failure_fraction
    error = np.sqrt(allowed * (1 - allowed) / n)
    if failed / n > allowed + 4 * error:
        raise ConformanceError(
            f"{failed} of {n} simulations of {case.name!r} are not finite; max_failure_fraction "
            f"is {allowed:g}"
        )


def works_in_another_process(case: SimulatorCase) -> None:
    """Sent to a spawned process, the simulator gives the same bits."""
    if case.subject.__module__ == "__main__":
        raise NotApplicable(
            "the class is defined in the main script or a notebook; put it in a module"
        )
    theta = case.theta(8)
    here = _simulate(case, theta, case.rng(14))
    task = functools.partial(_simulate_elsewhere, case.simulator, theta, case.seed)
    try:
        ((_, there),) = ProcessExecutor(1).map_unordered(task, [14])
    except SbiPhysicsError as error:
        raise ConformanceError(
            f"{case.name!r} does not work in another process: {error}"
        ) from error
    if not np.array_equal(here, there, equal_nan=True):
        raise ConformanceError(
            f"{case.name!r} gave other data in another process from the same theta and generator "
            "state"
        )


def values_outside_the_support_are_refused(case: SimulatorCase) -> None:
    """Values outside a parameter's range, and NaN, raise `ContractError` naming it."""
    inside = case.theta(1)[0]
    for column, parameter in enumerate(case.simulator.parameters):
        low, high = parameter.valid_range
        width = (
            high - low if np.isfinite(high - low) and high > low else max(abs(inside[column]), 1.0)
        )
        bad = [float("nan"), low - 0.1 * width, high + 0.1 * width]
        for value in (v for v in bad if not np.isinf(v)):
            theta = inside[None].copy()
            theta[0, column] = value
            _must_refuse(case, theta, parameter.name, value)


def ends_of_the_prior_can_be_simulated(case: SimulatorCase) -> None:
    """At the ends of every parameter's prior the data are finite."""
    simulator, prior = case.simulator, case.simulator.prior
    start = case.theta(1)[0]
    for column, parameter in enumerate(prior.parameters):
        for end in parameter.bounds:
            theta = start[None].copy()
            theta[0, column] = end
            if not np.isfinite(end) or not prior.contains(theta)[0]:
                continue
            x = simulator.simulate(theta, case.rng(15))
            if simulator.max_failure_fraction == 0 and not np.isfinite(x).all():
                raise ConformanceError(
                    f"{case.name!r} returns non-finite data at the end {parameter.name} = {end:g} "
                    "of its prior"
                )


def no_files_network_or_output(case: SimulatorCase) -> None:
    """Simulating writes no file, opens no connection, starts no command and prints nothing."""
    theta = case.theta(8)
    with watch() as first:  # may cache compiled kernels elsewhere
        case.make().simulate(theta, case.rng(16))
    with watch() as activity:
        case.make().simulate(theta, case.rng(16))
    for what, found in (
        ("wrote files", [*first.left, *activity.written, *activity.left]),
        ("used the network", activity.network),
        ("started commands", activity.processes),
        ("printed", [repr(activity.printed[:60])] if activity.printed else []),
    ):
        if found:
            raise ConformanceError(f"simulating with {case.name!r} {what}: {', '.join(found[:3])}")


def _simulate(case: SimulatorCase, theta: FloatArray, rng: np.random.Generator) -> DataArray:
    try:
        return case.simulator.simulate(theta, rng)
    except ContractError as error:
        raise ConformanceError(str(error)) from error


def _simulate_elsewhere(
    simulator: Simulator, theta: FloatArray, seed: int, stream: int
) -> DataArray:
    return simulator.simulate(theta, np.random.default_rng([seed, stream]))


def _must_refuse(case: SimulatorCase, theta: FloatArray, name: str, value: float) -> None:
    try:
        case.simulator.simulate(theta, case.rng(18))
    except ContractError as error:
        if name not in str(error):
            raise ConformanceError(
                f"the error for {name} = {value:g} does not name the parameter: {error}"
            ) from error
        return
    raise ConformanceError(f"{case.name!r} accepts {name} = {value:g}, outside its declared range")


def _check_unit(unit: str, subject: str) -> None:
    if not unit:
        return
    try:
        units = importlib.import_module("astropy.units")
    except ImportError:
        return  # without astropy, units are text
    try:
        units.Unit(unit)
    except ValueError as error:
        raise ConformanceError(f"astropy cannot read the unit {unit!r} of {subject}") from error


SIMULATOR_CHECKS: Final = (
    spec_loads,
    plugin_module_is_light,
    declarations_are_complete,
    options_are_documented_and_rebuild,
    fiducial_points_are_valid,
    output_follows_theta,
    data_fit_the_observable,
    same_generator_state_same_data,
    different_generator_state_different_data,
    global_state_is_untouched,
    inputs_are_not_modified,
    output_is_fresh_memory,
    splitting_a_batch_keeps_the_distribution,
    failures_stay_within_the_declared_fraction,
    works_in_another_process,
    values_outside_the_support_are_refused,
    ends_of_the_prior_can_be_simulated,
    no_files_network_or_output,
    reference_points_are_reproduced,
    *STAGE_CHECKS,
)
"""All checks of a simulator, in the order of a report."""
