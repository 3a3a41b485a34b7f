"""Core tests see the core alone; tests marked `engine` or `slow` see all installed plugins."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def plugin_choice(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    wants_plugins = any(request.node.get_closest_marker(m) for m in ("engine", "slow"))
    if wants_plugins:
        monkeypatch.delenv("SBI_PHYSICS_PLUGINS", raising=False)
    else:
        monkeypatch.setenv("SBI_PHYSICS_PLUGINS", "")
