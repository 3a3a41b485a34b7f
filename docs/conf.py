"""Sphinx configuration; `make docs` builds into docs/_build/html."""

import re
from typing import Any

project = "sbi-physics"
author = "the sbi-physics developers"
copyright = f"2026, {author}"
release = "0.1.0"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "sbi-physics"

napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Class attributes", "params_style")]
autodoc_member_order = "bysource"
autodoc_typehints = "description"
# Docstrings write code as `x`; let a single backtick mean a literal.
default_role = "literal"
myst_heading_anchors = 3
# Pages are also read on their own, with links to files outside docs/, which are tested.
suppress_warnings = ["myst.xref_missing"]


def _escape(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings write shapes as (n, *shape) and magnitudes as |x|; neither is markup."""
    for i, line in enumerate(lines):
        if ":math:" not in line and not line.lstrip().startswith("|"):
            line = re.sub(r"(?<![\w*`\\])\*(?=\w)", r"\\*", line)
            lines[i] = re.sub(r"(?<!\\)\|", r"\\|", line)


def setup(app: Any) -> None:
    """Connect before napoleon reads the docstrings."""
    app.connect("autodoc-process-docstring", _escape, priority=100)
