"""Events of the built-in generator as a Les Houches file with weights, for other programs."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from sbi_physics.errors import ContractError
from sbi_physics.types import FloatArray
from sbi_physics_smeft.conventions import ratio
from sbi_physics_smeft.cross_section import BEAM_ENERGY
from sbi_physics_smeft.generator import Events
from sbi_physics_smeft.model import COEFFICIENTS, M_W, M_Z
from sbi_physics_smeft.parton_densities import QUARKS

_SCALE = 100.0


def write_lhe(
    path: str | Path,
    events: Events,
    points: Mapping[str, Sequence[float]],
    rng: np.random.Generator,
    *,
    cross_section: float,
    beam_energy: float = BEAM_ENERGY,
    digits: int = 11,
) -> None:
    """Write Standard Model events with weights at several points.

    Args:
        path: File to write; compressed if it ends in .gz.
        events: Unweighted events drawn at theta = 0.
        points: Coefficients (C_HWB, C_W, C_Hq3) of each weight, by its id.
        rng: Source of randomness of the lepton flavours, e or mu.
        cross_section: Cross section of the sample at theta = 0 in pb.
        beam_energy: Centre-of-mass energy of the beams, GeV.
        digits: Significant digits of the weights.

    Raises:
        ContractError: If a point has another number of coefficients than three.
    """
    wrong = [name for name, point in points.items() if len(point) != len(COEFFICIENTS)]
    if wrong:
        raise ContractError(
            f"point {wrong[0]!r} must have {len(COEFFICIENTS)} coefficients "
            f"({', '.join(COEFFICIENTS)}), got {points[wrong[0]]}"
        )
    basis = np.array([points[name] for name in points], dtype=np.float64)
    weights = cross_section * ratio(events.gram, basis)
    flavours = rng.choice([11, 13], (len(weights), 2))
    text = [
        '<LesHouchesEvents version="3.0">\n',
        *_header(points),
        *_init(cross_section, beam_energy),
    ]
    opened = gzip.open if Path(path).suffix == ".gz" else open
    with opened(path, "wt") as file:
        file.writelines(text)
        for k in range(len(weights)):
            file.write("<event>\n")
            file.write(f" 8 1 {cross_section:+.10e} {_SCALE:.8e} 7.81860800e-03 1.18000000e-01\n")
            file.writelines(_particles(events, k, flavours[k], beam_energy))
            file.write("<rwgt>\n")
            file.writelines(
                f"<wgt id='{name}'> {weight:+.{digits - 1}e} </wgt>\n"
                for name, weight in zip(points, weights[k], strict=True)
            )
            file.write("</rwgt>\n</event>\n")
        file.write("</LesHouchesEvents>\n")


def _header(points: Mapping[str, Sequence[float]]) -> Iterator[str]:
    yield "<header>\n<initrwgt>\n<weightgroup name='smeft_reweighting'>\n"
    for name, point in points.items():
        commands = " ; ".join(
            f"set param_card SMEFT {k + 1} {value:g} # {coefficient}"
            for k, (coefficient, value) in enumerate(zip(COEFFICIENTS, point, strict=True))
        )
        yield f"<weight id='{name}'>{commands}</weight>\n"
    yield "</weightgroup>\n</initrwgt>\n</header>\n"


def _init(cross_section: float, beam_energy: float) -> Iterator[str]:
    beam = beam_energy / 2
    yield f"<init>\n 2212 2212 {beam:.8e} {beam:.8e} 0 0 0 0 -4 1\n"
    yield f" {cross_section:.10e} 0.0 {cross_section:.10e} 1\n</init>\n"


def _particles(events: Events, k: int, flavours: FloatArray, beam_energy: float) -> Iterator[str]:
    p = events.momenta[k]
    lepton = np.concatenate([np.linalg.norm(p, axis=1, keepdims=True), p], axis=1)
    w, z = lepton[:2].sum(axis=0), lepton[2:].sum(axis=0)
    charge, channel = int(events.charge[k]), int(events.channel[k])
    quark, antiquark = QUARKS[0 if charge > 0 else 1][channel // 2]
    beams = [quark, antiquark] if channel % 2 == 0 else [antiquark, quark]
    energies = events.sqrt_s[k] / 2 * np.exp([events.rapidity[k], -events.rapidity[k]])
    of_w, of_z = (int(f) for f in flavours)
    for code, energy, sign in zip(beams, energies, (1, -1), strict=True):
        colours = (501, 0) if code > 0 else (0, 501)
        yield _line(code, -1, (0, 0), colours, (energy, 0.0, 0.0, sign * energy), 0.0)
    yield _line(24 * charge, 2, (1, 2), (0, 0), w, M_W)
    yield _line(23, 2, (1, 2), (0, 0), z, M_Z)
    yield _line(-charge * of_w, 1, (3, 3), (0, 0), lepton[0], 0.0)
    yield _line(charge * (of_w + 1), 1, (3, 3), (0, 0), lepton[1], 0.0)
    yield _line(of_z, 1, (4, 4), (0, 0), lepton[2], 0.0)
    yield _line(-of_z, 1, (4, 4), (0, 0), lepton[3], 0.0)


def _line(
    code: int,
    status: int,
    mothers: tuple[int, int],
    colours: tuple[int, int],
    p: Sequence[float] | FloatArray,
    mass: float,
) -> str:
    numbers = " ".join(f"{v:+.10e}" for v in (p[1], p[2], p[3], p[0], mass))
    integers = " ".join(str(v) for v in (code, status, *mothers, *colours))
    return f" {integers} {numbers} 0.0 9.0\n"
