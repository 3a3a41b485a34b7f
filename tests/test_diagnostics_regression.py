from __future__ import annotations

import numpy as np
import pytest

from sbi_physics.diagnostics.regression import Features, Regression, fit_rows, plain_vectors
from sbi_physics.observables import Observable


def test_a_linear_relation_is_found_with_its_residual():
    rng = np.random.default_rng(1)
    # Uniform: nothing lies beyond the cut at 3 standard deviations.
    x = rng.uniform(-1.0, 1.0, (4000, 3)).astype(np.float32)
    theta = x @ [[1.0, 0.0], [0.5, -2.0], [0.0, 0.0]] + [3.0, 0.0]
    theta = theta + [0.3, 0.1] * rng.standard_normal((4000, 2))
    features = Features.fit(Observable("vector", (3,)), x)
    fitted = Regression.fit(features(x), theta)
    assert fitted.residual_sd == pytest.approx([0.3, 0.1], rel=0.1)
    assert fitted(features(x)).mean(axis=0) == pytest.approx(theta.mean(axis=0), abs=1e-9)


def test_features_are_standardised_and_cut():
    rng = np.random.default_rng(2)
    x = (1e-12 * rng.standard_t(2, (500, 40))).astype(np.float32)
    found = Features.fit(Observable("spectrum", (40,)), x)(x)
    assert found.shape == (500, 10)
    assert np.abs(found).max() <= 3.0
    assert np.all(found.std(axis=0) < 1.0)
    assert np.all(found.std(axis=0) > 0.2)


@pytest.mark.parametrize("kind", ["vector", "spectrum", "image", "set"])
def test_every_kind_of_data_gives_features(kind):
    shape = {"vector": (4,), "spectrum": (2, 7), "image": (6, 6), "set": (5, 3)}[kind]
    x = np.random.default_rng(3).random((50, *shape)).astype(np.float32)
    if kind == "set":
        x[..., -1] = 1.0
    found = Features.fit(Observable(kind, shape, transform=("log1p", "standardize")), x)(x)
    assert np.isfinite(found).all()
    assert len(found) == 50


def test_data_that_never_vary_give_features_of_zero():
    x = np.ones((20, 3), dtype=np.float32)
    assert not Features.fit(Observable("vector", (3,)), x)(x).any()


def test_more_features_than_simulations_are_no_problem():
    rng = np.random.default_rng(4)
    fitted = Regression.fit(rng.standard_normal((4, 10)), rng.standard_normal((4, 2)))
    assert np.isfinite(fitted(rng.standard_normal((9, 10)))).all()


def test_large_data_are_read_in_part():
    assert fit_rows(Observable("vector", (3,))) == 5000
    assert fit_rows(Observable("image", (100, 100))) == 2000
    assert fit_rows(Observable("image", (1000, 1000))) == 200


def test_entries_that_are_not_finite_count_as_average():
    x = np.array([[1.0, 2e200], [np.nan, 4e200], [3.0, np.inf]])
    observable, flat = plain_vectors(x)
    assert observable.shape == (2,)
    assert flat[1, 0] == 0.0
    assert flat[2, 1] == pytest.approx(0.0, abs=1e-6)
    assert np.isfinite(flat).all()
