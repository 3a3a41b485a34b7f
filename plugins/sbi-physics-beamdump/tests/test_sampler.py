"""Accepted events: reference means of an independent code, exact unweighting, production."""

from __future__ import annotations

import numpy as np
import pytest
from sbi_physics_beamdump import kernels as k
from sbi_physics_beamdump import sampler
from sbi_physics_beamdump.geometry import GEOMETRIES, changed_geometry
from sbi_physics_beamdump.kinematics import decay_event
from sbi_physics_beamdump.production import highest_energy, parametric, read_table
from sbi_physics_beamdump.sampler import EventSampler

from sbi_physics.errors import ContractError, DataFileError, OptionError

N_REFERENCE = 30_000
"""Accepted events behind each reference value."""

# m_a: P(in window and accepted), acceptance, E_a mean and sd, E1, E2, opening mean and median
# (mrad), median distance (m), mean V_z (m); on-axis, ctau = 1 m, table of B mesons, no smearing.
REFERENCE = {
    0.2: (0.00666, 0.0890, 62.3, 21.3, 49.4, 12.9, 10.4, 9.2, 0.154, 16.9),
    1.0: (0.0460, 0.194, 79.3, 29.6, 58.5, 20.8, 37.8, 33.3, 0.421, 21.3),
    4.0: (0.1015, 0.248, 98.8, 32.6, 69.1, 29.7, 108.8, 97.3, 0.996, 24.2),
}


def draw(source, m_a, ctau, n, rng):
    """Single accepted events, shape (n, columns)."""
    ones = np.ones(n)
    events, _ = source.columns(m_a * ones, ctau * ones, np.ones(n, dtype=np.int64), rng)
    return events[:, 0]


def produced(table, m_a, ctau, n, geometry, rng):
    """Events before any selection, from the deterministic function."""
    rows = table[rng.integers(len(table), size=n)]

    def unit_vectors():
        v = rng.standard_normal((n, 3))
        return v / np.linalg.norm(v, axis=1, keepdims=True)

    return decay_event(
        rows[:, 1:], rows[:, 0], m_a, ctau, unit_vectors(), rng.random(n), unit_vectors(), geometry
    )


@pytest.mark.parametrize("m_a", REFERENCE)
def test_means_of_an_independent_code(b_mesons, m_a, rng):
    probability, acceptance, *means = REFERENCE[m_a]
    table = read_table(b_mesons)
    n = 4 * N_REFERENCE
    events = draw(EventSampler(GEOMETRIES["on-axis"], table), m_a, 1.0, n, rng)
    # Name, quantity, statistic, reference, unit of its last digit.
    energy, opening = events[:, k.P4_A], 1e3 * events[:, k.OPENING]
    rows = [
        (np.mean, energy, means[0], 0.1),
        (np.std, energy, means[1], 0.1),
        (np.mean, events[:, k.P4_G1], means[2], 0.1),
        (np.mean, events[:, k.P4_G2], means[3], 0.1),
        (np.mean, opening, means[4], 0.1),
        (np.median, opening, means[5], 0.1),
        (np.median, events[:, k.SEPARATION], means[6], 1e-3),
        (np.mean, events[:, k.VERTEX + 2], means[7], 0.1),
    ]
    for statistic, values, expected, digit in rows:
        # The error of the statistic at our size, from 40 parts, then of ours and the reference's.
        spread = np.std([statistic(part) for part in np.split(values, 40)]) / np.sqrt(40)
        error = spread * np.sqrt(1 + n / N_REFERENCE)
        assert abs(statistic(values) - expected) < 3 * error + 0.5 * digit, (statistic, expected)

    n = 400_000
    all_events = produced(table, m_a, 1.0, n, "on-axis", rng)
    seen = all_events.accept.astype(float)
    weighted = np.where(all_events.accept, all_events.weight, 0.0)
    for values, expected, digit in ((seen, acceptance, 1e-4), (weighted, probability, 1e-5)):
        error = np.hypot(values.std() / np.sqrt(n), 0.006 * expected)
        assert abs(values.mean() - expected) < 3 * error + 5 * digit


def test_unweighting_is_exact(b_mesons, rng):
    # Averages of accepted events against weighted averages over all events.
    table = read_table(b_mesons)
    for m_a, ctau, name in ((0.3, 0.5, "on-axis"), (3.0, 30.0, "off-axis"), (4.5, 0.1, "on-axis")):
        geometry = GEOMETRIES[name]
        found = draw(EventSampler(geometry, table), m_a, ctau, 20_000, rng)
        every = produced(table, m_a, ctau, 400_000, geometry, rng)
        weight = every.weight[every.accept]
        for column, values in (
            (found[:, k.P4_A], every.p4_a[:, 0]),
            (found[:, k.VERTEX + 2], every.vertex[:, 2]),
            (found[:, k.SEPARATION], every.sep),
        ):
            chosen = values[every.accept]
            mean = np.average(chosen, weights=weight)
            error = np.sqrt((weight**2 * (chosen - mean) ** 2).sum()) / weight.sum()
            error = np.hypot(error, column.std() / np.sqrt(len(column)))
            assert abs(column.mean() - mean) < 4 * error


@pytest.mark.parametrize("name", ["off-axis", "ship-like"])
def test_the_parametric_source_fills_any_detector_as_all_events_do(name, rng):
    # Off-axis only some azimuths are drawn; all events draw them all.
    geometry, m_a, ctau = GEOMETRIES[name], 1.0, 1.0
    mesons = np.array([sampler._b_meson(rng, parametric()) for _ in range(100_000)], dtype=float)
    every = produced(mesons, m_a, ctau, 1_000_000, geometry, rng)
    weight = every.weight[every.accept]
    found = draw(EventSampler(geometry), m_a, ctau, 20_000, rng)
    for column, values in (
        (found[:, k.P4_A], every.p4_a[:, 0]),
        (found[:, k.VERTEX + 1], every.vertex[:, 1]),
        (np.abs(found[:, k.VERTEX + 1]), np.abs(every.vertex[:, 1])),
        (found[:, k.HIT1], every.hit1[:, 0]),
    ):
        chosen = values[every.accept]
        mean = np.average(chosen, weights=weight)
        error = np.sqrt((weight**2 * (chosen - mean) ** 2).sum()) / weight.sum()
        error = np.hypot(error, column.std() / np.sqrt(len(column)))
        assert abs(column.mean() - mean) < 4 * error


def test_azimuths_enclose_the_decay_volume():
    assert GEOMETRIES["on-axis"].azimuths == (0.0, np.pi)
    assert GEOMETRIES["off-axis"].azimuths == pytest.approx((0.0, np.arctan(1.25)))
    left = changed_geometry("off-axis", {"x_min": -3.5, "x_max": -1.0, "y_min": 0.5})
    middle, half = left.azimuths
    for x in (-3.5, -1.0):
        for y in (0.5, 1.25):
            assert abs(np.angle(np.exp(1j * (np.arctan2(y, x) - middle)))) <= half + 1e-12
    assert half < np.pi / 4


def test_weights_stay_below_their_bound(rng):
    # The slowest ALPs that are seen and the fastest there are: the bound must hold for both.
    geometry = GEOMETRIES["on-axis"]
    source = EventSampler(geometry)
    for m_a, ctau in ((0.1, 100.0), (1.9, 100.0), (4.5, 100.0), (0.1, 0.1), (4.5, 0.1)):
        p_z = draw(source, m_a, ctau, 5000, rng)[:, 3]
        assert p_z.min() > 2.0 * geometry.e_min
        assert p_z.max() < highest_energy(parametric())


def test_every_event_is_accepted_and_every_set_is_full(rng):
    for name, geometry in GEOMETRIES.items():
        count = rng.integers(1, 5, size=200)
        m_a, ctau = 10 ** rng.uniform(-1, 0.65, 200), 10 ** rng.uniform(-1, 2, 200)
        z = EventSampler(geometry).latents(m_a, ctau, count, 6, rng)
        present = z["present"] > 0
        assert (present.sum(axis=1) == count).all()
        assert z["energy"].shape == (200, 6, 2)
        assert (z["energy"][present] >= geometry.e_min).all()
        hit = z["hit"][present]
        assert ((hit[..., 0] >= geometry.x_min) & (hit[..., 0] <= geometry.x_max)).all(), name
        assert ((hit[..., 1] >= geometry.y_min) & (hit[..., 1] <= geometry.y_max)).all()
        separation = np.linalg.norm(hit[:, 0] - hit[:, 1], axis=1)
        assert (separation >= geometry.separation_min * (1 - 1e-5)).all()
        left = (geometry.z_cal - z["vertex"][present][:, 2])[:, None, None]
        back = hit - left * z["slope"][present]
        np.testing.assert_allclose(
            back, np.broadcast_to(z["vertex"][present][:, None, :2], back.shape), atol=1e-4
        )
        for values in z.values():
            assert (values[~present] == 0).all()


@pytest.mark.parametrize(("name", "signs"), [("on-axis", (1, 1)), ("off-axis", (0, 1))])
def test_mirror_symmetries(name, signs, rng):
    events = draw(EventSampler(GEOMETRIES[name]), 1.0, 1.0, 20_000, rng)
    for axis, symmetric in enumerate(signs):
        x = events[:, k.HIT1 + axis]
        if symmetric:
            assert abs(x.mean()) < 4 * x.std() / np.sqrt(len(x))
    if all(signs):
        x, y = np.abs(events[:, k.HIT1]), np.abs(events[:, k.HIT1 + 1])
        assert abs(x.mean() - y.mean()) < 4 * np.hypot(x.std(), y.std()) / np.sqrt(len(x))


def test_parametric_mesons_look_like_the_table(b_mesons, rng):
    table = read_table(b_mesons)
    m = np.array([sampler._b_meson(rng, parametric()) for _ in range(40_000)], dtype=float)
    assert m[:, 0].mean() == pytest.approx(0.5, abs=4 * 0.5 / 200)
    energy = np.sqrt(5.2795**2 + (m[:, 1:] ** 2).sum(axis=1))
    expected = np.sqrt(5.2795**2 + (table[:, 1:] ** 2).sum(axis=1))
    assert energy.mean() == pytest.approx(expected.mean(), rel=0.01)
    quantiles = np.quantile(energy, [0.01, 0.1, 0.5, 0.9, 0.99])
    np.testing.assert_allclose(quantiles, [32.7, 48.0, 84.4, 145.9, 209.8], rtol=0.02)
    angle = np.arctan2(np.hypot(m[:, 1], m[:, 2]), m[:, 3])
    assert np.median(angle) == pytest.approx(0.0231, rel=0.02)


def test_hopeless_points_are_refused(monkeypatch, rng):
    monkeypatch.setattr(sampler, "MAX_PROPOSALS", 100)
    with pytest.raises(ContractError, match=r"no event can be seen at m_a = 0\.1 GeV"):
        draw(EventSampler(GEOMETRIES["on-axis"]), 0.1, 100.0, 10, rng)


def test_tables_of_text_and_arrays_are_read(tmp_path):
    text = tmp_path / "b.csv"
    text.write_text("pdg,px,py,pz\n511,0.1,0.2,90\n-521,1,2,3e1\n")
    expected = [[1, 0.1, 0.2, 90], [0, 1, 2, 30]]
    np.testing.assert_array_equal(read_table(text), expected)
    columns = dict(zip(("px", "py", "pz"), np.array(expected)[:, 1:].T, strict=True))
    np.savez(tmp_path / "b.npz", pdg=np.array([511, -521], dtype=np.int16), **columns)
    np.testing.assert_array_equal(read_table(tmp_path / "b.npz"), expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pdg,px,py\n511,1,2\n", "lacks pz"),
        ("pdg,px,py,pz\n", "not empty"),
        ("pdg,px,py,pz\n22,1,2,3\n", r"pdg = 22 in row 0; accepted are 511"),
        ("pdg,px,py,pz\n511,1,2,inf\n", "not finite in row 0"),
        ("pdg,px,py,pz\n511,1,2,three\n", "cannot be read"),
        ("pdg,px,py,pz\n511,1,2\n", "cannot be read"),
    ],
)
def test_bad_tables_are_refused(tmp_path, text, message):
    (tmp_path / "b.csv").write_text(text)
    with pytest.raises(OptionError, match=message):
        read_table(tmp_path / "b.csv")
    with pytest.raises(DataFileError, match="no table of B mesons at"):
        read_table(tmp_path / "missing.csv")
