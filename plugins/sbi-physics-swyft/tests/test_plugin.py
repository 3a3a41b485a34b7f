"""The plugin module: light, complete, discovered."""

from __future__ import annotations

import subprocess
import sys

import sbi_physics as sp


def test_listing_the_engine_imports_no_framework():
    code = (
        "import sys, sbi_physics as sp; names = {s.name for s in sp.engines()};"
        "assert 'swyft-tmnre' in names, names;"
        "heavy = {'torch', 'swyft', 'pytorch_lightning', 'sbi_physics_swyft.tmnre'};"
        "heavy &= set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_engine_loads_under_its_name():
    engine = sp.engine("swyft-tmnre")
    assert engine.name == "swyft-tmnre"
    assert engine.supports(sp.simulator("toy-gaussian").observable) is None
