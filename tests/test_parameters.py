"""Parameters: names, units, ranges, and what may be done to a collection of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbi_physics.distributions import Fixed, LogNormal, LogUniform, Normal, Uniform
from sbi_physics.errors import ContractError, UnknownNameError
from sbi_physics.parameters import Parameter, ParameterSpace

MASS = Parameter("m_a", LogUniform(0.1, 100.0), unit="neV", label="m_a", description="Mass.")
COUPLING = Parameter("g", LogUniform(1e-2, 1e1), unit="1e-11 / GeV", support=(0.0, 10.0))
INDEX = Parameter("index", Uniform(1.0, 4.0), role="nuisance")
FIELD = Parameter("b0", LogNormal(2.3, 0.3), unit="uG", role="nuisance")
SPACE = ParameterSpace([MASS, COUPLING, INDEX, FIELD])


def test_a_parameter_takes_the_scale_of_its_distribution():
    assert [p.scale for p in SPACE] == ["log10", "log10", "linear", "log10"]
    assert Parameter("t", Uniform(1.0, 2.0), scale="log10").scale == "log10"


def test_axis_labels_carry_the_unit():
    assert MASS.axis_label == "$m_a$ [neV]"
    assert INDEX.axis_label == "index"


@pytest.mark.parametrize("name", ["", "2x", "a b", "lambda", "m-a"])
def test_a_name_must_be_an_identifier(name):
    with pytest.raises(ContractError, match="identifier"):
        Parameter(name, Uniform(0.0, 1.0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": "ln"}, "scale 'ln'"),
        ({"role": "main"}, "role 'main'"),
        ({"distribution": Normal(0.0, 1.0), "scale": "log10"}, "positive prior"),
        ({"support": (0.2, 0.8)}, r"\[0, 1\] leaves the support \[0.2, 0.8\]"),
    ],
)
def test_impossible_parameters_are_refused(change, message):
    with pytest.raises(ContractError, match=message):
        Parameter(**{"name": "t", "distribution": Uniform(0.0, 1.0), **change})


def test_a_space_is_a_sequence_with_names():
    assert len(SPACE) == 4
    assert SPACE[0] is MASS
    assert SPACE[-1] is FIELD
    assert SPACE["g"] is COUPLING
    assert list(SPACE[1:3]) == [COUPLING, INDEX]
    assert SPACE.names == ("m_a", "g", "index", "b0")
    assert SPACE.interest == ("m_a", "g")
    assert SPACE.index("index") == SPACE.index(INDEX) == 2
    assert SPACE.indices(["b0", "m_a"]) == [3, 0]


def test_membership_is_asked_by_name_or_parameter():
    assert "g" in SPACE
    assert COUPLING in SPACE
    assert "h" not in SPACE
    assert Parameter("g", Uniform(0.0, 1.0)) not in SPACE


def test_repeated_names_are_refused():
    with pytest.raises(ContractError, match="repeated: g"):
        ParameterSpace([COUPLING, MASS, COUPLING])


@pytest.mark.parametrize(
    "ask",
    [
        lambda s: s["indx"],
        lambda s: s.index("indx"),
        lambda s: s.select(["indx"]),
        lambda s: s.fix({"indx": 1.0}),
        lambda s: s.with_interest(["indx"]),
        lambda s: s.vector({"indx": 1.0}),
        lambda s: s.replace(indx=INDEX),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(ask):
    with pytest.raises(UnknownNameError, match=r"'indx'.*'index'.*m_a, g, index, b0"):
        ask(SPACE)


def test_selection_keeps_the_order_asked_for():
    assert SPACE.select(["index", "m_a"]).names == ("index", "m_a")


def test_the_parameters_of_interest_may_be_chosen():
    chosen = SPACE.with_interest(["g", "b0"])
    assert chosen.interest == ("g", "b0")
    assert SPACE.interest == ("m_a", "g")


@pytest.mark.parametrize("names", [[], ["g"]])
def test_nothing_or_a_fixed_parameter_cannot_be_inferred(names):
    with pytest.raises(ContractError, match=r"at least one|cannot infer a fixed parameter: g"):
        SPACE.fix({"g": 1.0}).with_interest(names)


def test_fixing_keeps_the_column_and_the_range():
    fixed = SPACE.fix({"index": 2})
    assert fixed.names == SPACE.names
    assert fixed["index"].distribution == Fixed(2.0)
    assert fixed["index"].is_fixed
    assert fixed["index"].valid_range == (1.0, 4.0)
    assert fixed.fix({"index": 3.0})["index"].distribution == Fixed(3.0)


def test_a_value_outside_the_prior_but_inside_the_support_may_be_fixed():
    assert SPACE.fix({"g": 0.0})["g"].bounds == (0.0, 0.0)


def test_fixing_outside_the_support_names_value_unit_and_range():
    with pytest.raises(ContractError, match=r"g = 11 1e-11 / GeV: accepted is \[0, 10\]"):
        SPACE.fix({"g": 11.0})
    with pytest.raises(ContractError, match="index = nan"):
        SPACE.fix({"index": np.nan})


def test_a_vector_is_ordered_and_needs_every_free_parameter():
    values = {"b0": 10.0, "m_a": 5.0, "g": 1.0, "index": 2.0}
    assert SPACE.vector(values).tolist() == [5.0, 1.0, 2.0, 10.0]
    assert SPACE.fix({"g": 0.5}).vector({k: values[k] for k in ("m_a", "b0", "index")})[1] == 0.5
    with pytest.raises(ContractError, match="missing for g, b0"):
        SPACE.vector({"m_a": 1.0, "index": 2.0})


GOOD = np.array([[1.0, 1.0, 2.0, 10.0], [50.0, 0.0, 4.0, 1.0]])


def test_values_in_range_pass():
    SPACE.check_range(GOOD)
    SPACE.check_range(np.empty((0, 4)))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (0, 101.0, r"m_a = 101 neV in row 1 is outside \[0.1, 100\] neV"),
        (1, -1e-9, r"g = -1e-09 .* in row 1"),
        (2, np.nan, r"index = nan in row 1 is outside \[1, 4\]"),
        (3, np.inf, r"b0 = inf uG in row 1"),
    ],
)
def test_a_value_out_of_range_is_named_with_unit_row_and_range(column, value, message):
    theta = GOOD.copy()
    theta[1, column] = value
    with pytest.raises(ContractError, match=message):
        SPACE.check_range(theta)


@pytest.mark.parametrize("shape", [(4,), (2, 3), (1, 2, 4)])
def test_a_wrong_shape_is_named_with_the_expected_one(shape):
    with pytest.raises(ContractError, match=r"expected \(batch, 4\) for m_a, g, index, b0"):
        SPACE.check_range(np.ones(shape))


@given(
    st.lists(
        st.builds(
            Parameter,
            st.from_regex(r"[a-z][a-z0-9_]{0,6}x", fullmatch=True),
            st.sampled_from([Uniform(0.5, 2.0), LogUniform(0.1, 3.0), LogNormal(0.0, 1.0)]),
            unit=st.sampled_from(["", "TeV", "1e-11 / GeV"]),
            label=st.text(max_size=5),
            scale=st.sampled_from(["", "linear", "log10"]),
            role=st.sampled_from(["interest", "nuisance"]),
            description=st.text(max_size=10),
            support=st.sampled_from([None, (0.0, np.inf)]),
        ),
        unique_by=lambda p: p.name,
        max_size=5,
    )
)
def test_json_brings_back_the_same_parameters(parameters):
    space = ParameterSpace(parameters)
    text = json.dumps(space.to_list(), allow_nan=False)
    again = ParameterSpace.from_list(json.loads(text))
    assert again == space
    assert hash(again) == hash(space)
    assert json.dumps(again.to_list()) == text
