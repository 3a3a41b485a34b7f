"""Contours and limits of mass and coupling, against closed forms; published curves."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from sbi_physics_alp.exclusion_plot import exclusion_figure
from sbi_physics_alp.limits import ExpectedLimits, MassCouplingMap
from sbi_physics_alp.published import read_limit, read_limits
from scipy.stats import norm

from sbi_physics import LogUniform, Observable, Parameter, Posterior, Prior, Uniform
from sbi_physics.errors import ContractError, DataFileError, ObservationError
from sbi_physics.posterior import PosteriorContext

# A Gaussian in log10 m (eV) and log10 g (GeV^-1) with correlation.
MEAN, SD, RHO = np.array([-7.5, -11.0]), np.array([0.3, 0.2]), 0.6
EDGES = {"log10_m_ev": np.linspace(-9, -6, 61), "log10_g": np.linspace(-12, -10, 81)}


@pytest.fixture(scope="module")
def draws():
    rng = np.random.default_rng(1)
    covariance = np.outer(SD, SD) * np.array([[1.0, RHO], [RHO, 1.0]])
    x, y = rng.multivariate_normal(MEAN, covariance, size=400_000).T
    return 10 ** (x + 9.0), 10 ** (y + 11.0)  # neV, 1e-11 GeV^-1


@pytest.fixture(scope="module")
def gaussian(draws):
    return MassCouplingMap.from_draws(*draws, **EDGES)


@pytest.mark.parametrize("level", [0.5, 0.68, 0.95])
def test_highest_density_regions_have_the_area_of_the_ellipse(gaussian, level):
    inside = gaussian.highest_density(level)
    cell = 0.05 * 0.025
    area = inside.sum() * cell
    ellipse = -2.0 * np.log1p(-level) * np.pi * np.prod(SD) * np.sqrt(1.0 - RHO**2)
    # The edge of the region crosses about one cell in eight.
    assert area == pytest.approx(ellipse, rel=0.04)
    assert gaussian.mass[inside].sum() == pytest.approx(level, abs=0.005)


def test_limits_are_conditional_quantiles(gaussian):
    found = np.log10(gaussian.upper_limits(0.95))
    m = np.log10(gaussian.m_ev)
    near = np.abs(m - MEAN[0]) < 1.5 * SD[0]
    slope = RHO * SD[1] / SD[0]
    expected = MEAN[1] + slope * (m - MEAN[0]) + norm.ppf(0.95) * SD[1] * np.sqrt(1 - RHO**2)
    np.testing.assert_allclose(found[near], expected[near], atol=0.015)
    assert np.isnan(found[0])  # no draws that far out


def test_a_flat_prior_of_the_coupling_shifts_a_log_normal_by_its_variance(draws):
    flat = MassCouplingMap.from_draws(*draws, flat_in_g=True, **EDGES)
    # Weighting a log-normal by its value moves ln g by its variance.
    centre = 0.5 * (EDGES["log10_g"][1:] + EDGES["log10_g"][:-1])
    mean = float(flat.mass.sum(axis=0) @ centre)
    assert mean == pytest.approx(MEAN[1] + np.log(10) * SD[1] ** 2, abs=0.005)


def test_weights_are_those_of_the_draws(draws, gaussian):
    m, g = draws
    twice = MassCouplingMap.from_draws(m, g, weights=np.full(m.size, 2.0), **EDGES)
    np.testing.assert_allclose(twice.mass, gaussian.mass)
    np.testing.assert_allclose(twice.draws, gaussian.draws)


class _Gaussian(Posterior):
    """A posterior with the density of the Gaussian, per neV and 1e-11 GeV^-1."""

    def __init__(self, **others):
        distributions = {"g": LogUniform(0.1, 10.0), "m_a": LogUniform(1.0, 1000.0), **others}
        parameters = [Parameter(name, d) for name, d in distributions.items() if d is not None]
        super().__init__(
            PosteriorContext("test", Prior(parameters), Observable(kind="vector", shape=(3,)))
        )

    def _log_prob_at(self, theta, x):
        log_g, log_m = np.log10(theta[..., 0]) - 11.0, np.log10(theta[..., 1]) - 9.0
        u, v = (log_m - MEAN[0]) / SD[0], (log_g - MEAN[1]) / SD[1]
        q = (u * u + v * v - 2 * RHO * u * v) / (1 - RHO**2)
        return -0.5 * q - np.log(theta[..., 0] * theta[..., 1])

    def _draw(self, x, n, rng, log_prob, at):
        raise AssertionError("a density needs no draws")


def test_the_map_of_a_density_is_that_of_its_draws(gaussian):
    found = MassCouplingMap.from_posterior(_Gaussian(), np.zeros(3), n_m=60, n_g=80)
    np.testing.assert_allclose(found.log10_m_ev[[0, -1]], [-9.0, -6.0])
    np.testing.assert_allclose(found.log10_g[[0, -1]], [-12.0, -10.0])
    # 400 000 draws; the density at the middle of a bin is its mean to one percent.
    error = np.sqrt(found.mass / 4e5)
    assert (np.abs(found.mass - gaussian.mass) < 5.0 * error + 0.01 * found.mass + 1e-5).all()
    a, b = (np.log10(m.upper_limits()) for m in (found, gaussian))
    near = np.abs(np.log10(found.m_ev) - MEAN[0]) < 0.4
    np.testing.assert_allclose(a[near], b[near], atol=0.02)


def test_wrong_input_is_refused():
    with pytest.raises(ContractError, match="no draw lies on the grid; check its edges, in eV"):
        MassCouplingMap.from_draws([1e9], [1.0], **EDGES)
    grid = MassCouplingMap.from_draws([30.0], [1.0], **EDGES)
    with pytest.raises(ContractError, match="between 0 and 1; got 95"):
        grid.upper_limits(95)
    without = _Gaussian(g=None, index=Uniform(1.0, 4.0))
    with pytest.raises(ContractError, match="of m_a, index; a map needs m_a and g, and g is not"):
        MassCouplingMap.from_posterior(without, np.zeros(3))
    with pytest.raises(ObservationError, match=r"of one observation; got 2, of shape \(3,\) each"):
        MassCouplingMap.from_posterior(_Gaussian(), np.zeros((2, 3)))
    with pytest.raises(ContractError, match="n_g is 0; accepted is a number from 1"):
        MassCouplingMap.from_posterior(_Gaussian(), np.zeros(3), n_g=0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"g11": [1.0, 2.0]}, r"must have one shape \(n,\); they have \(1,\), \(2,\) and \(1,\)"),
        ({"weights": [1.0, 2.0]}, "must have one shape"),
        ({"m_nev": [[30.0]], "g11": [[1.0]]}, r"must have one shape \(n,\)"),
        ({"m_nev": [0.0]}, "masses must be positive, couplings and weights not negative"),
        ({"g11": [np.nan]}, "couplings and weights not negative"),
        ({"log10_g": 80}, "log10_g must be the edges of bins, .* increasing numbers; got 80"),
        ({"log10_m_ev": EDGES["log10_m_ev"][::-1]}, r"log10_m_ev must be .* got shape \(61,\)"),
        ({"log10_m_ev": [-9.0]}, r"at least two increasing numbers; got shape \(1,\)"),
    ],
)
def test_draws_and_edges_that_fit_no_map_are_refused(values, message):
    with pytest.raises(ContractError, match=message):
        MassCouplingMap.from_draws(**{"m_nev": [30.0], "g11": [1.0], **EDGES, **values})


def test_whole_numbers_are_edges_too():
    found = MassCouplingMap.from_draws([30.0], [1.0], log10_m_ev=[-9, -7], log10_g=[-12, -11, -10])
    np.testing.assert_array_equal(found.mass, [[0.0, 1.0]])


def test_bands_of_expected_limits_are_quantiles():
    toys = np.linspace(1.0, 2.0, 1001)[:, None] * np.array([1e-11, 2e-11])
    bands = ExpectedLimits(np.array([1e-9, 1e-8]), toys, 0.95).bands()
    np.testing.assert_allclose(bands["median"], [1.5e-11, 3e-11])
    np.testing.assert_allclose(bands["low68"], [1.16e-11, 2.32e-11])
    np.testing.assert_allclose(bands["high95"], [1.975e-11, 3.95e-11])


# Published curves ----------------------------------------------------------------------------


@pytest.fixture
def limits():
    folder = os.environ.get("SBI_PHYSICS_TEST_DATA")
    if not folder or not (Path(folder) / "limits").is_dir():
        pytest.skip("SBI_PHYSICS_TEST_DATA (folder of the reference data) is not set")
    return read_limits(Path(folder) / "limits")


@pytest.mark.parametrize(
    ("name", "lowest", "at_nev", "low_nev", "high_nev"),
    [
        ("fermi_lat_ngc1275", 4.7e-12, 0.6, 0.31, 33.4),
        ("magic_perseus", 3.1e-12, 46.0, 43.0, 450.0),
        ("hess_pks2155_cluster", 2.1e-11, 31.0, 12.0, 114.0),
        ("hess_pks2155_igmf", 4.9e-11, 1.3, 0.34, 6.7),
        ("cta_ngc1275_projection", 8e-13, 17.0, 2.36, 59.0),
    ],
)
def test_published_curves_have_their_published_reach(
    limits, name, lowest, at_nev, low_nev, high_nev
):
    limit = limits[name]
    m, g = limit.lowest()
    assert g == pytest.approx(lowest, rel=0.03)
    assert m * 1e9 == pytest.approx(at_nev, rel=0.06)
    assert limit.m_ev.min() * 1e9 == pytest.approx(low_nev, rel=0.05)
    assert limit.m_ev.max() * 1e9 == pytest.approx(high_nev, rel=0.03)
    assert "arXiv" in limit.comment or "CTA" in limit.comment


def test_fermi_excludes_what_its_abstract_says(limits):
    # arXiv:1603.06978: couplings above 5e-12 GeV^-1 for 0.5 - 5 neV, except for the hole.
    fermi, hole = limits["fermi_lat_ngc1275"], limits["fermi_lat_ngc1275_hole"]
    assert fermi.is_region
    m = np.array([0.6, 1.0, 2.0, 4.0]) * 1e-9
    assert fermi.excludes(m, 7e-12).all()
    assert not fermi.excludes(m, 3e-12).any()
    assert not fermi.excludes([1e-12, 1e-6], 1e-11).any()
    assert hole.is_region


def test_a_curve_excludes_what_is_above_it(limits):
    cast = limits["cast_plateau"]
    assert not cast.is_region
    assert cast.excludes(1e-9, 7e-11)
    assert not cast.excludes(1e-9, 6e-11)


def test_files_with_tabs_commas_and_comments_are_read(tmp_path):
    path = tmp_path / "Some_Limit.txt"
    path.write_text("# from arXiv:0000.00000\n1e-9\t2e-11 # here\n\n2e-9, 3e-11\n")
    limit = read_limit(path)
    assert (limit.name, limit.comment) == ("Some_Limit", "from arXiv:0000.00000")
    np.testing.assert_array_equal(limit.g, [2e-11, 3e-11])
    path.write_text("1e-9 abc\n")
    with pytest.raises(ObservationError, match="not a table of numbers"):
        read_limit(path)
    path.write_bytes("1e-9 2e-11 # arXiv, région exclue\n".encode("latin-1"))
    with pytest.raises(ObservationError, match=r"Some_Limit.txt is not a text file in UTF-8"):
        read_limit(path)
    path.write_text("1e-9 -1\n")
    with pytest.raises(ObservationError, match="two columns of positive numbers"):
        read_limit(path)
    with pytest.raises(DataFileError, match="there is no file"):
        read_limit(tmp_path / "none.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataFileError, match="AxionLimits"):
        read_limits(tmp_path / "empty")


def test_the_figure_has_the_axes_of_the_field(gaussian, tmp_path):
    path = tmp_path / "Some_Limit.txt"
    path.write_text("1e-9 2e-11\n1e-7 3e-11\n")
    region = tmp_path / "Some_Region.txt"
    region.write_text("1e-9 2e-11\n1e-7 3e-11\n5e-8 9e-11\n")
    elsewhere = tmp_path / "Elsewhere.txt"
    elsewhere.write_text("1e-13 2e-11\n1e-12 3e-11\n")
    expected = ExpectedLimits(gaussian.m_ev, np.full((9, 60), 1e-11), 0.95)
    figure = exclusion_figure(
        gaussian,
        published=[read_limit(path), read_limit(region), read_limit(elsewhere)],
        expected=expected,
        limit_level=0.95,
        truth=(30.0, 1.0),
    )
    (axes,) = figure.axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert "eV" in axes.get_xlabel()
    assert "GeV$^{-1}$" in axes.get_ylabel()
    labels = [t.get_text() for t in axes.get_legend().get_texts()]
    assert {"Some Limit", "Some Region", "truth", "expected 95% limit"} <= set(labels)
    assert {"posterior, 68%, 95%", "95% limit given the mass"} <= set(labels)
    assert "Elsewhere" not in labels
    assert axes.get_xlim() == pytest.approx((1e-9, 1e-6))
    figure.savefig(tmp_path / "plane.png")
