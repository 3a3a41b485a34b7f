"""What is installed, and the pip command that would mend what is not."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable
from importlib import metadata
from typing import Final

CORE: Final = "sbi-physics"


def distribution_version(name: str) -> str:
    """Return the version of an installed distribution, or an empty string."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def core_extras() -> tuple[str, ...]:
    """Return the extras that install plugin distributions along with the core."""
    try:
        return tuple(metadata.metadata(CORE).get_all("Provides-Extra") or ())
    except metadata.PackageNotFoundError:
        return ()


def missing_requirements(requires: Iterable[str]) -> list[str]:
    """Return the requirements, such as `gammapy>=2.1`, whose distribution is not installed."""
    missing = []
    for requirement in requires:
        specifier, _, marker = requirement.partition(";")
        name = re.match(r"[A-Za-z0-9._-]+", specifier.strip())
        if name and "extra" not in marker and not distribution_version(name[0]):
            missing.append(specifier.strip())
    return missing


def install_command(distribution: str, requires: Iterable[str] = ()) -> str:
    """Return the pip command that completes an installed plugin.

    Args:
        distribution: The plugin's distribution.
        requires: Requirements its specification names beside those of its metadata.
    """
    extra = distribution.removeprefix(f"{CORE}-")
    if extra in core_extras():
        return f'pip install "{CORE}[{extra}]"'
    declared = _declared_requirements(distribution)
    missing = list(dict.fromkeys(missing_requirements([*requires, *declared])))
    if missing:
        return "pip install " + " ".join(f'"{m}"' for m in missing)
    return f"pip install --force-reinstall {distribution}"


def mending_command(distribution: str, requires: Iterable[str], error: Exception) -> str:
    """Return the pip command that mends what an import raised.

    A requirement that is installed but cannot be imported is installed again, in its version.

    Args:
        distribution: The plugin's distribution.
        requires: Requirements its specification names.
        error: What was raised.
    """
    if not isinstance(error, ModuleNotFoundError):
        required = {re.split(r"[^A-Za-z0-9._-]", r.strip())[0] for r in requires}
        owners = metadata.packages_distributions()
        for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
            root = str(frame.f_globals.get("__name__", "")).partition(".")[0]
            for owner in owners.get(root, ()):
                if owner in required:
                    version = distribution_version(owner)
                    return f'pip install --force-reinstall --no-deps "{owner}=={version}"'
    return install_command(distribution, requires)


def _declared_requirements(distribution: str) -> list[str]:
    try:
        return list(metadata.requires(distribution) or ()) if distribution else []
    except metadata.PackageNotFoundError:
        return []
