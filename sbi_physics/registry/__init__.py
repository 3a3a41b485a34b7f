"""Which simulators and engines are installed, loaded without trusting any of them.

Every entry point of the group `sbi_physics` is treated alone: its light module is imported and
registered with a plugin manager of its own, hook names and arguments are checked, and the
specifications it returns are examined. Whatever goes wrong becomes a `PluginFailure` with its
reason and the command that mends it; the other plugins keep working. Heavy modules are imported
only when a simulator or engine is asked for by name.

The environment variable `SBI_PHYSICS_PLUGINS` (entry-point or distribution names, separated by
commas) limits loading; an empty value loads none. What ships with the core is always there.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import os
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from sbi_physics.errors import (
    OptionError,
    PluginError,
    PluginWarning,
    SbiPhysicsError,
    unknown_name,
)
from sbi_physics.registry.loading import (
    VARIABLE,
    PluginFailure,
    Registered,
    Registry,
    Source,
    build,
)
from sbi_physics.registry.packages import CORE, core_extras, mending_command, missing_requirements
from sbi_physics.specs import EngineSpec, SimulatorSpec

if TYPE_CHECKING:
    from sbi_physics.engine import Engine
    from sbi_physics.observables import Observable
    from sbi_physics.posterior import Posterior
    from sbi_physics.priors import Prior
    from sbi_physics.simulator import Simulator

__all__ = [
    "PluginFailure",
    "Registered",
    "Registry",
    "Source",
    "build",
    "building",
    "current",
    "ecosystem_of",
    "engine",
    "engine_class",
    "engines",
    "failures",
    "kind_of",
    "native_ecosystems",
    "native_posterior_for",
    "native_simulator",
    "probe_engine",
    "refresh",
    "simulator",
    "simulator_class",
    "simulators",
]

_warned = False


def current() -> Registry:
    """Return the registry of this process, built once; one warning sums up its failures."""
    global _warned
    registry = _cached(os.environ.get(VARIABLE))
    if registry.failures and not _warned:
        _warned = True
        names = ", ".join(dict.fromkeys(f.plugin for f in registry.failures))
        count = len(registry.failures)
        warnings.warn(
            f"{count} plugin {'problem' if count == 1 else 'problems'} ({names}): "
            f"{registry.failures[0]} "
            "Run `sbi-physics doctor` for all details.",
            PluginWarning,
            stacklevel=3,
        )
    return registry


@functools.cache
def _cached(only: str | None) -> Registry:
    return build(only=only)


def refresh() -> None:
    """Forget what was loaded, for example after installing a plugin in a running notebook."""
    global _warned
    _warned = False
    importlib.invalidate_caches()
    _cached.cache_clear()


def simulators() -> list[SimulatorSpec]:
    """Return the specifications of all usable simulators, by name; imports nothing heavy."""
    return [entry.spec for entry in current().simulators.values()]


def engines() -> list[EngineSpec]:
    """Return the specifications of all usable engines, by name; imports nothing heavy."""
    return [entry.spec for entry in current().engines.values()]


def failures() -> tuple[PluginFailure, ...]:
    """Return everything installed that cannot be used, with reasons."""
    return current().failures


def kind_of(name: str) -> str:
    """Return whether a name is that of a `simulator` or of an `engine`.

    Raises:
        UnknownNameError: If it is neither.
    """
    loaded = current()
    if name in loaded.simulators:
        return "simulator"
    if name.partition(":")[0] in loaded.engines:
        return "engine"
    raise _unknown("simulator or engine", name, [*loaded.simulators, *loaded.engines])


def simulator_class(name: str) -> type[Simulator]:
    """Import and return the class of a simulator.

    Raises:
        UnknownNameError: If there is none of this name.
        PluginError: If it cannot be imported.
    """
    from sbi_physics.simulator import Simulator

    return _load_class("simulator", name, current().simulators, Simulator)  # type: ignore[type-abstract]


def engine_class(name: str) -> type[Engine]:
    """Import and return the class of an engine.

    Raises:
        UnknownNameError: If there is none of this name.
        PluginError: If it cannot be imported.
    """
    from sbi_physics.engine import Engine

    return _load_class("engine", name, current().engines, Engine)  # type: ignore[type-abstract]


def probe_engine(name: str) -> type[Engine]:
    """Import an engine with all that it uses later, and return its class.

    Raises:
        UnknownNameError: If there is none of this name.
        PluginError: If it, or something it needs, cannot be imported.
    """
    found = engine_class(name)
    entry = current().engines[name]
    if entry.spec.probe:
        probe = _import(entry.spec.probe, entry)
        with _explaining(entry):
            probe()
    return found


def simulator(name: str, /, **options: Any) -> Simulator:
    """Return a simulator by name.

    Args:
        name: As listed by `simulators`.
        **options: Fields of its `Options`.

    Raises:
        UnknownNameError: If there is none of this name.
        PluginError: If it, or something it needs, cannot be imported.
        OptionError: If an option is unknown or out of range, or the simulator cannot be built with
            the options given.
    """
    found = simulator_class(name)
    with building(name, options):
        return found(**options)


@contextlib.contextmanager
def building(name: str, options: Mapping[str, Any]) -> Iterator[None]:
    """Say which options were given when a simulator fails on them unprepared.

    Without options nobody asked for anything, and the error is left as it is: a bug.

    Raises:
        OptionError: Instead of a plain `ValueError`, `LookupError` or `OSError`.
    """
    from sbi_physics.simulator import BUILD_ERRORS

    try:
        yield
    except SbiPhysicsError:
        raise
    except BUILD_ERRORS as error:
        if not options:
            raise
        given = ", ".join(f"{key}={value!r}" for key, value in options.items())
        raise OptionError(
            f"simulator {name!r} cannot be built with {given}: {type(error).__name__}: {error}. "
            f"If this is right, it is a bug in {current().simulators[name].source}: --debug shows "
            "where"
        ) from error


def engine(name: str, /) -> Engine:
    """Return an inference engine by name, `ENGINE` or `ENGINE:PRESET`.

    Raises:
        UnknownNameError: If there is none of this name, or it has no such preset.
        PluginError: If it, or something it needs, cannot be imported.
    """
    base, colon, preset = name.partition(":")
    found = engine_class(base)()
    return found.with_preset(preset) if colon else found


# Native objects -------------------------------------------------------------------------------


def native_simulator(instance: Simulator, ecosystem: str) -> Any:
    """Return a simulator as objects of another ecosystem, made by the engine plugin for it.

    Raises:
        UnknownNameError: If no installed engine provides this ecosystem.
    """
    return _native("native_simulator", ecosystem)(instance)


def native_posterior_for(
    native: Any, prior: Prior, observable: Observable | None = None
) -> Posterior:
    """Wrap another ecosystem's posterior; its classes decide who does it.

    Args:
        native: For example an sbi posterior or network; an instance of a user's subclass too.
        prior: Prior of the parameters it was trained on, in the same order.
        observable: The data it was trained on, handed to wrappers that ask for it (those whose
            native objects do not know the shape of their data).

    Raises:
        UnknownNameError: If no installed engine knows the object.
    """
    ecosystem = ecosystem_of(native) or _roots(native)[0]
    wrap = _native("native_posterior", ecosystem)
    # As pluggy does with hooks: a wrapper names the arguments it wants.
    asks = "observable" in inspect.signature(wrap).parameters
    posterior: Posterior = wrap(native, prior, observable) if asks else wrap(native, prior)
    return posterior


def ecosystem_of(native: Any) -> str | None:
    """Return the installed ecosystem that an object, or a base of its class, belongs to."""
    known = native_ecosystems()
    return next((root for root in _roots(native) if root in known), None)


def _roots(native: Any) -> list[str]:
    return [cls.__module__.partition(".")[0] for cls in type(native).__mro__]


def native_ecosystems() -> tuple[str, ...]:
    """Return the ecosystems whose posteriors can be wrapped."""
    return tuple(sorted({s.ecosystem for s in engines() if s.ecosystem and s.native_posterior}))


def _native(field: str, ecosystem: str) -> Any:
    entries = [
        e for e in current().engines.values() if e.spec.ecosystem and getattr(e.spec, field)
    ]
    matching = [e for e in entries if e.spec.ecosystem == ecosystem]
    targets = {getattr(e.spec, field) for e in matching}
    if not targets:
        raise _unknown("ecosystem", ecosystem, sorted({e.spec.ecosystem for e in entries}))
    if len(targets) > 1:
        owners = ", ".join(f"{e.spec.name} ({e.source})" for e in matching)
        raise PluginError(
            f"several engines claim {field} of {ecosystem!r}: {owners}. Limit them by {VARIABLE}."
        )
    return _import(targets.pop(), matching[0])


# Importing ------------------------------------------------------------------------------------

C = TypeVar("C")


def _load_class(
    kind: str, name: str, entries: Mapping[str, Registered[Any]], base: type[C]
) -> type[C]:
    if name not in entries:
        raise _unknown(kind, name, list(entries))
    entry = entries[name]
    loaded = _import(entry.spec.target, entry)
    if not (isinstance(loaded, type) and issubclass(loaded, base)):
        raise PluginError(
            f"{kind} {name!r}: {entry.spec.target} of {entry.source} is no {base.__name__} class"
        )
    declared = getattr(loaded, "name", None)
    if declared != name:
        raise PluginError(
            f"{kind} {name!r}: {entry.spec.target} of {entry.source} calls itself {declared!r}"
        )
    return loaded


def _import(target: str, entry: Registered[Any]) -> Any:
    module, _, attribute = target.partition(":")
    with _explaining(entry):
        return getattr(importlib.import_module(module), attribute)


@contextlib.contextmanager
def _explaining(entry: Registered[Any]) -> Iterator[None]:
    """Turn whatever foreign code raises while it is imported into one explained error."""
    subject = f"{entry.spec.name!r} of {entry.source}"
    try:
        yield
    except SbiPhysicsError:
        raise
    except Exception as error:
        missing = missing_requirements(entry.spec.requires)
        needs = (
            f" needs {', '.join(missing)}, which is not installed"
            if missing
            else " could not be imported"
        )
        command = mending_command(entry.source.distribution, entry.spec.requires, error)
        broken = "--force-reinstall --no-deps" in command
        fixable = bool(missing) or isinstance(error, ImportError) or broken
        advice = f" Run: {command}" if fixable else ""
        raise PluginError(
            f"{subject}{needs} ({type(error).__name__}: {error}).{advice}"
        ) from error


def _unknown(kind: str, name: str, known: list[str]) -> SbiPhysicsError:
    hints = []
    prefix = name.partition("-")[0]
    installed = {s.distribution for s in current().sources}
    if prefix in core_extras() and f"{CORE}-{prefix}" not in installed:
        hints.append(f'Names starting with "{prefix}" come with: pip install "{CORE}[{prefix}]"')
    if limit := os.environ.get(VARIABLE):
        hints.append(f"{VARIABLE}={limit} limits what is loaded.")
    if problems := current().failures:
        hints.append(
            "Plugin problems that might explain it: " + " | ".join(str(f) for f in problems)
        )
    return unknown_name(kind, name, known, " ".join(hints))
