"""swyft beside other packages, each case in a process of its own: what is imported when."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

pytestmark = pytest.mark.engine

STATE = """
import logging, os, sys, warnings
import scipy.integrate, torch
from sbi_physics.testing.state import differences, snapshot
before, level = snapshot(), logging.getLogger("mine").getEffectiveLevel()
from sbi_physics_swyft.backend import swyft
changed = differences(before, snapshot())
assert not changed, changed
assert not hasattr(scipy.integrate, "simps")
assert torch.is_grad_enabled()
assert logging.getLogger("mine").getEffectiveLevel() == level
assert not logging.getLogger().handlers
for name in ("pytorch_lightning", "lightning_fabric", "torchmetrics"):
    assert not logging.getLogger(name).handlers, name
    assert not logging.getLogger(name).isEnabledFor(logging.INFO), name
import swyft as again
assert again is swyft
"""

MISSING = """
import sys
sys.modules["pytorch_lightning"] = None
import scipy.integrate
from sbi_physics.errors import PluginError
try:
    import sbi_physics_swyft.backend
except PluginError as error:
    assert "pytorch-lightning==1.9.5" in str(error), error
else:
    raise AssertionError("imported without lightning")
assert not hasattr(scipy.integrate, "simps")
"""

TRAIN = """
import sbi_physics as sp
from sbi_physics.testing import ToyGaussian
simulations = sp.simulate(ToyGaussian(), 64, seed=1)
for name in {order}:
    if name == "sbi-npe":
        settings = {{"max_epochs": 1, "density_estimator": "mdn"}}
    else:
        settings = {{"max_epochs": 1, "pool_size": 256}}
    history = sp.train(simulations, name, settings=settings, seed=1).context.history
    assert len(history.training_loss) == 1
"""


def run(code, folder):
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not list(folder.iterdir())
    return done


def test_importing_leaves_the_process_as_it_was(tmp_path):
    done = run(STATE, tmp_path)
    assert done.stdout == ""
    assert done.stderr == ""


def test_an_alias_that_was_there_before_stays(tmp_path):
    code = (
        "import scipy.integrate; scipy.integrate.simps = scipy.integrate.simpson;"
        "import sbi_physics_swyft.backend;"
        "assert scipy.integrate.simps is scipy.integrate.simpson"
    )
    run(code, tmp_path)


def test_a_missing_part_is_named_with_what_to_install(tmp_path):
    run(MISSING, tmp_path)


@pytest.mark.skipif(
    importlib.util.find_spec("sbi_physics_sbi") is None, reason="needs the sbi plugin"
)
@pytest.mark.parametrize("order", [("swyft-tmnre", "sbi-npe"), ("sbi-npe", "swyft-tmnre")])
def test_both_engines_train_in_one_process_in_either_order(order, tmp_path):
    run(TRAIN.format(order=order), tmp_path)
