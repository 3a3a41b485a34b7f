"""The simulator contract: options explained, ranges and shapes checked, two stages composed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from pydantic import Field, model_validator

sys.path.insert(0, str(Path(__file__).parent))
from sample_simulators import Line, LineOptions, TwoStage

from sbi_physics.distributions import LogUniform, Uniform
from sbi_physics.errors import ContractError, OptionError, UnknownNameError
from sbi_physics.observables import Observable
from sbi_physics.parameters import Parameter, ParameterSpace
from sbi_physics.simulator import (
    DEFAULT_BUDGETS,
    Simulator,
    SimulatorIdentity,
    SimulatorOptions,
    make_options,
)
from sbi_physics.training import TrainingSettings


class DetectorOptions(SimulatorOptions):
    exposure: float = Field(50.0, gt=0, le=1000, json_schema_extra={"unit": "h"})
    n_bins: int = Field(40, ge=2, json_schema_extra={"unit": ""})
    zenith: float = Field(20.0, lt=90, json_schema_extra={"unit": "deg"})
    response: Literal["embedded", "cta-south"] = "embedded"
    energies: tuple[float, float] = (0.1, 10.0)

    @model_validator(mode="after")
    def _ordered(self):
        if self.energies[0] >= self.energies[1]:
            raise ValueError("energies must increase")
        return self


class Detector(Simulator):
    """Counts proportional to a rate."""

    name = "detector"
    Options = DetectorOptions
    fiducial = {"faint": {"rate": 0.5, "slope": 2.0}, "incomplete": {"rate": 1.0}}

    @property
    def parameters(self):
        return ParameterSpace(
            [
                Parameter("rate", LogUniform(0.1, 10.0), unit="1/h", support=(0.0, 10.0)),
                Parameter("slope", Uniform(1.0, 3.0)),
            ]
        )

    @property
    def constraints(self):
        return ("rate < slope * 5",)

    @property
    def observable(self):
        return Observable("spectrum", (self.options.n_bins,), unit="counts")

    def _simulate(self, theta, rng):
        rate = theta[:, :1] * self.options.exposure / self.options.n_bins
        return rng.poisson(np.repeat(rate, self.options.n_bins, axis=1))


THETA = np.array([[0.5, 2.0], [5.0, 1.5], [0.0, 3.0]])


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# Options -----------------------------------------------------------------


def test_options_are_set_by_name_or_as_a_model():
    assert Detector(exposure=20).options.exposure == 20.0
    model = DetectorOptions(exposure=20)
    assert Detector(model).options == model
    assert Detector(model, n_bins=3).options == DetectorOptions(exposure=20, n_bins=3)
    assert repr(Detector(n_bins=3)) == "Detector(n_bins=3)"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"exposure": -5},
            r"option 'exposure' of 'detector' \[h\]: got -5; .*\(accepted: \(0.*, 1000.*\]\)",
        ),
        ({"exposure": 2000}, r"'exposure'.*\[h\]: got 2000; .*\(accepted: \(0.*, 1000.*\]\)"),
        ({"n_bins": 1}, r"got 1; .*greater than or equal to 2 \(accepted: \[2, inf\)\)"),
        ({"zenith": 95}, r"\[deg\]: got 95; .*\(accepted: \(-inf, 90.*\)\)"),
        ({"n_bins": "many"}, r"'n_bins'.*got 'many'; .*valid integer"),
        ({"response": "cta-north"}, r"got 'cta-north'; .*'embedded' or 'cta-south'"),
        ({"energies": (1.0,)}, r"option 'energies.1' of 'detector'"),
        ({"energies": (2.0, 1.0)}, r"options of 'detector': energies must increase"),
    ],
)
def test_an_unacceptable_option_names_field_value_unit_and_range(values, message):
    with pytest.raises(OptionError, match=message):
        Detector(**values)


def test_an_unknown_option_is_answered_with_the_nearest_and_the_list():
    with pytest.raises(
        OptionError,
        match=r"unknown option 'exposre' of 'detector'\. Did you mean 'exposure'\? Known: expo",
    ):
        Detector(exposre=10)


def test_every_wrong_option_is_named():
    with pytest.raises(OptionError, match=r"'exposure'.*'n_bins'.*'bins'"):
        Detector(exposure=0, n_bins=0, bins=3)


def test_a_model_of_another_simulator_is_refused():
    with pytest.raises(OptionError, match="type DetectorOptions, got LineOptions"):
        Detector(LineOptions())


def test_options_do_not_change_after_construction():
    with pytest.raises(ValueError, match="frozen"):
        Detector().options.exposure = 1.0


def test_settings_are_explained_in_the_same_words():
    with pytest.raises(OptionError, match="unknown setting 'learning_rat'.*'learning_rate'"):
        make_options("npe", TrainingSettings, None, {"learning_rat": 1}, "setting")


# Simulation --------------------------------------------------------------


def test_data_have_the_declared_shape_and_type():
    detector = Detector()
    for n in (0, 1, 3):
        x = detector.simulate(THETA[:n], rng())
        assert x.shape == (n, 40)
        assert x.dtype == np.float32


def test_the_same_generator_gives_the_same_data():
    assert np.array_equal(Detector().simulate(THETA, rng(1)), Detector().simulate(THETA, rng(1)))
    assert not np.array_equal(
        Detector().simulate(THETA, rng(1)), Detector().simulate(THETA, rng(2))
    )


def test_theta_is_never_changed_in_place():
    class Careless(Detector):
        def _simulate(self, theta, rng):
            theta *= 0.0
            return np.zeros((len(theta), self.options.n_bins))

    theta = THETA.copy()
    Careless().simulate(theta, rng())
    assert np.array_equal(theta, THETA)


@pytest.mark.parametrize("method", ["simulate", "simulate_latent", "observe"])
def test_parameters_out_of_range_are_named_before_anything_runs(method):
    arguments = {"observe": [{}]}.get(method, [])
    with pytest.raises(
        ContractError, match=r"theta of 'two-stage': a = 3 m in row 1 is outside \[-1, 2\] m"
    ):
        getattr(TwoStage(), method)(*arguments, [[0.0, 1.0], [3.0, 1.0]], rng())


def test_the_support_admits_what_the_prior_does_not():
    assert (Detector().simulate([[0.0, 2.0]], rng()) == 0).all()
    with pytest.raises(ContractError, match=r"rate = 11 1/h.*\[0, 10\] 1/h"):
        Detector().simulate([[11.0, 2.0]], rng())


@pytest.mark.parametrize("theta", [[0.5, 2.0], [[0.5]], np.ones((2, 3))])
def test_theta_of_another_shape_is_refused(theta):
    with pytest.raises(ContractError, match=r"expected \(batch, 2\) for rate, slope"):
        Detector().simulate(theta, rng())


def test_data_of_another_shape_are_the_simulators_fault():
    class Short(Detector):
        def _simulate(self, theta, rng):
            return np.zeros((len(theta), self.options.n_bins - 1))

    with pytest.raises(
        ContractError, match=r"'detector' returned x of shape \(3, 39\); .* says \(3, 40\)"
    ):
        Short().simulate(THETA, rng())


def test_failed_rows_pass_through_and_overflow_counts_as_failed():
    class Wild(Detector):
        def _simulate(self, theta, rng):
            return np.broadcast_to([[1.0], [np.nan], [1e300]], (3, 40))

    x = Wild().simulate(THETA, rng())
    assert np.isfinite(x).all(axis=1).tolist() == [True, False, False]


def test_a_simulator_that_implements_nothing_says_what_is_missing():
    class Empty(Detector):
        _simulate = Simulator._simulate

    with pytest.raises(ContractError, match="neither _simulate nor _simulate_latent"):
        Empty().simulate(THETA, rng())


# Two stages --------------------------------------------------------------

PAIR = np.array([[0.5, 1.0], [-1.0, 0.0], [2.0, -2.0]])


def test_simulating_is_observing_the_latents():
    both = TwoStage()
    assert both.is_two_stage
    assert not Line().is_two_stage
    one = rng(5)
    z = both.simulate_latent(PAIR, one)
    assert np.array_equal(both.observe(z, PAIR, one), both.simulate(PAIR, rng(5)))
    assert {k: v.shape for k, v in z.items()} == {"true": (3, 3), "count": (3,)}


def test_latents_of_another_length_are_refused():
    class Lossy(TwoStage):
        def _simulate_latent(self, theta, rng):
            return {"true": np.zeros((len(theta) - 1, 3))}

    with pytest.raises(ContractError, match=r"latent 'true' of shape \(2, 3\) for 3 points"):
        Lossy().simulate_latent(PAIR, rng())


def test_a_one_stage_simulator_has_no_latents_to_give():
    with pytest.raises(ContractError, match="'detector'"):
        Detector().simulate_latent(THETA, rng())
    with pytest.raises(ContractError, match="'detector' does not implement _observe"):
        Detector().observe({}, THETA, rng())


# Identity, points, abilities ---------------------------------------------


def test_the_prior_has_the_parameters_and_constraints():
    prior = Detector().prior
    assert prior.names == ("rate", "slope")
    assert [c.expression for c in prior.constraints] == ["rate < slope * 5"]


def test_the_identity_is_name_version_and_resolved_options():
    identity = Detector(n_bins=3).identity
    assert identity.options["n_bins"] == 3
    assert identity.options["exposure"] == 50.0
    assert SimulatorIdentity.from_dict(identity.to_dict()) == identity
    assert identity != Detector().identity


def test_an_option_younger_than_stores_is_no_part_of_the_identity_at_its_default():
    class Options(Detector.Options):
        gain: float = Field(1.0, json_schema_extra={"later": True})

    class Newer(Detector):
        pass

    Newer.Options = Options
    assert Newer().identity == Detector().identity
    assert Newer(gain=2.0).identity.options["gain"] == 2.0


def test_points_are_found_by_name_or_given_by_value():
    detector = Detector()
    assert detector.theta("faint").tolist() == [0.5, 2.0]
    assert detector.theta({"slope": 1.0, "rate": 0.0}).tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("point", "error", "message"),
    [
        ("fant", UnknownNameError, "fiducial point of 'detector' 'fant'. Did you mean 'faint'"),
        ("incomplete", ContractError, "missing for slope"),
        ({"rate": 1.0, "slpe": 1.0}, UnknownNameError, "Did you mean 'slope'"),
        ({"rate": 50.0, "slope": 2.0}, ContractError, "point of 'detector': rate = 50 1/h"),
    ],
)
def test_a_wrong_point_is_explained(point, error, message):
    with pytest.raises(error, match=message):
        Detector().theta(point)


@pytest.mark.parametrize(
    ("ability", "arguments"),
    [
        ("log_likelihood", [None, None]),
        ("reference_posterior", []),
        ("read_observation", [Path("x")]),
        ("summary_statistics", [None]),
        ("labels", [{}]),
    ],
)
def test_an_absent_ability_is_known_and_says_so(ability, arguments):
    class Able(Detector):
        pass

    setattr(Able, ability, lambda self, *_: "done")
    assert Able().can(ability)
    assert not Detector().can(ability)
    with pytest.raises(ContractError, match=rf"'detector' does not provide {ability}\(\)"):
        getattr(Detector(), ability)(*arguments)


def test_budgets_grow_and_set_common_training_fields_only():
    sizes = [DEFAULT_BUDGETS[name].simulations for name in ("quick", "standard", "thorough")]
    assert sizes == sorted(sizes)
    for budget in DEFAULT_BUDGETS.values():
        TrainingSettings(**budget.training)
