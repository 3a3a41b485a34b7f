"""The conformance kit on all engines."""

from __future__ import annotations

import pytest
from sbi_physics_sbi.fmpe import FlowMatchingEngine
from sbi_physics_sbi.npe import NeuralPosteriorEngine
from sbi_physics_sbi.nre import NeuralRatioEngine

from sbi_physics.testing import ENGINE_CHECKS, conformance

# Accuracy on every kind of data takes minutes; the Gaussian problem stands for it elsewhere.
SLOW = [c for c in ENGINE_CHECKS if c.__name__.startswith("accurate_on_")]
QUICK = [c for c in ENGINE_CHECKS if c not in SLOW]

# What the default networks are made for: with fewer simulations 24 bins are memorised.
MANY = {"n_train": 16_384, "settings": {"max_epochs": 40}}
NPE = {"settings": {"max_epochs": 25}}
# Draws solve an equation: fewer of them, in fewer steps, show the same promises.
FMPE = {"settings": {"max_epochs": 15, "ode_steps": 6}, "n_draws": 200}
NRE = {
    "settings": {"max_epochs": 30, "pool_size": 4096},
    "brief": {"max_epochs": 3, "pool_size": 1024},
}


@pytest.mark.engine
@conformance(QUICK, NeuralPosteriorEngine, **NPE)
def test_npe_keeps_the_promises_of_engines(check):
    check()


@pytest.mark.engine
@conformance(QUICK, FlowMatchingEngine, **FMPE)
def test_fmpe_keeps_the_promises_of_engines(check):
    check()


@pytest.mark.engine
@conformance(QUICK, NeuralRatioEngine, **NRE)
def test_nre_keeps_the_promises_of_engines(check):
    check()


@pytest.mark.slow
@pytest.mark.timeout(1200)
@conformance(SLOW, NeuralPosteriorEngine, **MANY)
def test_npe_is_accurate(check):
    check()


@pytest.mark.slow
@pytest.mark.timeout(1200)
@conformance(SLOW, FlowMatchingEngine, **MANY)
def test_fmpe_is_accurate(check):
    check()


@pytest.mark.slow
@pytest.mark.timeout(1200)
@conformance(SLOW, NeuralRatioEngine, **MANY)
def test_nre_is_accurate(check):
    check()
