r"""L-GATr, a Lorentz-equivariant transformer (arXiv:2405.14806, 2411.00446), for WZ events.

Particles are tokens. A token is a multivector of the spacetime algebra, with the four-momentum in
its vector grade, and scalars that no transformation changes. A further token without momentum
stands for the event; what it holds as scalar after the last layer is the output.

Invariance under the whole Lorentz group would discard the direction of the beams. Reference
multivectors, additional channels of all tokens, break it: the plane transverse to the beams leaves
rotations about them and boosts along them, the direction of time takes the boosts away too.

Networks come from the package `lgatr`, an optional dependency that is imported when one is built.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn

from sbi_physics.errors import PluginError
from sbi_physics.transforms import Transform
from sbi_physics_smeft.engines.particles import EVENT_SCALARS, PARTICLE_SCALARS, ParticleTokens

EXTRA: Final = "sbi-physics-smeft[lgatr]"

References = Literal["beam-time", "beam"]

_AT_ONCE: Final = 1024  # without gradients; products of multivectors need 0.1 MB an event
_REQUIRED: Final = ("LGATr", "embed_vector", "extract_scalar", "get_spurions")


def import_lgatr() -> Any:
    """Return the package `lgatr`.

    Raises:
        PluginError: If it is missing or too old, with what to install.
    """
    try:
        lgatr = importlib.import_module("lgatr")
    except ImportError as error:
        raise PluginError(
            f"network='lgatr' needs the package lgatr, which cannot be imported ({error}): "
            f'pip install "{EXTRA}"'
        ) from error
    lacking = [name for name in (*_REQUIRED, "PrimitivesConfig") if not hasattr(lgatr, name)]
    if lacking:
        raise PluginError(
            f"the installed lgatr {getattr(lgatr, '__version__', '')} has no "
            f"{', '.join(lacking)}; network='lgatr' works with: pip install \"{EXTRA}\""
        )
    return lgatr


@dataclass(frozen=True, slots=True)
class LgatrSizes:
    """Sizes of a network.

    Attributes:
        blocks: Transformer blocks.
        multivectors: Multivector channels.
        scalars: Scalar channels.
        heads: Attention heads.
        expansion: Channels inside the perceptrons of the blocks over those between blocks.
        references: What breaks the Lorentz group: 'beam' or 'beam-time'.
    """

    blocks: int = 4
    multivectors: int = 16
    scalars: int = 32
    heads: int = 4
    expansion: int = 2
    references: References = "beam-time"


class EventTransformer(nn.Module):
    """Functions of an event that do not change when all its momenta are transformed.

    Args:
        n_out: Outputs.
        sizes: Sizes and references.
        particle_scalars: Scalars of a particle.
        event_scalars: Scalars of an event.

    Raises:
        PluginError: If `lgatr` is not installed.
    """

    references: Tensor

    def __init__(
        self,
        n_out: int,
        sizes: LgatrSizes,
        particle_scalars: int = len(PARTICLE_SCALARS),
        event_scalars: int = len(EVENT_SCALARS),
    ) -> None:
        super().__init__()
        lgatr = import_lgatr()
        self._embed, self._extract = lgatr.embed_vector, lgatr.extract_scalar
        references = lgatr.get_spurions(
            beam_spurion="xyplane", add_time_spurion=sizes.references == "beam-time"
        )
        self.register_buffer("references", references, persistent=False)
        self.transformer: nn.Module = lgatr.LGATr(
            num_blocks=sizes.blocks,
            in_mv_channels=1 + len(references),
            out_mv_channels=n_out,
            hidden_mv_channels=sizes.multivectors,
            in_s_channels=particle_scalars + event_scalars + 1,
            out_s_channels=0,
            hidden_s_channels=sizes.scalars,
            attention={"num_heads": sizes.heads},
            mlp={"mlp_ratio": sizes.expansion},
            # A quarter faster on a processor; the same function but for rounding.
            primitives={"sparse_linear": True},
        )

    def forward(self, momenta: Tensor, scalars: Tensor, event: Tensor) -> Tensor:
        """Return the event token's scalars.

        Args:
            momenta: (E, px, py, pz) of the particles, shape (batch, particles, 4); their order
                does not matter.
            scalars: Scalars of the particles, shape (batch, particles, particle_scalars).
            event: Scalars of the event, shape (batch, event_scalars).

        Returns:
            Shape (batch, n_out).
        """
        n = len(momenta)
        vectors = self._embed(nn.functional.pad(momenta, (0, 0, 0, 1)))[:, :, None]
        references = self.references.expand(n, vectors.shape[1], -1, -1)
        own = nn.functional.pad(scalars, (0, event.shape[1] + 1))
        whole = torch.cat([event.new_zeros(n, scalars.shape[2]), event, event.new_ones(n, 1)], 1)
        tokens = torch.cat([own, whole[:, None]], dim=1)
        found, _ = self.transformer(torch.cat([vectors, references], dim=2), scalars=tokens)
        outputs: Tensor = self._extract(found[:, -1])[..., 0]
        return outputs


class MemberTransformer(nn.Module):
    """Independent networks of the particles of events, in place of `MemberPerceptron`.

    Args:
        transform: What has standardised the features.
        n_out: Outputs of each network.
        members: Number of networks.
        sizes: Their sizes.

    Raises:
        PluginError: If `lgatr` is not installed.
        TrainingError: If the data are not reconstructed particles.
    """

    def __init__(self, transform: Transform, n_out: int, members: int, sizes: LgatrSizes) -> None:
        super().__init__()
        self.tokens = ParticleTokens(transform)
        self.networks = nn.ModuleList(EventTransformer(n_out, sizes) for _ in range(members))
        self.members = members

    def forward(self, x: Tensor) -> Tensor:
        """Return outputs of all members, (batch, features) -> (members, batch, n_out)."""
        pieces: Sequence[Tensor] = [x] if torch.is_grad_enabled() else x.split(_AT_ONCE)
        found = []
        for piece in pieces:
            event = self.tokens(piece)
            found.append(torch.stack([network(*event) for network in self.networks]))
        return torch.cat(found, dim=1)
