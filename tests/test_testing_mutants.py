"""The kit tests itself: every check of a simulator has mutants that it must catch.

A mutant is a toy with one planted defect, registered with the check that must fail on it and a
word that the message must contain. Posteriors and engines: `test_testing_mutants_inference.py`.
"""

from __future__ import annotations

import itertools
import logging
import os
import random
import socket
import subprocess
import sys
import textwrap
import warnings
from collections import defaultdict
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from pydantic import Field

from sbi_physics import registry
from sbi_physics.distributions import Uniform
from sbi_physics.errors import ConformanceError
from sbi_physics.guard import preserve_state
from sbi_physics.parameters import ParameterSpace
from sbi_physics.simulator import SimulatorOptions
from sbi_physics.testing import (
    ENGINE_CHECKS,
    SIMULATOR_CHECKS,
    EngineCase,
    ReferencePoint,
    SimulatorCase,
    ToyBimodal,
    ToyGaussian,
    ToyTwoStage,
)
from sbi_physics.testing.kit import run

MUTANTS: dict[str, list[tuple[Any, str]]] = defaultdict(list)


def mutant(check: str, word: str, **options: Any):
    """Register a mutant: the check it must fail, a word of the message, options of its case."""

    def register(make):
        MUTANTS[check].append((lambda: SimulatorCase(make, **options), word))
        return make

    return register


def with_parameter(space: ParameterSpace, **changes: Any) -> ParameterSpace:
    first = space[0]
    return space.replace(**{first.name: replace(first, **changes)})


@mutant("spec_loads", "the one under test is")
class Impostor(ToyGaussian):
    """Another class under a registered name."""


@mutant("spec_loads", "not kebab-case")
class BadlyNamed(ToyGaussian):
    name = "Toy_Gaussian"


@mutant("declarations_are_complete", "has no description")
class Terse(ToyGaussian):
    parameters = property(
        lambda self: with_parameter(ToyGaussian.parameters.fget(self), description="")
    )


@mutant("declarations_are_complete", "no budget thorough")
class Thrifty(ToyGaussian):
    budgets: ClassVar = {k: ToyGaussian.budgets[k] for k in ("quick", "standard")}


@mutant("declarations_are_complete", "no free parameter of interest")
class Uninteresting(ToyBimodal):
    parameters = property(
        lambda self: with_parameter(ToyBimodal.parameters.fget(self), role="nuisance")
    )


@mutant("declarations_are_complete", "bin edges")
class Unordered(ToyGaussian):
    def __init__(self):
        super().__init__(kind="spectrum")

    @property
    def observable(self):
        good = super().observable
        return replace(good, edges=good.edges[::-1])


class BareOptions(SimulatorOptions):
    noise: float = 0.3


@mutant("options_are_documented_and_rebuild", "'noise'")
class UndocumentedOption(ToyBimodal):
    Options = BareOptions


@mutant("options_are_documented_and_rebuild", "another identity or prior")
class HiddenOption(ToyBimodal):
    counter = itertools.count(1)

    def __init__(self, **values):
        super().__init__(**values)
        self.width = next(self.counter)

    parameters = property(
        lambda self: with_parameter(
            ToyBimodal.parameters.fget(self), distribution=Uniform(0.0, float(self.width))
        )
    )


class InfiniteOptions(SimulatorOptions):
    noise: float = Field(
        float("inf"), description="Not a JSON number.", json_schema_extra={"unit": "mm"}
    )


@mutant("fiducial_points_are_valid", "'far'")
class FarFiducial(ToyBimodal):
    fiducial: ClassVar = {"far": {"theta": 17.0}}


@mutant("fiducial_points_are_valid", "missing")
class PartialFiducial(ToyTwoStage):
    fiducial: ClassVar = {"half": {"position": 0.0}}


@mutant("output_follows_theta", "shape")
class AlwaysOneRow(ToyGaussian):
    def _simulate(self, theta, rng):
        return super()._simulate(theta[:1], rng)


@mutant("output_follows_theta", "output_follows_theta")
class NeedsRows(ToyGaussian):
    def _simulate(self, theta, rng):
        return super()._simulate(theta, rng) + 0 * theta.max()


class Sets(ToyGaussian):
    def __init__(self):
        super().__init__(kind="set")


@mutant("data_fit_the_observable", "last column")
class FractionalMask(Sets):
    def _simulate(self, theta, rng):
        x = super()._simulate(theta, rng)
        x[..., -1] *= 0.5
        return x


@mutant("data_fit_the_observable", "padding rows")
class FilledPadding(Sets):
    def _simulate(self, theta, rng):
        x = super()._simulate(theta, rng)
        return np.where(x[..., -1:] == 0, np.r_[7.0, 7.0, 0.0], x)


@mutant("data_fit_the_observable", "log1p")
class NegativeCounts(ToyGaussian):
    observable = property(
        lambda self: replace(ToyGaussian.observable.fget(self), transform=("log1p",))
    )

    def _simulate(self, theta, rng):
        return super()._simulate(theta, rng) - 5


@mutant("same_generator_state_same_data", "the same object")
class OwnGenerator(ToyGaussian):
    def _simulate(self, theta, rng):
        return super()._simulate(theta, np.random.default_rng())


@mutant("same_generator_state_same_data", "a fresh object")
class OneObjectOneDetector(ToyGaussian):
    def __init__(self, **values):
        super().__init__(**values)
        self.bias = np.random.default_rng().normal()

    def _simulate(self, theta, rng):
        return super()._simulate(theta, rng) + self.bias


@mutant("different_generator_state_different_data", "ignores the generator")
class FixedSeed(ToyGaussian):
    def _simulate(self, theta, rng):
        return super()._simulate(theta, np.random.default_rng(0))


def reseeds():
    np.random.seed(np.random.randint(1000))


LINES = itertools.count(10**6)
CHANGES = {
    "NumPy's global random generator": lambda: np.random.random(),  # one word: the key stays equal
    "NumPy's global random": lambda: np.random.normal(),  # cached normal
    "NumPy's global": reseeds,
    "Python's random generator": random.random,
    "floating-point error handling": lambda: np.seterr(
        over="raise" if np.geterr()["over"] == "warn" else "warn"
    ),
    "print options": lambda: np.set_printoptions(precision=np.get_printoptions()["precision"] + 1),
    # A new line number each time: an equal filter would only be moved.
    "warning filters": lambda: warnings.simplefilter("once", UserWarning, lineno=next(LINES)),
    "the root logger": lambda: logging.getLogger().addHandler(logging.NullHandler()),
    "environment": lambda: os.environ.update(
        TOY_CALLS=str(len(os.environ.get("TOY_CALLS", "")) + 1) * 2
    ),
    "import path": lambda: sys.path.append("/nowhere"),
}


def changing(change):
    class Changing(ToyGaussian):
        def _simulate(self, theta, rng):
            change()
            return super()._simulate(theta, rng)

    return Changing


for _word, _change in CHANGES.items():
    mutant("global_state_is_untouched", _word)(changing(_change))


@mutant("inputs_are_not_modified", "modified theta in place")
class Overwriting(ToyGaussian):
    def _simulate(self, theta, rng):
        theta *= 2
        return super()._simulate(theta, rng)


@mutant("inputs_are_not_modified", "latent 'hits'")
class OverwritingLatents(ToyTwoStage):
    def _observe(self, z, theta, rng):
        z["hits"] += theta[:, 1:2]
        return super()._observe(z, np.zeros_like(theta), rng)


@mutant("inputs_are_not_modified", "_observe")
class OverwritingTheta(ToyTwoStage):
    def _observe(self, z, theta, rng):
        x = super()._observe(z, theta, rng)
        theta[:] = np.nan
        return x

    def _simulate(self, theta, rng):
        return super()._simulate(theta.copy(), rng)


@mutant("output_is_fresh_memory", "overwritten by the next call")
class ReusedBuffer(ToyTwoStage):
    buffer = np.zeros((8, 4))

    def _simulate_latent(self, theta, rng):
        if len(theta) != 8:
            return super()._simulate_latent(theta, rng)
        self.buffer[:] = super()._simulate_latent(theta, rng)["hits"]
        return {"hits": self.buffer}


@mutant("output_is_fresh_memory", "shares memory with theta")
class Passing(ToyTwoStage):
    def simulate_latent(self, theta, rng):
        return {"hits": np.broadcast_to(theta[:, :1], (len(theta), 4))}


@mutant("splitting_a_batch_keeps_the_distribution", "mixed batch")
class OneNoiseForAll(ToyGaussian):
    def _simulate(self, theta, rng):
        return theta + 0.3 * rng.standard_normal((1, theta.shape[1]))


@mutant("splitting_a_batch_keeps_the_distribution", "mixed batch")
class Sorting(ToyGaussian):
    def _simulate(self, theta, rng):
        return np.sort(super()._simulate(theta, rng), axis=0)


@mutant("splitting_a_batch_keeps_the_distribution", "mixed batch")
class FirstRowPedestal(ToyGaussian):
    def _simulate(self, theta, rng):
        x = super()._simulate(theta, rng)
        return x - x[:1] if len(x) else x


@mutant("failures_stay_within_the_declared_fraction", "max_failure_fraction is 0.01")
class Unreliable(ToyGaussian):
    max_failure_fraction = 0.01

    def _simulate(self, theta, rng):
        x = super()._simulate(theta, rng)
        return np.where(rng.random((len(x), 1)) < 0.1, np.nan, x)


@mutant("works_in_another_process", "cannot send")
class Unportable(ToyGaussian):
    def __init__(self, **values):
        super().__init__(**values)
        self.function = lambda x: x


@mutant("values_outside_the_support_are_refused", "accepts theta = nan")
class Tolerant(ToyBimodal):
    def simulate(self, theta, rng):
        return super().simulate(np.clip(np.nan_to_num(theta), -3, 3), rng)


@mutant("values_outside_the_support_are_refused", "accepts theta = -3.6")
class HalfTolerant(ToyBimodal):
    def simulate(self, theta, rng):
        return super().simulate(np.maximum(theta, -3), rng)


@mutant("ends_of_the_prior_can_be_simulated", "leaves the support")
class NarrowSupport(ToyBimodal):
    parameters = property(
        lambda self: with_parameter(ToyBimodal.parameters.fget(self), support=(-4.0, 2.5))
    )


@mutant("ends_of_the_prior_can_be_simulated", "at the end theta = -3")
class LogOfEdge(ToyBimodal):
    def _simulate(self, theta, rng):
        with np.errstate(divide="ignore"):
            return super()._simulate(theta, rng) + np.log(theta + 3)


def acting(action):
    class Acting(ToyGaussian):
        def _simulate(self, theta, rng):
            action()
            return super()._simulate(theta, rng)

    return Acting


def phones_home():
    with socket.socket() as line:
        line.connect_ex(("127.0.0.1", 9))


def logs_elsewhere():
    with Path("/dev/null/nowhere").open("w"):
        pass


def tries_elsewhere():
    try:
        logs_elsewhere()
    except OSError:
        return


ACTIONS = {
    "printed": lambda: sys.stdout.write("simulating...\n"),
    "wrote files: log.txt": lambda: Path("log.txt").write_text("done"),
    "wrote files: made": lambda: Path("made").mkdir(exist_ok=True),
    "used the network": phones_home,
    "started commands": lambda: subprocess.run(["true"], check=True),
}
for _word, _action in ACTIONS.items():
    mutant("no_files_network_or_output", _word.split(":")[0])(acting(_action))

STORED = ReferencePoint("offset", (0.5, -0.25), (0.3, 0.3))


@mutant("reference_points_are_reproduced", "mean of summary number 1", reference_points=[STORED])
class Miscalibrated(ToyGaussian):
    def _simulate(self, theta, rng):
        return super()._simulate(theta, rng) + np.r_[0.0, 0.1]


@mutant("reference_points_are_reproduced", "the spread", reference_points=[STORED])
def smeared():
    return ToyGaussian(noise=0.36)


@mutant("stages_compose", "differ")
class TwoTruths(ToyTwoStage):
    def _simulate(self, theta, rng):
        return super()._simulate(theta, rng) * 1.3


@mutant("redrawing_keeps_the_distribution", "new observe-only parameters")
@mutant("observe_only_parameters_stay_out_of_the_latents", "wrong posterior")
class OffsetInLatents(ToyTwoStage):
    def _simulate_latent(self, theta, rng):
        return {**super()._simulate_latent(theta, rng), "offset": theta[:, 1].copy()}

    def _observe(self, z, theta, rng):
        return super()._observe(z, np.stack([theta[:, 0], z["offset"]], axis=1), rng)


@mutant("observe_options_stay_out_of_the_latents", "depend on the option 'spread'")
class OptionOfTheLatents(ToyTwoStage):
    observe_options = ("resolution", "spread")


@mutant("observe_options_stay_out_of_the_latents", "has no option 'gain'")
class OptionThatIsNone(ToyTwoStage):
    observe_options = ("resolution", "gain")


@mutant("redrawing_keeps_the_distribution", "the same parameters")
class WearingOut(ToyTwoStage):
    """Observing twice is not the same as observing once."""

    def _observe(self, z, theta, rng):
        z["hits"] = np.asarray(z["hits"]) + 1.0
        return super()._observe(z, theta, rng) - 1.0


@mutant("redrawing_gives_new_data", "ignores the generator")
class NoiseInLatents(ToyTwoStage):
    def _observe(self, z, theta, rng):
        return super()._observe(z, theta, np.random.default_rng(3))


@mutant("redrawing_gives_new_data", "not a function")
class RestlessReadout(ToyTwoStage):
    def _observe(self, z, theta, rng):
        return super()._observe(z, theta, np.random.default_rng())


@mutant("summaries_have_one_row_for_each_input", "expected finite numbers")
class Transposed(ToyGaussian):
    def summary_statistics(self, x):
        return super().summary_statistics(x).T


@mutant("summaries_have_one_row_for_each_input", "label 'sum'")
class Summed(ToyTwoStage):
    def labels(self, z):
        return {"sum": np.asarray(z["hits"]).sum(axis=0)}


@mutant("log_likelihood_fits_the_simulator", "expected finite")
class OneNumber(ToyGaussian):
    def log_likelihood(self, x, theta):
        return super().log_likelihood(x, theta).sum()


@mutant("log_likelihood_fits_the_simulator", "squared score")
class TooSharp(ToyGaussian):
    def log_likelihood(self, x, theta):
        return 1.5 * super().log_likelihood(x, theta)


@mutant("log_likelihood_fits_the_simulator", "mean score")
class Shifted(ToyGaussian):
    def log_likelihood(self, x, theta):
        return super().log_likelihood(x + 0.1, theta)


@mutant("reference_posterior_fits_the_simulator", "not calibrated")
class ReferenceOfAnother(ToyGaussian):
    def reference_posterior(self):
        return ToyGaussian(noise=0.2).reference_posterior()


@mutant("reference_posterior_fits_the_simulator", "parameters of interest")
class ReferenceOfAll(ToyTwoStage):
    def reference_posterior(self):
        return self.exact_posterior(self.prior, self.parameters.names)


# --- the tests -------------------------------------------------------------------------------

PLANTED = [
    pytest.param(check, case, word, id=f"{check.__name__}-{i}")
    for check in SIMULATOR_CHECKS
    for i, (case, word) in enumerate(MUTANTS.get(check.__name__, []))
]


@pytest.fixture(autouse=True)
def restored(tmp_path, monkeypatch):
    """Undo what mutants change on purpose."""
    monkeypatch.chdir(tmp_path)
    path, environ, options = list(sys.path), dict(os.environ), np.get_printoptions()
    with preserve_state():
        yield
    sys.path[:] = path
    os.environ.clear()
    os.environ.update(environ)
    np.set_printoptions(**{k: v for k, v in options.items() if k != "override_repr"})


@pytest.mark.parametrize(("check", "case", "word"), PLANTED)
def test_the_mutant_is_caught(check, case, word):
    with pytest.raises(ConformanceError) as caught:
        run(check, case())
    assert word in str(caught.value)


def test_every_check_has_a_mutant():
    names = {check.__name__ for check in SIMULATOR_CHECKS}
    tested = {*MUTANTS, "plugin_module_is_light"}  # which has a test of its own below
    assert names - tested == set(), "checks without a mutant prove nothing"
    assert tested - names == set(), "mutants of checks that do not exist"


# --- mutants that need an importable module ----------------------------------------------------


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Pretend that a plugin distribution with the given module text is installed."""

    def install(text: str) -> None:
        (tmp_path / "mutant_plugin.py").write_text(textwrap.dedent(text))
        info = tmp_path / "mutant_plugin-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: mutant-plugin\nVersion: 1.0\n"
        )
        (info / "entry_points.txt").write_text("[sbi_physics]\nmutant = mutant_plugin\n")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setenv("SBI_PHYSICS_PLUGINS", "mutant")
        registry.refresh()

    yield install
    sys.modules.pop("mutant_plugin", None)
    registry.refresh()


HEAVY_PLUGIN = """
    {extra}
    from sbi_physics.hookspecs import hookimpl
    from sbi_physics.specs import EngineSpec, SimulatorSpec

    @hookimpl
    def sbi_physics_simulators():
        return [SimulatorSpec("toy-mutant", "A mutant.", "mutant_plugin:Mutant")]

    @hookimpl
    def sbi_physics_engines():
        return [EngineSpec("exact-mutant", "A mutant.", "mutant_plugin:MutantEngine")]

    def __getattr__(name):
        from sbi_physics.testing import ExactEngine, ToyGaussian

        if name not in ("Mutant", "MutantEngine"):
            raise AttributeError(name)
        base = ToyGaussian if name == "Mutant" else ExactEngine
        label = "toy-mutant" if name == "Mutant" else "exact-mutant"
        globals()[name] = type(name, (base,), {{"name": label, "__module__": __name__}})
        return globals()[name]
"""


CHECKS = {"simulator": SIMULATOR_CHECKS, "engine": ENGINE_CHECKS}


@pytest.mark.parametrize("kind", CHECKS)
@pytest.mark.parametrize(
    ("extra", "word"),
    [
        ("import numpy", "also imports numpy"),
        (
            "import time; until = time.process_time() + 0.6\n    while time.process_time() < "
            "until: pass",
            "takes 0.",
        ),
        ("", ""),
    ],
    ids=["heavy", "slow", "light"],
)
def test_a_heavy_plugin_module_is_caught(installed, kind, extra, word):
    installed(HEAVY_PLUGIN.format(extra=extra))
    if kind == "simulator":
        case = SimulatorCase(registry.simulator_class("toy-mutant"))
    else:
        case = EngineCase(registry.engine_class("exact-mutant"))
    checks = {check.__name__: check for check in CHECKS[kind]}
    run(checks["spec_loads"], case)
    if not word:
        run(checks["plugin_module_is_light"], case)
        return
    with pytest.raises(ConformanceError, match=word):
        run(checks["plugin_module_is_light"], case)


PROCESS_DEPENDENT = """
    import os
    from sbi_physics.testing import ToyGaussian

    class Good(ToyGaussian):
        def _simulate(self, theta, rng):
            return super()._simulate(theta, rng)

    class Mutant(Good):
        def _simulate(self, theta, rng):
            return super()._simulate(theta, rng) + os.getpid()
"""


def test_data_that_depend_on_the_process_are_caught(installed):
    installed(PROCESS_DEPENDENT)
    import mutant_plugin

    (check,) = [c for c in SIMULATOR_CHECKS if c.__name__ == "works_in_another_process"]
    run(check, SimulatorCase(mutant_plugin.Good))
    with pytest.raises(ConformanceError, match="other data in another process"):
        run(check, SimulatorCase(mutant_plugin.Mutant))


def test_an_unregistered_class_of_an_installed_plugin_is_caught(installed):
    installed(HEAVY_PLUGIN.format(extra="").replace('Spec("toy-mutant"', 'Spec("toy-other"'))
    with pytest.raises(ConformanceError, match="does its hook"):
        run(SIMULATOR_CHECKS[0], SimulatorCase(import_module("mutant_plugin").Mutant))
