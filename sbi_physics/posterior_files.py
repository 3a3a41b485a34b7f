"""Posterior folders: JSON and safetensors, nothing that executes on loading.

    posterior.json            schema, engine, versions, prior, observable, settings, sha256 sums
    transform.safetensors     constants of the data transform
    weights.safetensors       the network
    members/<k>/              the same for each member of an ensemble, instead of weights
    base/                     the posterior behind a recalibration, whose weights stand beside
    observation.safetensors   the observation that truncated rounds closed in on, if any

A folder is written beside its final place and renamed, so a half-written one is never taken for a
posterior.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sbi_physics.ensemble import Ensemble, ensemble_of
from sbi_physics.errors import PosteriorFileError
from sbi_physics.observables import Observable
from sbi_physics.posterior import Posterior, PosteriorContext
from sbi_physics.priors import Prior
from sbi_physics.recalibrated import RecalibratedPosterior, rebuild
from sbi_physics.simulator import SimulatorIdentity
from sbi_physics.training import TrainingHistory
from sbi_physics.transforms import Transform
from sbi_physics.truncation import Truncation

if TYPE_CHECKING:
    from sbi_physics.engine import Engine
    from sbi_physics.types import AnyArray

SCHEMA: Final = 1
HEADER: Final = "posterior.json"
WEIGHTS: Final = "weights.safetensors"
TRANSFORM: Final = "transform.safetensors"
MEMBERS: Final = "members"
BASE: Final = "base"
OBSERVATION: Final = "observation.safetensors"
_ENTRIES: Final = {
    "config",
    "engine",
    "history",
    "members",
    "observable",
    "prior",
    "seed",
    "settings",
    "sha256",
    "simulation_prior",
    "simulations",
    "simulator",
    "versions",
}


def save_posterior(posterior: Posterior, folder: str | Path) -> Path:
    """Write a posterior to a folder, replacing what stood there only when complete.

    Raises:
        PosteriorFileError: If the folder exists and is not a posterior.
    """
    target = Path(folder)
    if (
        target.exists()
        and not (target / HEADER).is_file()
        and (target.is_file() or any(target.iterdir()))
    ):
        raise PosteriorFileError(
            f"{target} exists and is not a posterior folder (no {HEADER}); choose another"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.parent / f".{target.name}.writing-{os.getpid()}"
    try:
        _write(posterior, fresh)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    old = target.parent / f".{target.name}.old-{os.getpid()}"
    if target.exists():
        target.rename(old)
    fresh.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    return target


def load_posterior(folder: str | Path, *, engine: Engine | None = None) -> Posterior:
    """Rebuild a posterior from a folder.

    Args:
        folder: What `Posterior.save` wrote.
        engine: The engine that rebuilds it; None asks the registry for the recorded one.

    Raises:
        PosteriorFileError: If the folder is missing, incomplete, of a newer schema or tampered
            with.
        UnknownNameError: If the engine is not installed.
    """
    root = Path(folder)
    header = _read_header(root)
    context = _context_from(header, root)
    if header["members"]:
        folders = [root / MEMBERS / str(k) for k in range(header["members"])]
        return ensemble_of([load_posterior(member, engine=engine) for member in folders])
    if header.get("recalibration") is not None:
        arrays = _read_arrays(root, WEIGHTS, header["sha256"])
        return rebuild(load_posterior(root / BASE, engine=engine), header["recalibration"], arrays)
    from sbi_physics import registry

    builder = registry.engine(context.engine) if engine is None else engine
    weights = _read_arrays(root, WEIGHTS, header["sha256"])
    return builder._rebuild(context, header["config"], weights)


def _write(posterior: Posterior, folder: Path) -> None:
    folder.mkdir(parents=True)
    context = posterior.context
    digests: dict[str, str] = {}
    members = posterior.members if isinstance(posterior, Ensemble) else ()
    for k, member in enumerate(members):
        _write(member, folder / MEMBERS / str(k))
    recalibration = None
    if isinstance(posterior, RecalibratedPosterior):
        _write(posterior.base, folder / BASE)
        recalibration = posterior.record
    if not members:
        digests[WEIGHTS] = _write_arrays(folder / WEIGHTS, posterior._weights())
    if context.transform is not None:
        digests[TRANSFORM] = _write_arrays(folder / TRANSFORM, context.transform.arrays())
    if context.truncation is not None:
        digests[OBSERVATION] = _write_arrays(
            folder / OBSERVATION, {"x": context.truncation.observation}
        )
    header = {
        "schema": SCHEMA,
        "engine": context.engine,
        "members": len(members),
        "recalibration": recalibration,
        "config": {} if members else posterior._config(),
        "prior": context.prior.to_dict(),
        "observable": context.observable.to_dict(),
        "simulator": None if context.simulator is None else context.simulator.to_dict(),
        "simulation_prior": None
        if context.simulation_prior is None
        else context.simulation_prior.to_dict(),
        "simulations": dict(context.simulations),
        "settings": dict(context.settings),
        "seed": context.seed,
        "versions": dict(context.versions),
        "history": None if context.history is None else context.history.to_dict(),
        "truncation": None if context.truncation is None else context.truncation.to_dict(),
        "sha256": digests,
    }
    text = json.dumps(header, indent=1)
    with (folder / HEADER).open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _write_arrays(path: Path, arrays: Mapping[str, AnyArray]) -> str:
    from safetensors.numpy import save

    data = save({k: np.asarray(v, order="C") for k, v in arrays.items()})
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return hashlib.sha256(data).hexdigest()


def _read_header(root: Path) -> dict[str, Any]:
    path = root / HEADER
    if not path.is_file():
        # Killed between the two renames of `save_posterior`, the old one stands beside.
        kept = sorted(root.parent.glob(f".{root.name}.old-*"))
        hint = f"; what stood there before is in {kept[-1]}" if kept else ""
        raise PosteriorFileError(f"no posterior at {root}: {HEADER} is missing{hint}")
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PosteriorFileError(
            f"{path} is not readable as JSON ({error}): it is damaged"
        ) from error
    if not isinstance(header, dict):
        raise PosteriorFileError(f"{path} does not describe a posterior: it is damaged")
    schema = header.get("schema")
    if schema != SCHEMA:
        newer = isinstance(schema, int) and schema > SCHEMA
        advice = ": a newer version wrote it, upgrade to read it" if newer else ""
        raise PosteriorFileError(
            f"{path} has schema {schema!r}; this version of sbi-physics reads {SCHEMA}{advice}"
        )
    missing = sorted(_ENTRIES - header.keys())
    if missing:
        raise PosteriorFileError(f"{path} lacks the entries {', '.join(missing)}: it is damaged")
    return header


def _context_from(header: Mapping[str, Any], root: Path) -> PosteriorContext:
    try:
        observable = Observable.from_dict(header["observable"])
        simulator, outer, history = (
            header["simulator"],
            header["simulation_prior"],
            header["history"],
        )
        transform = None
        if TRANSFORM in header["sha256"]:
            transform = Transform(observable, _read_arrays(root, TRANSFORM, header["sha256"]))
        truncation = header.get("truncation")  # absent in folders of earlier versions
        if truncation is not None:
            x = _read_arrays(root, OBSERVATION, header["sha256"])["x"].astype(np.float32)
            truncation = Truncation.from_dict(truncation, x)
        return PosteriorContext(
            engine=header["engine"],
            prior=Prior.from_dict(header["prior"]),
            observable=observable,
            simulator=None if simulator is None else SimulatorIdentity.from_dict(simulator),
            simulation_prior=None if outer is None else Prior.from_dict(outer),
            simulations=header["simulations"],
            settings=header["settings"],
            seed=header["seed"],
            versions=header["versions"],
            history=None if history is None else TrainingHistory.from_dict(history),
            transform=transform,
            truncation=truncation,
        )
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise PosteriorFileError(
            f"{root / HEADER} cannot be understood ({error!r}): it is damaged"
        ) from error


def _read_arrays(root: Path, name: str, digests: Mapping[str, str]) -> dict[str, AnyArray]:
    from safetensors.numpy import load

    path = root / name
    if not path.is_file():
        raise PosteriorFileError(f"the posterior at {root} is incomplete: {name} is missing")
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if digest != digests.get(name):
        raise PosteriorFileError(
            f"{path} does not match its recorded sha256 (recorded {str(digests.get(name))[:12]}…, "
            f"file {digest[:12]}…): it was changed or damaged; train again or restore it"
        )
    arrays: dict[str, AnyArray] = load(data)
    return arrays
