"""Calibration maps in bins of the data."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from scipy import special

from sbi_physics.diagnostics.local import MIN_CELL, LocalMap, local_map
from sbi_physics.diagnostics.uniformity import anderson_darling
from sbi_physics.errors import ValidationError


def ranks(rng, n, width=1.0, location=0.0):
    """u of a truth `width` times as spread as claimed and `location` claimed sd off."""
    return np.clip(special.ndtr(location + width * rng.standard_normal(n)), 1e-9, 1 - 1e-9)


def null_maps(n_maps, seed=1):
    rng = np.random.default_rng(seed)
    for _ in range(n_maps):
        u = {"sbc:a": rng.uniform(size=400), "hpd": rng.uniform(size=400)}
        yield local_map(u, rng.normal(size=(400, 3)))


def test_an_exact_posterior_is_flagged_anywhere_at_the_stated_rate_at_most():
    p = np.array([m.p_global for m in null_maps(200)])
    # Upper ends of the central 99.9 % of Binomial(200, 0.05) and Binomial(200, 0.01); Holm may
    # only be more careful, and with independent cells hardly is.
    assert 2 <= np.sum(p < 0.05) <= 21
    assert np.sum(p < 0.01) <= 8


def test_all_intervals_of_a_map_hold_together():
    missed = 0
    for m in null_maps(200, seed=2):
        truth = {"location": 0.0, "width": 1.0, "coverage": 0.683}
        missed += any(
            not getattr(c, kind)[1] <= value <= getattr(c, kind)[2]
            for c in m.cells
            for kind, value in truth.items()
        )
    # Confidence 95 %: at most the upper end of the central 99.9 % of Binomial(200, 0.05).
    assert missed <= 21


def test_errors_that_cancel_on_average_are_found_where_they_are():
    rng = np.random.default_rng(3)
    x = rng.normal(size=2000)
    u = np.where(x > 0, ranks(rng, 2000, width=1.33), ranks(rng, 2000, width=0.75))
    other = rng.normal(size=2000)
    found = local_map({"sbc:a": u}, {"x": x, "other": other})
    flagged = found.deviating()
    assert {c.feature for c in flagged} == {"x"}
    cells = found.select("sbc:a", "x")
    assert [c.width[0] > 1 for c in cells[:2]] == [False, False]
    assert [c.width[0] > 1 for c in cells[-2:]] == [True, True]
    # Interval of the outer bins (400 pairs each) excludes one and holds the planted width.
    for cell, width in ((cells[0], 0.75), (cells[-1], 1.33)):
        assert cell.width[1] <= width <= cell.width[2]
        assert not cell.width[1] <= 1.0 <= cell.width[2]
    assert cells[0].coverage[0] > 0.683 > cells[-1].coverage[0]


def test_a_bias_shows_as_a_location_with_its_sign():
    rng = np.random.default_rng(4)
    x = rng.normal(size=2000)
    u = ranks(rng, 2000, location=np.where(x > 0, 0.4, -0.4))
    assert anderson_darling(u)[1] > 1e-4
    cells = local_map({"sbc:a": u}, {"x": x}).select("sbc:a", "x")
    assert cells[0].location[2] < 0 < cells[-1].location[1]


def test_regions_count_high_densities_and_parameters_central_intervals():
    rng = np.random.default_rng(5)
    u = rng.uniform(0.0001, 0.3, size=200)
    x = np.arange(200.0)
    found = local_map({"hpd": u, "sbc:a": u}, {"x": x}, bins=1)
    region, parameter = found.cells
    assert region.coverage[0] == np.mean(1 - u <= 0.683)
    assert parameter.coverage[0] == np.mean(np.abs(2 * u - 1) <= 0.683)


def test_bins_of_true_parameters_are_shown_but_not_tested():
    rng = np.random.default_rng(6)
    theta, u = rng.normal(size=1000), rng.uniform(size=1000)
    wild = np.clip(special.ndtr(2 * theta), 1e-9, 1 - 1e-9)
    found = local_map({"sbc:a": wild}, {"x": u}, parameters={"a": theta})
    shown = found.select("sbc:a", "a")
    assert len(shown) == 5
    assert all(np.isnan(c.p_value) and np.isnan(c.p_holm) and not c.tested for c in shown)
    assert found.n_tests == 5


def test_repeated_values_share_a_bin_and_constants_are_left_out():
    rng = np.random.default_rng(7)
    counts = rng.integers(0, 3, 600).astype(float)
    found = local_map({"hpd": rng.uniform(size=600)}, {"n": counts, "c": np.ones(600)})
    cells = found.select("hpd", "n")
    assert sum(c.n for c in cells) == 600
    assert all(a.high == b.low for a, b in itertools.pairwise(cells))
    assert found.constant == ("c",)


def test_missing_ranks_and_small_bins_are_left_out():
    rng = np.random.default_rng(8)
    x, u = np.arange(100.0), rng.uniform(size=100)
    u[x < 40] = np.nan
    cells = local_map({"hpd": u}, {"x": x}, bins=3).cells
    assert [c.n for c in cells] == [26, 34]
    assert min(c.n for c in cells) >= MIN_CELL
    with pytest.raises(ValidationError, match="no bin of the data has 20 pairs"):
        local_map({"hpd": u}, {"x": x}, bins=20)


def test_a_coverage_record_is_accepted_and_agrees_with_its_own_test():
    from sbi_physics.progress import SILENT
    from sbi_physics.simulate import simulate
    from sbi_physics.testing import ToyGaussian
    from sbi_physics.validate import validate

    toy = ToyGaussian(noise=0.5)
    pairs = simulate(toy, 300, seed=1, purpose="pairs", progress=SILENT)
    coverage = validate(toy.reference_posterior(), pairs, n_draws=99, seed=1, progress=SILENT)
    features = pairs.observable.fit_transform(pairs.x).features(pairs.x)
    whole = local_map(coverage, features, bins=1)
    cell = whole.select("hpd", "feature_1")[0]
    assert cell.p_value == next(t.p_value for t in coverage.tests if t.name == "hpd")
    assert local_map(coverage, features).p_global > 0.01


def test_the_record_survives_json(tmp_path):
    rng = np.random.default_rng(9)
    u = {"sbc:a": rng.uniform(size=200)}
    found = local_map(u, {"x": rng.normal(size=200)}, parameters={"a": rng.normal(size=200)})
    text = found.to_json(tmp_path / "map.json")
    again = LocalMap.from_dict(json.loads((tmp_path / "map.json").read_text()))
    assert again.to_json() == text
    assert again.cells[0] == found.cells[0]
    with pytest.raises(ValidationError, match="schema 99"):
        LocalMap.from_dict({"schema": 99})
    assert "cells deviate" in found.summary()


@pytest.mark.parametrize(
    ("u", "features", "options", "message"),
    [
        ({"a": [0.5] * 50}, np.zeros((40, 1)), {}, r"shape \(40,\), the ranks are those of 50"),
        ({"a": [0.5] * 50}, np.zeros(50), {}, r"features must have shape \(pairs, feature\)"),
        ({"a": [0.5] * 50}, {"x": [np.nan] * 50}, {}, "x is not finite at pair 0"),
        ({"a": [0.5] * 49 + [1.5]}, {"x": range(50)}, {}, "a has 1.5 at pair 49"),
        ({"a": [0.5] * 50, "b": [0.5]}, {"x": range(50)}, {}, "one shape"),
        ({}, {"x": range(50)}, {}, "at least one ranked quantity"),
        ({"a": [0.5] * 50}, {"x": range(50)}, {"bins": 0}, "bins >= 1"),
        ({"a": [0.5] * 50}, {"x": range(50)}, {"confidence": 1.0}, "confidence < 1"),
        ({"a": [0.5] * 50}, np.zeros((50, 2)), {"names": ("x",)}, r"shape \(pairs, 1\)"),
    ],
)
def test_bad_input_is_refused_with_its_value(u, features, options, message):
    with pytest.raises(ValidationError, match=message):
        local_map(u, features, **options)


def test_the_figure_shows_every_cell_and_marks_those_that_deviate():
    from sbi_physics.errors import UnknownNameError
    from sbi_physics.plots import LIGHT, local_map_figure

    rng = np.random.default_rng(10)
    x = rng.normal(size=1500)
    u = {"sbc:a": np.where(x > 0, ranks(rng, 1500, width=1.5), ranks(rng, 1500))}
    found = local_map(u, {"x": x}, parameters={"a": rng.normal(size=1500)})
    figure = local_map_figure(found, "sbc:a")
    assert len(figure.axes) == 2
    markers = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert len(markers) == 5
    assert [m.get_color() == LIGHT.truth for m in markers] == [
        c.p_holm < 0.01 for c in found.select("sbc:a", "x")
    ]
    assert any(m.get_color() == LIGHT.truth for m in markers)
    hollow = [line for line in figure.axes[1].lines if line.get_marker() == "o"]
    assert {m.get_markerfacecolor() for m in hollow} == {LIGHT.background}
    with pytest.raises(UnknownNameError, match="sbc:a"):
        local_map_figure(found, "sbc:b")
    with pytest.raises(UnknownNameError, match="width"):
        local_map_figure(found, "sbc:a", effect="with")
