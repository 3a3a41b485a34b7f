"""Where networks run: the processor, or an accelerator that torch sees.

Posteriors live on the processor. A network is on another device only while it trains there, or
after `posterior.to(device)`; data and parameters travel in batches, and whatever needs double
precision stays behind, because not every accelerator has it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final, Literal

import torch
from torch import nn

from sbi_physics.errors import OptionError

DeviceName = Literal["auto", "cpu", "cuda", "mps"]

CPU: Final = torch.device("cpu")


def available() -> tuple[str, ...]:
    """Return the devices that torch can use here, the processor first."""
    found = ["cpu"]
    if torch.cuda.is_available():
        found.append("cuda")
    if torch.backends.mps.is_available():
        found.append("mps")
    return tuple(found)


def resolve_device(name: str) -> torch.device:
    """Return the device that a setting means; `auto` is CUDA where there is one, else the CPU.

    Raises:
        OptionError: If there is no such device here.
    """
    found = available()
    if name == "auto":
        return torch.device("cuda" if "cuda" in found else "cpu")
    if name not in found:
        raise OptionError(
            f"device {name!r} was asked for, but torch {torch.__version__} sees only "
            f"{', '.join(found)} here; set device to one of these or to 'auto', or install a "
            "build of torch for that device"
        )
    return torch.device(name)


def device_of(network: nn.Module) -> torch.device:
    """Return where a network's weights are; the processor if it has none."""
    return next((p.device for p in network.parameters()), CPU)


@contextlib.contextmanager
def seeded(seed: int, device: torch.device = CPU) -> Iterator[None]:
    """Seed torch's generators of the processor and of `device`, and restore them afterwards."""
    cuda = [torch.cuda.current_device()] if device.type == "cuda" else []
    mps = torch.mps.get_rng_state() if device.type == "mps" else None
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(seed)
        try:
            yield
        finally:
            if mps is not None:
                torch.mps.set_rng_state(mps)
