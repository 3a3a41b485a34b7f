"""Ensembles' pulls, reconstructed events against a histogram, coverage of regions: small studies.

Full tables: `benchmarks/bench_smeft_pulls.py`, `bench_smeft_reco.py`, `bench_smeft_coverage.py`.
"""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

from sbi_physics_smeft.engines.derivative import DerivativeEngine
from sbi_physics_smeft.engines.pull_study import pull_study
from sbi_physics_smeft.samples import ReferenceSample
from sbi_physics_smeft.smeft_toy import SmeftToy
from sbi_physics_smeft.smeft_wz import SmeftWz

import sbi_physics as sp
from sbi_physics import Uniform
from sbi_physics.likelihood import LikelihoodRatio, run_toys, separation
from sbi_physics.progress import SILENT

pytestmark = [pytest.mark.slow, pytest.mark.engine]

FAR_POINTS = (
    (0.0, 0.0, 0.0), (3.0, 0.0, 0.0), (-3.0, 0.0, 0.0), (0.0, 0.5, 0.0), (0.0, -0.5, 0.0),
    (0.0, 0.0, 0.5), (0.0, 0.0, -0.5), (3.0, 0.5, 0.0), (3.0, 0.0, 0.5), (0.0, 0.5, 0.5),
)  # fmt: skip
EDGES = np.log([150.0, 200, 250, 300, 350, 400, 500, 600, 700, 850, 1000, 1250, 1500, 2000])


@pytest.fixture(autouse=True)
def _this_plugin(monkeypatch):
    monkeypatch.setenv("SBI_PHYSICS_PLUGINS", "smeft")


@functools.cache
def pulls(members_from):
    settings = {
        "members": 20, "members_from": members_from, "max_epochs": 15, "batch_size": 512,
        "hidden_features": 32, "hidden_layers": 2,
    }  # fmt: skip
    toy = SmeftToy(alpha=2.0, proposal="mixture")
    return pull_study(toy, DerivativeEngine(), settings, [1.0], n_events=5000, replicas=8, seed=3)


def test_repulsive_ensembles_claim_too_little():
    width, error = pulls("repulsion").width
    assert width - 3 * error > pulls("repulsion").ideal_width


def test_bootstrap_ensembles_have_narrower_pulls_than_repulsive_ones():
    (near, e1), (far, e2) = pulls("bootstrap").width, pulls("repulsion").width
    assert far - near > 3 * np.hypot(e1, e2)


@functools.cache
def reconstructed():
    """Sample, learned matrices and those of the histogram, from as many events."""
    wz = SmeftWz(proposal="mixture", mixture_points=FAR_POINTS)
    sample = ReferenceSample.draw(wz, 60_000, np.random.default_rng(99))
    train = sp.simulate(wz, 60_000, seed=1, progress=SILENT)
    settings = {"loss": "cross-entropy", "max_epochs": 40, "hidden_features": 96}
    learned = DerivativeEngine().train(train, settings, seed=1).coefficients(sample.x)
    templates = ReferenceSample.draw(wz, 60_000, np.random.default_rng(1))
    means = templates.binned(wz.summary_statistics(templates.x)[:, 0], EDGES)
    binned = means[np.digitize(wz.summary_statistics(sample.x)[:, 0], EDGES)]
    return sample, learned, binned


@pytest.mark.parametrize(
    ("name", "value"), [("C_HWB", 0.13), ("C_W", 0.036), ("C_Hq3", 0.011)], ids=str
)
def test_learned_ratios_beat_the_histogram_of_the_transverse_mass(name, value):
    sample, learned, binned = reconstructed()
    # About the 95 % limits: both statistics by their own law, on the same bootstrap samples.
    points = np.zeros((2, 3))
    points[:, sample.simulator.parameters.index(name)] = value, -value
    z = [
        separation(
            LikelihoodRatio(sample.model(events)),
            sample.pool(events),
            np.zeros(3),
            points,
            resamples=100,
            seed=1,
        ).sum(axis=1)
        for events in (learned, binned)
    ]
    gain = z[0] - z[1]
    assert gain[0] > 3 * gain[1:].std(ddof=1)


def test_regions_of_wz_coefficients_cover_with_the_exact_ratio():
    wz = SmeftWz(
        level="parton", label_level="production", luminosity=3.0,
        proposal="mixture", mixture_points=FAR_POINTS,
    )  # fmt: skip
    sample = ReferenceSample.draw(wz, 250_000, np.random.default_rng(5))
    wide = [replace(p, distribution=Uniform(-0.4, 0.4)) for p in wz.parameters]
    likelihood = LikelihoodRatio(sample.model(prior=sp.Prior(wide)))
    # C_Hq3 has a linear term, so that Wilks' theorem holds for it; the others are held.
    point, n = np.array([[0.0, 0.0, 0.02]]), 400
    pool, held = sample.pool(prior=sp.Prior(wide)), {"C_HWB": 0.0, "C_W": 0.0}
    toys = run_toys(likelihood, pool, point, held=held, n_toys=n, seed=1)
    assert np.abs(toys.best).max() < 0.4
    levels = np.array([0.683, 0.954])
    covered = toys.coverage(levels.tolist()).coverage[0]
    assert (np.abs(covered - levels) < 4 * np.sqrt(levels * (1 - levels) / n)).all()
