"""How much is known about the cluster: the twelve parameters of its field, and their priors.

A level is the prior of the parameters that a user does not fix:

- ``five``: all twelve at the values of the cluster; mass, coupling and source spectrum vary.
- ``informed``: normal in log10, truncated, around the measurements of cool-core clusters.
- ``semi-informed``: uniform on the intervals of ``informed``; log-uniform for k_l and k_h.
- ``agnostic``: uniform on what is physically possible; log-uniform for k_l and k_h.

Numbers of the public analysis code behind arXiv:2509.20578. Lower ends that are zero there are
small and positive here, because a field without strength, density or core radius has no profile.
The smallest wavenumber of the turbulence stays below half the largest (`CONSTRAINT`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Literal

import numpy as np

from sbi_physics import Log10Normal, LogUniform, Mirrored, Parameter, Uniform
from sbi_physics.errors import ContractError
from sbi_physics.types import FloatArray
from sbi_physics_alp.field import Cluster

Level = Literal["five", "informed", "semi-informed", "agnostic"]
VARIED: Final[tuple[str, ...]] = tuple(field.name for field in fields(Cluster))
"""Names of the twelve parameters, in the order of theta."""

CONSTRAINT: Final = "k_l < k_h / 2"
_PAIR: Final = ("k_l", "k_h")


@dataclass(frozen=True, slots=True)
class _Entry:
    """One parameter: texts, where the simulator is defined, its priors as numbers.

    `informed` is mean, sd, low and high of log10 of the size; r_abell has none and is uniform on
    `agnostic`, the interval of the value, at every level.
    """

    unit: str
    label: str
    description: str
    support: tuple[float, float]
    agnostic: tuple[float, float]
    informed: tuple[float, float, float, float] | None = None
    logarithmic: bool = False


_TABLE: Final[Mapping[str, _Entry]] = {
    "b0": _Entry(
        "uG",
        "B_0",
        "Root mean square of the three-dimensional field at the centre.",
        (0.0, 1e3),
        (0.1, 165.0),
        (1.40, 0.28, 0.58, 2.22),
    ),
    "n0": _Entry(
        "1e-3 cm-3",
        "n_0",
        "First central electron density.",
        (0.0, 1e3),
        (0.1, 191.0),
        (1.66, 0.04, 1.54, 1.78),
    ),
    "n2": _Entry(
        "1e-3 cm-3",
        "n_2",
        "Second central electron density.",
        (0.0, 1e3),
        (0.1, 18.0),
        (0.62, 0.06, 0.43, 0.80),
    ),
    "r_abell": _Entry(
        "kpc", r"r_\mathrm{Abell}", "Where the field ends.", (10.0, 3e3), (300.0, 1000.0)
    ),
    "r_core": _Entry(
        "kpc",
        r"r_\mathrm{core}",
        "First core radius.",
        (0.1, 1e4),
        (1.0, 238.0),
        (1.76, 0.12, 1.40, 2.11),
    ),
    "r_core2": _Entry(
        "kpc",
        r"r_\mathrm{core,2}",
        "Second core radius.",
        (0.1, 1e4),
        (1.0, 1122.0),
        (2.43, 0.16, 1.96, 2.90),
    ),
    "beta": _Entry(
        "", r"\beta", "First slope.", (0.0, 20.0), (0.05, 5.0), (0.08, 0.10, -0.22, 0.38)
    ),
    "beta2": _Entry(
        "", r"\beta_2", "Second slope.", (0.0, 20.0), (0.29, 0.87), (-0.16, 0.09, -0.42, 0.09)
    ),
    "eta": _Entry(
        "",
        r"\eta",
        "Exponent of the field's dependence on the density.",
        (0.0, 10.0),
        (0.0, 3.0),
        (-0.21, 0.23, -0.90, 0.48),
    ),
    "k_l": _Entry(
        "kpc-1",
        "k_L",
        "Smallest wavenumber of the turbulence.",
        (1e-3, 50.0),
        (10**-1.3, 10**0.39),
        (-0.41, 0.27, -1.22, 0.39),
        logarithmic=True,
    ),
    "k_h": _Entry(
        "kpc-1",
        "k_H",
        "Largest wavenumber of the turbulence.",
        (0.1, 100.0),
        (1.0, 10**1.85),
        (0.93, 0.10, 0.62, 1.24),
        logarithmic=True,
    ),
    "q": _Entry(
        "",
        "q",
        "Index of the turbulence spectrum, negative when falling.",
        (-10.0, 2.0),
        (-6.0, -0.05),
        (0.29, 0.08, 0.07, 0.52),
    ),
}


class ClusterPrior:
    """Which parameters of a cluster vary, under which prior, and the values of the others.

    Args:
        cluster: Values of the parameters that do not vary, each a number.
        level: The level; see the head of this module.
        free: Parameters to vary besides those of the level; at level ``five`` their prior is that
            of ``informed``.
        fixed: Parameters held at a value whatever the level says.

    Where one of k_l and k_h varies, its prior ends where the value of the other makes it end; if
    the cluster's own value lies beyond, benchmark points have the median of that prior.

    Raises:
        ContractError: If a name is both free and fixed, or a fixed value lies outside the range
            where the simulator is defined, or breaks `CONSTRAINT` whatever the other does.
    """

    def __init__(
        self,
        cluster: Cluster,
        level: Level = "five",
        free: Collection[str] = (),
        fixed: Mapping[str, float] | None = None,
    ) -> None:
        fixed = dict(fixed or {})
        both = sorted(set(fixed) & set(free))
        if both:
            raise ContractError(f"{', '.join(both)}: both free and set to a value; choose one")
        for name, value in fixed.items():
            low, high = _TABLE[name].support
            if not low <= value <= high:
                unit = f" {_TABLE[name].unit}".rstrip()
                raise ContractError(f"{name} = {value:g}{unit}: accepted is {low:g} to {high:g}")
        wanted = set(free) if level == "five" else set(VARIED) - set(fixed)
        self.names = tuple(name for name in VARIED if name in wanted)
        parameters = {
            name: _parameter(name, "informed" if level == "five" else level) for name in self.names
        }
        fixed |= _wavenumbers_apart(parameters, cluster, fixed)
        self.cluster = replace(cluster, **fixed)
        self.parameters = tuple(parameters.values())

    @property
    def constraints(self) -> tuple[str, ...]:
        """The relation between k_l and k_h, where it says anything about a varied parameter."""
        varied = [name for name in ("k_l", "k_h") if name in self.names]
        if len(varied) == 2:
            return (CONSTRAINT,)
        if varied == ["k_l"]:
            return (f"k_l < {float(np.asarray(self.cluster.k_h)) / 2.0!r}",)
        if varied == ["k_h"]:
            return (f"k_h > {2.0 * float(np.asarray(self.cluster.k_l))!r}",)
        return ()

    @property
    def values(self) -> dict[str, float]:
        """The cluster's own values of the varied parameters, for benchmark points."""
        return {name: float(np.asarray(getattr(self.cluster, name))) for name in self.names}

    def clusters(self, columns: FloatArray) -> Cluster:
        """The cluster of each simulation.

        Args:
            columns: Values of the varied parameters, shape (n, len(names)).

        Raises:
            ContractError: If k_l is not below k_h somewhere, or there are no electrons at all.
        """
        try:
            varied: dict[str, Any] = dict(zip(self.names, columns.T, strict=True))
            return replace(self.cluster, **varied)
        except ValueError as error:
            raise ContractError(f"theta describes an impossible cluster: {error}") from error


def _wavenumbers_apart(
    parameters: dict[str, Parameter], cluster: Cluster, fixed: Mapping[str, float]
) -> dict[str, float]:
    """Make `CONSTRAINT` hold where at least one of k_l and k_h does not vary.

    The prior of the one that varies is cut, in place, where the other makes it end: rejecting
    draws would give up where little is left.

    Returns:
        The value of the one that varies where that of the cluster breaks the constraint: the
        median of its prior.
    """
    own = {name: float(np.asarray(getattr(cluster, name))) for name in _PAIR} | {
        name: fixed[name] for name in _PAIR if name in fixed
    }
    held = [name for name in _PAIR if name not in parameters]
    apart = own["k_l"] < own["k_h"] / 2.0
    if len(held) == 2 and not apart:
        blamed = next((name for name in held if name in fixed), "k_l")
        (partner,) = set(_PAIR) - {blamed}
        raise ContractError(_refusal(blamed, own[blamed], f"{partner} is {own[partner]:g}", own))
    if len(held) != 1:
        return {}
    (varied,) = set(_PAIR) - set(held)
    low, high = parameters[varied].bounds
    ends = (low, own["k_h"] / 2.0) if varied == "k_l" else (2.0 * own["k_l"], high)
    ends = max(ends[0], low), min(ends[1], high)
    if not ends[0] < ends[1]:
        why = f"{varied} varies from {low:.4g} to {high:.4g}"
        raise ContractError(_refusal(held[0], own[held[0]], why, {"k_l": low, "k_h": high}))
    if ends != (low, high):
        distribution = parameters[varied].distribution.truncate(*ends)
        parameters[varied] = replace(parameters[varied], distribution=distribution)
    return {} if apart else {varied: float(parameters[varied].distribution.ppf(0.5))}


def _refusal(name: str, value: float, why: str, ends: Mapping[str, float]) -> str:
    """A value that breaks `CONSTRAINT` for its partner, which reaches to ``ends``."""
    if name == "k_l":
        accepted = f"below {ends['k_h'] / 2.0:.4g}"
    else:
        accepted = f"above {2.0 * ends['k_l']:.4g}"
    return f"{name} = {value:g} kpc-1: accepted is {accepted}, as {why} kpc-1 and {CONSTRAINT}"


def _parameter(name: str, level: Level) -> Parameter:
    entry = _TABLE[name]
    return Parameter(
        name,
        _distribution(name, entry, level),
        unit=entry.unit,
        label=entry.label,
        role="nuisance",
        description=entry.description,
        support=entry.support,
    )


def _distribution(name: str, entry: _Entry, level: Level) -> Any:
    family = LogUniform if entry.logarithmic else Uniform
    if level == "agnostic" or entry.informed is None:
        return family(*entry.agnostic)
    mean, sd, low, high = entry.informed
    low, high = 10**low, 10**high
    if level == "semi-informed":
        return Uniform(-high, -low) if name == "q" else family(low, high)
    size = Log10Normal(mean, sd, low, high)
    return Mirrored(size) if name == "q" else size
