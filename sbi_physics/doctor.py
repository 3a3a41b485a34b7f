"""What is installed, what is broken, which data files are found, and how to mend it.

Unlike a listing this imports every simulator and engine, because only that shows whether it works.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sbi_physics import __version__, registry
from sbi_physics.errors import SbiPhysicsError
from sbi_physics.specs import API_VERSION, EngineSpec, SimulatorSpec

if TYPE_CHECKING:
    from sbi_physics.simulator import Simulator

THREAD_VARIABLES: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
DATA_VARIABLES: Final = ("GAMMAPY_DATA",)
_LOW_DISK_GB: Final = 2.0
_LOW_MEMORY_GB: Final = 2.0


@dataclass(frozen=True, slots=True)
class Component:
    """One simulator or engine.

    Attributes:
        kind: `simulator` or `engine`.
        name: Registered name.
        source: Distribution and version it comes from.
        works: Whether it could be imported, with what it imports only when used.
        error: Why not, with what to do; empty if it works.
        traceback: Full traceback; empty if it works.
    """

    kind: str
    name: str
    source: str
    works: bool
    error: str = ""
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class FileStatus:
    """An optional data file or folder.

    Attributes:
        owner: Simulators that use it.
        name: What it is.
        path: Where it was found or looked for; empty if nowhere.
        found: Whether it is there.
        how_to_get: What to do when it is missing.
    """

    owner: str
    name: str
    path: str
    found: bool
    how_to_get: str


@dataclass(frozen=True, slots=True)
class Machine:
    """Where this runs.

    Attributes:
        platform: Operating system and architecture.
        cpus: Processors this process may use.
        threads: Thread limits set in the environment, by variable.
        memory_available_gb: Memory available to new processes, GB; None if unknown.
        disk_free_gb: Free space in the current folder, GB.
    """

    platform: str
    cpus: int
    threads: Mapping[str, str]
    memory_available_gb: float | None
    disk_free_gb: float


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Everything `doctor` found.

    Attributes:
        python: Version of Python.
        executable: Its path.
        version: Version of sbi-physics.
        api_version: Version of the plugin contract.
        plugins: Loaded plugins, as distribution and version.
        failures: What could not be loaded.
        components: Every simulator and engine, imported.
        files: Optional data files.
        machine: Where this runs.
        warnings: Remarks about the machine.
    """

    python: str
    executable: str
    version: str
    api_version: int
    plugins: tuple[registry.Source, ...]
    failures: tuple[registry.PluginFailure, ...]
    components: tuple[Component, ...]
    files: tuple[FileStatus, ...]
    machine: Machine
    warnings: tuple[str, ...]

    @property
    def is_healthy(self) -> bool:
        """Whether nothing is broken; missing optional data is not."""
        return not self.failures and all(c.works for c in self.components)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready description."""
        return {"healthy": self.is_healthy, **asdict(self)}


def examine(folder: str | Path = ".") -> Diagnosis:
    """Examine this installation.

    Args:
        folder: Where runs would be written, for the free space.
    """
    loaded = registry.current()
    components = []
    files: dict[tuple[str, str], FileStatus] = {
        ("", name): _variable(name) for name in DATA_VARIABLES
    }
    for name, entry in loaded.simulators.items():
        component, cls = _import("simulator", entry, registry.simulator_class, name)
        components.append(component)
        if cls is not None:
            for file in _data_files(name, cls):
                _merge(files, file)
    for name, engine in loaded.engines.items():
        components.append(_import("engine", engine, registry.probe_engine, name)[0])
    machine = describe_machine(folder)
    return Diagnosis(
        python=platform.python_version(),
        executable=sys.executable,
        version=__version__,
        api_version=API_VERSION,
        plugins=loaded.sources,
        failures=loaded.failures,
        components=tuple(components),
        files=tuple(files.values()),
        machine=machine,
        warnings=tuple(_remarks(machine)),
    )


def describe_machine(folder: str | Path = ".") -> Machine:
    """Describe the machine this process runs on."""
    return Machine(
        platform=f"{platform.system()} {platform.machine()}",
        cpus=_usable_cpus(),
        threads={v: os.environ[v] for v in THREAD_VARIABLES if v in os.environ},
        memory_available_gb=_available_memory_gb(),
        disk_free_gb=round(shutil.disk_usage(folder).free / 1e9, 1),
    )


def _import(
    kind: str,
    entry: registry.Registered[SimulatorSpec] | registry.Registered[EngineSpec],
    load: Callable[[str], type[Any]],
    name: str,
) -> tuple[Component, type[Any] | None]:
    source = str(entry.source)
    try:
        return Component(kind, name, source, works=True), load(name)
    except SbiPhysicsError as error:
        trace = "".join(traceback.format_exception(error))
        return Component(kind, name, source, works=False, error=str(error), traceback=trace), None


def _data_files(name: str, cls: type[Simulator]) -> list[FileStatus]:
    return [
        FileStatus(name, f.name, f.path or "", f.found, "" if f.found else f.how_to_get)
        for f in cls.data_files()
    ]


def _merge(files: dict[tuple[str, str], FileStatus], file: FileStatus) -> None:
    """Several simulators may use the same file; list it once."""
    key = (file.path, file.name)
    known = files.get(key)
    owner = f"{known.owner}, {file.owner}" if known else file.owner
    files[key] = FileStatus(owner, file.name, file.path, file.found, file.how_to_get)


def _variable(name: str) -> FileStatus:
    path = os.environ.get(name, "")
    found = bool(path) and Path(path).is_dir()
    problem = f"${name} is {path!r}, which is no folder. " if path and not found else ""
    advice = f"{problem}Set it to the folder with the instrument data: export {name}=/path/to/it"
    return FileStatus("", f"${name}", path, found, "" if found else advice)


def _usable_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _available_memory_gb() -> float | None:
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return round(int(line.split()[1]) * 1024 / 1e9, 1)
    return None


def _remarks(machine: Machine) -> list[str]:
    remarks = []
    if machine.disk_free_gb < _LOW_DISK_GB:
        remarks.append(f"only {machine.disk_free_gb:g} GB of disk are free here")
    if machine.memory_available_gb is not None and machine.memory_available_gb < _LOW_MEMORY_GB:
        remarks.append(f"only {machine.memory_available_gb:g} GB of memory are available")
    return remarks
