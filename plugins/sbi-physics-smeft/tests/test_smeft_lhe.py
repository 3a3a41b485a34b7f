"""The simulator of events from files."""

from __future__ import annotations

import numpy as np
import pytest
from sbi_physics_smeft.conventions import pack, ratio, sampling_ratio, unpack
from sbi_physics_smeft.generator import generate
from sbi_physics_smeft.smeft_lhe import EXAMPLE, SmeftLhe
from sbi_physics_smeft.smeft_wz import SmeftWz
from sbi_physics_smeft.weighted_events import WeightedEvents
from scipy import stats

from sbi_physics.errors import ContractError, ObservationError, OptionError


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Twenty thousand events of the generator as a stored sample."""
    events = generate(np.tile([1.0, 0, 0, 0], (20_000, 1)), np.random.default_rng(1))
    record = np.column_stack(
        [
            events.charge,
            np.where(events.channel % 2 == 0, 1, -1),
            events.momenta.reshape(-1, 12),
        ]
    )
    path = tmp_path_factory.mktemp("events") / "wz.npz"
    sample = WeightedEvents(pack(events.gram), np.full(20_000, 0.4386 / 20_000), record)
    sample.save(path)
    return str(path), sample


@pytest.mark.parametrize("theta", [(0.0, 0.0, 0.0), (1.0, 0.1, 0.05), (-4.0, 0.0, -0.2)])
def test_events_are_drawn_with_their_weights(stored, theta):
    path, sample = stored
    simulator = SmeftLhe(files=(path,), selection=False)
    n = 100_000
    z = simulator.simulate_latent(np.tile(theta, (n, 1)), np.random.default_rng(2))
    weight = sample.weight * ratio(unpack(sample.gram), theta)
    counts = np.bincount(z["event"], minlength=len(sample))
    # Events in groups of equal total weight, so that every expected number is large.
    order = np.argsort(sample.gram[:, 7])
    groups = (np.cumsum(weight[order]) / weight.sum() * 20).astype(int).clip(0, 19)
    expected = np.bincount(groups, weights=weight[order], minlength=20)
    found = np.bincount(groups, weights=counts[order], minlength=20)
    used = expected > 0
    assert stats.chisquare(found[used], expected[used] / expected.sum() * n).pvalue > 1e-4
    assert np.array_equal(z["gram"], sample.gram[z["event"]])


def test_the_sampling_matrix_holds(stored):
    simulator = SmeftLhe(files=(stored[0],), proposal="mixture")
    rng = np.random.default_rng(3)
    n = 60_000
    z = simulator.simulate_latent(np.zeros((n, 3)), rng)
    q = sampling_ratio(simulator.labels(z)["gram"], simulator.sampling_matrix())
    expected = pack(simulator.fiducial_gram())
    labels = z["gram"] / q[:, None]
    error = labels.std(axis=0) / np.sqrt(n) + 5e-3 * np.abs(expected)
    assert np.abs((labels.mean(axis=0) - expected) / error).max() < 4.5


def test_it_agrees_with_the_generator_it_was_filled_from(stored):
    simulator, wz = SmeftLhe(files=(stored[0],)), SmeftWz()
    assert simulator.acceptance() == pytest.approx(wz.acceptance(), abs=0.015)
    expected = wz.expected_events(np.zeros((1, 3)))
    assert simulator.expected_events(np.zeros((1, 3))) == pytest.approx(expected, rel=0.05)
    rng = np.random.default_rng(4)
    theta = np.zeros((4000, 3))
    ours, theirs = simulator.simulate(theta, rng), wz.simulate(theta, rng)
    for column in range(1, 20):
        assert stats.ks_2samp(ours[:, column], theirs[:, column]).pvalue > 1e-5


def test_parton_level_needs_the_direction_of_the_quark(stored, tmp_path):
    path, sample = stored
    x = SmeftLhe(files=(path,), level="parton").simulate(
        np.zeros((20, 3)), np.random.default_rng(5)
    )
    assert x.shape == (20, 9)
    record = sample.record.copy()
    record[:7, 1] = 0
    WeightedEvents(sample.gram, sample.weight, record).save(tmp_path / "gluons.npz")
    with pytest.raises(ObservationError, match="7 of 20000 events have no single incoming quark"):
        SmeftLhe(files=(str(tmp_path / "gluons.npz"),), level="parton")


def test_data_sets_that_would_repeat_events_are_refused(stored):
    few = SmeftLhe(files=(stored[0],), luminosity=0.5)
    x = few.event_set([0.0, 0.0, 0.0], np.random.default_rng(6))
    assert len(x) == pytest.approx(75, abs=45)
    with pytest.raises(ContractError, match="worth 6[0-9]{3} selected events.*lower luminosity"):
        SmeftLhe(files=(stored[0],)).event_set([0.0, 0.0, 0.0], np.random.default_rng(6))


def test_the_example_is_there_and_files_can_be_joined(stored):
    assert EXAMPLE.is_file()
    example = SmeftLhe()
    assert len(example.sample) == 300
    assert example.sample.weight.sum() == pytest.approx(0.43862, rel=1e-4)
    joined = SmeftLhe(files=(stored[0], stored[0]))
    assert len(joined.sample) == 40_000
    assert joined.sample.weight.sum() == pytest.approx(0.4386)
    with pytest.raises(ContractError, match="mixes"):
        SmeftLhe(files=(stored[0], str(EXAMPLE)))


def test_points_may_be_given_by_hand():
    points = {"sm": (0.0, 0.0, 0.0)}
    points |= {f"basis_{k + 1}": p for k, p in enumerate(SmeftWz.basis)}
    by_hand = SmeftLhe(files=(str(EXAMPLE),), points=points)
    assert np.array_equal(by_hand.sample.gram, SmeftLhe().sample.gram)
    with pytest.raises(OptionError, match="points"):
        SmeftLhe(points={"sm": (0.0, 0.0)})
