"""Amplitudes against independent numbers, high-energy limits and symmetries."""

from __future__ import annotations

import numpy as np
import pytest
from sbi_physics_smeft import model
from sbi_physics_smeft.amplitudes import (
    gram_full,
    gram_production,
    helicity_amplitudes,
    momenta,
)
from sbi_physics_smeft.conventions import unpack

from sbi_physics.errors import ContractError

# Made with other code: sums over polarisations, order (SM, HWB, W, Hq3), upper triangles.
PRODUCTION = {
    (250.0, 0.5, 1): "0.2086015292 0.0052367719 -0.0069860916 0.0514273579 0.0004017256 "
    "-0.0008775555 0.0026490846 0.0068630973 -0.0051533353 0.0227324536",
    (250.0, 0.5, -1): "0.1235256387 0.0087188949 -0.0077531960 0.0439911414 0.0007022579 "
    "-0.0007908003 0.0031178782 0.0068630973 -0.0051998403 0.0221435035",
    (1000.0, -0.6, 1): "0.0972289523 0.0085131154 -0.0106249526 0.1749394371 0.0044413806 "
    "-0.0140129801 0.0296040709 1.9040950042 -0.1009640630 1.5011703303",
}
DECAYED = (
    "0.0143942446 0.0019375408 -0.0302925686 0.0219329336 0.0003375544 -0.0041116625 "
    "0.0030390790 0.1787414147 -0.0435798110 0.0774153484"
)
POINT = (500.0, 0.2, 1, 0.3, 0.7, -0.4, 2.1)


def one(*values):
    return tuple(np.array([v]) for v in values)


def numbers(text):
    return unpack(np.array(text.split(), dtype=float))


@pytest.mark.parametrize("point", PRODUCTION)
def test_production_has_the_reference_values(point):
    assert gram_production(*one(*point))[0] == pytest.approx(numbers(PRODUCTION[point]), abs=6e-11)


def test_decays_have_the_reference_values():
    assert gram_full(*one(*POINT))[0] == pytest.approx(numbers(DECAYED), abs=6e-11)
    p = momenta(*one(*POINT[:2], *POINT[3:]))[0]
    expected = [
        (215.02969243, 208.02043108, 24.69522516, 48.53261516),
        (33.11426, 22.00471, -24.69523, -1.57893),
        (188.53497, -178.08941, 36.07144, -50.28368),
        (63.32107, -51.93573, -36.07144, 3.32999810),
    ]
    assert p[2:] == pytest.approx(np.array(expected), abs=6e-6)


def test_all_arrays_of_the_reference_file(reference):
    point = (reference["sqrt_s"], reference["cos_theta"], reference["charge"])
    decay = [reference[f"decay_{k}"] for k in ("cos_W", "phi_W", "cos_Z", "phi_Z")]
    assert gram_production(*point) == pytest.approx(reference["gram_2to2"], rel=1e-8, abs=1e-8)
    assert gram_full(*point, *decay) == pytest.approx(reference["gram_full"], rel=1e-8, abs=1e-8)
    assert momenta(*point[:2], *decay) == pytest.approx(reference["momenta"], rel=1e-8, abs=1e-8)
    ours, theirs = helicity_amplitudes(*point), reference["helicity_amplitudes"]
    phase = (ours.conj() * theirs).sum(axis=(1, 2, 3), keepdims=True)
    scale = np.abs(theirs).max(axis=(1, 2, 3), keepdims=True)
    assert np.abs(ours * phase / np.abs(phase) - theirs).max() < 1e-8 * scale.max()
    assert (np.abs(ours * phase / np.abs(phase) - theirs) / scale).max() < 1e-8


def test_constants(reference):
    named = dict(zip(reference["constants_names"], reference["constants_values"], strict=True))
    ours = {
        "GF": model.G_FERMI,
        "MW": model.M_W,
        "MZ": model.M_Z,
        "g": model.G,
        "v": model.VEV,
        "sw2": model.SIN2_W,
        "x_v2_over_Lambda2": model.X,
        "w_Z_left": model.Z_LEFT,
    }
    for name, value in ours.items():
        assert value == pytest.approx(named[name], rel=1e-9), name


# --- high energies ---------------------------------------------------------------------------


def by_helicity(sqrt_s, cos_theta=0.3, charge=1):
    """Amplitudes by helicity 0, +, - of W and Z, shape (3, 3, 4)."""
    to_helicity = np.array(
        [[1, 0, 0], [0, -np.sqrt(0.5), 1j * np.sqrt(0.5)], [0, np.sqrt(0.5), 1j * np.sqrt(0.5)]]
    )
    tensor = helicity_amplitudes(*one(sqrt_s, cos_theta, charge))[0]
    return np.einsum("li,mj,ija->lma", to_helicity, to_helicity, tensor)


SIN = np.sqrt(1 - 0.3**2)


@pytest.mark.parametrize("charge", [1, -1])
def test_unitarity_fixes_the_sign_of_the_triple_gauge_coupling(charge):
    # Exchange diagrams are of order 261 each at 2 TeV and cancel to 1e-3 against W* -> WZ; with
    # the other sign of that diagram the sum grows with s. Quadratic tests cannot see the sign.
    asymptote = model.G**2 * SIN / (2 * np.sqrt(2))
    assert asymptote == pytest.approx(0.143737, abs=1e-6)
    assert abs(by_helicity(2000, charge=1)[0, 0, 0]) == pytest.approx(0.144255, abs=2e-6)
    errors = [abs(by_helicity(e, charge=charge)[0, 0, 0]) / asymptote - 1 for e in (4e3, 8e3)]
    assert abs(errors[0]) < 2e-3
    assert errors[1] / errors[0] == pytest.approx(0.25, abs=0.01)  # corrections of order m^2/s


def test_standard_model_helicities_fall_as_they_should():
    low, high = (np.abs(by_helicity(e)[..., 0]) for e in (4e3, 8e3))
    ratio = high / low
    for k in (1, 2):
        assert ratio[0, k] == pytest.approx(0.5, abs=0.01)
        assert ratio[k, 0] == pytest.approx(0.5, abs=0.01)
        assert ratio[k, k] == pytest.approx(0.25, abs=0.01)
    assert ratio[1, 2] == pytest.approx(1.0, abs=0.01)
    assert ratio[2, 1] == pytest.approx(1.0, abs=0.01)


def test_operators_grow_as_they_should():
    energy = 2000.0
    longitudinal = np.abs(by_helicity(energy)[0, 0])
    assert longitudinal[3] == pytest.approx(5.425, abs=1e-3)
    assert np.sqrt(2) * energy**2 * SIN / 1e6 == pytest.approx(5.396, abs=1e-3)
    transverse = np.abs(by_helicity(energy)[[1, 2], [1, 2], 2])
    assert transverse == pytest.approx([4.648, 4.648], abs=1e-3)
    growth = model.G**2 * model.COS_W * 1.5 * model.G * model.X
    asymptote = growth * energy**2 * SIN / (2 * np.sqrt(2) * model.M_W**2)
    assert asymptote == pytest.approx(4.657, abs=1e-3)
    for e in (4e3, 8e3):  # and it is reached
        assert abs(by_helicity(e)[0, 0, 3]) / (np.sqrt(2) * e**2 * SIN / 1e6) == pytest.approx(
            1, abs=6e-3 * (4e3 / e) ** 2
        )
    ratio = np.abs(by_helicity(8e3)[..., 1] / by_helicity(4e3)[..., 1])
    assert ratio[0, 0] == pytest.approx(1, abs=0.01)
    assert ratio[0, 1:] == pytest.approx([2, 2], abs=0.02)


# --- sums and symmetries ---------------------------------------------------------------------


def test_the_mean_over_decay_angles_is_the_sum_over_polarisations():
    # Products of the decay functions are polynomials of degree 2 in cos and harmonics of phi up
    # to 2: Gauss-Legendre with 3 nodes times 5 equal azimuths is exact.
    node, weight = np.polynomial.legendre.leggauss(3)
    phi = 2 * np.pi * np.arange(5) / 5
    grid = np.meshgrid(node, phi, node, phi, indexing="ij")
    weights = (weight[:, None, None, None] * weight[:, None] / 4 / 25) * np.ones(grid[0].shape)
    n = weights.size
    for s, c, q in ((300.0, -0.8, 1), (1500.0, 0.4, -1)):
        gram = gram_full(np.full(n, s), np.full(n, c), np.full(n, q), *(g.ravel() for g in grid))
        mean = np.einsum("n,nab->ab", weights.ravel(), gram)
        assert mean == pytest.approx(gram_production(*one(s, c, q))[0], rel=1e-10, abs=1e-12)


def random_points(rng, n):
    return (
        rng.uniform(180, 3000, n),
        rng.uniform(-1, 1, n),
        rng.choice([-1, 1], n),
        rng.uniform(-1, 1, n),
        rng.uniform(0, 2 * np.pi, n),
        rng.uniform(-1, 1, n),
        rng.uniform(0, 2 * np.pi, n),
    )


def test_gram_matrices_are_positive_with_two_helicities_of_rank_at_most_four(rng):
    gram = gram_full(*random_points(rng, 500))
    trace = np.trace(gram, axis1=1, axis2=2)
    assert (np.linalg.eigvalsh(gram)[:, 0] / trace).min() > -1e-12
    assert np.array_equal(gram, gram.transpose(0, 2, 1))


def test_no_decay_exceeds_the_bound_of_unweighting(rng):
    points = random_points(rng, 20_000)
    ratio = gram_full(*points)[:, 0, 0] / gram_production(*points[:3])[:, 0, 0]
    assert ratio.max() <= 9 * model.Z_LEFT
    assert ratio.max() > 4.5  # close to it: the bound is not slack
    assert pytest.approx(5.454, abs=1e-3) == 9 * model.Z_LEFT


def test_momenta_are_balanced_massless_and_on_shell(rng):
    points = random_points(rng, 300)
    p = momenta(points[0], points[1], *points[3:])
    assert p[:, :2].sum(axis=1) == pytest.approx(p[:, 2:].sum(axis=1), rel=1e-12, abs=1e-9)
    square = p[..., 0] ** 2 - (p[..., 1:] ** 2).sum(axis=-1)
    assert np.abs(square / p[..., 0] ** 2).max() < 1e-11
    for pair, mass in ((slice(2, 4), model.M_W), (slice(4, 6), model.M_Z)):
        total = p[:, pair].sum(axis=1)
        invariant = np.sqrt(total[:, 0] ** 2 - (total[:, 1:] ** 2).sum(axis=1))
        assert invariant == pytest.approx(np.full(300, mass), rel=1e-9)


def test_wrong_points_are_refused():
    for point, message in (
        ((171.0, 0.0, 1), r"sqrt_s = 171 GeV; accepted: above 171.557"),
        ((300.0, 1.1, 1), r"cos_theta = 1.1; accepted: -1 to 1"),
        ((300.0, float("nan"), 1), "cos_theta = nan"),
        ((300.0, 0.0, 2), "charge = 2"),
    ):
        with pytest.raises(ContractError, match=message):
            gram_production(*one(*point))
    with pytest.raises(ContractError, match="one shape"):
        gram_production(np.ones(3) * 300, np.ones(2), np.ones(3))
    with pytest.raises(ContractError, match="decay angle is -1.5"):
        gram_full(*one(300.0, 0.0, 1, -1.5, 0.0, 0.0, 0.0))
