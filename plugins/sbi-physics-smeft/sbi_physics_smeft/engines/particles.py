r"""Particles of reconstructed WZ events, rebuilt from the detector's features.

The 20 features of `detector` hold transverse momentum, pseudorapidity and azimuth (relative to
that of the Z) of three leptons, and the missing transverse momentum. They thus fix all measured
momenta but for a common rotation about the beam, on which nothing depends:

.. math:: p = p_T\,(\cosh\eta, \cos\phi, \sin\phi, \sinh\eta), \qquad
    p_\mathrm{miss} = (0, p_T\cos\phi, p_T\sin\phi, 0) .

Missing momentum has no component along time or beam: unlike a massless vector at zero rapidity,
it then stays what it is where leptons are boosted along the beam, as what was measured does.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from sbi_physics import Observable
from sbi_physics.errors import TrainingError
from sbi_physics.transforms import Transform
from sbi_physics_smeft.detector import FEATURES

N_PARTICLES: Final = 4
"""W's lepton, Z's negative and positive lepton, missing momentum, in this order."""

PARTICLE_SCALARS: Final = ("charge", "ln_pt", "is_w_lepton", "is_z_lepton", "is_missing")
"""What a particle has beside its momentum; `ln_pt` is standardised. Flavours are not in the data:
the simulators' electrons and muons are measured alike."""

EVENT_SCALARS: Final = ("charge", "m_ll", "ln_pt_z", "ln_mt_w", "ln_mt_wz")
"""What an event has as a whole, all but the charge standardised."""

_UNIT: Final = 100.0  # GeV
_LEPTONS: Final = ("l", "lm", "lp")
_LISTED: Final = 6


def particle_columns(observable: Observable) -> tuple[int, ...]:
    """Return the columns of the detector's features.

    Args:
        observable: Data of single events, or of sets of them.

    Raises:
        TrainingError: If the data are not reconstructed particles.
    """
    missing = [name for name in FEATURES if name not in observable.names]
    if missing:
        listed = ", ".join(observable.names[:_LISTED]) or f"{observable.shape[-1]} without names"
        more = ", ..." if len(observable.names) > _LISTED else ""
        raise TrainingError(
            "network='lgatr' needs reconstructed particles, the features that smeft-wz and "
            f"smeft-lhe give with level='detector'; these data ({listed}{more}) lack "
            f"{', '.join(missing[:_LISTED])}{', ...' if len(missing) > _LISTED else ''}. "
            "Use network='mlp'"
        )
    if observable.transform != ("standardize",):
        raise TrainingError(
            "network='lgatr' undoes the transform 'standardize' only; these data have "
            f"{', '.join(observable.transform) or 'none'}"
        )
    return tuple(observable.names.index(name) for name in FEATURES)


class ParticleTokens(nn.Module):
    """Momenta and scalars of events from standardised features.

    Args:
        transform: What has standardised them.

    Raises:
        TrainingError: If the data are not reconstructed particles.
    """

    mean: Tensor
    spread: Tensor
    columns: Tensor
    kinds: Tensor

    def __init__(self, transform: Transform) -> None:
        super().__init__()
        columns = torch.tensor(particle_columns(transform.observable))
        constants = transform.arrays()
        for name, key in (("mean", "mean"), ("spread", "sd")):
            values = torch.from_numpy(constants[key]).float()[columns]
            self.register_buffer(name, values, persistent=False)
        kinds = torch.zeros(N_PARTICLES, 3)
        kinds[[0, 1, 2, 3], [0, 1, 1, 2]] = 1.0
        self.register_buffer("columns", columns, persistent=False)
        self.register_buffer("kinds", kinds, persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what an event consists of.

        Args:
            x: Standardised features, shape (batch, features).

        Returns:
            Momenta (E, px, py, pz) in 100 GeV, shape (batch, 4, 4), in a frame where the Z has
            azimuth zero; `PARTICLE_SCALARS`, shape (batch, 4, 5); `EVENT_SCALARS`, shape
            (batch, 5).
        """
        standard = dict(zip(FEATURES, x[:, self.columns].unbind(dim=1), strict=True))
        raw = self.mean + self.spread * x[:, self.columns]
        value = dict(zip(FEATURES, raw.unbind(dim=1), strict=True))
        none = torch.zeros_like(value["charge"])
        momenta, charges, log_pt = [], [value["charge"], none - 1.0, none + 1.0, none], []
        for who in _LEPTONS:
            pt, eta = value[f"ln_pt_{who}"].exp(), value[f"eta_{who}"]
            transverse = pt * value[f"cos_{who}"], pt * value[f"sin_{who}"]
            momenta += [pt * eta.cosh(), *transverse, pt * eta.sinh()]
            log_pt.append(standard[f"ln_pt_{who}"])
        met = value["ln_met"].exp() - 1.0
        momenta += [none, met * value["cos_met"], met * value["sin_met"], none]
        log_pt.append(standard["ln_met"])
        own = torch.stack([*charges, *log_pt], dim=1).unflatten(1, (2, N_PARTICLES)).mT
        kinds = self.kinds.expand(len(x), -1, -1)
        event = torch.stack(
            [value["charge"], *(standard[name] for name in EVENT_SCALARS[1:])], dim=1
        )
        four = torch.stack(momenta, dim=1).unflatten(1, (N_PARTICLES, 4)) / _UNIT
        return four, torch.cat([own, kinds], dim=2), event
