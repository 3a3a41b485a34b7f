"""Reading reweighted events: what must come back, and what must be refused."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from sbi_physics_smeft.conventions import pack, polynomial, ratio, unpack
from sbi_physics_smeft.generator import generate
from sbi_physics_smeft.lhe_events import points_from_header, read_lhe
from sbi_physics_smeft.lhe_writer import write_lhe
from sbi_physics_smeft.smeft_wz import SmeftWz
from sbi_physics_smeft.weight_checks import significant_digits
from sbi_physics_smeft.weighted_events import WeightedEvents
from sbi_physics_smeft.wz_events import kinematics

from sbi_physics.errors import (
    ContractError,
    DataFileError,
    ObservationError,
    UnknownNameError,
)

POINTS = {"sm": (0.0, 0.0, 0.0)} | {f"b{k}": p for k, p in enumerate(SmeftWz.basis)}
NAMES = ("SMEFT 1", "SMEFT 2", "SMEFT 3")


@pytest.fixture(scope="module")
def events():
    return generate(np.tile([1.0, 0, 0, 0], (40, 1)), np.random.default_rng(1))


@pytest.fixture(scope="module")
def text(events, tmp_path_factory):
    path = tmp_path_factory.mktemp("lhe") / "events.lhe"
    write_lhe(path, events, POINTS, np.random.default_rng(2), cross_section=0.4)
    return path.read_text()


@pytest.fixture
def changed(text, tmp_path):
    """Write the file with replacements, return its path."""

    def write(*pairs, name="changed.lhe", source=text):
        for old, new in pairs:
            assert old in source
            source = source.replace(old, new, 1)
        (tmp_path / name).write_text(source)
        return tmp_path / name

    return write


def column(text, name):
    """Weight lines of one id."""
    return [line for line in text.splitlines() if line.startswith(f"<wgt id='{name}'>")]


# --- what must come back ---------------------------------------------------------------------


def test_the_reference_sample_is_recovered(lhe_sample, truth):
    points = points_from_header(lhe_sample, NAMES)
    assert points == {
        str(name): tuple(point)
        for name, point in zip(truth["basis_ids"], truth["basis"], strict=True)
    }
    found = read_lhe([lhe_sample], points)
    assert len(found) == 2000
    expected = polynomial(truth["gram_ratio"])
    error = np.abs(polynomial(unpack(found.gram)) - expected) / np.maximum(1, np.abs(expected))
    assert error.max() < 3e-8
    assert found.sigma_gram()[0, 0] == pytest.approx(0.438628, rel=1e-6)
    assert np.array_equal(found.record[:, 0], truth["charge"])
    k = kinematics(found.record[:, 2:].reshape(-1, 4, 3), found.record[:, 1])
    np.testing.assert_allclose(k.sqrt_s, truth["sqrt_s"], rtol=1e-9)
    np.testing.assert_allclose(k.rapidity, truth["y"], atol=1e-9)
    np.testing.assert_allclose(k.cos_theta, truth["cos_theta"], atol=1e-8)
    total = found.record[:, 2:].reshape(-1, 4, 3).sum(axis=1)
    assert np.abs(total[:, :2]).max() < 2e-7


def test_plain_and_compressed_files_say_the_same(small_lhe_sample, tmp_path):
    points = points_from_header(small_lhe_sample, NAMES)
    plain = read_lhe([small_lhe_sample], points)
    packed = tmp_path / "packed.lhe.gz"
    packed.write_bytes(gzip.compress(small_lhe_sample.read_bytes()))
    zipped = read_lhe([packed], points)
    assert len(plain) == 20
    assert np.array_equal(plain.gram, zipped.gram)


def test_written_events_are_read_back(changed, events):
    found = read_lhe([changed()], POINTS)
    np.testing.assert_allclose(found.gram, pack(events.gram), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(found.record[:, 2:].reshape(-1, 4, 3), events.momenta, atol=1e-6)
    assert np.array_equal(found.record[:, 0], events.charge)
    assert np.array_equal(found.record[:, 1], np.where(events.channel % 2 == 0, 1, -1))
    k = kinematics(events.momenta, found.record[:, 1])
    np.testing.assert_allclose(k.cos_theta, events.cos_theta, atol=1e-7)
    np.testing.assert_allclose(k.sqrt_s, events.sqrt_s, rtol=1e-9)
    np.testing.assert_allclose(k.rapidity, events.rapidity, atol=1e-9)
    np.testing.assert_allclose(k.decay[:, [0, 2]], events.decay[:, [0, 2]], atol=1e-6)
    turn = (k.decay[:, [1, 3]] - events.decay[:, [1, 3]] + np.pi) % (2 * np.pi) - np.pi
    assert np.abs(turn).max() < 1e-4
    assert found.weight.sum() == pytest.approx(0.4)


def test_several_files_are_one_sample(changed, text):
    first = changed(name="a.lhe")
    # Half of the events, the same cross section: each event of it counts like those of the other.
    head, *blocks = text.split("<event>")
    half = "<event>".join([head, *blocks[:20]]) + "</LesHouchesEvents>\n"
    second = changed(name="b.lhe", source=half)
    both = read_lhe([first, second], POINTS)
    assert len(both) == 60
    assert both.weight.sum() == pytest.approx(0.4)
    assert both.weight == pytest.approx(np.full(60, 0.4 / 60))


@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_any_convention_of_event_weights_gives_the_cross_section(events, tmp_path, scale):
    # Weights whose mean, or whose sum, is the cross section of <init>.
    path = tmp_path / "events.lhe"
    write_lhe(path, events, POINTS, np.random.default_rng(2), cross_section=0.4 / scale)
    head, *blocks = path.read_text().split("<event>")
    head = head.replace(f" {0.4 / scale:.10e} 0.0", f" {0.4:.10e} 0.0")
    path.write_text("<event>".join([head, *blocks]))
    assert read_lhe([path], POINTS).weight.sum() == pytest.approx(0.4)


def test_stored_events_are_the_same(changed, tmp_path):
    found = read_lhe([changed()], POINTS)
    found.save(tmp_path / "events.npz")
    again = WeightedEvents.load(tmp_path / "events.npz")
    for name in ("gram", "weight", "record"):
        assert np.array_equal(getattr(found, name), getattr(again, name))
    assert again.effective_size([0.0, 0.0, 0.0]) == pytest.approx(40)
    assert again.effective_size([4.0, 0.2, 0.2]) < 40
    with pytest.raises(DataFileError, match="no events"):
        WeightedEvents.load(tmp_path / "other.npz")
    np.savez(tmp_path / "wrong.npz", gram=np.ones(3))
    with pytest.raises(ObservationError, match="no array weight, record"):
        WeightedEvents.load(tmp_path / "wrong.npz")


def test_more_points_than_needed_and_weights_that_are_not_asked_for(events, tmp_path):
    extra = POINTS | {"more": (1.0, 0.1, -0.1)}
    path = tmp_path / "more.lhe"
    write_lhe(path, events, extra, np.random.default_rng(1), cross_section=0.4)
    every, needed = read_lhe([path], extra), read_lhe([path], POINTS)
    np.testing.assert_allclose(every.gram, needed.gram, rtol=1e-5, atol=1e-6)


def test_leptons_are_told_apart_without_a_record_of_bosons(changed, text):
    lines = [
        line.replace(" 1 3 3 ", " 1 1 2 ").replace(" 1 4 4 ", " 1 1 2 ")
        for line in text.splitlines()
        if not line.startswith((" 24 2", " -24 2", " 23 2"))
    ]
    source = "\n".join(lines).replace(" 8 1 +4", " 6 1 +4")
    found = read_lhe([changed(source=source)], POINTS)
    reference = read_lhe([changed()], POINTS)
    same = np.isclose(found.record, reference.record).all(axis=1)
    # On-shell bosons: the pair nearest to the Z is right but for accidents.
    assert same.mean() >= 0.95


# --- what must be refused --------------------------------------------------------------------


def test_an_event_without_all_weights_is_named(changed, text):
    lost = column(text, "b8")[3]
    with pytest.raises(ObservationError, match=r"event 3 .* 9 weights, .* 10; missing: b8"):
        read_lhe([changed((lost + "\n", ""))], POINTS)


def test_an_unknown_weight_is_named_with_the_nearest(changed):
    points = {("basis8" if k == "b8" else k): v for k, v in POINTS.items()}
    with pytest.raises(UnknownNameError, match=r"'basis8'. Did you mean 'b\d'"):
        read_lhe([changed()], points)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("b2", "-1.0e-3", "'b2' of event 5 .* -0.001, must be zero or positive .*leading-order"),
        ("sm", "0.0", "'sm' of event 5 .* is 0, must be positive"),
        ("b3", "nan", "'b3' of event 5 .* nan"),
    ],
)
def test_weights_that_cannot_be_are_refused(changed, text, name, value, message):
    line = column(text, name)[5]
    # Lines of other events may be the same text, so the event is changed as a block.
    head, *blocks = text.split("<event>")
    blocks[5] = blocks[5].replace(line, f"<wgt id='{name}'> {value} </wgt>")
    with pytest.raises(ObservationError, match=message):
        read_lhe([changed(source="<event>".join([head, *blocks]))], POINTS)


def test_rounded_weights_are_refused_unless_accepted(events, tmp_path):
    path = tmp_path / "rounded.lhe"
    write_lhe(path, events, POINTS, np.random.default_rng(1), cross_section=0.4, digits=5)
    with pytest.raises(ObservationError, match=r"5 significant digits.*0.002.*7 digits.*pylhe"):
        read_lhe([path], POINTS)
    found = read_lhe([path], POINTS, max_label_error=0.01)
    # The bound is one: errors in units of the basis, relative to the largest weight.
    scale = np.array([1.0, 4.0, 0.2, 0.2])
    error = np.abs(unpack(found.gram) - events.gram) * scale[:, None] * scale
    largest = ratio(events.gram, np.array(list(POINTS.values()))).max(axis=1)
    bound = 0.0018204
    assert 0.01 * bound < (error.max(axis=(1, 2)) / largest).max() < bound


def test_digits_are_counted():
    values = np.random.default_rng(1).uniform(0.1, 1, 50)
    for digits in (4, 8, 11):
        printed = np.array([float(f"{v:.{digits - 1}e}") for v in values])
        assert significant_digits(printed) == digits
    assert significant_digits(values) == 16


def test_weights_that_are_not_quadratic_are_refused(events, tmp_path):
    extra = POINTS | {"more": (1.0, 0.1, -0.1)}
    path = tmp_path / "more.lhe"
    write_lhe(path, events, extra, np.random.default_rng(1), cross_section=0.4)
    wrong = extra | {"more": (1.1, 0.1, -0.1)}
    with pytest.raises(ObservationError, match="not quadratic.*residual"):
        read_lhe([path], wrong)


def test_a_point_that_is_not_where_it_is_said_to_be_shows_in_the_sign(changed):
    wrong = POINTS | {"b6": POINTS["b7"], "b7": POINTS["b6"]}
    with pytest.raises(ObservationError, match="negative cross section.*eigenvalue"):
        read_lhe([changed()], wrong)


@pytest.mark.parametrize("cut", [0.5, 0.02])
def test_a_truncated_file_is_not_read_as_a_short_one(changed, text, cut):
    with pytest.raises(ObservationError, match="damaged"):
        read_lhe([changed(source=text[: int(len(text) * cut)])], POINTS)


def test_other_damage_is_explained(changed, text, tmp_path):
    with pytest.raises(DataFileError, match="no LHE file"):
        read_lhe([tmp_path / "none.lhe"], POINTS)
    head = text.split("<event>")[0]
    with pytest.raises(ObservationError, match="no events"):
        read_lhe([changed(source=head + "</LesHouchesEvents>")], POINTS)
    with pytest.raises(ObservationError, match="no LHE file"):
        read_lhe([changed(source="<other></other>")], POINTS)
    muon = next(line for line in text.splitlines() if line.startswith((" 11 1", " 13 1")))
    with pytest.raises(ObservationError, match="event 0 .* not three charged leptons"):
        read_lhe([changed((muon, " 22" + muon[3:]))], POINTS)
    no_rate = text.replace("\n 4.0000000000e-01 0.0", "\n 0.0 0.0")
    with pytest.raises(ObservationError, match="cross section of 0 pb"):
        read_lhe([changed(source=no_rate)], POINTS)


def test_wrong_points_are_refused(changed):
    for points, message in (
        ({}, "no points"),
        ({"sm": (0.0,), "b0": (1.0, 0.0)}, r"same number of coefficients, got \[1, 2\]"),
        ({k: v for k, v in POINTS.items() if k != "sm"}, "exactly one point .* got 0"),
    ):
        with pytest.raises(ContractError, match=message):
            read_lhe([changed()], points)
    with pytest.raises(ContractError, match="do not determine"):
        read_lhe([changed()], {k: POINTS[k] for k in list(POINTS)[:9]})
    with pytest.raises(ContractError, match="at least one file"):
        read_lhe([], POINTS)


def test_points_of_the_header(changed, text):
    assert points_from_header(changed(), NAMES) == POINTS
    with pytest.raises(ObservationError, match="no commands that set DIM6 1"):
        points_from_header(changed(), ["DIM6 1"])
    with pytest.raises(ObservationError, match="'sm' .* but not SMEFT 4"):
        points_from_header(changed(), [*NAMES, "SMEFT 4"])
