from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest

from sbi_physics.comparison import Comparison, PairedDifference, RunRow
from sbi_physics.coverage import Coverage
from sbi_physics.diagnostics.information import Score
from sbi_physics.diagnostics.local import local_map
from sbi_physics.distributions import LogUniform, Normal, Uniform
from sbi_physics.errors import ContractError, UnknownNameError
from sbi_physics.observables import Observable
from sbi_physics.parameters import Parameter, ParameterSpace
from sbi_physics.plots import (
    DARK,
    LIGHT,
    compared_coverage_figure,
    corner_figure,
    coverage_figure,
    effect_figure,
    local_map_figure,
    local_overview_figure,
    loss_figure,
    observation_figure,
    png,
    pp_figure,
    rank_figure,
    recovery_figure,
    save,
    score_figure,
)
from sbi_physics.plots.corner import interval_text, mass_levels
from sbi_physics.plots.style import safe_label, unit_text
from sbi_physics.priors import Prior
from sbi_physics.training import TrainingHistory
from sbi_physics.validate_arrays import validate_draws

SPACE = ParameterSpace(
    [
        Parameter("m_a", LogUniform(1, 100), unit="neV", label="m_a"),
        Parameter("index", Normal(2.3, 0.3), label=r"\Gamma"),
    ]
)


def draws(n: int = 2000) -> np.ndarray:
    rng = np.random.default_rng(1)
    return np.stack([10 ** rng.uniform(0.4, 1.6, n), rng.normal(2.3, 0.02, n)], axis=1)


@pytest.fixture(scope="module")
def coverage() -> Coverage:
    rng = np.random.default_rng(2)
    prior = Prior([Parameter("a", Normal(0, 1), label=r"\alpha"), Parameter("b", Normal(0, 1))])
    theta = rng.standard_normal((300, 2))
    x = theta + 0.5 * rng.standard_normal((300, 2))
    mean = 0.8 * x[:, None] + 0.3
    samples = mean + np.sqrt(0.2) * rng.standard_normal((300, 99, 2))

    def density(points):
        return -0.5 * ((points - mean) ** 2 / 0.2).sum(axis=-1)

    return validate_draws(
        theta, samples, x=x, log_prob_true=density(theta[:, None])[:, 0],
        log_prob_draws=density(samples), prior=prior, blocks=[("a",)], rng=rng,
    )  # fmt: skip


def is_png(data: bytes) -> bool:
    return data.startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_every_figure_can_be_drawn_on_light_and_dark_pages(coverage, theme, tmp_path):
    history = TrainingHistory((3.0, 2.0), (3.1, 2.1), 1, 1.0, "converged")
    figures = [
        corner_figure(draws(), SPACE, truth={"m_a": 10.0}, theme=theme),
        rank_figure(coverage, theme=theme),
        coverage_figure(coverage, theme=theme),
        pp_figure(coverage, theme=theme),
        recovery_figure(coverage, theme=theme),
        loss_figure(history, theme=theme),
    ]
    for k, figure in enumerate(figures):
        assert mpl.colors.same_color(figure.get_facecolor(), theme.background)
        assert is_png(save(figure, tmp_path / f"{k}.png", dpi=50).read_bytes())


def test_the_figures_of_a_stored_record_equal_those_of_the_original(coverage, tmp_path):
    coverage.to_json(tmp_path / "coverage.json")
    again = Coverage.from_json(tmp_path / "coverage.json")
    for draw in (rank_figure, coverage_figure):
        assert png(draw(again), dpi=50) == png(draw(coverage), dpi=50)


def test_a_record_writes_its_figures(coverage, tmp_path):
    written = coverage.plot(tmp_path / "figures")
    assert [p.name for p in written] == [
        "ranks.png", "coverage.png", "pp.png", "recovery.png", "local.png",
    ]  # fmt: skip
    assert all(is_png(p.read_bytes()) for p in written)


@pytest.fixture(scope="module")
def with_tarp(coverage) -> Coverage:
    """As if references had been placed so that the balls are too large."""
    u = (np.arange(300) + 0.5) / 300
    return replace(coverage, pit={**coverage.pit, "tarp_u": u**2, "tarp_x": u, "pair:a,b": u})


def test_a_ball_whose_credibility_is_small_is_conservative(with_tarp):
    # ECP(level) = mean(u <= level) = sqrt(level) for u = v^2 with v uniform.
    np.testing.assert_allclose(with_tarp.credibility("tarp_u"), with_tarp.u("tarp_u"))
    assert with_tarp.ecp(0.25, "tarp_u")[0] == pytest.approx(0.5, abs=0.01)
    axes = rank_figure(with_tarp, ["tarp_u"]).axes[0]
    x, difference = axes.lines[0].get_data()
    np.testing.assert_allclose(difference, np.sqrt(x) - x, atol=0.01)
    assert any("conservative" in t.get_text() and t.get_position()[1] > 0.5 for t in axes.texts)


def test_a_density_whose_rank_is_small_is_over_confident(with_tarp):
    u = np.linspace(0.001, 0.999, 300) ** 2  # truths of low density: credibilities near one
    axes = rank_figure(replace(with_tarp, pit={"hpd": u}), ["hpd"]).axes[0]
    assert axes.lines[0].get_ydata().min() < -0.2
    assert any("over-confident" in t.get_text() and t.get_position()[1] < 0.5 for t in axes.texts)


def test_every_quantity_has_a_panel_and_every_region_a_curve(with_tarp):
    assert len(rank_figure(with_tarp).axes) == len(with_tarp.quantities) == 7
    (axes,) = coverage_figure(with_tarp).axes
    labels = [line.get_label() for line in axes.lines if not line.get_label().startswith("_")]
    assert len(labels) == 4
    assert sum("TARP" in label for label in labels) == 2
    (axes,) = pp_figure(with_tarp).axes
    labels = [line.get_label() for line in axes.lines if not line.get_label().startswith("_")]
    assert len(labels) == 3  # a, b and the pair


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_several_runs_can_be_drawn_side_by_side(coverage, with_tarp, theme):
    without_tarp = replace(coverage, pit={"hpd": coverage.pit["hpd"]})
    records = {
        "one": without_tarp,
        "two": with_tarp,
        "none": replace(coverage, pit={}, effects=()),
    }
    curves = compared_coverage_figure(records, "tarp_u", theme=theme).axes[0]
    assert [t for t in curves.get_legend_handles_labels()[1] if t in records] == ["two"]
    effects = effect_figure(records, "width", theme=theme)
    labels = effects.axes[0].get_legend_handles_labels()[1]
    assert set(labels) == {"inside the tolerance", "one", "two", "none"}
    assert [t.get_text() for t in effects.axes[0].get_yticklabels()] == ["a", "b"]
    assert is_png(png(effects, dpi=40))
    score = Score(mean=-0.5, standard_error=0.1, lower_99=-0.7, n=300)
    rows = [
        RunRow(n, "", "", ("a",), "PASS", (), 0.5, 0.5, 300, 99) for n in ("one", "two", "other")
    ]
    comparison = Comparison(
        tuple(rows),
        (
            PairedDifference("one", "two", score, "same pairs"),
            PairedDifference("one", "other", None, "not paired"),
            PairedDifference("two", "other", None, "not paired"),
        ),
    )
    axes = score_figure(comparison, "two", theme=theme).axes[0]
    (interval,) = [line for line in axes.lines if list(line.get_ydata()) == [0, 0]]
    assert list(interval.get_xdata()) == pytest.approx(list(score.interval))
    assert "not paired" in axes.texts[0].get_text()


def test_corner_axes_use_the_scale_units_and_bounds_of_the_parameters():
    figure = corner_figure(draws(), SPACE, truth={"m_a": 10.0, "index": 2.31, "other": 1.0})
    diagonal, contour, last = figure.axes
    assert diagonal.get_xscale() == contour.get_xscale() == "log"
    assert contour.get_yscale() == last.get_xscale() == "linear"
    # The first parameter fills its prior, the second a small part of an unbounded one.
    assert contour.get_xlim() == (1.0, 100.0)
    assert 2.1 < contour.get_ylim()[0] < contour.get_ylim()[1] < 2.5
    assert contour.get_xlabel() == "$m_a$ [neV]"
    assert "m_a" in diagonal.get_title()
    marks = [line.get_xdata()[0] for line in contour.lines if len(line.get_xdata()) == 1]
    assert marks == [10.0]


def test_pairs_with_draws_of_their_own_are_drawn_from_those():
    a, noise = np.random.default_rng(4).normal(0.0, 1.0, (2, 4000))
    together = np.stack([2.3 + 0.02 * (a + 0.1 * noise), 10 ** (1.0 + 0.1 * a)], axis=1)

    def paths(pairs):
        contour = corner_figure(draws(), SPACE, pairs=pairs).axes[1]
        return [p.vertices for c in contour.collections for p in c.get_paths() if len(p.vertices)]

    def tilt(vertices):
        points = np.concatenate(vertices)
        return np.corrcoef(np.log10(points[:, 0]), points[:, 1])[0, 1]

    # Named in the other order: columns follow the names. Vertices of a level line around
    # independent draws are hardly correlated, those around a narrow ridge are.
    assert tilt(paths({("index", "m_a"): together})) > 0.5
    plain, other = paths(None), paths({("index",): together[:, :1]})
    assert abs(tilt(plain)) < 0.5
    assert all(np.array_equal(a, b) for a, b in zip(plain, other, strict=True))
    with pytest.raises(ContractError, match=r"draws of index, m_a have shape \(4000, 1\)"):
        paths({("index", "m_a"): together[:, :1]})


def test_contours_hold_the_mass_they_say():
    x = np.linspace(-5, 5, 401)
    density = np.exp(-0.5 * (x[:, None] ** 2 + x[None, :] ** 2))
    levels = mass_levels(density, (0.68, 0.95))
    assert levels == sorted(levels)
    for level, mass in zip(levels, (0.95, 0.68), strict=True):
        assert density[density >= level].sum() / density.sum() == pytest.approx(mass, abs=2e-3)
        # For a normal density the level is exp(-r^2 / 2) = 1 - mass.
        assert level == pytest.approx(1 - mass, abs=5e-3)


def test_strange_posteriors_can_be_drawn():
    constant = np.column_stack([np.full(50, 3.0), np.full(50, 2.3)])
    two_points = np.tile([[1.0, 2.0], [100.0, 2.6]], (20, 1))
    for points in (constant, two_points, draws(3)):
        assert is_png(png(corner_figure(points, SPACE), dpi=40))
    assert is_png(png(corner_figure(draws()[:, :1], SPACE.select(["m_a"])), dpi=40))


@pytest.mark.parametrize("bad", [np.zeros((5, 3)), np.zeros(5), np.full((5, 2), np.nan)])
def test_draws_that_do_not_fit_are_refused(bad):
    with pytest.raises(ContractError, match="draws"):
        corner_figure(bad, SPACE)


@pytest.mark.parametrize(
    ("observable", "x"),
    [
        (Observable("vector", (3,), names=("a", "b", "c")), [1.0, 2.0, 3.0]),
        (Observable("spectrum", (4,), edges=(1, 10, 100, 1000, 10000)), [900.0, 80.0, 5.0, 0.0]),
        (Observable("spectrum", (2, 3), names=("on", "off")), [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),
        (Observable("image", (4, 4)), np.arange(16.0).reshape(4, 4)),
        (Observable("set", (5, 3)), np.tile([[1.0, 2.0, 1.0]], (5, 1))),
        (Observable("set", (5, 3)), np.zeros((5, 3))),
    ],
)
def test_observations_of_every_kind_can_be_drawn(observable, x):
    assert is_png(png(observation_figure(observable, x), dpi=40))
    predictive = np.repeat(np.asarray(x)[None], 5, axis=0)
    assert is_png(png(observation_figure(observable, x, predictive=predictive), dpi=40))


def test_a_logarithmic_spectrum_has_logarithmic_axes():
    observable = Observable("spectrum", (4,), edges=(1, 10, 100, 1000, 10000), edge_unit="GeV")
    axes = observation_figure(observable, [900.0, 80.0, 5.0, 1.0]).axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.get_xlabel() == "bin [GeV]"
    linear = Observable("spectrum", (3,), edges=(1, 2, 3, 4))
    assert observation_figure(linear, [1.0, 2.0, 3.0]).axes[0].get_xscale() == "linear"


def test_an_ensemble_shows_every_member():
    one = TrainingHistory((3.0, 2.0, 1.5), (3.1, 2.1, 1.8), 2, 1.0, "converged")
    axes = loss_figure(TrainingHistory.of_ensemble([one, one, one])).axes[0]
    assert len(axes.lines) == 9
    assert "3 networks" in axes.get_ylabel()


def test_labels_that_mathtext_cannot_draw_fall_back_to_the_name():
    good = Parameter("g", Uniform(0, 1), unit="1e-11 GeV-1", label=r"g_{a\gamma}")
    assert safe_label(good) == r"$g_{a\gamma}$ [$10^{-11}$ GeV$^{-1}$]"
    assert safe_label(Parameter("g", Uniform(0, 1), label=r"\nosuchcommand{x}")) == "g"
    assert unit_text("uG") == "µG"
    assert unit_text("erg cm-2 s-1") == "erg cm$^{-2}$ s$^{-1}$"


def test_intervals_have_the_digits_their_error_justifies():
    assert interval_text(1.2345, 1.1345, 1.4345) == "$1.23^{+0.20}_{-0.10}$"
    assert interval_text(3.2e-9, 2.2e-9, 5.2e-9) == r"$3.2^{+2.0}_{-1.0}\times10^{-9}$"
    assert interval_text(5.0, 5.0, 5.0) == "$5$"


def test_drawing_changes_no_global_setting_and_never_imports_pyplot():
    code = (
        "import sys, numpy as np, matplotlib as mpl; before = dict(mpl.rcParams)\n"
        "from sbi_physics.plots import corner_figure, png\n"
        "from sbi_physics.parameters import Parameter\n"
        "from sbi_physics.distributions import Uniform\n"
        "assert png(corner_figure(np.random.default_rng(1).random((50, 1)),"
        " [Parameter('a', Uniform(0, 1))]))\n"
        "assert dict(mpl.rcParams) == before\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_the_plots_does_not_import_matplotlib():
    code = (
        "import sys, sbi_physics.plots, sbi_physics.coverage, sbi_physics.report\n"
        "assert 'matplotlib' not in sys.modules and 'jinja2' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_overview_of_the_local_map_shows_every_tested_cell_and_marks_those_that_deviate():
    rng = np.random.default_rng(6)
    x = rng.standard_normal((1000, 2))
    pit = {"sbc:a": rng.random(1000), "hpd": np.where(x[:, 0] > 0, 0.5, 1) * rng.random(1000)}
    local = local_map(pit, x, parameters={"a": rng.standard_normal(1000)})
    for theme in (LIGHT, DARK):
        axes, bar = local_overview_figure(local, theme=theme).axes
        shown = np.asarray(axes.images[0].get_array())
        # Two rows; two features of five bins with a gap between them; parameters are not tested.
        assert shown.shape == (2, 11)
        assert np.isnan(shown[:, 5]).all()
        assert [t.get_text() for t in axes.get_yticklabels()] == ["sbc:a", "hpd"]
        cell = local.select("hpd", "feature_2")[1]
        assert shown[1, 7] == pytest.approx(cell.coverage[0] - 0.683)
        marks = {tuple(p) for p in axes.lines[0].get_xydata()}
        expected = {
            (6 * f + k, r)
            for r, q in enumerate(local.quantities)
            for f, name in enumerate(("feature_1", "feature_2"))
            for k, c in enumerate(local.select(q, name))
            if c.p_holm < 0.01
        }
        assert marks == expected
        assert {(3, 1), (4, 1)} <= marks
        assert "coverage" in bar.get_ylabel()
    assert len(local_map_figure(local, "hpd").axes) == 3
    with pytest.raises(UnknownNameError, match="hpt.*hpd"):
        local_map_figure(local, "hpt")
    with pytest.raises(UnknownNameError, match="wide.*width"):
        local_map_figure(local, "hpd", effect="wide")
