"""Parton densities and integrated cross sections against an independent integration."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from sbi_physics_smeft import cross_section
from sbi_physics_smeft.amplitudes import gram_production
from sbi_physics_smeft.conventions import pack, vector
from sbi_physics_smeft.cross_section import sigma_gram
from sbi_physics_smeft.model import BR_W, BR_Z, THRESHOLD
from sbi_physics_smeft.parton_densities import xf

from sbi_physics.errors import ContractError, UnknownNameError


def test_parton_densities_have_the_tabulated_values(reference):
    for flavour, values in zip(reference["pdf_flavours"], reference["pdf_xf"], strict=True):
        assert xf(str(flavour), reference["pdf_x"]) == pytest.approx(values, rel=1e-12)


def test_valence_quarks_nearly_count_to_two_and_one():
    # The sum rules are not imposed by the fit, valid above x = 2e-4; 10 % tells u from d.
    log_x = np.linspace(np.log(2e-4), np.log(0.99), 4000)
    for flavour, number in (("u", 2), ("d", 1)):
        valence = xf(flavour, np.exp(log_x)) - xf(f"{flavour}bar", np.exp(log_x))
        assert np.trapezoid(valence, log_x) == pytest.approx(number, rel=0.1)


def test_cross_sections_have_the_published_size_and_the_reference_values(reference):
    plus, minus = sigma_gram(1), sigma_gram(-1)
    assert plus == pytest.approx(reference["sigma_gram_Wplus_pb"], rel=5e-4)
    assert minus == pytest.approx(reference["sigma_gram_Wminus_pb"], rel=5e-4)
    assert plus[0, 0] + minus[0, 0] == pytest.approx(30.0, rel=5e-4)
    assert plus[0, 0] / minus[0, 0] == pytest.approx(1.598, abs=1e-3)
    gram = (plus + minus) / (plus + minus)[0, 0]
    expected = "1 .03253 -.00929 .19091 .00236 -.00313 .01143 .17386 -.02167 0.18773"
    assert pack(gram) == pytest.approx([float(v) for v in expected.split()], abs=1e-5)
    events = 300e3 * (plus + minus)[0, 0] * 2 * BR_W * 2 * BR_Z
    assert events == pytest.approx(131_588, rel=5e-4)


def test_every_bin_of_mass_agrees_also_where_the_forward_peak_matters(reference):
    edges = np.maximum(reference["mass_bin_edges"], THRESHOLD)
    for k, (low, high) in enumerate(itertools.pairwise(edges)):
        for c, charge in enumerate((1, -1)):
            ours = sigma_gram(charge, min_mass=float(low), max_mass=float(high))
            assert ours == pytest.approx(reference["sigma_gram_bins_pb"][k, c], rel=5e-4)


def test_the_peak_is_resolved():
    # 240 nodes in eta are enough; a uniform grid in the angle
    # would lose a tenth here.
    eta = np.linspace(-11, 11, 4001)
    s, n = 3000.0, len(eta)
    gram = gram_production(np.full(n, s), np.tanh(eta), np.ones(n))[:, 0, 0]
    exact = np.trapezoid(gram / np.cosh(eta) ** 2, eta)
    node, weight = np.polynomial.legendre.leggauss(240)
    coarse = gram_production(np.full(240, s), np.tanh(11 * node), np.ones(240))[:, 0, 0]
    assert (11 * weight * coarse / np.cosh(11 * node) ** 2).sum() == pytest.approx(exact, rel=1e-4)
    angle = (np.arange(100) + 0.5) * np.pi / 100
    missed = gram_production(np.full(100, s), np.cos(angle), np.ones(100))[:, 0, 0]
    assert (missed * np.sin(angle)).sum() * np.pi / 100 < 0.92 * exact


def test_the_integrated_matrix_is_positive_and_grows_with_the_range():
    low, high = sigma_gram(1, max_mass=1000), sigma_gram(1, max_mass=2000)
    assert np.linalg.eigvalsh(low)[0] > 0
    assert np.linalg.eigvalsh(high - low)[0] > 0
    sum_of_parts = low + sigma_gram(1, min_mass=1000, max_mass=2000)
    assert high == pytest.approx(sum_of_parts, rel=1e-6)
    v = vector([-1.0, 0.1, 0.02])
    assert v @ high @ v > 0


def test_the_expected_limits_follow_from_bins_of_mass(reference):
    # Rate only, 95 %: C_Hq3 +-0.0142 and C_W [-0.131, 0.238] at 300 fb^-1.
    sigma = (sigma_gram(1) + sigma_gram(-1)) * 300e3 * 4 * BR_W * BR_Z
    for component, low, high in ((2, -0.131, 0.238), (3, None, 0.0142)):
        c = np.linspace(-0.3, 0.3, 200_001)
        nu = sigma[0, 0] + 2 * c * sigma[0, component] + c**2 * sigma[component, component]
        t = 2 * (nu - sigma[0, 0] - sigma[0, 0] * np.log(nu / sigma[0, 0]))
        inside = c[t < 3.841]
        near = inside[inside > -0.2] if component == 3 else inside
        assert near.max() == pytest.approx(high, abs=6e-4)
        if low is not None:
            assert near.min() == pytest.approx(low, abs=6e-4)


def test_wrong_energies_and_flavours_are_refused():
    with pytest.raises(ContractError, match="ordered"):
        sigma_gram(1, max_mass=100.0)
    with pytest.raises(ContractError, match="charge = 0"):
        sigma_gram(0)
    with pytest.raises(UnknownNameError, match="'ubar'"):
        xf("u-bar", 0.1)
    with pytest.raises(ContractError, match="fraction 1.5"):
        xf("u", 1.5)
    assert cross_section.BEAM_ENERGY == 13_600
