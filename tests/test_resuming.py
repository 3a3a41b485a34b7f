"""An interrupted training of a plugin's engine continues and ends as if nothing had happened."""

from __future__ import annotations

import numpy as np
import pytest

import sbi_physics as sp
from sbi_physics import registry
from sbi_physics.progress import SILENT
from sbi_physics.testing import ToyGaussian
from sbi_physics.training import TrainingData

pytestmark = pytest.mark.engine

EPOCHS, INTERRUPTED = 4, 2
# Dropout and batch normalisation have random numbers and buffers to continue with.
SETTINGS = {
    "sbi-npe": {"num_transforms": 2, "embedding": "mlp"},
    "sbi-nre": {"contrasts": 8, "pool_size": 512, "embedding": "mlp"},
    "sbi-fmpe": {"embedding": "mlp", "ode_steps": 4},
    "swyft-tmnre": {"batch_norm": True, "pool_size": 512},
    "bayesflow-cinn": {"depth": 2, "widths": (32,)},
}


class Killed(BaseException):
    pass


@pytest.mark.parametrize("name", SETTINGS)
def test_a_resumed_training_is_the_uninterrupted_one_bit_by_bit(name, tmp_path, monkeypatch):
    if name not in {spec.name for spec in registry.engines()}:
        pytest.skip(f"the plugin of {name} is not installed")
    from sbi_physics.nn import loop

    simulations = sp.simulate(ToyGaussian(), 200, seed=3, progress=SILENT)
    engine = registry.engine(name)
    settings = {"max_epochs": EPOCHS, "batch_size": 32, "dropout": 0.1, **SETTINGS[name]}
    whole = engine.train(simulations, settings, seed=5)
    monkeypatch.setattr(loop, "_CHECKPOINT_SECONDS", 0.0)
    keep, seen, last = TrainingData.epoch, [], [INTERRUPTED]

    def epoch(self, k):
        if k == last[0]:
            raise Killed
        seen.append(k)
        return keep(self, k)

    monkeypatch.setattr(TrainingData, "epoch", epoch)
    with pytest.raises(Killed):
        engine.train(simulations, settings, seed=5, checkpoint=tmp_path / "c")
    last[0] = EPOCHS
    resumed = engine.train(simulations, settings, seed=5, checkpoint=tmp_path / "c")
    assert seen == list(range(EPOCHS))  # nothing is trained twice

    ours, theirs = resumed.context.history, whole.context.history
    assert ours.training_loss == theirs.training_loss
    assert ours.validation_loss == theirs.validation_loss
    weights = whole._weights()
    assert resumed._weights().keys() == weights.keys()
    for key, value in resumed._weights().items():
        np.testing.assert_array_equal(value, weights[key], err_msg=key)
    theta, x = simulations.theta[:5, None], simulations.x[:5]
    np.testing.assert_array_equal(resumed.log_prob(theta, x), whole.log_prob(theta, x))
    draws = [p.sample(x, 20, np.random.default_rng(1)) for p in (resumed, whole)]
    np.testing.assert_array_equal(*draws)
