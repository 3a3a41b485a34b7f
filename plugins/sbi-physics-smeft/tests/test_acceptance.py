"""Errors of learned log ratios on the toy at full size, against acceptance bands.

The bands were set from an independent implementation with the same number of events, networks and
epochs; `benchmarks/bench_smeft_toy.py` prints the whole table.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest

pytest.importorskip("torch")

from sbi_physics_smeft.engines.derivative import DerivativeEngine
from sbi_physics_smeft.engines.morphing_engine import MorphingEngine
from sbi_physics_smeft.samples import ReferenceSample
from sbi_physics_smeft.smeft_toy import SmeftToy
from sbi_physics_smeft.smeft_wz import SmeftWz

import sbi_physics as sp
from sbi_physics.likelihood import EventSet, LikelihoodRatio, interval, pack
from sbi_physics.progress import SILENT

pytestmark = [pytest.mark.slow, pytest.mark.engine]

FAR_POINTS = (
    (0.0, 0.0, 0.0), (3.0, 0.0, 0.0), (-3.0, 0.0, 0.0), (0.0, 0.5, 0.0), (0.0, -0.5, 0.0),
    (0.0, 0.0, 0.5), (0.0, 0.0, -0.5), (3.0, 0.5, 0.0), (3.0, 0.0, 0.5), (0.0, 0.5, 0.5),
)  # fmt: skip

METHODS = {
    "plain": (DerivativeEngine, "sm", {"redraw": False}),
    "fractional": (DerivativeEngine, "sm", {"smearing": "fractional"}),
    "alice": (MorphingEngine, "mixture", {}),
    "rolr": (MorphingEngine, "mixture", {"loss": "rolr"}),
    "mixture": (DerivativeEngine, "mixture", {}),
    "cross-entropy": (DerivativeEngine, "mixture", {"loss": "cross-entropy"}),
}


@pytest.fixture(autouse=True)
def _this_plugin(monkeypatch):
    monkeypatch.setenv("SBI_PHYSICS_PLUGINS", "smeft")


@functools.cache
def errors(method, alpha):
    """Mean absolute errors of ln r(x|1) on events of theta = 0 and of theta = 1."""
    engine, proposal, settings = METHODS[method]
    toy = SmeftToy(alpha=alpha, proposal=proposal)
    data = sp.simulate(toy, 100_000, seed=0, progress=SILENT)
    values = {"max_epochs": 20, "validation_fraction": 0.05, **settings}
    posterior = engine().train(data, values, seed=0, progress=SILENT)
    exact, rng = SmeftToy(alpha=alpha), np.random.default_rng([7, int(alpha)])
    found = []
    for theta in (0.0, 1.0):
        x = exact.simulate(np.full((100_000, 1), theta), rng)
        error = posterior.log_ratio([[1.0]], x)[:, 0] - exact.exact_log_ratio(x, [1.0])
        found.append(float(np.abs(error).mean()))
    print(f"{method} alpha={alpha:g}: {found[0]:.4f} {found[1]:.4f}")
    return found


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_accurate_where_the_signal_is_near(method):
    assert errors(method, 1.0)[0] < 0.02


def test_fractional_smearing_helps_further_away():
    assert errors("fractional", 2.0)[0] < 0.02
    # On Standard Model events plain regression is as good (the table of the README has two seeds).
    assert errors("fractional", 2.0)[1] < errors("plain", 2.0)[1]


@pytest.mark.parametrize("method", ["alice", "mixture", "cross-entropy"])
def test_mixtures_are_accurate_further_away(method):
    assert errors(method, 2.0)[0] < 0.015


@pytest.mark.parametrize("method", ["alice", "cross-entropy"])
def test_mixtures_reach_the_far_signal(method):
    assert errors(method, 3.0)[1] < 0.08


def test_background_events_alone_do_not_reach_the_far_signal():
    assert errors("plain", 3.0)[1] > 3 * errors("alice", 3.0)[1]


# By integration over mass, angle and charge, others at zero (quadratic, 300 fb^-1).
INTEGRATED = {"C_HWB": (-0.0703, 0.0703), "C_W": (-0.0251, 0.0263), "C_Hq3": (-0.0083, 0.0083)}


@functools.cache
def wz_limits():
    """Learned and exact limits on the same events, by coefficient."""
    # Far points: several per cent of their events have the highest masses, where the limits are.
    wz = SmeftWz(
        level="parton", label_level="production", proposal="mixture", mixture_points=FAR_POINTS
    )
    data = sp.simulate(wz, 200_000, seed=1, progress=SILENT)
    settings = {"loss": "cross-entropy", "max_epochs": 60, "hidden_features": 96}
    posterior = DerivativeEngine().train(data, settings, seed=1, progress=SILENT)
    sample = ReferenceSample.draw(wz, 200_000, np.random.default_rng(2))
    found = {}
    for name in INTEGRATED:
        others = {n: 0.0 for n in INTEGRATED if n != name}
        ends = []
        for grams in (posterior.coefficients(sample.x), pack(wz.exact_gram(sample.x))):
            ratio = LikelihoodRatio(sample.model(grams))
            one = interval(ratio, EventSet(grams, sample.weight), name, others=others)
            ends.append((one.low, one.high))
        found[name] = ends
    return found


@pytest.mark.parametrize("name", INTEGRATED)
def test_exact_limits_of_wz_production_are_the_integrated_ones(name):
    # 200 000 weighted events determine the shape to a few per cent.
    np.testing.assert_allclose(wz_limits()[name][1], INTEGRATED[name], rtol=0.05)


@pytest.mark.parametrize("name", INTEGRATED)
def test_learned_limits_of_wz_production_are_the_exact_ones(name):
    learned, exact = wz_limits()[name]
    # Measured: 1.00 to 1.03 of the exact ones, which are computed on the same events.
    np.testing.assert_allclose(learned, exact, rtol=0.05)
