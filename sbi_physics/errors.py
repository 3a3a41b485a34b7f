"""Everything that can go wrong, in one place.

Each error also inherits the builtin that fits it, so callers may catch either. A message says what
was asked, what came, what is accepted and what to do next.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SbiPhysicsError(Exception):
    """Base of all errors raised on purpose by sbi-physics and its plugins."""


class UnknownNameError(SbiPhysicsError, LookupError):
    """A simulator, engine, parameter, option or fiducial point that does not exist."""


class PluginError(SbiPhysicsError, ImportError):
    """A plugin, or a package it needs, could not be used."""


class ContractError(SbiPhysicsError, ValueError):
    """A simulator, engine or caller broke a documented promise (shape, range, finiteness)."""


class OptionError(SbiPhysicsError, ValueError):
    """A simulator option or engine setting has an unacceptable value."""


class ConfigError(SbiPhysicsError, ValueError):
    """A run file or a command line cannot be understood."""


class ObservationError(SbiPhysicsError, ValueError):
    """An observation has the wrong shape or non-finite entries."""


class DataFileError(SbiPhysicsError, FileNotFoundError):
    """A data file (instrument response, observation) was not found where it was looked for."""


class StoreError(SbiPhysicsError, OSError):
    """A simulation store is missing, damaged or unusable."""


class StoreLockedError(StoreError):
    """Another process is writing to the store."""


class StoreMismatchError(StoreError):
    """A store was made with another simulator, version, option, prior or seed."""


class PosteriorFileError(SbiPhysicsError, OSError):
    """A posterior folder is missing, incomplete or was tampered with."""


class WorkerError(SbiPhysicsError, RuntimeError):
    """A worker process died."""


class TrainingError(SbiPhysicsError, RuntimeError):
    """Training could not produce a usable posterior."""


class ValidationError(SbiPhysicsError, ValueError):
    """Validation was given unusable pairs or draws (a failed verdict is a result, not this)."""


class ConformanceError(SbiPhysicsError, AssertionError):
    """A plugin failed a check of the conformance kit."""


class PluginWarning(UserWarning):
    """Some installed plugin could not be loaded; `sbi-physics doctor` explains."""


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """Return the known name closest to `name`, or None when nothing is close."""
    by_lower = {k.lower(): k for k in known}
    matches = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return by_lower[matches[0]] if matches else None


def unknown_name(kind: str, name: str, known: Iterable[str], hint: str = "") -> UnknownNameError:
    """Build the error for an unknown name: nearest match, full list and an optional hint."""
    names = list(known)
    nearest = nearest_name(name, names)
    guess = f" Did you mean {nearest!r}?" if nearest else ""
    listed = ", ".join(names) if names else "none"
    return UnknownNameError(
        f"unknown {kind} {name!r}.{guess} Known: {listed}.{' ' + hint if hint else ''}"
    )
