"""Runs reduced to counts: the public H.E.S.S. runs on PKS 2155-304 against published numbers."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from sbi_physics_alp import dl3
from sbi_physics_alp.data_files import MissingDataError
from sbi_physics_alp.dl3 import PUBLIC_SETS, Reduction, observe_runs, public_set, reduce_runs
from sbi_physics_alp.on_off import OnOffObservation, from_dataset, is_on_off_file
from sbi_physics_alp.pks2155 import AlpPks2155
from scipy.optimize import minimize
from scipy.special import xlogy

from sbi_physics.errors import ContractError, DataFileError, ObservationError, OptionError

# gammapy and astropy warn about units and deprecations that are theirs.
pytestmark = pytest.mark.filterwarnings("ignore")

# Counts, off counts, excess, significance, livetime in s; power law at 0.5 TeV: amplitude and its
# error in cm^-2 s^-1 TeV^-1, index and error; W and number of bins. Made without containment
# correction; the files are full-enclosure, and with it fluxes are 1.4 times larger.
PUBLISHED = {
    "hess-dl3-pks2155-flare": (
        (14844, 4406, 14476.8, 236.9, 23686),
        (5.951e-10, 0.052e-10, 3.303, 0.014, 456.2, 21),
    ),
    "hess-dl3-pks2155-steady": (
        (251, 991, 168.4, 14.0, 9397),
        (2.97e-11, 0.29e-11, 3.34, 0.18, 12.58, 19),
    ),
    "hess-dl3-pks2155-all": (
        (15095, 5397, 14645, 233.8, 33084),
        (4.775e-10, 0.042e-10, 3.464, 0.015, 164.1, 21),
    ),
}


@pytest.fixture
def runs(gammapy_data):
    folder = gammapy_data / "hess-dl3-dr1"
    if not folder.is_dir():
        pytest.skip(f"no H.E.S.S. runs at {folder}")
    return folder


def w_statistic(n_on, n_off, alpha, signal):
    """Twice the log likelihood ratio, each bin's background at its best.

    mu_b (in off counts) solves the quadratic equation of its derivative (arXiv:physics/0702156).
    """
    c = alpha * (n_on + n_off) - (1.0 + alpha) * signal
    mu = (c + np.sqrt(c**2 + 4.0 * alpha * (alpha + 1.0) * n_off * signal)) / (
        2.0 * alpha * (alpha + 1.0)
    )
    mu_on = signal + alpha * mu
    terms = mu_on - n_on + mu - n_off + xlogy(n_on, n_on / np.where(n_on > 0, mu_on, 1.0))
    return 2.0 * np.sum(terms + xlogy(n_off, n_off / np.where(n_off > 0, mu, 1.0)))


def power_law(response, amplitude, index):
    """Exact integrals over the true-energy bins in cm^-2 s^-1, shape (1, n_true)."""
    edges = response.true_edges_gev / 500.0
    return (amplitude * 0.5 / (1.0 - index) * np.diff(edges ** (1.0 - index)))[None]


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_public_runs_give_the_published_counts_and_fit(runs, name):
    from gammapy.modeling import Fit
    from gammapy.modeling.models import PowerLawSpectralModel, SkyModel

    (counts, off, excess, significance, livetime), fit = PUBLISHED[name]
    stacked = reduce_runs(runs, PUBLIC_SETS[name], Reduction(containment_correction=False))
    info = stacked.info_dict()
    assert (info["counts"], info["counts_off"]) == (counts, off)
    assert info["excess"] == pytest.approx(excess, abs=0.5 if excess == 14645 else 0.05)
    assert info["sqrt_ts"] == pytest.approx(significance, abs=0.05)
    assert info["livetime"].to_value("s") == pytest.approx(livetime, abs=0.5)
    amplitude, amplitude_error, index, index_error, w, n_bins = fit
    model = PowerLawSpectralModel(
        amplitude=f"{amplitude} cm-2 s-1 TeV-1", index=index, reference="0.5 TeV"
    )
    stacked.models = [SkyModel(spectral_model=model)]
    assert Fit().run([stacked]).success
    assert model.amplitude.value == pytest.approx(amplitude, abs=0.51e-13)  # the last digit
    assert model.amplitude.error == pytest.approx(amplitude_error, rel=0.02)
    assert model.index.value == pytest.approx(index, abs=0.005 if "steady" in name else 0.0005)
    assert model.index.error == pytest.approx(index_error, rel=0.05)
    assert stacked.stat_sum() == pytest.approx(w, abs=0.005 if "steady" in name else 0.05)
    # The same from our numbers: prediction, statistic and best fit.
    found = from_dataset(stacked)
    response, alpha = found.instrument.response, found.instrument.alpha
    assert found.n_on.size == n_bins
    used = stacked.mask_safe.data.reshape(-1)
    signal = response.fold(power_law(response, model.amplitude.value, model.index.value))[0]
    expected = stacked.npred_signal().data.reshape(-1)[used]
    np.testing.assert_allclose(signal, expected, rtol=1e-7)  # gammapy stacks in single precision
    ours = w_statistic(found.n_on, found.n_off, alpha, signal)
    assert ours == pytest.approx(stacked.stat_sum(), rel=1e-7)

    def statistic(x):
        return w_statistic(
            found.n_on, found.n_off, alpha, response.fold(power_law(response, *(np.exp(x))))[0]
        )

    start = np.log([amplitude, index])
    best = minimize(statistic, start, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-9})
    # Minuit stops 1e-3 standard deviations or so from the minimum.
    shift = np.exp(best.x) - [model.amplitude.value, model.index.value]
    assert np.abs(shift / [model.amplitude.error, model.index.error]).max() < 0.01


def test_reduced_runs_are_kept_saved_and_read(runs, monkeypatch, tmp_path):
    found = observe_runs(runs, [47802], sub_bins=2)
    response = found.instrument.response
    assert response.true_edges_gev.size == 401
    assert response.metadata["runs"] == [47802]
    assert found.n_on.sum() > 20
    monkeypatch.setattr(dl3, "reduce_runs", None)  # would fail
    again = observe_runs(runs, [47802], sub_bins=2)
    np.testing.assert_array_equal(again.instrument.response.matrix, response.matrix)
    path = found.save(tmp_path / "run.npz")
    assert is_on_off_file(path)
    simulator = AlpPks2155(**AlpPks2155.observation_options(path))
    x = simulator.read_observation(path)
    np.testing.assert_array_equal(x, np.stack([found.n_on, found.n_off]))
    with pytest.raises(ObservationError, match="taken with another response"):
        AlpPks2155().read_observation(path)


def test_an_unknown_run_is_named(runs):
    with pytest.raises(OptionError, match=r"has no runs 1,3-4; it has 20136-20137,"):
        reduce_runs(runs, [47802, 1, 4, 3], Reduction())


def test_a_target_outside_the_field_is_refused_at_once(runs, monkeypatch):
    monkeypatch.setattr("gammapy.makers.SpectrumDatasetMaker.run", None)  # would fail
    where = r"the source is \d+\.?\d* deg from the pointing direction; run 47802 covers offsets up"
    with pytest.raises(ContractError, match=where + r" to 2\.5 deg"):
        reduce_runs(runs, [47802], Reduction(target_deg=(10.0, 80.0)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"runs": "abc"},
            "runs 'abc': 'abc' is no number or increasing range; accepted is a list",
        ),
        ({"runs": "3-1"}, "'3-1' is no number"),
        ({"runs": "1,,2"}, "'' is no number"),
        ({}, "obs-index.fits.gz; accepted is a folder of runs with"),
        ({"out": "/no/such/out.npz"}, "-o /no/such/out.npz: there is no folder /no/such"),
        ({"out": "out.fits"}, "accepted is the name of an npz file"),
        ({"target": ("400", "0")}, "--target 400 0 is no direction"),
        ({"target": ("10", "-91")}, "a declination of -90 to 90 deg"),
        ({"reco": ("5", "1")}, "--reco-tev 5 1: accepted are two increasing positive energies"),
        ({"radius": "0"}, "--radius 0: accepted is more than 0 deg"),
    ],
)
def test_wrong_arguments_are_refused_with_what_is_accepted(tmp_path, capsys, arguments, message):
    given = {"runs": "1", "out": str(tmp_path / "out.npz"), "target": ("10", "80"), **arguments}
    command = [str(tmp_path), "--runs", given["runs"], "--target", *given["target"]]
    command += ["-o", given["out"], "--reco-tev", *given.get("reco", ("0.1", "20"))]
    command += ["--radius", given.get("radius", "0.11")]
    with pytest.raises(SystemExit) as stopped:
        dl3.main(command)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_full_enclosure_files_are_corrected_for_events_outside_the_disk(runs):
    corrected, plain = (
        observe_runs(runs, [47802], Reduction(containment_correction=value)).instrument.response
        for value in (None, False)
    )
    share = corrected.matrix.sum() / plain.matrix.sum()
    assert 0.5 < share < 0.9  # a disk of 0.11 deg


@pytest.mark.slow
def test_a_public_set_is_response_and_observation(runs):
    simulator = AlpPks2155(response="hess-dl3-pks2155-steady")
    x = simulator.read_observation("hess-dl3-pks2155-steady")
    assert x.shape == (2, 19)
    assert x.sum(axis=1).tolist() == [251.0, 991.0]
    edges = simulator.instrument.response.true_edges_gev
    assert edges.size / np.log10(edges[-1] / edges[0]) > 100  # bins a decade


def test_missing_runs_say_how_to_get_them(monkeypatch, tmp_path):
    monkeypatch.setenv("GAMMAPY_DATA", str(tmp_path))
    with pytest.raises(MissingDataError, match="--src hess-dl3-dr1"):
        public_set("hess-dl3-pks2155-flare")
    with pytest.raises(DataFileError, match="--src hess-dl3-dr1"):
        AlpPks2155(response="hess-dl3-pks2155-flare")


@pytest.mark.slow
def test_the_command_writes_a_file_for_simulators(runs, tmp_path):
    out = tmp_path / "steady.npz"
    done = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "-m", "sbi_physics_alp.dl3", str(runs)),
            *("--runs", "47802-47804,47827-47829", "--target", "329.71694", "-30.22559"),
            *("-o", str(out)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "251 on and 991 off counts in 19 bins" in done.stdout + done.stderr
    assert OnOffObservation.load(out).n_on.sum() == 251


def test_lists_of_runs():
    numbers = [47802, 47803, 47804, 47827]
    assert dl3.run_numbers("47802-47804,47827") == numbers
    assert dl3.run_list(numbers) == "47802-47804,47827"
