"""Importing and building leave the process alone; each case in a process of its own."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.engine

ENGINES = {"sbi": "sbi-npe", "bayesflow": "bayesflow-cinn", "swyft": "swyft-tmnre"}
IMPORTS = {
    "sbi": "import sbi.inference",
    "bayesflow": "import sbi_physics_bayesflow.backend as b; b.import_backend()",
    "swyft": "import sbi_physics_swyft.backend as s; s.import_swyft()",
}
PLUGINS = {
    "sbi": "sbi_physics_sbi",
    "bayesflow": "sbi_physics_bayesflow",
    "swyft": "sbi_physics_swyft",
}
INSTALLED = [name for name, module in PLUGINS.items() if find_spec(module)]
ORDERS = list(itertools.permutations(INSTALLED))

CHECK = """
import logging, os, sys
from pathlib import Path
import torch
assert torch.is_grad_enabled(), "autograd is off"
assert torch.get_default_dtype() == torch.float32
assert logging.getLogger().handlers == [], logging.getLogger().handlers
assert logging.getLogger().level == logging.WARNING
assert "KERAS_BACKEND" not in os.environ and "KERAS_HOME" not in os.environ
assert list(Path.cwd().iterdir()) == [], list(Path.cwd().iterdir())
assert not Path("~/.keras").expanduser().exists()
"""

TRAIN = """
import sbi_physics as sp
sims = sp.simulate(sp.simulator("toy-gaussian"), 64, seed=1)
posterior = sp.train(sims, {engine!r}, settings={{"max_epochs": 1}}, seed=1)
posterior.log_prob(sims.theta[:2, None], sims.x[:2])
"""


def run(code, folder, **variables):
    home = folder / "home"
    home.mkdir()
    work = folder / "work"
    work.mkdir()
    clean = {k: v for k, v in os.environ.items() if not k.startswith("KERAS")}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=work,
        # The home folder is new, but what matplotlib knows of the fonts, which is slow to find.
        env={
            **clean,
            "HOME": str(home),
            "MPLCONFIGDIR": str(Path("~/.cache/matplotlib").expanduser()),
            **variables,
        },
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_every_order_of_imports_leaves_no_trace(order, tmp_path):
    done = run("\n".join(IMPORTS[name] for name in order) + CHECK, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "bayesflow" not in done.stderr.lower()


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_every_order_of_training_works_and_the_first_engine_trains_again(order, tmp_path):
    known = [ENGINES[name] for name in (*order, order[0])]
    done = run("".join(TRAIN.format(engine=engine) for engine in known) + CHECK, tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_user_who_switched_autograd_off_by_importing_bayesflow_trains_all_the_same(tmp_path):
    code = (
        "import os; os.environ['KERAS_BACKEND'] = 'torch'\n"
        "import bayesflow, torch\n"
        "assert not torch.is_grad_enabled()\n"
        + TRAIN.format(engine="bayesflow-cinn")
        + "assert not torch.is_grad_enabled()\n"
    )
    done = run(code, tmp_path)
    assert done.returncode == 0, done.stderr


def test_keras_on_another_backend_is_an_error_that_names_the_variable(tmp_path):
    # A module that says it is keras: other backends need not be installed here.
    code = (
        "import sys, types\n"
        "keras = types.ModuleType('keras')\n"
        "keras.backend = types.SimpleNamespace(backend=lambda: 'jax')\n"
        "sys.modules['keras'] = keras\n"
        "from sbi_physics_bayesflow.backend import import_backend\n"
        "import_backend()\n"
    )
    done = run(code, tmp_path)
    assert "already imported with the backend 'jax'" in done.stderr
    assert "KERAS_BACKEND=torch" in done.stderr


def test_a_variable_that_asks_for_another_backend_is_an_error(tmp_path):
    code = "import sbi_physics_bayesflow.backend as b; b.import_backend()"
    done = run(code, tmp_path, KERAS_BACKEND="tensorflow")
    assert "KERAS_BACKEND is 'tensorflow'" in done.stderr
    assert "unset it" in done.stderr


def test_two_processes_train_the_same_posterior(tmp_path):
    code = (
        "import numpy as np, random\n"
        "random.seed({n}); np.random.seed({n})\n"
        + TRAIN.format(engine="bayesflow-cinn").replace("{", "{{").replace("}", "}}")
        + "draws = posterior.sample(sims.x[:3], 4, np.random.default_rng(1))\n"
        "print(draws.tobytes().hex())\n"
    )
    outputs = []
    for n in (1, 2):
        folder = tmp_path / str(n)
        folder.mkdir()
        done = run(code.format(n=n), folder)
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1] != ""


def test_building_restores_the_generators_and_settings_of_keras(tmp_path):
    code = """
from sbi_physics_bayesflow.backend import import_backend, seeded
keras = import_backend().keras
keras.utils.set_random_seed(5)
first = keras.random.normal((3,))
keras.config.set_floatx("float64")
keras.config.set_image_data_format("channels_first")
with seeded(1):
    assert keras.config.floatx() == "float32"
    one = keras.random.normal((3,))
with seeded(1):
    two = keras.random.normal((3,))
assert (one == two).all()
assert keras.config.floatx() == "float64"
assert keras.config.image_data_format() == "channels_first"
keras.config.set_floatx("float32")
second = keras.random.normal((3,))
keras.utils.set_random_seed(5)
assert (keras.random.normal((3,)) == first).all()
assert (keras.random.normal((3,)) == second).all()
"""
    done = run(code, tmp_path)
    assert done.returncode == 0, done.stderr
