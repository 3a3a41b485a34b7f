"""The table of a study: intervals in physical units, and where the prior cuts them."""

from __future__ import annotations

import numpy as np
import pytest

import sbi_physics as sp
from sbi_physics.study.table import summarize


def prior_of(distribution, **fields) -> sp.Prior:
    return sp.Prior([sp.Parameter("a", distribution, unit="neV", label="m_a", **fields)])


def test_the_table_gives_equal_tailed_intervals_in_physical_units():
    grid = np.linspace(0, 1, 100_001)[:, None]
    (row,) = summarize(grid * 4 + 3, prior_of(sp.Uniform(-100, 100)), np.array([4.0]))
    assert (row.name, row.unit, row.label, row.truth) == ("a", "neV", "m_a", 4.0)
    assert row.median == pytest.approx(5.0)
    assert row.interval_68 == pytest.approx((3.64, 6.36))
    assert row.interval_95 == pytest.approx((3.1, 6.9))
    assert row.edges == ()


@pytest.mark.parametrize(
    ("distribution", "mean", "sd", "edges"),
    [
        (sp.Uniform(-1, 1), 0.0, 0.1, ()),
        (sp.Uniform(-1, 1), 0.7, 0.1, ()),  # three standard deviations away
        (sp.Uniform(-1, 1), 0.9, 0.1, ("upper",)),
        (sp.Uniform(-1, 1), -0.9, 0.1, ("lower",)),
        (sp.Uniform(-1, 1), 0.0, 5.0, ("lower", "upper")),
        (sp.Normal(0, 1), 0.0, 1.0, ()),
    ],
)
def test_the_table_says_where_the_prior_cuts_the_posterior(distribution, mean, sd, edges):
    draws = np.random.default_rng(1).normal(mean, sd, 50_000)
    low, high = distribution.bounds
    inside = draws[(draws > low) & (draws < high)][:, None]
    assert summarize(inside, prior_of(distribution))[0].edges == edges


def test_edges_are_judged_in_the_scale_of_the_parameter():
    prior = prior_of(sp.LogUniform(1e-3, 1e3))
    draws = 10 ** np.random.default_rng(1).normal(0.0, 0.5, (50_000, 1))
    # On a linear scale 1e-3 would be next to everything.
    assert summarize(draws, prior)[0].edges == ()
    low = 10 ** np.random.default_rng(1).uniform(-3, -1, (50_000, 1))
    assert summarize(low, prior)[0].edges == ("lower",)
