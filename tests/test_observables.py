"""Observables: what data look like, and what is said when they do not."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sbi_physics.errors import ContractError, ObservationError
from sbi_physics.observables import Observable

VECTOR = Observable("vector", (3,), names=("a", "b", "c"))
SPECTRUM = Observable(
    "spectrum", (4,), unit="counts", edges=(1, 2, 4, 8, 16), edge_unit="TeV", transform=("log1p",)
)
EVENTS = Observable("set", (5, 3))
IMAGE = Observable("image", (2, 4, 4))
ALL = [VECTOR, SPECTRUM, EVENTS, IMAGE]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "table", "shape": (3,)}, "'table' is not one of"),
        ({"kind": "vector", "shape": ()}, "must be positive"),
        ({"kind": "vector", "shape": (0,)}, "must be positive"),
        ({"kind": "vector", "shape": (3,), "transform": ("ln",)}, r"\['ln'\]; known"),
        ({"kind": "spectrum", "shape": (3,), "edges": (1, 2, 3)}, "3 bins need 4 edges, got 3"),
        ({"kind": "spectrum", "shape": (2,), "edges": (1, 3, 2)}, "must increase"),
        ({"kind": "spectrum", "shape": (2,), "edges": (1, 2, np.nan)}, "must increase"),
        ({"kind": "spectrum", "shape": (2, 3, 4)}, "a spectrum has 1 or 2 axes"),
        ({"kind": "set", "shape": (5,)}, "a set has 2 axes"),
        ({"kind": "image", "shape": (5,)}, "an? image has 2 or 3 axes"),
        ({"kind": "set", "shape": (5, 3), "transform": ("whiten",)}, "whiten"),
    ],
)
def test_impossible_observables_are_refused(arguments, message):
    with pytest.raises(ContractError, match=message):
        Observable(**arguments)


@pytest.mark.parametrize("observable", ALL, ids=lambda o: o.kind)
def test_json_brings_back_the_same_observable(observable):
    again = Observable.from_dict(json.loads(json.dumps(observable.to_dict())))
    assert again == observable
    assert hash(again) == hash(observable)


def test_numpy_shapes_and_edges_become_plain():
    edges = np.geomspace(1, 16, 5)
    observable = Observable("spectrum", (np.int64(4),), edges=edges)
    assert Observable.from_dict(json.loads(json.dumps(observable.to_dict()))) == observable
    assert observable.edges == tuple(edges.tolist())


@pytest.mark.parametrize("observable", ALL, ids=lambda o: o.kind)
def test_one_observation_gains_a_batch_axis_and_a_batch_keeps_it(observable):
    one = np.ones(observable.shape)
    assert observable.check(one).shape == (1, *observable.shape)
    assert observable.check(one.tolist()).shape == (1, *observable.shape)
    assert observable.check(np.ones((7, *observable.shape))).shape == (7, *observable.shape)
    assert observable.check(np.empty((0, *observable.shape))).shape == (0, *observable.shape)
    assert observable.check(one.astype(int)).dtype == np.float32


def test_float32_data_are_not_copied():
    x = np.ones((10, 3), np.float32)
    assert np.shares_memory(VECTOR.check(x), x)


@pytest.mark.parametrize("shape", [(), (2,), (4,), (2, 4), (1, 2, 3)])
def test_a_wrong_shape_is_named_with_both_accepted_ones(shape):
    with pytest.raises(ObservationError, match=r"expected \(3,\) or \(batch, 3\)"):
        VECTOR.check(np.ones(shape))


def test_entries_that_are_not_finite_are_listed():
    x = np.zeros((4, 3))
    x[1, 2] = np.nan
    x[3, 0] = np.inf
    with pytest.raises(ObservationError, match=r"2 entries.*\(1, 2\), \(3, 0\)$"):
        VECTOR.check(x)
    x[:] = np.nan
    with pytest.raises(ObservationError, match=r"12 entries.* and 7 more"):
        VECTOR.check(x)


def test_numbers_beyond_float32_are_refused_without_a_warning():
    with pytest.raises(ObservationError, match="not finite in float32"):
        VECTOR.check([1.0, 1e39, 0.0])


@pytest.mark.parametrize("x", [["a", "b", "c"], np.ones(3, complex), np.array([None] * 3)])
def test_data_that_are_no_numbers_are_refused_with_their_type(x):
    with pytest.raises(ObservationError, match="real numbers, got dtype"):
        VECTOR.check(x)


def test_events_are_counted_by_their_mask():
    x = np.zeros((3, 5, 3), np.float32)
    x[0, :2, -1] = 1
    x[2, :5, -1] = 1
    assert EVENTS.counts(EVENTS.check(x)).tolist() == [2, 0, 5]
    with pytest.raises(ContractError, match="only sets"):
        VECTOR.counts(np.ones((1, 3), np.float32))


def test_a_set_without_a_proper_mask_is_refused():
    with pytest.raises(ObservationError, match="last column.*1 for an event and 0 for padding"):
        EVENTS.check(np.full((2, 5, 3), 0.5))


def test_the_subject_of_a_complaint_may_be_named():
    with pytest.raises(ObservationError, match="^training data has shape"):
        VECTOR.fit_transform(np.ones((5, 2)))
