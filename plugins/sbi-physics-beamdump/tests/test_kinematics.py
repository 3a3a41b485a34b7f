"""One event against 40-digit arithmetic, and the identities it must obey."""

from __future__ import annotations

import numpy as np
import pytest
from sbi_physics_beamdump.constants import BETA_CM, GAMMA_CM, SQRT_S
from sbi_physics_beamdump.geometry import GEOMETRIES
from sbi_physics_beamdump.kinematics import decay_event

from sbi_physics.errors import ContractError, UnknownNameError

ARGUMENTS = ("p3_B", "is_B0", "m_a", "ctau", "n_a_Bframe", "u_decay", "n_g_aframe")


def unit_vectors(rng, n):
    v = rng.standard_normal((n, 3))
    return v / np.linalg.norm(v, axis=1, keepdims=True)


@pytest.fixture
def events(rng):
    """Random events of light and heavy ALPs, most of them outside of any detector."""
    n = 2000
    return decay_event(
        p3_b=rng.normal([0, 0, 90], [2, 2, 30], size=(n, 3)),
        is_b0=rng.random(n) < 0.5,
        m_a=10 ** rng.uniform(-1, np.log10(4.5), n),
        ctau=10 ** rng.uniform(-1, 2, n),
        n_a=unit_vectors(rng, n),
        u_decay=rng.random(n),
        n_gamma=unit_vectors(rng, n),
    )


@pytest.mark.parametrize("geometry", ["on-axis", "off-axis"])
def test_equals_arithmetic_with_40_digits(truth, geometry):
    record = decay_event(*(truth[name] for name in ARGUMENTS), geometry)
    for name in record.__slots__:
        if name == "accept":
            expected = truth["accept_" + geometry.removesuffix("-axis")]
            np.testing.assert_array_equal(record.accept, expected)
        else:
            # Relative, absolute below 1.
            error = np.abs(getattr(record, name) - truth[name])
            assert (error / np.maximum(np.abs(truth[name]), 1.0)).max() < 1e-9, name


def test_single_events_and_batches_agree(truth):
    arguments = [truth[name] for name in ARGUMENTS]
    batch = decay_event(*(a[:20].reshape(4, 5, *a.shape[1:]) for a in arguments), "off-axis")
    assert batch.vertex.shape == (4, 5, 3)
    single = decay_event(*(a[7] for a in arguments), "off-axis")
    assert single.m_gg.shape == ()
    for name in single.__slots__:
        np.testing.assert_array_equal(getattr(single, name), getattr(batch, name)[1, 2])


def test_photons_share_the_momentum_of_the_alp(events):
    total = events.p4_g1 + events.p4_g2
    scale = events.p4_a[:, :1]
    assert np.abs((total - events.p4_a) / scale).max() < 1e-12
    assert (events.p4_g1[:, 0] >= events.p4_g2[:, 0]).all()


def test_mass_of_the_photons_is_that_of_the_alp(truth, events):
    record = decay_event(*(truth[name] for name in ARGUMENTS))
    assert np.abs(record.m_gg / truth["m_a"] - 1).max() < 1e-12
    e, p = events.p4_a[:, 0], np.linalg.norm(events.p4_a[:, 1:], axis=1)
    # E^2 - p^2 loses (E / m)^2 digits; as (E - p)(E + p) only half of them.
    mass = np.sqrt((e - p) * (e + p))
    assert np.abs(events.m_gg / mass - 1).max() < 1e-16 * 50 * (e / mass).max() ** 2


def test_centroid_of_the_hits_is_the_direction_of_the_alp(events):
    forward = (events.p4_a[:, 3] > 0) & (events.p4_g1[:, 3] > 0.1) & (events.p4_g2[:, 3] > 0.1)
    p1, p2 = events.p4_g1[forward, 3:], events.p4_g2[forward, 3:]
    centroid = (p1 * events.hit1[forward] + p2 * events.hit2[forward]) / (p1 + p2)
    a = events.p4_a[forward]
    expected = 35.0 * a[:, 1:3] / a[:, 3:]
    assert np.abs(centroid - expected).max() < 1e-9


def test_hits_and_energies_bound_the_mass(events):
    z = events.vertex[:, 2]
    seen = events.accept & (events.theta1 < 0.05) & (events.theta2 < 0.05)
    bound = np.sqrt(events.p4_g1[:, 0] * events.p4_g2[:, 0]) * events.sep / (35.0 - z)
    tight = bound[seen] / events.m_gg[seen]
    assert seen.sum() > 50
    assert np.abs(tight - 1).max() < 0.05**2  # equal up to the square of the angles
    assert (bound / (35.0 - 10.0) * (35.0 - z) < events.m_gg * (1 + 0.05**2))[seen].all()


def test_decay_quantile_and_window(rng):
    u = np.array([0.0, 0.25, 0.5, 1.0])
    along = dict(p3_b=[0.0, 0.0, 80.0], is_b0=True, m_a=1.0, n_gamma=[1.0, 0.0, 0.0])
    record = decay_event(**along, ctau=1.0, n_a=[0.0, 0.0, 1.0], u_decay=u)
    z, scale = record.vertex[:, 2], record.p4_a[0, 3]
    assert z[[0, -1]] == pytest.approx([10.0, 35.0], abs=1e-12)
    survival = np.exp(-z / scale)
    assert (survival[0] - survival) / (survival[0] - survival[-1]) == pytest.approx(u, abs=1e-12)
    assert record.weight == pytest.approx(survival[0] - survival[-1], rel=1e-12)
    eternal = decay_event(**along, ctau=1e9, n_a=[0.0, 0.0, 1.0], u_decay=u)
    assert eternal.vertex[:, 2] == pytest.approx(10.0 + 25.0 * u, abs=1e-6)
    assert eternal.weight == pytest.approx(25.0 / (1e9 * scale), rel=1e-6)


def test_alps_that_fly_backwards_are_never_seen():
    record = decay_event([0, 0, -5.0], True, 1.0, 1.0, [0, 0, -1.0], 0.5, [0, 0, 1.0])
    assert record.weight == 0.0
    assert not record.accept
    assert np.isnan(record.vertex).all()
    assert np.isnan(record.hit1).all()
    assert record.m_gg == pytest.approx(1.0, rel=1e-12)


def test_pyramid_narrows_towards_the_dump():
    # An ALP at x / z = 0.02 is inside the walls (0.6 + 1.35 (z - 32) / 50) / z at 40 m only.
    geometry = GEOMETRIES["ship-like"]
    for z, inside in ((33.0, False), (40.0, True)):
        slope = 0.02
        wall = 0.6 + 1.35 * (z - 32.0) / 50.0
        assert (slope * z < wall) == inside
        u = _quantile(z, geometry)
        direction = np.array([slope, 0.0, 1.0]) / np.hypot(slope, 1.0)
        record = decay_event(
            80.0 * direction, True, 1.0, 1e9, direction, u, [0.0, 1.0, 0.0], geometry
        )
        assert record.vertex[2] == pytest.approx(z, abs=1e-3)
        assert record.accept == inside


def test_the_boost_of_the_centre_of_mass():
    assert pytest.approx((27.42952, 14.61707, 0.997657), rel=1e-6) == (SQRT_S, GAMMA_CM, BETA_CM)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"m_a": 5.0}, "m_a has the value 5"),
        ({"ctau": 0.0}, "ctau has the value 0"),
        ({"u_decay": 1.5}, "u_decay has the value 1.5"),
        ({"n_a": [0.0, 0.0, 2.0]}, "length of n_a has the value 2"),
        ({"p3_b": [1.0, 2.0]}, r"p3_b has shape \(2,\)"),
        ({"m_a": [1.0, 2.0], "ctau": [1.0, 2.0, 3.0]}, "do not fit"),
    ],
)
def test_bad_arguments_are_named(change, message):
    good = dict(
        p3_b=[0, 0, 80.0], is_b0=True, m_a=1.0, ctau=1.0, n_a=[0, 0, 1.0], u_decay=0.5,
        n_gamma=[0, 0, 1.0],
    )  # fmt: skip
    with pytest.raises(ContractError, match=message):
        decay_event(**{**good, **change})


def test_unknown_geometries_are_named():
    with pytest.raises(UnknownNameError, match="Did you mean 'off-axis'"):
        decay_event([0, 0, 80.0], True, 1.0, 1.0, [0, 0, 1.0], 0.5, [0, 0, 1.0], "of-axis")


def _quantile(z, geometry):
    """Of a decay at z for an ALP that lives for ever."""
    return (z - geometry.z_min) / (geometry.z_max - geometry.z_min)
