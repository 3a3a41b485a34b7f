"""The kernel in PyTorch: equal to the compiled one, with its own bound in single precision."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from sbi_physics_alp.ngc1275 import AlpNgc1275
from sbi_physics_alp.propagation import Domains, photon_survival

from sbi_physics.errors import OptionError

ENERGY = np.geomspace(10.0, 1e5, 40)


def domains(rng, rows, n_cells, length=(0.05, 0.3)):
    shape = (rows, n_cells)
    angle, density = rng.uniform(0.0, 7.0, shape), rng.uniform(1e-3, 5e-2, shape)
    return Domains(rng.uniform(0.0, 20.0, shape), angle, density, rng.uniform(*length, shape))


@pytest.mark.engine
@pytest.mark.parametrize("length", [(0.05, 0.3), (2.0, 9.0)])  # small phases, phases up to 1e4
def test_it_equals_the_compiled_kernel(rng, length):
    pytest.importorskip("torch")
    cells, galaxy = domains(rng, 6, 300, length), domains(rng, 1, 30)
    cells.length_kpc[:3, -50:] = 0.0
    cells.b_ug[0, 10] = 0.0
    options = {
        "m_nev": np.geomspace(1.0, 1e3, 6),
        "g11": np.geomspace(10.0, 0.1, 6),
        "redshift": 0.0176,
        "tau": np.linspace(0.0, 3.0, ENERGY.size),
        "milky_way": galaxy,
        "k_cut_kpc": 9.0,
    }
    compiled, torch = (
        photon_survival(ENERGY, cells, **options, kernel=kernel) for kernel in ("numba", "torch")
    )
    np.testing.assert_allclose(torch, compiled, rtol=0, atol=1e-8)
    assert np.abs(compiled - np.exp(-options["tau"])).max() > 0.1


@pytest.mark.engine
def test_it_equals_gammaalps_through_a_cluster(reference):
    pytest.importorskip("torch")
    cells = (reference[f"icm1_{name}"] for name in ("B_uG", "psi", "nel_cm3", "dL_kpc"))
    m, g = reference["icm1_mg"].T
    options = {"m_nev": m, "g11": g, "redshift": 0.017559, "kernel": "torch"}
    some = slice(None, None, 8)
    one = Domains(*(np.atleast_1d(a) for a in cells))
    expected = reference["icm1_pgg_icm_only"][:, some]
    double, single = (
        photon_survival(reference["energy_gev"][some], one, **options, single=value)
        for value in (False, True)
    )
    np.testing.assert_allclose(double, expected, rtol=0, atol=1e-8)
    # A rounding error of 6e-8 for each of some 10^4 rad of phase.
    assert 1e-7 < np.abs(single - expected).max() < 1e-3


@pytest.mark.engine
def test_simulators_take_it_as_an_option():
    pytest.importorskip("torch")
    cheap = {"true_bins_per_decade": 25, "energy_min": "100 GeV", "energy_max": "2 TeV"}
    cheap |= {"r_abell": 20.0, "cell_mode": "compat"}
    compiled, torch = (AlpNgc1275(kernel=kernel, **cheap) for kernel in ("numba", "torch"))
    theta = np.repeat(compiled.theta("m30-g2")[None], 3, axis=0)
    p, q = (
        s.simulate_latent(theta, np.random.default_rng(1))["survival"] for s in (compiled, torch)
    )
    np.testing.assert_allclose(p, q, rtol=0, atol=1e-7)


def test_it_joins_no_cells(rng):
    with pytest.raises(OptionError, match="kernel 'torch' joins no cells"):
        AlpNgc1275(kernel="torch", merge_cells=0.2)
    with pytest.raises(ValueError, match="joins no cells; got merge_rad = 0.1"):
        photon_survival(
            ENERGY, domains(rng, 1, 5), m_nev=1.0, g11=1.0, merge_rad=0.1, kernel="torch"
        )


def test_without_pytorch_it_says_what_to_install(rng, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"pip install sbi-physics-alp\[torch\]"):
        photon_survival(ENERGY, domains(rng, 1, 5), m_nev=1.0, g11=1.0, kernel="torch")
