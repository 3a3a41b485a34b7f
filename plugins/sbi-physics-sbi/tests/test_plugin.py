"""The plugin module: light, complete, discovered."""

from __future__ import annotations

import subprocess
import sys

import sbi_physics as sp


def test_listing_the_engines_imports_no_framework():
    code = (
        "import sys, sbi_physics as sp; names = {s.name for s in sp.engines()};"
        "assert {'sbi-npe', 'sbi-fmpe', 'sbi-nre'} <= names, names;"
        "heavy = {'torch', 'sbi', 'nflows', 'zuko', 'sbi_physics_sbi.npe'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_both_engines_load_under_their_names():
    for name in ("sbi-npe", "sbi-fmpe", "sbi-nre"):
        engine = sp.engine(name)
        assert engine.name == name
        assert engine.supports(sp.simulator("toy-gaussian").observable) is None
