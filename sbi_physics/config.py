"""Run files: what a study is, in YAML, with errors a person can act on.

A run file names a simulator and an engine; every other field has a default::

    simulator: alp-ngc1275
    options: {exposure: 50 h}
    engine: sbi-npe
    budget: quick
    infer: [m_a, g]
    fix: {index: 2.1}
    seed: 1

A study writes the *resolved* form, in which nothing is left to a default, into its run directory.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from sbi_physics.errors import ConfigError, nearest_name

DEFAULT_ENGINE: Final = "sbi-npe"
DEFAULT_BUDGET: Final = "standard"


def _split(value: Any) -> Any:
    """Accept `a,b` where a list of names is meant."""
    if isinstance(value, str):
        return [name.strip() for name in value.split(",") if name.strip()]
    return value


class RunConfig(BaseModel):
    """The fields of a run file; None means: decided when the study is resolved."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    simulator: str = Field(description="Registered name of the simulator.")
    simulator_version: str | None = Field(
        None, description="Version the file was resolved with; another one installed is an error."
    )
    options: dict[str, Any] = Field({}, description="Simulator options, see `sbi-physics show`.")
    fix: dict[str, float] = Field({}, description="Parameters held at a value, in their units.")
    infer: Annotated[list[str], BeforeValidator(_split)] | None = Field(
        None, min_length=1, description="Parameters to infer; default those of interest."
    )
    engine: str = Field(
        DEFAULT_ENGINE, description="Registered name of the engine, or ENGINE:PRESET."
    )
    settings: dict[str, Any] = Field({}, description="Engine settings, see `sbi-physics show`.")
    budget: str = Field(DEFAULT_BUDGET, description="Named amount of work: quick, standard, ...")
    simulations: int | None = Field(None, ge=10, description="Training simulations.")
    pairs: int | None = Field(None, ge=1, description="Fresh simulations for validation.")
    draws: int | None = Field(None, ge=10, description="Posterior draws for each of them.")
    samples: int = Field(10_000, ge=100, description="Posterior samples for the observation.")
    observation: str | None = Field(
        None, description="File with the observation; `$NAME` is expanded when it is read."
    )
    fiducial: str | None = Field(
        None, description="Named point to simulate as the observation, when there is no file."
    )
    seed: int | None = Field(
        None, ge=0, lt=2**63, description="Seed; drawn and recorded if unset."
    )
    workers: int = Field(
        1,
        ge=1,
        description="Processes that simulate, or train the members of an ensemble; results don't "
        "depend on it.",
    )
    rounds: int = Field(
        1,
        ge=1,
        le=100,
        description="Truncated rounds that close in on the observation; 1: none, so that the "
        "posterior answers for any observation.",
    )
    final_simulations: int | None = Field(
        None,
        ge=10,
        description="Simulations of one more round inside the last box; none without rounds.",
    )
    epsilon: float = Field(
        1e-6, gt=0, lt=1, description="Relative likelihood below which rounds cut points off."
    )
    simulations_store: str | None = Field(
        None, description="Store of training simulations to share between runs."
    )
    pairs_store: str | None = Field(
        None, description="Store of validation pairs to share between runs."
    )

    @model_validator(mode="after")
    def _one_observation(self) -> RunConfig:
        if self.observation is not None and self.fiducial is not None:
            raise ValueError(
                f"both an observation ({self.observation!r}) and a fiducial point "
                f"({self.fiducial!r}) are given; a study has one of them"
            )
        return self

    @model_validator(mode="after")
    def _rounds_need_their_own_store(self) -> RunConfig:
        for name in ("simulations_store", "pairs_store"):
            store = getattr(self, name)
            if self.rounds > 1 and store is not None:
                raise ValueError(
                    f"rounds: {self.rounds} and {name}: {store!r} exclude each other: what is "
                    "simulated in later rounds depends on the engine and on the observation, so "
                    "that it cannot be shared"
                )
        return self

    @model_validator(mode="after")
    def _a_final_round_follows_others(self) -> RunConfig:
        if self.final_simulations is not None and self.rounds == 1:
            raise ValueError(
                f"final_simulations: {self.final_simulations} is for truncated rounds; ask for "
                "rounds: 2 or more too"
            )
        return self

    def updated(self, values: Mapping[str, Any], source: str = "the command line") -> RunConfig:
        """Return a copy with some fields replaced; None leaves a field as it is.

        Mappings (`options`, `settings`, `fix`) merge. Another engine drops the settings, which
        belong to the engine they were resolved for. An observation replaces a fiducial point and
        the other way round.

        Raises:
            ConfigError: If a value is unacceptable, or a named budget would change nothing.
        """
        changes = {k: v for k, v in values.items() if v is not None}
        base = self.model_dump()
        numbers = ("simulations", "pairs", "draws")
        if changes.get("budget", self.budget) != self.budget:
            stated = [f for f in numbers if base[f] is not None and f not in changes]
            if stated:
                listed = ", ".join(f"{f}: {base[f]}" for f in stated)
                raise ConfigError(
                    f"budget {changes['budget']!r} contradicts {listed}, which are stated. "
                    "Give one or the other: remove these lines, or pass the numbers themselves."
                )
        if changes.get("engine", self.engine) != self.engine:
            base["settings"] = {}
        if "observation" in changes:
            base["fiducial"] = None
        if "fiducial" in changes:
            base["observation"] = None
        for name in ("options", "settings", "fix"):
            if name in changes:
                changes[name] = {**base[name], **changes[name]}
        return make_config({**base, **changes}, source)


def make_config(
    values: Mapping[str, Any], source: str, lines: Mapping[str, int] | None = None
) -> RunConfig:
    """Build a configuration.

    Args:
        values: Field values.
        source: Where they come from, for messages.
        lines: Line of each top-level field in a file, for messages.

    Raises:
        ConfigError: Naming every bad field, its value and what is accepted.
    """
    try:
        return RunConfig(**values)
    except ValidationError as error:
        raise ConfigError(f"{source}: {_explain(error, lines or {})}") from error
    except TypeError as error:
        raise ConfigError(f"{source}: field names must be text, got {list(values)}") from error


def read_config(path: str | Path) -> RunConfig:
    """Read a run file; relative paths in it are relative to its folder.

    Raises:
        ConfigError: If it is missing, no YAML (which line) or has bad fields (which, and why).
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the run file {str(file)!r}: {error}") from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: {_syntax(error, text)}") from error
    if not isinstance(node, yaml.MappingNode) or not isinstance(values, dict):
        raise ConfigError(
            f"{file}: expected fields such as 'simulator: alp-ngc1275', got {text!r:.80}"
        )
    _refuse_duplicates(node, file)
    lines = {str(key.value): key.start_mark.line + 1 for key, _ in node.value}
    config = make_config(values, str(file), lines)
    absolute = {
        name: _relative_to(value, file.parent)
        for name in ("observation", "simulations_store", "pairs_store")
        if (value := getattr(config, name)) is not None
    }
    return config.model_copy(update=absolute)


def dump_config(config: RunConfig, header: str) -> str:
    """Return a configuration as YAML below a commented header; unset fields are left out."""
    values = {k: v for k, v in config.model_dump(mode="json").items() if v is not None}
    comment = "".join(f"# {line}\n" for line in header.splitlines())
    return comment + yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def expand_path(raw: str, subject: str) -> Path:
    """Return a path with `~` and environment variables replaced.

    Raises:
        ConfigError: If a variable is not set.
    """
    expanded = os.path.expandvars(raw)
    unset = re.search(r"\$\{?(\w+)\}?", expanded)
    if unset:
        raise ConfigError(
            f"{subject} {raw!r} needs the environment variable {unset[1]}, which is not set. "
            f"Run: export {unset[1]}=/path/to/it"
        )
    return Path(expanded).expanduser()


def parse_assignments(items: Iterable[str], flag: str) -> dict[str, Any]:
    """Parse `name=value` arguments; lists and mappings may be given as YAML, `null` is None.

    Raises:
        ConfigError: If an argument has another form or a name comes twice.
    """
    parsed: dict[str, Any] = {}
    for item in items:
        name, equals, text = item.partition("=")
        if not (equals and name.strip()):
            raise ConfigError(f"{flag} takes name=value, got {item!r}")
        if name.strip() in parsed:
            raise ConfigError(f"{flag} gives {name.strip()!r} twice")
        parsed[name.strip()] = option_value(text.strip(), flag, item)
    return parsed


def option_value(text: str, flag: str, item: str) -> Any:
    """Return the value of an option from its text: lists and mappings as YAML, `null` as None.

    Raises:
        ConfigError: If a list or mapping cannot be read.
    """
    # Plain text is left to the option's own type: YAML would turn "off" into False and "50" into
    # 50 even where a text is wanted.
    if text == "null":
        return None
    if text[:1] in ("[", "{"):
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"{flag} {item!r} is not a list or mapping: {error}") from error
    return text


def parse_numbers(items: Iterable[str], flag: str) -> dict[str, float]:
    """Parse `name=number` arguments.

    Raises:
        ConfigError: If a value is not a number.
    """
    numbers = {}
    for name, value in parse_assignments(items, flag).items():
        try:
            numbers[name] = float(value)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{flag} {name}={value}: {value!r} is not a number") from error
    return numbers


def _relative_to(raw: str, folder: Path) -> str:
    return raw if raw.startswith(("$", "~")) else str((folder / raw).resolve())


def _syntax(error: yaml.YAMLError, text: str) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return f"not valid YAML: {error}"
    lines = text.splitlines()
    shown = lines[mark.line].strip() if mark.line < len(lines) else "end of file"
    problem = getattr(error, "problem", None) or "cannot be read"
    return (
        f"not valid YAML at line {mark.line + 1}, column {mark.column + 1} ({shown!r}): {problem}"
    )


def _refuse_duplicates(node: yaml.Node, file: Path) -> None:
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_duplicates(item, file)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        name = str(key.value)
        if name in seen:
            raise ConfigError(f"{file}: {name!r} is given twice, in lines {seen[name]} and {line}")
        seen[name] = line
        _refuse_duplicates(value, file)


def _explain(error: ValidationError, lines: Mapping[str, int]) -> str:
    sentences = []
    known = list(RunConfig.model_fields)
    for item in error.errors():
        name = ".".join(str(part) for part in item["loc"])
        field = str(item["loc"][0]) if item["loc"] else ""
        where = f"line {lines[field]}: " if field in lines else ""
        if item["type"] == "extra_forbidden":
            nearest = nearest_name(name, known)
            guess = f" Did you mean {nearest!r}?" if nearest else ""
            sentences.append(f"{where}unknown field {name!r}.{guess} Known: {', '.join(known)}.")
        elif item["type"] == "missing":
            sentences.append(f"field {name!r} is missing.")
        elif not item["loc"]:
            sentences.append(f"{item['msg'].removeprefix('Value error, ')}.")
        else:
            message = item["msg"].removeprefix("Value error, ")
            sentences.append(f"{where}field {name!r}: got {item['input']!r}; {message}.")
    return " ".join(sentences)
