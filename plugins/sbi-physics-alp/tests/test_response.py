"""Folding, files, and the parametrised responses."""

from __future__ import annotations

import numpy as np
import pytest
from sbi_physics_alp.embedded import EMBEDDED, embedded_response
from sbi_physics_alp.response import Response, reco_energy_edges, true_energy_edges
from sbi_physics_alp.spectrum import bin_fluxes, cutoff_power_law

FLARE = (1.54e-9, 2.11, 562.0)


def folded_flare(response):
    flux = cutoff_power_law(response.true_centres_gev, *FLARE)
    return response.fold(bin_fluxes(flux, response.true_edges_gev))[0]


def test_folding_is_the_matrix_product(rng):
    response = embedded_response()
    fluxes = rng.uniform(0.0, 1e-10, (7, response.matrix.shape[1]))
    np.testing.assert_allclose(response.fold(fluxes), fluxes @ response.matrix.T, rtol=1e-13)


def test_a_folded_row_does_not_depend_on_its_batch(rng):
    response = embedded_response()
    fluxes = rng.uniform(0.0, 1e-10, (7, response.matrix.shape[1]))
    np.testing.assert_array_equal(response.fold(fluxes)[3:4], response.fold(fluxes[3:4]))


def test_a_response_survives_its_file(tmp_path):
    response = embedded_response("embedded-south", livetime_s=3600.0)
    again = Response.load(response.save(tmp_path / "response.npz"))
    for name in ("matrix", "background", "reco_edges_gev", "true_edges_gev"):
        np.testing.assert_array_equal(getattr(again, name), getattr(response, name))
    assert again.livetime_s == 3600.0
    assert again.metadata == response.metadata


def test_another_npz_file_is_refused(tmp_path):
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(ValueError, match="is not a response file of format 1"):
        Response.load(tmp_path / "other.npz")


def test_counts_are_proportional_to_the_livetime():
    long = embedded_response(livetime_s=36000.0)
    short = long.with_livetime(3600.0)
    np.testing.assert_allclose(folded_flare(long), 10.0 * folded_flare(short), rtol=1e-12)
    np.testing.assert_allclose(long.background, 10.0 * short.background, rtol=1e-12)


def test_dropping_blind_bins_changes_no_count():
    response = embedded_response()
    matrix = response.matrix.copy()
    matrix[:, :60] = 0.0
    matrix[:, -40:] = 0.0
    full = Response(
        matrix, response.background, response.reco_edges_gev, response.true_edges_gev, 180000.0
    )
    trimmed = full.without_blind_bins()
    assert trimmed.matrix.shape == (200, 361)
    np.testing.assert_allclose(folded_flare(full), folded_flare(trimmed), rtol=1e-13)


@pytest.mark.parametrize(
    ("name", "signal", "background"),
    # Totals of the response files, which the parametrisations reproduce to about 1 %.
    [("embedded", 286350.0, 18820.0), ("embedded-south", 395900.0, 24280.0)],
)
def test_embedded_responses_give_the_totals_of_the_files(name, signal, background):
    response = embedded_response(name)
    assert folded_flare(response).sum() == pytest.approx(signal, rel=0.012)
    assert response.background.sum() == pytest.approx(background, rel=0.015)


@pytest.mark.parametrize("name", EMBEDDED)
def test_energy_migration_keeps_all_counts_far_from_the_ends(name):
    response = embedded_response(name, livetime_s=1.0)
    inside = (response.true_centres_gev > 50.0) & (response.true_centres_gev < 2e4)
    area_cm2 = response.matrix.sum(axis=0)[inside]
    wider = embedded_response(
        name, livetime_s=1.0, reco_edges_gev=reco_energy_edges(0.1, 1e7, 1600)
    )
    np.testing.assert_allclose(area_cm2, wider.matrix.sum(axis=0)[inside], rtol=1e-6)


def test_energy_axes_have_the_documented_bins():
    true, reco = true_energy_edges(), reco_energy_edges()
    assert (true.size - 1, reco.size - 1) == (461, 200)
    np.testing.assert_allclose([true[0], true[-1], reco[0], reco[-1]], [5.0, 2e5, 10.0, 1e5])
    assert true_energy_edges(bins_per_decade=200).size - 1 == 921


def test_wrong_shapes_and_names_are_refused():
    with pytest.raises(
        ValueError, match=r"matrix \(2, 2\) and background \(2,\) do not fit 2 reco"
    ):
        Response(np.ones((2, 2)), np.ones(2), np.arange(3.0), np.arange(4.0), 1.0)
    with pytest.raises(ValueError, match=r"livetime_s must be positive; got 0\.0 s"):
        Response(np.ones((1, 1)), np.ones(1), np.arange(2.0), np.arange(2.0), 0.0)
    with pytest.raises(ValueError, match="no embedded response 'east'; there are embedded, embed"):
        embedded_response("east")
