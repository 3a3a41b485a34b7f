"""The public names are a promise: exact, documented, and free to import."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import sbi_physics as sp

ROOT = Path(__file__).parents[1]

PUBLIC = {
    "__version__",
    # nouns
    "Budget",
    "Comparison",
    "Constraint",
    "Coverage",
    "DataFile",
    "Engine",
    "EngineSpec",
    "Fixed",
    "Log10Normal",
    "LogNormal",
    "LogUniform",
    "Mirrored",
    "Normal",
    "Observable",
    "Parameter",
    "ParameterSpace",
    "Posterior",
    "Prior",
    "Scan",
    "SimulationStore",
    "Simulations",
    "Simulator",
    "SimulatorOptions",
    "SimulatorSpec",
    "Study",
    "TrainingData",
    "TrainingHistory",
    "TrainingSettings",
    "Uniform",
    # verbs
    "check_balance",
    "compare",
    "confidence_regions",
    "engine",
    "engines",
    "frequentist_coverage",
    "hookimpl",
    "load_posterior",
    "local_map",
    "recalibrate",
    "run",
    "scan",
    "simulate",
    "simulator",
    "simulators",
    "to_arviz",
    "train",
    "truncate",
    "validate",
    "validate_draws",
    "validate_local",
}

HEAVY = {"arviz", "jinja2", "matplotlib", "numpy", "pydantic", "scipy", "torch", "xarray", "zarr"}
"""Packages that `import sbi_physics` and listing plugins have no business importing."""


def imported_by(code: str) -> set[str]:
    """Top-level packages in sys.modules after running `code` in a fresh interpreter."""
    script = f"import sys\n{code}\nprint(*{{m.partition('.')[0] for m in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=200
    )
    return set(done.stdout.splitlines()[-1].split())


def test_the_public_names_are_exactly_these():
    assert set(sp.__all__) == PUBLIC
    assert set(dir(sp)) == PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_public_name_resolves(name):
    assert getattr(sp, name) is not None


def test_public_functions_win_over_the_modules_of_the_same_name():
    import sbi_physics.engine
    import sbi_physics.simulate
    import sbi_physics.simulator
    import sbi_physics.validate  # noqa: F401

    for name in ("engine", "simulate", "simulator", "validate"):
        assert callable(getattr(sp, name)), name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        sp.no_such_name  # noqa: B018


def test_importing_the_package_imports_nothing_heavy():
    assert not imported_by("import sbi_physics") & HEAVY


def test_importing_the_package_imports_little_at_all():
    loaded = imported_by("import sbi_physics") - imported_by("import importlib, typing")
    third_party = {m for m in loaded if m not in sys.stdlib_module_names and m != "sbi_physics"}
    # what .pth files of editable installs bring is no choice of ours
    assert third_party <= imported_by("")


@pytest.mark.parametrize("call", ["simulators()", "engines()"])
def test_listing_plugins_imports_nothing_heavy(call):
    assert not imported_by(f"import sbi_physics; sbi_physics.{call}") & HEAVY


@pytest.mark.parametrize("command", ["--help", "list"])
def test_help_and_list_import_nothing_heavy(command):
    code = (
        "import contextlib, io\n"
        "from sbi_physics.cli import main\n"
        f"sys.argv = ['sbi-physics', {command!r}]\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "    main()"
    )
    assert not imported_by(code) & HEAVY


def test_every_public_name_and_method_is_documented():
    undocumented = []
    for name in sorted(PUBLIC - {"__version__"}):
        public = getattr(sp, name)
        if not inspect.getdoc(public):
            undocumented.append(name)
        if not inspect.isclass(public):
            continue
        for member, value in inspect.getmembers(public):
            defined_here = any(
                member in vars(c) for c in public.__mro__ if c.__module__.startswith("sbi_physics")
            )
            described = inspect.isroutine(value) or isinstance(value, property)
            if member.startswith("_") or not defined_here or not described:
                continue
            if not inspect.getdoc(value):
                undocumented.append(f"{name}.{member}")
    assert undocumented == []


def test_the_version_is_that_of_the_installed_distribution():
    assert sp.__version__ == metadata.version("sbi-physics")


def test_the_package_is_marked_as_typed():
    assert (Path(inspect.getfile(sp)).parent / "py.typed").is_file()


def plugin_sources() -> list[Path]:
    return sorted(ROOT.glob("plugins/*/sbi_physics_*/**/*.py"))


@pytest.mark.parametrize("path", plugin_sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_plugins_import_no_private_names_of_the_core(path):
    private = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sbi_physics."):
            parts = [*node.module.split("."), *(a.name for a in node.names)]
            private += [f"{node.module}: {p}" for p in parts if p.startswith("_")]
    assert private == []
