"""Package data: background light and Milky Way."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from sbi_physics_alp.data_files import MissingDataError
from sbi_physics_alp.ebl import _table, optical_depth
from sbi_physics_alp.milky_way import (
    NGC1275_DEG,
    _from_gammaalps,
    galactic_cells,
    milky_way_cells,
)


def test_optical_depths_are_those_of_the_published_model(reference):
    for prefix in ("ebl", "ebl_ext"):
        tau = optical_depth(reference[f"{prefix}_energy_gev"], 0.017559)
        np.testing.assert_allclose(tau, reference[f"{prefix}_tau"], rtol=0, atol=1e-12)


def test_optical_depths_have_known_values():
    # arXiv:1007.1459 at z = 0.017559.
    tau = optical_depth([20.0, 500.0, 1e3, 5e3, 15.9e3, 50e3], 0.017559)
    np.testing.assert_allclose(tau, [0.0, 0.079, 0.175, 0.35, 1.16, 15.1], rtol=0.02)


def test_optical_depth_is_flat_outside_the_table():
    tau = optical_depth([0.1, 1.0, 1e5, 1e6], 0.017559)
    assert tau[0] == tau[1] == 0.0
    assert tau[2] == tau[3] == pytest.approx(35.07, abs=0.01)


def test_more_distant_sources_are_absorbed_more():
    energy = np.geomspace(100.0, 1e4, 20)
    assert (optical_depth(energy, 0.116) > optical_depth(energy, 0.017559)).all()


def test_other_redshifts_are_interpolated_in_the_published_table(reference):
    energy = reference["ebl_ext_energy_gev"]
    # The grid knows z = 0.01 and 0.02; the exact row between them was made elsewhere.
    table = _table("ebl_dominguez_grid.npz")
    tau = 0.2441 * table["tau"][1] + 0.7559 * table["tau"][2]
    near = np.interp(np.log(energy), np.log(table["energy_gev"]), tau)
    np.testing.assert_allclose(near, reference["ebl_ext_tau"], rtol=2e-6, atol=1e-7)
    found = optical_depth(energy, 0.017559 + 1e-6)
    np.testing.assert_allclose(found, reference["ebl_ext_tau"], rtol=1e-3, atol=1e-6)


def test_optical_depth_vanishes_without_distance_and_is_refused_beyond_the_table():
    assert (optical_depth([100.0, 1e4], 0.0) == 0.0).all()
    assert optical_depth(1e3, 1.0) > optical_depth(1e3, 0.99)
    with pytest.raises(ValueError, match="ends at redshift 1; got 1.2. Give another model"):
        optical_depth(100.0, 1.2)
    with pytest.raises(ValueError, match="redshift must not be negative; got -1"):
        optical_depth(100.0, -1.0)


def test_ebltable_gives_the_embedded_model_and_others():
    pytest.importorskip("ebltable")
    energy = np.geomspace(50.0, 2e4, 30)
    for z in (0.044, 0.116, 0.6123):
        theirs = optical_depth(energy, z, "ebltable:dominguez")
        # Their nodes are 0.01 apart; ours are 0.02 beyond z = 0.5.
        np.testing.assert_allclose(optical_depth(energy, z), theirs, rtol=1e-3, atol=1e-6)
    other = optical_depth(energy, 0.116, "ebltable:finke2022")
    assert 0.5 < other[20] / optical_depth(energy, 0.116)[20] < 2.0


@pytest.mark.filterwarnings("ignore")  # third parties
@pytest.mark.parametrize("model", ["franceschini", "saldana-lopez21"])
def test_models_of_gammapy_absorb_as_gammapy_says(gammapy_data, model):
    from astropy import units as u
    from gammapy.modeling.models import EBLAbsorptionNormSpectralModel

    path = (
        gammapy_data
        / "ebl"
        / {"franceschini": "ebl_franceschini.fits.gz"}.get(model, "ebl_saldana-lopez_2021.fits.gz")
    )
    energy = np.geomspace(100.0, 5e3, 12)
    theirs = EBLAbsorptionNormSpectralModel.read(path, redshift=0.116)(energy * u.GeV)
    found = optical_depth(energy, 0.116, model)
    np.testing.assert_allclose(np.exp(-found), theirs.to_value(""), rtol=1e-12)
    np.testing.assert_allclose(found, optical_depth(energy, 0.116), rtol=0.5, atol=0.02)


def test_an_unknown_or_missing_model_is_explained(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="no model 'gilmor' of the background light; there are d"):
        optical_depth(100.0, 0.1, "gilmor")
    monkeypatch.setenv("GAMMAPY_DATA", str(tmp_path))
    with pytest.raises(MissingDataError, match=r"ebl_franceschini\.fits\.gz"):
        optical_depth(100.0, 0.1, "franceschini")


def test_other_directions_come_from_gammaalps(gammaalps):
    same = _from_gammaalps(*NGC1275_DEG, "jansson12", None)
    ours = milky_way_cells()
    np.testing.assert_allclose(same.b_x, ours.b_x, rtol=0, atol=1e-5)
    np.testing.assert_allclose(same.length_kpc, ours.length_kpc, rtol=1e-6)
    np.testing.assert_array_equal(galactic_cells(*NGC1275_DEG).b_x, ours.b_x)
    other = galactic_cells(329.71694, -30.22559, n_e_cm3=0.02)
    assert np.hypot(other.b_x, other.b_y).max() > 0.1
    assert (other.n_e_cm3 == 0.02).all()
    assert not np.allclose(other.length_kpc[:5], ours.length_kpc[:5])


@pytest.mark.usefixtures("gammaalps")
def test_gammaalps_starts_no_process_when_it_is_imported(tmp_path):
    # It never waits for the git that it asks for its version: a pipe stays open until some later
    # process starts.
    git = tmp_path / "git"
    git.write_text(f"#!/bin/sh\n: > {tmp_path}/asked\n")
    git.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    code = """
        import os, sys, warnings
        warnings.simplefilter("ignore")
        from sbi_physics_alp.milky_way import import_gammaalps
        before = os.environ["PATH"]
        import_gammaalps()
        assert "gammaALPs.core" in sys.modules and os.environ["PATH"] == before
    """
    environment = {**os.environ, "PATH": path}
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, env=environment)
    assert not (tmp_path / "asked").exists()


def test_a_wrong_direction_or_galactic_model_is_refused():
    with pytest.raises(ValueError, match="no Galactic field 'unger'; there are jansson12"):
        galactic_cells(10.0, 10.0, "unger")
    with pytest.raises(ValueError, match=r"\(ra, dec\) = \(400.0, 0.0\) deg is no direction"):
        galactic_cells(400.0, 0.0)


def test_the_milky_way_has_the_cells_of_gammaalps(reference):
    cells = milky_way_cells()
    b, psi = reference["gmf_B_uG"], reference["gmf_psi"]
    np.testing.assert_allclose(cells.b_x, b * np.sin(psi), rtol=0, atol=1e-14)
    np.testing.assert_allclose(cells.b_y, b * np.cos(psi), rtol=0, atol=1e-14)
    np.testing.assert_array_equal(cells.n_e_cm3, reference["gmf_nel_cm3"])
    np.testing.assert_allclose(cells.length_kpc, reference["gmf_dL_kpc"], rtol=1e-14)


def test_the_density_of_the_milky_way_can_be_chosen():
    np.testing.assert_array_equal(milky_way_cells(n_e_cm3=0.01).n_e_cm3, np.full(99, 0.01))
