"""The package namespace: lazy names that behave as if they had been imported."""

from __future__ import annotations

import ast
import importlib
import inspect
import pickle
import pydoc
import subprocess
import sys
from pathlib import Path

import pytest

import sbi_physics as sp

SAME_NAME = sorted(
    name
    for name in sp.__all__
    if (Path(sp.__file__).parent / f"{name}.py").exists()
    or (Path(sp.__file__).parent / name / "__init__.py").exists()
)
"""Public functions whose module has the same name."""


def test_there_are_functions_named_like_their_module():
    assert {"engine", "simulate", "simulator", "validate"} <= set(SAME_NAME)


@pytest.mark.parametrize("order", ["modules first", "functions first"])
def test_a_function_stays_one_whatever_is_imported_when(order):
    modules = "".join(f"import sbi_physics.{name}\n" for name in SAME_NAME)
    functions = f"[getattr(sp, name) for name in {SAME_NAME}]\n"
    code = "import sbi_physics as sp\n"
    code += modules if order == "modules first" else functions + modules
    code += f"import inspect\nfrom sbi_physics import {', '.join(SAME_NAME)}\n"
    for name in SAME_NAME:
        code += f"assert inspect.isfunction(sp.{name}) and {name} is sp.{name}\n"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", SAME_NAME)
def test_the_module_is_still_there_for_those_who_ask_for_it(name):
    module = importlib.import_module(f"sbi_physics.{name}")
    assert inspect.ismodule(module)
    assert module is sys.modules[f"sbi_physics.{name}"]


@pytest.mark.parametrize("name", sorted(set(sp.__all__) - {"__version__"}))
def test_public_names_survive_pickling_where_their_kind_can(name):
    public = getattr(sp, name)
    if inspect.isclass(public) or inspect.isfunction(public):
        assert pickle.loads(pickle.dumps(public)) is public


def test_help_shows_the_tour_and_the_functions():
    text = pydoc.plain(pydoc.render_doc(sp))
    assert "From a physics simulator to a validated posterior" in text
    for name in ("simulate(", "train(", "validate("):
        assert name in text


def test_everything_may_be_imported_at_once():
    names: dict[str, object] = {}
    exec("from sbi_physics import *", names)  # how notebooks do it
    assert set(sp.__all__) <= set(names)
    assert inspect.isfunction(names["simulate"])


def test_a_public_name_can_be_replaced_and_put_back(monkeypatch):
    before = sp.simulate
    with monkeypatch.context() as patch:
        patch.setattr(sp, "simulate", len)
        assert sp.simulate is len
    assert sp.simulate is before


def test_type_checkers_and_the_interpreter_see_the_same_names():
    tree = ast.parse(Path(sp.__file__).read_text())
    block = next(
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    seen = {
        (node.module.removeprefix("sbi_physics."), alias.name)
        for node in block.body
        for alias in node.names
    }
    lazy = {(module, name) for module, names in sp._HOMES.items() for name in names}
    assert seen == lazy
    assert set(sp.__all__) == {name for _, name in lazy} | {"__version__"}
