"""The points of a grid of simulator options."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sbi_physics.config import RunConfig, option_value
from sbi_physics.errors import ConfigError
from sbi_physics.simulator import Simulator
from sbi_physics.study.plan import make_simulator

_UNSAFE = re.compile(r"[^A-Za-z0-9.+=,-]+")


@dataclass(frozen=True, slots=True, eq=False)
class GridPoint:
    """One combination of values.

    Attributes:
        values: Option -> value as it was asked for.
        folder: Name of its run directory.
        config: Its study.
        simulator: The simulator with these options.
    """

    values: Mapping[str, Any]
    folder: str
    config: RunConfig
    simulator: Simulator

    @property
    def title(self) -> str:
        """The values as text."""
        return ", ".join(f"{name} = {value}" for name, value in self.values.items())


def make_grid(
    config: RunConfig, vary: Mapping[str, Sequence[Any]], simulator: Simulator | None = None
) -> list[GridPoint]:
    """Return all combinations, the last option varying fastest.

    Args:
        config: The study without the varied options.
        vary: Options and their values.
        simulator: Use its class and other options instead of asking the registry.

    Raises:
        ConfigError: If nothing is varied, or two combinations are the same simulator.
        OptionError: If the simulator refuses a value.
    """
    for name, values in vary.items():
        if isinstance(values, str) or not len(values):
            raise ConfigError(f"option {name!r} is varied over {values!r}; give a list of values")
    if not vary:
        raise ConfigError("nothing is varied: name at least one option and its values")
    twice = [name for name in vary if name in config.options and simulator is None]
    if twice:
        raise ConfigError(f"{', '.join(twice)}: set to one value and varied; do one of the two")
    points: list[GridPoint] = []
    for combination in itertools.product(*vary.values()):
        chosen = dict(zip(vary, combination, strict=True))
        own = config.model_copy(update={"options": {**config.options, **chosen}})
        made = (
            make_simulator(own)
            if simulator is None
            else type(simulator)(**{**simulator.options.model_dump(), **chosen})
        )
        point = GridPoint(chosen, _folder(chosen, (p.folder for p in points)), own, made)
        for other in points:
            if other.simulator.identity == made.identity:
                raise ConfigError(f"two points are the same: {other.title} and {point.title}")
        points.append(point)
    return points


def group_by_truth(points: Sequence[GridPoint]) -> list[list[GridPoint]]:
    """Group points whose latents are the same, so that they may be simulated once.

    Points that share theirs with no other are groups of one.
    """
    groups: dict[str, list[GridPoint]] = {}
    for point in points:
        groups.setdefault(_truth_key(point), []).append(point)
    return list(groups.values())


def parse_vary(items: Iterable[str]) -> dict[str, list[Any]]:
    """Parse arguments `option=a,b,c`; commas inside brackets belong to a value.

    Raises:
        ConfigError: If an argument has another form or a name comes twice.
    """
    parsed: dict[str, list[Any]] = {}
    for item in items:
        name, equals, text = item.partition("=")
        values = [part.strip() for part in re.split(r",(?![^\[{]*[\]}])", text)]
        if not (equals and name.strip() and all(values)):
            raise ConfigError(f"--vary takes option=a,b,c, got {item!r}")
        if name.strip() in parsed:
            raise ConfigError(f"--vary gives {name.strip()!r} twice")
        parsed[name.strip()] = [option_value(value, "--vary", item) for value in values]
    return parsed


def _truth_key(point: GridPoint) -> str:
    simulator = point.simulator
    options = dict(simulator.identity.options)
    if simulator.is_two_stage:
        for name in simulator.observe_options:
            options.pop(name)
    # Latents also depend on what theta is drawn from.
    return f"{simulator.prior.digest()} {sorted((k, repr(v)) for k, v in options.items())}"


def _folder(values: Mapping[str, Any], taken: Iterable[str]) -> str:
    plain = "_".join(f"{name}={_UNSAFE.sub('-', str(value))}" for name, value in values.items())
    used, name, k = set(taken), plain, 2
    while name in used:  # values that differ only where folders cannot
        name, k = f"{plain}_{k}", k + 1
    return name
