"""Finding and loading plugins, each alone, so that a broken one hurts nobody else.

An entry point's light module is imported and registered with a plugin manager of its own, hook
names and arguments are checked, and the specifications it returns are examined. Whatever goes
wrong becomes a `PluginFailure`.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from types import MappingProxyType
from typing import Final, Generic, TypeAlias, TypeVar

import pluggy

from sbi_physics import hookspecs
from sbi_physics.errors import nearest_name
from sbi_physics.registry.packages import CORE, distribution_version, install_command
from sbi_physics.specs import API_VERSION, EngineSpec, SimulatorSpec

VARIABLE: Final = "SBI_PHYSICS_PLUGINS"
_BUILTIN: Final = metadata.EntryPoint("core", "sbi_physics.testing.plugin", hookspecs.GROUP)
_NAME: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_TARGET: Final = re.compile(r"[\w.]+:\w+")

AnySpec: TypeAlias = SimulatorSpec | EngineSpec
S = TypeVar("S", SimulatorSpec, EngineSpec)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a specification comes from.

    Attributes:
        plugin: Name of the entry point.
        distribution: Name of the installed distribution; empty if unknown.
        version: Its version; empty if unknown.
    """

    plugin: str
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"{self.distribution or self.plugin} {self.version}".strip()


@dataclass(frozen=True, slots=True)
class PluginFailure:
    """Why a plugin, or one thing it offers, cannot be used.

    Attributes:
        plugin: Name of the entry point (several, when their names clash).
        distribution: Distribution it belongs to; empty if unknown.
        version: Version of the distribution; empty if unknown.
        stage: `import`, `register`, `hook` (calling it), `api` (another contract) or `name`.
        error: The reason, one line.
        remedy: What mends it, usually a pip command.
        traceback: Full traceback; empty if no exception was involved.
    """

    plugin: str
    distribution: str
    version: str
    stage: str
    error: str
    remedy: str
    traceback: str = ""

    def __str__(self) -> str:
        owner = f" ({self.distribution} {self.version})" if self.distribution else ""
        return f"{self.plugin}{owner}: {self.error} {self.remedy}"


@dataclass(frozen=True, slots=True)
class Registered(Generic[S]):
    """A specification and who provides it."""

    spec: S
    source: Source


@dataclass(frozen=True, slots=True)
class Registry:
    """The outcome of loading all plugins.

    Attributes:
        simulators: By name, in alphabetical order.
        engines: By name, in alphabetical order.
        failures: Everything that could not be used.
        sources: The plugins that were loaded.
    """

    simulators: Mapping[str, Registered[SimulatorSpec]]
    engines: Mapping[str, Registered[EngineSpec]]
    failures: tuple[PluginFailure, ...]
    sources: tuple[Source, ...]


def build(
    entry_points: Iterable[metadata.EntryPoint] | None = None, only: str | None = None
) -> Registry:
    """Load plugins, each on its own.

    Args:
        entry_points: Where to look; by default what is installed.
        only: Comma-separated plugin names to load, empty for none, None for all.
    """
    found = metadata.entry_points(group=hookspecs.GROUP) if entry_points is None else entry_points
    points = sorted(found, key=lambda p: (p.name, p.value))
    failures: list[PluginFailure] = []
    if only is not None:
        points = _limit(points, only, failures)
    simulators: list[Registered[SimulatorSpec]] = []
    engines: list[Registered[EngineSpec]] = []
    sources = []
    for point in (_BUILTIN, *points):
        source = _source(point)
        sources.append(source)
        try:
            listed = _load_plugin(point)
        except _StageError as error:
            failures.append(_failure(source, error.stage, error.__cause__ or error))
            continue
        for spec in listed:
            problem = _problem(spec)
            if problem:
                failures.append(_spec_failure(source, *problem))
            elif isinstance(spec, SimulatorSpec):
                simulators.append(Registered(spec, source))
            else:
                engines.append(Registered(spec, source))
    return Registry(
        _unique("simulator", simulators, failures),
        _unique("engine", engines, failures),
        tuple(failures),
        tuple(sources),
    )


class _StageError(Exception):
    def __init__(self, stage: str, message: str = "") -> None:
        super().__init__(message)
        self.stage = stage


def _load_plugin(point: metadata.EntryPoint) -> list[AnySpec]:
    """Import, register and call one plugin; raise `_StageError` from whatever goes wrong."""
    # SystemExit too: some packages try to leave the program when they are imported.
    try:
        plugin = point.load()
    except (Exception, SystemExit) as error:
        raise _StageError("import") from error
    manager = pluggy.PluginManager(hookspecs.GROUP)
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(plugin, name=point.name)
        manager.check_pending()
    except Exception as error:
        raise _StageError("register") from error
    if not manager.get_hookcallers(plugin):
        raise _StageError(
            "register",
            f"{point.value} implements no hook; mark {' or '.join(hookspecs.HOOKS)} with hookimpl",
        )
    specs: list[AnySpec] = []
    for hook, kind in (
        ("sbi_physics_simulators", SimulatorSpec),
        ("sbi_physics_engines", EngineSpec),
    ):
        try:
            results = getattr(manager.hook, hook)()
        except (Exception, SystemExit) as error:
            raise _StageError("hook") from error
        for result in results:
            if not isinstance(result, list | tuple) or not all(
                isinstance(s, kind) for s in result
            ):
                raise _StageError(
                    "hook", f"{hook} must return a list of {kind.__name__}, got {result!r}"
                )
            specs.extend(result)
    return specs


def _limit(
    points: list[metadata.EntryPoint], only: str, failures: list[PluginFailure]
) -> list[metadata.EntryPoint]:
    wanted = [name.strip() for name in only.split(",") if name.strip()]
    names = {p.name for p in points} | {d for p in points if (d := _source(p).distribution)}
    for name in wanted:
        if name not in names:
            nearest = nearest_name(name, names)
            guess = f"Did you mean {nearest!r}? " if nearest else ""
            listed = ", ".join(sorted(names)) or "none"
            error = (
                f"{VARIABLE} names {name!r}, which is not installed. {guess}Installed: {listed}."
            )
            failures.append(
                PluginFailure(name, "", "", "name", error, f"Correct or unset {VARIABLE}.")
            )
    return [p for p in points if p.name in wanted or _source(p).distribution in wanted]


def _source(point: metadata.EntryPoint) -> Source:
    if point is _BUILTIN:
        return Source(point.name, CORE, distribution_version(CORE))
    if point.dist is None:
        return Source(point.name, "", "")
    return Source(point.name, point.dist.name, point.dist.version)


def _problem(spec: AnySpec) -> tuple[str, str] | None:
    """Return (stage, reason) if a specification cannot be used."""
    if spec.api_version != API_VERSION:
        return "api", (
            f"{spec.name!r} was written for version {spec.api_version} of the plugin contract; "
            f"this core has version {API_VERSION}."
        )
    if not _NAME.fullmatch(spec.name):
        return "name", f"{spec.name!r} is not a kebab-case name such as 'my-detector'."
    if not _TARGET.fullmatch(spec.target):
        return (
            "hook",
            f"{spec.name!r} has the target {spec.target!r}; expected 'module:attribute'.",
        )
    return None


def _spec_failure(source: Source, stage: str, reason: str) -> PluginFailure:
    package = source.distribution or source.plugin
    remedies = {
        "api": f"Run: pip install --upgrade {CORE} {package}",
    }
    remedy = remedies.get(stage, f"Report it to the authors of {package}.")
    return PluginFailure(source.plugin, source.distribution, source.version, stage, reason, remedy)


def _unique(
    kind: str, items: list[Registered[S]], failures: list[PluginFailure]
) -> Mapping[str, Registered[S]]:
    by_name: dict[str, list[Registered[S]]] = {}
    for item in sorted(items, key=lambda i: i.spec.name):
        by_name.setdefault(item.spec.name, []).append(item)
    for name, claims in by_name.items():
        if len(claims) > 1:
            owners = [str(c.source) for c in claims]
            error = (
                f"the {kind} name {name!r} is claimed by {' and by '.join(owners)}; "
                "neither is served."
            )
            remedy = f"Uninstall one of them, or name the plugins to load in {VARIABLE}."
            plugins = " and ".join(dict.fromkeys(c.source.plugin for c in claims))
            distributions = " and ".join(dict.fromkeys(c.source.distribution for c in claims))
            failures.append(PluginFailure(plugins, distributions, "", "name", error, remedy))
    return MappingProxyType(
        {name: claims[0] for name, claims in by_name.items() if len(claims) == 1}
    )


def _failure(source: Source, stage: str, error: BaseException) -> PluginFailure:
    trace = "" if isinstance(error, _StageError) else "".join(traceback.format_exception(error))
    reason = str(error) if isinstance(error, _StageError) else f"{type(error).__name__}: {error}"
    package = source.distribution or source.plugin
    if isinstance(error, ImportError):
        remedy = f"Run: {install_command(package)}"
    else:
        remedy = f"Run: pip install --upgrade {package}, or report it to the authors of {package}."
    if stage == "register" and (misspelt := re.search(r"unknown hook '(\w+)'", reason)):
        nearest = nearest_name(misspelt[1], hookspecs.HOOKS)
        remedy = (
            f"Rename the hook to {nearest!r}."
            if nearest
            else f"Known hooks: {', '.join(hookspecs.HOOKS)}."
        )
    one_line = " ".join(reason.split())
    return PluginFailure(
        source.plugin, source.distribution, source.version, stage, one_line, remedy, trace
    )
