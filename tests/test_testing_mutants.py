"""The kit tests itself: every check of a simulator has mutants that it must catch.

A mutant is a toy with one planted defect, registered with the check that must fail on it and a
word that the message must contain: `sample_mutants_*.py`. Posteriors and engines:
`test_testing_mutants_inference.py`; plugin modules: `test_testing_mutants_plugin.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import sample_mutants_behaviour as behaviour
import sample_mutants_declarations as declarations
import sample_mutants_statistics as statistics
from sample_mutants import merged, planted, undone

from sbi_physics.errors import ConformanceError
from sbi_physics.testing import SIMULATOR_CHECKS
from sbi_physics.testing.kit import run

MUTANTS = merged(declarations.mutant, behaviour.mutant, statistics.mutant)
PLANTED = planted(SIMULATOR_CHECKS, MUTANTS)


@pytest.fixture(autouse=True)
def restored(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with undone():
        yield


@pytest.mark.parametrize(("check", "case", "word"), PLANTED)
def test_the_mutant_is_caught(check, case, word):
    with pytest.raises(ConformanceError) as caught:
        run(check, case())
    assert word in str(caught.value)


def test_every_check_has_a_mutant():
    names = {check.__name__ for check in SIMULATOR_CHECKS}
    tested = {*MUTANTS, "plugin_module_is_light"}  # test_testing_mutants_plugin.py
    assert names - tested == set(), "checks without a mutant prove nothing"
    assert tested - names == set(), "mutants of checks that do not exist"
