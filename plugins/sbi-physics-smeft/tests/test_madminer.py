"""Samples in MadMiner's file format (arXiv:1907.10621)."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from sbi_physics_smeft.conventions import pack, ratio, unpack
from sbi_physics_smeft.smeft_madminer import SmeftMadminer, read_madminer

from sbi_physics.errors import DataFileError, ObservationError, OptionError
from sbi_physics.testing import SIMULATOR_CHECKS, conformance

BASIS = np.array([[0.0, 0], [10, 0], [0, 5], [-10, 0], [0, -5], [4, 3.0]])
N = 500


def content(seed=1):
    """Gram matrices of random amplitudes, weights at the basis, observations."""
    rng = np.random.default_rng(seed)
    amplitudes = rng.normal(size=(N, 4, 3)) * [1.0, 0.1, 0.2]
    gram = np.einsum("nka,nkb->nab", amplitudes, amplitudes) * 1e-4
    return gram, ratio(gram, BASIS), rng.normal(size=(N, 2))


def write(path, weights, observations, basis=BASIS, nuisance=0):
    def text(names):
        return np.array([n.encode() for n in names], dtype="S256")

    with h5py.File(path, "w") as file:
        file["parameters/names"] = text(["CWL2", "CPWL2"])
        file["parameters/val_ranges"] = np.array([[-20.0, 20.0], [-20.0, 20.0]])
        names = ["sm", *[f"w{k}" for k in range(1, len(basis))]]
        extra = np.zeros((nuisance, basis.shape[1]))
        file["benchmarks/names"] = text([*names, *[f"nu{k}" for k in range(nuisance)]])
        file["benchmarks/values"] = np.concatenate([basis, extra])
        file["benchmarks/is_nuisance"] = np.array([0] * len(basis) + [1] * nuisance)
        file["observables/names"] = text(["pt_l1", "delta_phi"])
        file["samples/observations"] = observations
        file["samples/weights"] = np.concatenate(
            [weights, np.full((len(weights), nuisance), 7.0)], axis=1
        )


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("madminer") / "lhe_data.h5"
    _, weights, observations = content()
    write(path, weights, observations, nuisance=2)
    return str(path)


def test_labels_rates_and_observations_are_those_of_the_file(path):
    gram, weights, observations = content()
    sample = read_madminer(path)
    assert sample.parameters == ("CWL2", "CPWL2")
    assert sample.observables == ("pt_l1", "delta_phi")
    assert sample.benchmarks["w5"] == (4.0, 3.0)
    assert "nu0" not in sample.benchmarks
    np.testing.assert_allclose(
        unpack(sample.events.gram), gram / gram[:, :1, :1], rtol=1e-8, atol=1e-8
    )
    np.testing.assert_allclose(sample.events.weight, weights[:, 0], rtol=1e-10)
    np.testing.assert_array_equal(sample.events.record, observations)
    simulator = SmeftMadminer(file=path, luminosity=100.0)
    expected = 100e3 * ratio(gram.sum(axis=0), [4.0, 3.0])
    assert simulator.expected_events([[4.0, 3.0]])[0] == pytest.approx(expected)


def test_the_sample_need_not_have_a_weight_at_zero(tmp_path):
    gram, _, observations = content()
    basis = np.array([[1.0, 1], [10, 0], [0, 5], [-10, 1], [1, -5], [4, 3.0]])
    write(tmp_path / "a.h5", ratio(gram, basis), observations, basis)
    events = read_madminer(tmp_path / "a.h5").events
    np.testing.assert_allclose(events.weight, gram[:, 0, 0], rtol=1e-8)
    np.testing.assert_allclose(events.gram, pack(gram / gram[:, :1, :1]), rtol=1e-6, atol=1e-6)


def test_events_are_drawn_at_other_coefficients(path):
    simulator = SmeftMadminer(file=path)
    rng = np.random.default_rng(3)
    n = 100_000
    x = simulator.simulate(np.tile([4.0, 3.0], (n, 1)), rng)
    gram, _, observations = content()
    weight = ratio(gram, [4.0, 3.0])
    expected = weight @ observations / weight.sum()
    assert x.mean(axis=0) == pytest.approx(expected, abs=4.5 * x.std() / np.sqrt(n))


def test_unusable_files_are_explained(tmp_path):
    _, weights, observations = content()
    with pytest.raises(DataFileError, match="no MadMiner file"):
        read_madminer(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("no")
    with pytest.raises(ObservationError, match="no readable HDF5 file"):
        read_madminer(tmp_path / "text.h5")
    with h5py.File(tmp_path / "empty.h5", "w") as file:
        file["parameters/names"] = np.zeros(1)
    with pytest.raises(ObservationError, match=r"no parameters/val_ranges.*no sample analysed"):
        read_madminer(tmp_path / "empty.h5")
    bad = tmp_path / "bad.h5"
    for change, message in (
        ((3, 2, -1.0), "event 3 .* negative"),
        ((4, 1, np.nan), "weights .* not finite in 1 events, the first is 4"),
        ((5, 1, 10.0), r"event 5|negative cross section"),
    ):
        wrong = weights.copy()
        wrong[change[0], change[1]] = change[2]
        write(bad, wrong, observations)
        with pytest.raises(ObservationError, match=message):
            read_madminer(bad)
    holes = observations.copy()
    holes[7, 0] = np.nan
    write(bad, weights, holes)
    with pytest.raises(ObservationError, match="observations .* the first is 7"):
        read_madminer(bad)
    write(bad, weights[:, :4], observations)
    with pytest.raises(ObservationError, match=r"shape \(500, 4\) for 6 benchmarks"):
        read_madminer(bad)
    with pytest.raises(OptionError, match="'file' of 'smeft-madminer'"):
        SmeftMadminer()


@pytest.fixture(scope="module", autouse=True)
def _file_of_the_kit(path):
    made.file = path


def made():
    return SmeftMadminer(file=made.file)


@conformance(
    SIMULATOR_CHECKS,
    made,
    expected_failures={"redrawing_gives_new_data": "files hold no momenta to measure again"},
)
def test_conformance(check, monkeypatch):
    monkeypatch.setenv("SBI_PHYSICS_PLUGINS", "smeft")
    check()
