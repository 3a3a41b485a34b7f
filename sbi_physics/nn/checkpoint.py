"""Checkpoints of a training loop: arrays and a JSON record in one safetensors file, no pickle.

The file is written beside its final place, synced and renamed, so that it is either the old state
or the new one whenever the process dies.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

_RECORD: Final = "record"

logger = logging.getLogger(__name__)


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Replace a checkpoint.

    Args:
        path: The file; its folder is made if needed.
        tensors: Named tensors.
        record: JSON-ready values.
    """
    from safetensors.numpy import save

    # Copies: weights may share memory, which the format refuses.
    arrays = {k: np.array(v.detach().cpu().numpy(), order="C") for k, v in tensors.items()}
    content = save(arrays, metadata={_RECORD: json.dumps(record)})
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.writing")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return the tensors and the record of a checkpoint; None where there is no whole one.

    A damaged file, which only a failing disk can leave, is reported as a warning: training then
    starts anew, with the same result.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="np") as file:
            record: dict[str, Any] = json.loads(file.metadata()[_RECORD])
            names: list[str] = list(file.keys())
            # Copies: the file's own memory is read-only.
            tensors = {k: torch.from_numpy(np.array(file.get_tensor(k))) for k in names}
    except (SafetensorError, OSError, TypeError, KeyError, ValueError) as error:
        logger.warning("the checkpoint %s is damaged (%s): training starts anew", path, error)
        return None
    return tensors, record
