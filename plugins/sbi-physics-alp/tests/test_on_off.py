"""On and off counts: the file reader, the parametrised instrument, the background draw."""

from __future__ import annotations

import numpy as np
import pytest
from sbi_physics_alp.data_files import locate
from sbi_physics_alp.on_off import OnOffResponse, divide_bins, hess_like_response, read_ogip
from sbi_physics_alp.spectrum import bin_fluxes, log_parabola


@pytest.mark.filterwarnings("ignore")
def test_the_public_spectrum_of_pks2155_has_its_known_counts(gammapy_data):
    found = read_ogip(locate("hess-pks2155-steady"), sub_bins=10)
    np.testing.assert_array_equal(found.n_on, [49, 38, 18, 6, 7, 0, 1, 0])
    assert found.n_on.sum() == 119
    assert found.n_off.sum() == 453
    np.testing.assert_allclose(found.instrument.alpha, 1.0 / 12.0, rtol=1e-6)
    assert found.instrument.response.livetime_s == pytest.approx(9397.2, abs=0.1)
    assert found.instrument.response.matrix.shape == (8, 250)


@pytest.mark.filterwarnings("ignore")
def test_divided_bins_predict_what_gammapy_predicts(gammapy_data):
    from astropy import units as u
    from gammapy.datasets import SpectrumDatasetOnOff
    from gammapy.modeling.models import PowerLawSpectralModel, SkyModel

    path = locate("hess-pks2155-steady")
    model = PowerLawSpectralModel(
        index=3.3, amplitude=3e-11 * u.Unit("cm-2 s-1 TeV-1"), reference=0.5 * u.TeV
    )
    dataset = SpectrumDatasetOnOff.read(path)
    dataset.models = [SkyModel(spectral_model=model, name="source")]
    expected = dataset.npred_signal().data.reshape(-1)[2:]
    response = read_ogip(path, sub_bins=20).instrument.response
    flux = log_parabola(response.true_centres_gev, 3e-11, 3.3, 0.0)
    found = response.fold(bin_fluxes(flux, response.true_edges_gev))[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4)  # midpoint rule in 200 bins a decade


def test_the_background_is_drawn_from_its_posterior(rng):
    instrument = hess_like_response(livetime_s=9397.0)
    draws = instrument.draw_background(40000, rng)
    counts, alpha = instrument.off_counts, instrument.alpha
    error = alpha * np.sqrt((counts + 0.5) / 40000)
    assert (np.abs(draws.mean(axis=0) - alpha * (counts + 0.5)) < 5.0 * error).all()
    np.testing.assert_allclose(draws.var(axis=0), alpha**2 * (counts + 0.5), rtol=0.1)


def test_the_parametrised_instrument_has_the_size_of_hess():
    response = hess_like_response(livetime_s=9397.0).response
    area_m2 = response.matrix.sum(axis=0) / 9397.0 / 1e4
    at_1_tev = np.argmin(np.abs(response.true_centres_gev - 1e3))
    assert area_m2[at_1_tev] == pytest.approx(1.2e5, rel=0.02)
    # The public steady spectrum has 119 on counts, 38 of them background, in that time.
    assert 20.0 < response.background.sum() < 60.0


def test_dividing_bins_keeps_their_edges():
    edges = np.array([1.0, 10.0, 30.0])
    divided = divide_bins(edges, 4)
    assert divided.size == 9
    np.testing.assert_array_equal(divided[::4], edges)
    np.testing.assert_allclose(np.diff(np.log(divided[:5])), np.log(10.0) / 4.0)
    with pytest.raises(ValueError, match="at least 1 part; got 0"):
        divide_bins(edges, 0)


def test_shapes_and_signs_are_checked():
    response = hess_like_response().response
    with pytest.raises(ValueError, match=r"alpha \(3,\) and off_counts \(8,\) must have the"):
        OnOffResponse(response, np.ones(3), np.ones(8))
    with pytest.raises(ValueError, match="alpha must be positive"):
        OnOffResponse(response, np.zeros(8), np.ones(8))
