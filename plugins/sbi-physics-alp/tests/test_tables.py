"""Package data: background light and Milky Way."""

from __future__ import annotations

import numpy as np
import pytest
from sbi_physics_alp.ebl import optical_depth
from sbi_physics_alp.milky_way import milky_way_cells


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


def test_an_unknown_redshift_is_refused():
    with pytest.raises(ValueError, match=r"redshift 0.5; there are tables at 0.017559, 0.116"):
        optical_depth(100.0, 0.5)


def test_the_milky_way_has_the_cells_of_gammaalps(reference):
    cells = milky_way_cells()
    b, psi = reference["gmf_B_uG"], reference["gmf_psi"]
    np.testing.assert_allclose(cells.b_x, b * np.sin(psi), rtol=0, atol=1e-14)
    np.testing.assert_allclose(cells.b_y, b * np.cos(psi), rtol=0, atol=1e-14)
    np.testing.assert_array_equal(cells.n_e_cm3, reference["gmf_nel_cm3"])
    np.testing.assert_allclose(cells.length_kpc, reference["gmf_dL_kpc"], rtol=1e-14)


def test_the_density_of_the_milky_way_can_be_chosen():
    np.testing.assert_array_equal(milky_way_cells(n_e_cm3=0.01).n_e_cm3, np.full(99, 0.01))
