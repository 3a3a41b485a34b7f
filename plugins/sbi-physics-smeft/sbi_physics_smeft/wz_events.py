r"""A WZ event from a list of particles: which lepton is whose, and its kinematics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from sbi_physics.errors import ObservationError
from sbi_physics.types import FloatArray, IntArray
from sbi_physics_smeft.model import M_Z

_CHARGED: Final = (11, 13, 15)
_NEUTRINOS: Final = (12, 14, 16)


def wz_leptons(event: Any) -> list[float]:
    """What is kept of a pylhe event: charge, direction of the quark, momenta; 14 numbers.

    Leptons belong to the boson they descend from where the record has it; else the pair of one
    flavour and opposite charge nearest to the Z mass is the Z's.

    Args:
        event: A pylhe event with three charged leptons and a neutrino in the final state.

    Returns:
        Charge of the W; 1 if the quark goes along +z, -1 if along -z, 0 if unknown (gluons);
        px, py, pz in GeV of the W's charged lepton, neutrino, negative and positive lepton of
        the Z.

    Raises:
        ObservationError: If the final state is another.
    """
    final = [p for p in event.particles if p.status == 1]
    leptons = [p for p in final if abs(p.id) in _CHARGED]
    neutrinos = [p for p in final if abs(p.id) in _NEUTRINOS]
    if len(leptons) != 3 or len(neutrinos) != 1:
        listed = ", ".join(str(p.id) for p in final)
        raise ObservationError(
            f"final state ({listed}) is not three charged leptons and one neutrino"
        )
    charge = -sum(int(np.sign(p.id)) for p in leptons)
    negative, positive = _z_pair(event, leptons)
    lepton = next(p for p in leptons if p is not negative and p is not positive)
    incoming = [p for p in event.particles if p.status == -1]
    quarks = [p for p in incoming if 1 <= p.id <= 6]
    direction = float(np.sign(quarks[0].pz)) if len(quarks) == 1 else 0.0
    momenta = [
        component
        for p in (lepton, neutrinos[0], negative, positive)
        for component in (p.px, p.py, p.pz)
    ]
    return [float(charge), direction, *momenta]


def _z_pair(event: Any, leptons: list[Any]) -> tuple[Any, Any]:
    pairs = [(a, b) for a in leptons for b in leptons if a.id > 0 and b.id == -a.id]
    if not pairs:
        listed = ", ".join(str(p.id) for p in leptons)
        raise ObservationError(f"leptons ({listed}) have no pair of one flavour")
    described = [pair for pair in pairs if all(_parent(event, lepton) == 23 for lepton in pair)]
    return min(described or pairs, key=lambda pair: abs(_mass(*pair) - M_Z))


def _parent(event: Any, particle: Any) -> int:
    """Particle number of the first ancestor that is a boson, 0 if there is none."""
    while 0 < particle.mother1 <= len(event.particles):
        particle = event.particles[particle.mother1 - 1]
        if abs(particle.id) in (23, 24):
            return abs(int(particle.id))
    return 0


def _mass(a: Any, b: Any) -> float:
    total = [getattr(a, k) + getattr(b, k) for k in ("e", "px", "py", "pz")]
    return float(np.sqrt(max(total[0] ** 2 - sum(c * c for c in total[1:]), 0.0)))


@dataclass(frozen=True, slots=True)
class Kinematics:
    """Coordinates of WZ events, as `generator.Events` has them.

    Attributes:
        sqrt_s: Invariant mass of the pair, GeV, shape (n,).
        rapidity: Rapidity of the pair.
        cos_theta: Cosine of the angle between W and quark.
        decay: cos and phi of the W's charged lepton, cos and phi of the Z's negative lepton in
            the bosons' rest frames, shape (n, 4); phi from 0 to 2 pi.
    """

    sqrt_s: FloatArray
    rapidity: FloatArray
    cos_theta: FloatArray
    decay: FloatArray


def kinematics(momenta: FloatArray, direction: IntArray) -> Kinematics:
    """Coordinates of events from laboratory momenta, for bosons without transverse recoil.

    Args:
        momenta: px, py, pz in GeV of the W's lepton, neutrino, l-, l+, shape (n, 4, 3).
        direction: 1 where the quark goes along +z, -1 along -z, shape (n,).
    """
    p = np.concatenate([np.linalg.norm(momenta, axis=-1, keepdims=True), momenta], axis=-1)
    total = p.sum(axis=1)
    sqrt_s = np.sqrt(np.maximum(total[:, 0] ** 2 - (total[:, 1:] ** 2).sum(axis=1), 0.0))
    rapidity = np.arctanh(total[:, 3] / total[:, 0])
    # Undo the boost along the beam, put the quark along +z and the W into the x-z plane.
    cosh, sinh = np.cosh(rapidity)[:, None], np.sinh(rapidity)[:, None]
    e, z = cosh * p[..., 0] - sinh * p[..., 3], cosh * p[..., 3] - sinh * p[..., 0]
    flip = direction.astype(np.float64)[:, None]
    x, y, z = flip * p[..., 1], p[..., 2], flip * z
    w = np.stack([q[:, :2].sum(axis=1) for q in (e, x, y, z)], axis=1)
    azimuth = np.arctan2(w[:, 2], w[:, 1])[:, None]
    x, y = np.cos(azimuth) * x + np.sin(azimuth) * y, np.cos(azimuth) * y - np.sin(azimuth) * x
    centre = np.stack([e, x, y, z], axis=-1)
    w_momentum = centre[:, :2].sum(axis=1)
    z_momentum = centre[:, 2:].sum(axis=1)
    angles = []
    for boson, lepton in ((w_momentum, centre[:, 0]), (z_momentum, centre[:, 2])):
        at_rest = _to_rest(lepton, boson)
        angles += [
            at_rest[:, 3] / np.linalg.norm(at_rest[:, 1:], axis=1),
            np.arctan2(at_rest[:, 2], at_rest[:, 1]) % (2 * np.pi),
        ]
    return Kinematics(
        sqrt_s=sqrt_s,
        rapidity=rapidity,
        cos_theta=w_momentum[:, 3] / np.linalg.norm(w_momentum[:, 1:], axis=1),
        decay=np.stack(angles, axis=1),
    )


def _to_rest(particle: FloatArray, parent: FloatArray) -> FloatArray:
    """Four-momentum in the rest frame of the parent, boosted without rotation, shape (n, 4)."""
    mass = np.sqrt(parent[:, 0] ** 2 - (parent[:, 1:] ** 2).sum(axis=1))
    product = (parent[:, 1:] * particle[:, 1:]).sum(axis=1)
    energy = (parent[:, 0] * particle[:, 0] - product) / mass
    factor = (particle[:, 0] + energy) / (parent[:, 0] + mass)
    space = particle[:, 1:] - factor[:, None] * parent[:, 1:]
    return np.concatenate([energy[:, None], space], axis=1)
