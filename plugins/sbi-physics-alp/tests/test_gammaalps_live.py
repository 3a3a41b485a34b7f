"""gammaALPs, run here: a field of its own, and each module of the chain, against this package."""

from __future__ import annotations

import numpy as np
import pytest
from sbi_physics_alp.ebl import optical_depth
from sbi_physics_alp.milky_way import NGC1275_DEG, galactic_cells
from sbi_physics_alp.propagation import Domains, photon_survival, state_probabilities

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

REDSHIFT = 0.017559
ENERGY = np.geomspace(10.0, 1e5, 100)
CLUSTER = {
    **{"nsim": 1, "B0": 10.0, "n0": 39e-3, "n2": 4.05e-3, "r_abell": 500.0, "r_core": 80.0},
    **{"r_core2": 280.0, "beta": 1.2, "beta2": 0.58, "eta": 0.5, "kL": 0.18, "kH": 9.0, "q": -2.8},
}


def chain(core, m, g, *modules):
    source = core.Source(z=REDSHIFT, ra=NGC1275_DEG[0], dec=NGC1275_DEG[1])
    unpolarised = np.diag([0.5, 0.5, 0.0]).astype(complex)
    found = core.ModuleList(core.ALP(m=m, g=g), source, pin=unpolarised, EGeV=ENERGY)
    for i, (name, options) in enumerate(modules):
        found.add_propagation(name, i, **options)
    return found


def cells_of(module):
    return Domains(
        np.asarray(module.B).ravel(),
        np.asarray(module.psin).ravel(),
        np.asarray(module.nel).ravel(),
        np.asarray(module.dL).ravel(),
    )


@pytest.mark.parametrize(("m", "g"), [(1.0, 1.0), (30.0, 0.5), (100.0, 5.0), (300.0, 10.0)])
def test_a_cluster_field_of_gammaalps_converts_alike(gammaalps, m, g):
    found = chain(gammaalps, m, g, ("ICMGaussTurb", {"seed": 11, **CLUSTER}))
    p_x, p_y, p_a = found.run(multiprocess=1)
    ours = state_probabilities(
        ENERGY, cells_of(found.modules["ICMGaussTurb"]), m_nev=m, g11=g, redshift=REDSHIFT
    )
    for theirs, p in zip((p_x, p_y, p_a), ours, strict=True):
        np.testing.assert_allclose(p[0], theirs[0], rtol=0, atol=1e-8)


@pytest.mark.parametrize(("m", "g"), [(30.0, 0.5), (10.0, 2.0)])
def test_the_whole_chain_of_gammaalps_converts_alike(gammaalps, m, g):
    found = chain(
        gammaalps,
        m,
        g,
        ("ICMGaussTurb", {"seed": 12, **CLUSTER}),
        ("EBL", {"eblmodel": "dominguez"}),
        ("GMF", {"model": "jansson12"}),
    )
    p_x, p_y, _ = found.run(multiprocess=1)
    cluster = next(mod for name, mod in found.modules.items() if "ICM" in str(name))
    ours = photon_survival(
        ENERGY,
        cells_of(cluster),
        m_nev=m,
        g11=g,
        redshift=REDSHIFT,
        tau=optical_depth(ENERGY, REDSHIFT),
        milky_way=galactic_cells(*NGC1275_DEG),
    )
    # The embedded direction was made from coordinates rounded to 0.1 s of arc.
    np.testing.assert_allclose(ours[0], (p_x + p_y)[0], rtol=0, atol=1e-6)
