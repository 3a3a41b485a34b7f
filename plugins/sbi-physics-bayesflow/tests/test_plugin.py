"""The plugin module: light, complete, discovered; keras is left alone until a network is built."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest

import sbi_physics as sp


def _run(code):
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_listing_the_engine_imports_no_framework():
    _run(
        "import sys, sbi_physics as sp; names = {s.name for s in sp.engines()};"
        "assert 'bayesflow-cinn' in names, names;"
        "heavy = {'torch', 'keras', 'bayesflow', 'sbi_physics_bayesflow.cinn'} & set(sys.modules);"
        "assert not heavy, heavy"
    )


@pytest.mark.engine
def test_showing_and_loading_the_engine_import_no_keras():
    out = _run(
        "import sys\n"
        "from sbi_physics import registry\n"
        "from sbi_physics.cli import main\n"
        "try:\n"
        "    main(['show', 'bayesflow-cinn'])\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        "engine = registry.engine('bayesflow-cinn')\n"
        "heavy = {'keras', 'bayesflow'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    assert "summary_dim" in out
    assert "arXiv:2003.06281" in out


@pytest.mark.engine
def test_the_engine_loads_under_its_name_and_takes_every_kind_of_data():
    engine = sp.engine("bayesflow-cinn")
    assert engine.name == "bayesflow-cinn"
    assert engine.supports(sp.simulator("toy-gaussian").observable) is None


@pytest.mark.engine
def test_the_published_network_wins_over_a_budget_and_settings_over_it():
    from sbi_physics.config import make_config
    from sbi_physics.study.plan import make_plan

    values = {"simulator": "toy-gaussian", "engine": "bayesflow-cinn:beamdump", "budget": "quick"}
    plan = make_plan(make_config(values, "test"), seed=1)
    assert plan.config.engine == "bayesflow-cinn:beamdump"
    assert (plan.settings.max_epochs, plan.settings.learning_rate) == (500, 5e-3)  # budget: 100
    assert (plan.settings.transform, plan.settings.preset) == ("affine", "beamdump")
    again = make_plan(plan.config, seed=1)  # as run.yaml repeats it
    assert again.settings == plan.settings
    shorter = make_config({**values, "settings": {"max_epochs": 7}}, "test")
    assert make_plan(shorter, seed=1).settings.max_epochs == 7


@pytest.mark.engine
def test_the_doctor_finds_a_broken_keras_and_says_how_to_mend_it(tmp_path):
    (tmp_path / "keras.py").write_text("raise ImportError('libkeras.so: cannot open')\n")
    out = _run(
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from sbi_physics import doctor\n"
        "(bad,) = [c for c in doctor.examine().components if c.name == 'bayesflow-cinn']\n"
        "assert not bad.works\n"
        "print(bad.error)\n"
    )
    assert "libkeras.so: cannot open" in out
    assert f'pip install --force-reinstall --no-deps "keras=={version("keras")}"' in out
