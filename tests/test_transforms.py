"""Transforms: fitted once, the same after storage, blind to padding and to units."""

from __future__ import annotations

import numpy as np
import pytest

from sbi_physics.errors import ContractError, ObservationError
from sbi_physics.observables import Observable
from sbi_physics.transforms import N_FEATURES, STEPS, Transform


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def events(n: int, seed: int = 0) -> np.ndarray:
    """Sets of up to 6 events with two features of different size."""
    generator = rng(seed)
    x = np.zeros((n, 6, 3), np.float32)
    counts = generator.integers(0, 7, n)
    mask = np.arange(6) < counts[:, None]
    x[..., :2] = generator.normal([10.0, -300.0], [2.0, 50.0], (n, 6, 2)) * mask[..., None]
    x[..., 2] = mask
    return x


# Covariance MIXING^T MIXING with eigenvalues between 1 and 4 and large correlations.
MIXING = np.diag(np.linspace(1, 2, 6)) @ np.linalg.qr(rng(5).normal(size=(6, 6)))[0]

CASES = {
    "vector": (
        Observable("vector", (4,)),
        rng(1).normal([0, 5, 1e6, -3], [1, 2, 1e5, 0.1], (500, 4)),
    ),
    "spectrum": (
        Observable("spectrum", (30,), transform=("log1p", "standardize")),
        rng(2).poisson(20, (500, 30)),
    ),
    "anscombe": (
        Observable("spectrum", (2, 15), transform=("anscombe", "standardize")),
        rng(3).poisson(20, (500, 2, 15)),
    ),
    "whitened": (
        Observable("spectrum", (6,), transform=("whiten",)),
        rng(4).normal(size=(3000, 6)) @ MIXING + 7,
    ),
    "image": (
        Observable("image", (2, 5, 5)),
        rng(6).normal([[[3.0]], [[-8.0]]], 2, (500, 2, 5, 5)),
    ),
    "set": (Observable("set", (6, 3)), events(500)),
    "set of counts": (
        Observable("set", (6, 3), transform=("anscombe", "standardize")),
        abs(events(500)),
    ),
    "bare": (Observable("vector", (4,), transform=()), rng(7).normal(size=(50, 4))),
}


@pytest.fixture(params=sorted(CASES))
def case(request):
    observable, x = CASES[request.param]
    return observable, observable.check(x), observable.fit_transform(x)


def test_shape_and_type_are_kept(case):
    observable, x, transform = case
    for n in (0, 1, 7):
        out = transform(x[:n])
        assert out.shape == (n, *observable.shape)
        assert out.dtype == np.float32


def test_data_are_not_changed_in_place(case):
    _, x, transform = case
    before = x.copy()
    transform(x)
    transform.features(x)
    assert np.array_equal(before, x)


def test_rows_are_transformed_one_by_one_as_all_at_once(case):
    _, x, transform = case
    assert np.allclose(transform(x[:20])[7], transform(x[7:8])[0], atol=1e-5)


def test_stored_constants_give_the_same_transform(case):
    observable, x, transform = case
    again = Transform(observable, transform.arrays())
    assert again == transform
    assert np.array_equal(again(x), transform(x))
    assert np.array_equal(again.features(x), transform.features(x))


def test_features_are_few_finite_and_uncorrelated(case):
    _, x, transform = case
    features = transform.features(x)
    assert features.shape == (len(x), transform.n_features)
    assert 1 <= transform.n_features <= N_FEATURES
    covariance = np.atleast_2d(np.cov(features.T))
    off_diagonal = covariance - np.diag(np.diag(covariance))
    assert np.abs(off_diagonal).max() <= 1e-6 * covariance.max()
    variances = np.diag(covariance)
    assert (np.diff(variances) <= 1e-9 * variances[0]).all()


@pytest.mark.parametrize("name", ["vector", "spectrum", "anscombe"])
def test_standardised_entries_have_zero_mean_and_unit_spread(name):
    observable, x = CASES[name]
    out = observable.fit_transform(x)(observable.check(x)).astype(np.float64)
    assert np.abs(out.mean(axis=0)).max() < 1e-3
    assert np.abs(out.std(axis=0) - 1).max() < 1e-3


def test_images_are_standardised_by_channel():
    observable, x = CASES["image"]
    out = observable.fit_transform(x)(observable.check(x)).astype(np.float64)
    assert np.abs(out.mean(axis=(0, 2, 3))).max() < 1e-3
    assert np.abs(out.std(axis=(0, 2, 3)) - 1).max() < 1e-3


def test_whitened_entries_are_uncorrelated_and_keep_their_places():
    observable, x = CASES["whitened"]
    transform = observable.fit_transform(x)
    covariance = np.cov(transform(observable.check(x)).T.astype(np.float64))
    assert np.abs(covariance - np.eye(6)).max() < 1e-3
    assert np.abs(np.corrcoef(x.T) - np.eye(6)).max() > 0.2
    # The symmetric root, not a rotation of it: bin k stays bin k.
    matrix = transform.arrays()["whitening"]
    assert np.allclose(matrix, matrix.T, atol=1e-9 * np.abs(matrix).max())


def test_whitening_does_not_blow_up_what_hardly_varies():
    x = rng(10).normal(size=(2000, 8)) * np.array([3, 1, 1, 1, 1, 1, 1e-4, 0])
    observable = Observable("vector", (8,), transform=("whiten",))
    spread = observable.fit_transform(x)(observable.check(x)).std(axis=0)
    assert np.allclose(spread[:6], 1.0, atol=0.01)
    assert spread[6] < 1e-3
    assert spread[7] == 0


@pytest.mark.parametrize("step", ["standardize", "whiten"])
def test_the_unit_of_the_data_does_not_matter(step):
    # Fluxes of 1e-12 in their unit carry as much information as counts of 1.
    observable = Observable("vector", (3,), transform=(step,))
    x = rng(8).normal(5.0, [1.0, 2.0, 0.5], (400, 3))
    plain = observable.fit_transform(x)(observable.check(x))
    tiny = observable.fit_transform(x * 1e-12)(observable.check(x * 1e-12))
    assert np.allclose(plain, tiny, atol=1e-3)
    assert plain.std() > 0.5


def test_entries_that_never_vary_become_zero_not_huge():
    observable = Observable("vector", (3,))
    x = rng(9).normal(size=(100, 3))
    x[:, 1], x[:, 2] = 1e6, 0.0
    out = observable.fit_transform(x)(observable.check(x))
    assert (out[:, 1:] == 0).all()
    later = observable.check(x + np.array([0.0, 0.0, 3.0]))
    assert observable.fit_transform(x)(later)[:, 2].tolist() == [3.0] * 100


@pytest.mark.parametrize("name", ["set", "set of counts"])
def test_padding_stays_zero_and_is_ignored_by_the_constants(name):
    observable, x = CASES[name]
    x = observable.check(x)
    out = observable.fit_transform(x)(x)
    real = x[..., -1] == 1
    assert (out[~real] == 0).all()
    assert (out[real][:, -1] == 1).all()
    features = out[real][:, :-1].astype(np.float64)
    assert np.abs(features.mean(axis=0)).max() < 1e-3
    assert np.abs(features.std(axis=0) - 1).max() < 1e-3


def test_features_of_a_set_ignore_the_order_of_events():
    observable, x = CASES["set"]
    transform = observable.fit_transform(x)
    shuffled = x[:, [3, 1, 5, 0, 4, 2]]
    assert np.allclose(transform.features(x), transform.features(shuffled), atol=1e-5)


@pytest.mark.parametrize(("step", "bad"), [("log1p", -1.0), ("sqrt", -0.5), ("anscombe", -0.5)])
def test_a_step_outside_its_domain_names_the_entry(step, bad):
    observable = Observable("vector", (2,), transform=(step,))
    transform = observable.fit_transform(np.ones((5, 2)))
    with pytest.raises(ObservationError, match=rf"{step} transform.*smallest is {bad:g}"):
        transform(np.array([[1.0, bad]], np.float32))


def test_pointwise_steps_are_applied_in_order():
    x = np.array([[3.0, 8.0], [0.0, 24.0]], np.float32)
    observable = Observable("vector", (2,), transform=("sqrt", "log1p"))
    assert np.allclose(observable.fit_transform(x)(x), np.log1p(np.sqrt(x)))
    assert set(STEPS) == {"log1p", "sqrt", "anscombe", "standardize", "whiten"}


def test_zero_simulations_cannot_be_fitted():
    with pytest.raises(ContractError, match="zero simulations"):
        Observable("vector", (2,)).fit_transform(np.empty((0, 2)))


def test_two_transforms_are_equal_only_with_equal_constants():
    observable, x = CASES["vector"]
    transform = observable.fit_transform(x)
    assert transform != observable.fit_transform(x[:100])
    assert transform != Observable("vector", (4,), unit="m").fit_transform(x)


@pytest.mark.parametrize("steps", [("log1p", "whiten"), ("log1p", "standardize"), ("log1p",)])
def test_the_linear_inverse_gives_pointwise_values_back(steps):
    x = rng(3).poisson(np.linspace(3, 50, 12).reshape(2, 6), (400, 2, 6)).astype(np.float32)
    transform = Observable("spectrum", (2, 6), transform=steps).fit_transform(x)
    mean, unmix = transform.linear_inverse()
    xt = transform(x)
    if "whiten" in steps:
        found = mean + (xt.reshape(400, 12) @ unmix).reshape(400, 2, 6)
    else:
        found = mean + xt * unmix
    np.testing.assert_allclose(found, np.log1p(x), atol=1e-5)  # single precision of xt
    assert mean.shape == (2, 6)
