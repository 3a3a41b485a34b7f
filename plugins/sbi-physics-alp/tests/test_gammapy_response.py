"""Responses built by gammapy from public files, compared with gammapy's own predictions."""

from __future__ import annotations

import numpy as np
import pytest
from sbi_physics_alp import gammapy_response
from sbi_physics_alp.data_files import locate
from sbi_physics_alp.embedded import embedded_response
from sbi_physics_alp.gammapy_response import Selection, load_response, spectrum_dataset

# gammapy and astropy warn about units and deprecations that are theirs.
pytestmark = pytest.mark.filterwarnings("ignore")

FLARE = {"amplitude": 1.54e-9, "index": 2.11, "e_cut": 562.0}
FILES = ["cta-prod5-north-20deg-50h", "cta-prod3b-south-z20-50h", "cta-prod5-south-20deg-50h"]


@pytest.fixture
def flare():
    from astropy import units as u
    from gammapy.modeling.models import ExpCutoffPowerLawSpectralModel

    return ExpCutoffPowerLawSpectralModel(
        amplitude=FLARE["amplitude"] * u.Unit("cm-2 s-1 TeV-1"),
        index=FLARE["index"],
        reference=0.3 * u.TeV,
        lambda_=1e3 / FLARE["e_cut"] / u.TeV,
    )


def bin_integrals(model, response):
    from astropy import units as u

    edges = response.true_edges_gev * u.GeV
    return model.integral(edges[:-1], edges[1:]).to_value("cm-2 s-1")[None]


@pytest.mark.parametrize("name", FILES)
def test_folded_counts_are_those_that_gammapy_predicts(gammapy_data, flare, name):
    from gammapy.modeling.models import SkyModel

    response = load_response(name)
    dataset, _ = spectrum_dataset(locate(name), Selection(), livetime_s=180000.0)
    dataset.models = [SkyModel(spectral_model=flare, name="source")]
    expected = dataset.npred_signal().data.reshape(-1)
    found = response.fold(bin_integrals(flare, response))[0]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12 * expected.max())
    background = dataset.background.data.reshape(-1)
    np.testing.assert_allclose(response.background, background, rtol=1e-12)


@pytest.mark.parametrize(
    ("file", "name", "area", "fold", "background"),
    [
        ("cta-prod5-north-20deg-50h", "embedded", 0.031, 0.07, 0.03),
        ("cta-prod3b-south-z20-50h", "embedded-south", 0.039, 0.075, 0.04),
    ],
)
def test_embedded_responses_follow_the_files(gammapy_data, file, name, area, fold, background):
    measured, fitted = load_response(file), embedded_response(name)
    energy = measured.true_centres_gev
    inside = (energy > 20.0) & (energy < 1e5)
    ratio = (fitted.matrix.sum(axis=0) / np.where(inside, measured.matrix.sum(axis=0), 1.0))[
        inside
    ]
    assert np.sqrt(np.mean((ratio - 1.0) ** 2)) < area
    centre = np.sqrt(measured.reco_edges_gev[1:] * measured.reco_edges_gev[:-1])
    core = (centre > 30.0) & (centre < 3000.0)
    fluxes = np.diff(measured.true_edges_gev) * energy**-2.11 * np.exp(-energy / 562.0)
    ratio = fitted.fold(fluxes[None])[0, core] / measured.fold(fluxes[None])[0, core]
    assert np.sqrt(np.mean((ratio - 1.0) ** 2)) < fold
    ratio = fitted.background[core] / measured.background[core]
    assert np.sqrt(np.mean((ratio - 1.0) ** 2)) < background


def test_a_response_is_kept_and_read_without_gammapy(gammapy_data, monkeypatch):
    first = load_response("cta-prod5-north-20deg-50h", livetime_s=3600.0)

    def fail(*_args, **_kwargs):
        raise AssertionError("built twice")

    monkeypatch.setattr(gammapy_response, "build_response", fail)
    again = load_response("cta-prod5-north-20deg-50h", livetime_s=3600.0)
    np.testing.assert_array_equal(first.matrix, again.matrix)
    assert again.metadata["sha256"] == first.metadata["sha256"]
    with pytest.raises(AssertionError, match="built twice"):
        load_response("cta-prod5-north-20deg-50h", Selection(reco_bins=50))


def test_an_unwritable_cache_is_no_failure(gammapy_data, monkeypatch, tmp_path):
    blocked = tmp_path / "file"
    blocked.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    selection = Selection(true_bins_per_decade=25, reco_bins=20)
    assert load_response("cta-prod5-north-20deg-50h", selection).matrix.shape == (20, 116)


def test_a_whole_map_has_the_published_background(gammapy_data):
    response = load_response("cta-prod5-north-20deg-50h", Selection(region="map2deg"))
    # 2.28e6 counts in 50 h, as gammapy's map of 100 x 100 pixels has them.
    assert response.background.sum() == pytest.approx(2.28e6, rel=0.005)
