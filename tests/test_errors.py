"""Errors: one base, the fitting builtin, and messages that name the nearest match."""

from __future__ import annotations

import inspect
import pickle

import pytest

from sbi_physics import errors
from sbi_physics.errors import SbiPhysicsError, nearest_name, unknown_name

BUILTINS = {
    "UnknownNameError": LookupError,
    "PluginError": ImportError,
    "ContractError": ValueError,
    "OptionError": ValueError,
    "ConfigError": ValueError,
    "ObservationError": ValueError,
    "DataFileError": FileNotFoundError,
    "StoreError": OSError,
    "StoreLockedError": OSError,
    "StoreMismatchError": OSError,
    "PosteriorFileError": OSError,
    "TrainingError": RuntimeError,
    "ValidationError": ValueError,
    "WorkerError": RuntimeError,
    "ConformanceError": AssertionError,
}

RAISED = {
    name: kind
    for name, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, SbiPhysicsError) and kind is not SbiPhysicsError
}


def test_the_table_above_knows_every_error():
    assert set(BUILTINS) == set(RAISED)


@pytest.mark.parametrize("name", sorted(RAISED))
def test_every_error_is_also_the_builtin_that_fits(name):
    assert issubclass(RAISED[name], BUILTINS[name])
    assert RAISED[name].__doc__


@pytest.mark.parametrize("name", sorted(RAISED))
def test_the_message_survives_printing_and_pickling(name):
    # Worker processes send their errors home pickled; KeyError would print quotes around it.
    error = pickle.loads(pickle.dumps(RAISED[name]("it broke, mend it")))
    assert type(error) is RAISED[name]
    assert str(error) == "it broke, mend it"


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("spectral_indx", "spectral_index"),
        ("SPECTRAL_INDEX", "spectral_index"),
        ("AmpLitude", "amplitude"),
        ("zzz", None),
    ],
)
def test_the_nearest_name_ignores_case_and_forgives_slips(asked, found):
    assert nearest_name(asked, ["m_a", "amplitude", "spectral_index"]) == found


def test_the_nearest_name_may_be_looked_up_in_a_generator():
    assert nearest_name("amplitud", (n for n in ("m_a", "amplitude"))) == "amplitude"


def test_an_unknown_name_is_answered_with_guess_list_and_hint():
    error = unknown_name("engine", "sbi-npee", ["sbi-npe", "sbi-nre"], "Try `doctor`.")
    assert str(error) == (
        "unknown engine 'sbi-npee'. Did you mean 'sbi-npe'? Known: sbi-npe, sbi-nre. Try `doctor`."
    )


def test_an_unknown_name_with_nothing_known_says_so():
    assert str(unknown_name("engine", "x", [])) == "unknown engine 'x'. Known: none."
