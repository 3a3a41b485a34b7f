"""What a killed training leaves behind, and the next one continues from.

    <folder>/inputs.json       what is trained: engine, settings, seed, simulations, versions
    <folder>/<k>/posterior/    member k of an ensemble, finished
    <folder>/<k>/state/        the state of member k while it trains, written by the engine

Other inputs empty the folder, with a warning that says which. Whoever asks for it removes it when
the posterior is safe.
"""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sbi_physics.errors import TrainingError
from sbi_physics.posterior import Posterior, PosteriorContext
from sbi_physics.posterior_files import HEADER, load_posterior

if TYPE_CHECKING:
    from sbi_physics.engine import Engine

logger = logging.getLogger(__name__)

_INPUTS: Final = "inputs.json"


class TrainingFolder:
    """A folder that belongs to one training.

    Args:
        path: The folder; made if needed.
        context: What is trained. Another one than last time empties the folder.

    Raises:
        TrainingError: If the folder holds something else.
    """

    def __init__(self, path: Path, context: PosteriorContext) -> None:
        self.path = path
        inputs = {
            "engine": context.engine,
            "settings": dict(context.settings),
            "seed": context.seed,
            "infer": list(context.prior.names),
            "simulations": context.simulations["digest"],
            "versions": dict(context.versions),
        }
        text = json.dumps(inputs, sort_keys=True, indent=1)
        file = path / _INPUTS
        if path.exists() and not file.is_file() and any(path.iterdir()):
            raise TrainingError(
                f"{path} exists and holds no interrupted training (no {_INPUTS}); choose another "
                "folder for the checkpoint"
            )
        before = file.read_text(encoding="utf-8") if file.is_file() else None
        if before != text:
            if before is not None:
                logger.warning(
                    "%s held an interrupted training of other inputs (%s); it begins anew",
                    path,
                    _differences(before, inputs),
                )
            self.remove()
            path.mkdir(parents=True)
            partial = path / f".{_INPUTS}"
            partial.write_text(text, encoding="utf-8")
            partial.replace(file)

    def state(self, k: int) -> Path:
        """Folder for the state of member `k`."""
        return self.path / str(k) / "state"

    def finished(self, k: int, engine: Engine) -> Posterior | None:
        """Member `k`, if it was finished."""
        folder = self.path / str(k) / "posterior"
        return load_posterior(folder, engine=engine) if (folder / HEADER).is_file() else None

    def keep(self, k: int, member: Posterior) -> None:
        """Store a finished member, whose state is needed no more."""
        member.save(self.path / str(k) / "posterior")
        shutil.rmtree(self.state(k), ignore_errors=True)

    def remove(self) -> None:
        """Delete the folder."""
        if self.path.exists():
            shutil.rmtree(self.path)


def _differences(before: str, now: dict[str, Any]) -> str:
    """What changed: `seed: 5, now 6; settings max_epochs: 40, now 20`."""
    try:
        return "; ".join(_changes(json.loads(before), now))
    except json.JSONDecodeError:
        return f"{_INPUTS} is damaged"


def _changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    found = []
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            found += [f"{name} {text}" for text in _changes(old, new)]
        elif old != new:
            found.append(f"{name}: {old}, now {new}")
    return found
