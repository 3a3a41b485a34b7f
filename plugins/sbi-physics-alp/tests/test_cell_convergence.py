"""How good cells of a given size are: the same fields in cells of h and of 1/36 kpc.

The table was computed elsewhere (4 fields, 200 energies 10 GeV - 100 TeV, no cut): largest error
of P, and root mean square where it was kept. Other fields have other errors: over three sets of
four fields root mean squares differ by up to 2.7 from the table (one grating is enough),
largest errors by up to 5.
"""

from __future__ import annotations

import numpy as np
import pytest
from sbi_physics_alp.field import Cluster, FieldSampler
from sbi_physics_alp.propagation import photon_survival

POINTS = np.array([(1, 1), (10, 1), (30, 0.5), (30, 3), (100, 5), (300, 10)], dtype=float)
# Cells for each 1/k_h (1/9 kpc): largest error at each point.
LARGEST = {
    2.0: (2e-5, 4e-5, 1e-3, 7e-3, 7e-3, 0.038),
    1.0: (8e-5, 2e-4, 5.5e-3, 0.037, 0.084, 0.22),
    0.5: (3e-4, 8e-4, 0.024, 0.15, 0.29, 0.45),
    0.25: (5e-3, 5e-3, 0.10, 0.26, 0.48, 0.49),
    0.125: (0.15, 0.29, 0.35, 0.49, 0.49, 0.48),
}
ROOT_MEAN_SQUARE = {
    2.0: (None, None, 5e-5, 3e-4, 5e-4, 2e-3),
    1.0: (None, None, 3e-4, 1.7e-3, 4e-3, 0.016),
}
ENERGY = np.geomspace(10.0, 1e5, 200)


@pytest.fixture(scope="module")
def fields():
    return np.random.default_rng(1).standard_normal((4, 2, 2, 220))


def survival(fields, cells_per_scale, m, g, k_cut=None):
    # The same line of sight for every size: 562 cells of 8/9 kpc.
    end = 562 * 8 / 9 + 0.5 / (9.0 * cells_per_scale)
    cells = FieldSampler(Cluster(r_abell=end), cells_per_scale).from_normals(fields)
    return photon_survival(ENERGY, cells, m_nev=m, g11=g, k_cut_kpc=k_cut)


@pytest.fixture(scope="module")
def exact(fields):
    return [survival(fields, 4.0, m, g) for m, g in POINTS]


@pytest.mark.parametrize("cells_per_scale", LARGEST)
def test_errors_of_coarse_cells_are_those_of_the_table(fields, exact, cells_per_scale):
    for i, (m, g) in enumerate(POINTS):
        error = survival(fields, cells_per_scale, m, g) - exact[i]
        largest = LARGEST[cells_per_scale][i]
        assert largest / 5.0 < np.abs(error).max() < min(5.0 * largest, 0.51), (m, g)
        rms = ROOT_MEAN_SQUARE.get(cells_per_scale, (None,) * 6)[i]
        if rms is not None:
            assert rms / 3.0 < np.sqrt(np.mean(error**2)) < 3.0 * rms, (m, g)


@pytest.mark.parametrize(
    ("m", "g", "own", "compat", "fine"),
    # The cut's own error; with it, the worst error of both modes (3 fields elsewhere).
    [(100, 5, 0.001, 0.017, 0.003), (300, 10, 0.01, 0.08, 0.017)],
)
def test_the_cut_above_the_largest_wavenumber_removes_false_conversion(
    fields, exact, m, g, own, compat, fine
):
    best = exact[[tuple(p) for p in POINTS].index((m, g))]
    assert np.abs(survival(fields, 4.0, m, g, 9.0) - best).max() < 2.0 * own
    for cells_per_scale, bound in ((1.0, compat), (2.0, fine)):
        cut, free = (
            np.abs(survival(fields, cells_per_scale, m, g, k) - best).max() for k in (9.0, None)
        )
        assert cut < 4.0 * bound
        assert cut <= free
