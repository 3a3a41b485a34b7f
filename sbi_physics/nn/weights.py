"""Weights of a network as named arrays, for storage without pickles."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from sbi_physics.types import AnyArray


def to_arrays(network: nn.Module) -> dict[str, AnyArray]:
    """Return a network's parameters and buffers as arrays, by name."""
    return {k: v.detach().cpu().numpy().copy() for k, v in network.state_dict().items()}


def load_arrays(network: nn.Module, weights: Mapping[str, AnyArray]) -> None:
    """Put arrays into a network, whose names must all match, and set it to evaluation mode."""
    state = {k: torch.from_numpy(np.array(v)) for k, v in weights.items()}
    network.load_state_dict(state, strict=True)
    network.eval()
