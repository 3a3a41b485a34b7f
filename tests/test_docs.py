"""What the pages name exists, and what they show runs."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from sbi_physics import hookspecs

ROOT = Path(__file__).parents[1]
PLUGIN_PAGE = ROOT / "docs" / "plugins.md"
KIT_PAGE = ROOT / "docs" / "conformance.md"
CLI_PAGE = ROOT / "docs" / "cli.md"
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def code_blocks(page: Path, language: str) -> list[str]:
    return [code for tag, code in FENCE.findall(page.read_text()) if tag == language]


def run_python(code: str, folder: Path, timeout: float, **env: str) -> str:
    """Run code in a fresh interpreter in `folder` and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "MPLBACKEND": "Agg", **env},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


# --- plugins.md ------------------------------------------------------------------------------


@pytest.mark.parametrize("hook", hookspecs.HOOKS)
def test_every_hook_is_documented_with_its_signature(hook):
    signature = f"{hook}{inspect.signature(getattr(hookspecs, hook))}".replace("'", "")
    assert f"`{signature}`" in PLUGIN_PAGE.read_text()


def test_every_field_of_a_specification_is_documented():
    from dataclasses import fields

    from sbi_physics.specs import EngineSpec, SimulatorSpec

    page = PLUGIN_PAGE.read_text()
    names = {f.name for spec in (SimulatorSpec, EngineSpec) for f in fields(spec)}
    assert [n for n in sorted(names) if f"| `{n}` |" not in page] == []


def kit_checks() -> list[str]:
    from sbi_physics import testing

    groups = ("SIMULATOR_CHECKS", "ENGINE_CHECKS", "POSTERIOR_CHECKS")
    return [check.__name__ for group in groups for check in getattr(testing, group)]


def test_every_check_of_the_kit_is_documented():
    page = KIT_PAGE.read_text()
    assert kit_checks()
    assert [name for name in kit_checks() if f"| `{name}` |" not in page] == []


@pytest.fixture(scope="module")
def plugin_of_the_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files printed in plugins.md, with the metadata that an installation would leave."""
    folder = tmp_path_factory.mktemp("counting")
    named = re.findall(
        r"^`([\w/.]+)`[^\n]*\n\n```\w+\n(.*?)^```$",
        PLUGIN_PAGE.read_text(),
        re.MULTILINE | re.DOTALL,
    )
    for name, text in named:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    import tomllib

    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = [f"{k} = {v}" for k, v in project["entry-points"]["sbi_physics"].items()]
    (info / "entry_points.txt").write_text("\n".join(["[sbi_physics]", *lines, ""]))
    return folder


def test_the_plugin_on_the_page_is_listed_without_being_imported(plugin_of_the_page):
    code = """
import sys, sbi_physics as sp
from sbi_physics import registry
assert "counting-on-off" in [s.name for s in sp.simulators()], registry.failures()
assert not registry.failures(), registry.failures()
assert "numpy" not in sys.modules
"""
    run_python(
        code,
        plugin_of_the_page,
        timeout=200,
        PYTHONPATH=str(plugin_of_the_page),
        SBI_PHYSICS_PLUGINS="counting",
    )


def test_the_plugin_on_the_page_passes_the_conformance_kit(plugin_of_the_page):
    code = """
import sbi_physics as sp
from sbi_physics.testing import check_simulator
from sbi_physics_counting.simulator import OnOff
report = check_simulator(OnOff)
assert len(list(report)) > 10
assert not report.failed, report.failed
data = sp.simulate(sp.simulator("counting-on-off", ratio=2.0), 200, seed=1)
assert data.x.shape == (200, 2)
"""
    run_python(
        code,
        plugin_of_the_page,
        timeout=400,
        PYTHONPATH=str(plugin_of_the_page),
        SBI_PHYSICS_PLUGINS="counting",
    )


# --- cli.md ----------------------------------------------------------------------------------


def commands() -> dict[str, list[str]]:
    """Command name -> its long options."""
    from sbi_physics.cli import COMMANDS, option_names

    return {name: [o for o in option_names(name) if o.startswith("--")] for name in COMMANDS}


def test_every_command_has_its_section_in_the_manual():
    page = CLI_PAGE.read_text()
    assert commands()
    assert [c for c in commands() if f"## `sbi-physics {c}" not in page] == []


def test_every_option_is_in_the_section_of_its_command_or_among_the_common_ones():
    page = CLI_PAGE.read_text()
    common = page.partition("## Common options")[2].partition("\n## ")[0]
    missing = []
    for name, options in commands().items():
        section = page.partition(f"## `sbi-physics {name}")[2].partition("\n## ")[0]
        for option in options:
            named = re.compile(rf"`[^`]*{option}\b[^`]*`")
            if not (named.search(section) or named.search(common)):
                missing.append(f"{name} {option}")
    assert missing == []


# --- README ----------------------------------------------------------------------------------


def readme_example() -> str:
    blocks = [b for b in code_blocks(ROOT / "README.md", "python") if "validate" in b]
    assert blocks, "the README lost its example"
    return blocks[0]


def test_the_readme_example_fits_on_twenty_lines():
    assert len([line for line in readme_example().splitlines() if line.strip()]) <= 20


@pytest.mark.engine
def test_the_readme_example_runs_with_a_small_budget(tmp_path):
    pytest.importorskip("sbi", reason="the README trains with the sbi plugin")
    pytest.importorskip("sbi_physics_alp", reason="the README simulates photon-ALP mixing")
    code, replaced = re.subn(r"\b\d+_?000\b", "400", readme_example())
    assert replaced, "the number of simulations is written like 10_000 in the README"
    output = run_python(code, tmp_path, timeout=500)
    assert re.search(r"PASS|MARGINAL|FAIL|UNINFORMATIVE|INCONCLUSIVE", output)


@pytest.mark.engine
def test_the_readme_simulator_runs_with_a_small_budget(tmp_path):
    pytest.importorskip("sbi", reason="the README trains with the sbi plugin")
    (block,) = (b for b in code_blocks(ROOT / "README.md", "python") if "class " in b)
    small = "simulations=200, pairs=100, draws=50, settings={'max_epochs': 2}, seed=1"
    code = block.replace('budget="quick"', small)
    assert code != block
    run_python(f"import sbi_physics as sp\n{code}", tmp_path, timeout=400)
    assert (tmp_path / "runs" / "decay" / "report.html").is_file()


@pytest.mark.slow
def test_the_readme_example_runs_as_printed(tmp_path):
    pytest.importorskip("sbi", reason="the README trains with the sbi plugin")
    pytest.importorskip("sbi_physics_alp", reason="the README simulates photon-ALP mixing")
    output = run_python(readme_example(), tmp_path, timeout=1200)
    assert re.search(r"\b(PASS|MARGINAL)\b", output)


@pytest.mark.engine
def test_the_readme_lists_every_simulator_and_engine_of_this_checkout():
    import sbi_physics as sp

    page = (ROOT / "README.md").read_text()
    names = [s.name for s in (*sp.simulators(), *sp.engines())]
    assert [n for n in names if f"| `{n}` |" not in page] == []


# --- all pages -------------------------------------------------------------------------------

PAGES = [
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/*.md"),
    *ROOT.glob("plugins/*/*.md"),
    *ROOT.glob("benchmarks/*.md"),
    *ROOT.glob("tutorials/*.md"),
]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page):
    text = FENCE.sub("", page.read_text())
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    local = [link for link in links if "://" not in link and not link.startswith("mailto:")]
    assert [link for link in local if not (page.parent / link).exists()] == []


@pytest.mark.engine
@pytest.mark.timeout(300)
def test_the_html_documentation_builds_without_a_warning(tmp_path):
    missing = [m for m in ("sphinx", "myst_parser", "furo") if find_spec(m) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", ROOT / "docs", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-4000:]
    assert (tmp_path / "index.html").is_file()


def test_every_make_target_that_a_page_names_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        target
        for page in PAGES
        for code in re.findall(r"`([^`\n]+)`|^\$ (.+)$", page.read_text(), re.MULTILINE)
        for target in re.findall(r"^make ([a-z][a-z-]*)", code[0] or code[1])
    }
    assert named
    assert named <= targets


def test_every_file_with_tests_is_collected():
    folders = [ROOT / "tests", *ROOT.glob("plugins/*")]
    files = [f for folder in folders for f in folder.rglob("*.py") if ".venv" not in f.parts]
    holding = [f for f in files if re.search(r"^\s*def test_", f.read_text(), re.MULTILINE)]
    assert holding
    lost = [
        str(f.relative_to(ROOT))
        for f in holding
        if not f.name.startswith("test_") or "tests" not in f.relative_to(ROOT).parts
    ]
    assert lost == []
