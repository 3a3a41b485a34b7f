"""Posterior draws made elsewhere, read from NumPy or ArviZ files.

`.npz`: arrays `theta` (pair, param), `draws` (pair, draw, param) and optionally `x`,
`log_prob_true`, `log_prob_draws`, `normalized`, `weights` and `names`, with the meaning they have
in `validate_draws`.

netCDF as ArviZ writes it: the draws of every pair in the group `posterior`, the true values in a
group `truth`, or in `constant_data` where ArviZ's own names are wanted; see `read_netcdf`.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np

from sbi_physics.coverage import Coverage
from sbi_physics.errors import DataFileError, ValidationError, nearest_name
from sbi_physics.progress import SILENT, Progress
from sbi_physics.types import AnyArray, FloatArray
from sbi_physics.validate_arrays import validate_draws

NETCDF_SUFFIXES: Final = (".nc", ".nc4", ".netcdf", ".h5", ".hdf5")
SUFFIXES: Final = (".npz", *NETCDF_SUFFIXES)

_TRUTH_GROUPS = ("truth", "constant_data")
_SAMPLE_DIMS = ("chain", "draw")
MAX_AUTOCORRELATION: Final = 0.1
"""Draws whose successive values correlate more than this are no independent draws."""


@dataclass(frozen=True, slots=True, eq=False)
class DrawFile:
    """What a file of draws holds.

    Attributes:
        theta: True parameters, shape (pair, param).
        draws: Posterior draws for the data of each, shape (pair, draw, param).
        x: The data, shape (pair, ...), or None.
        log_prob_true: Log density of each truth, shape (pair,), or None.
        log_prob_draws: Log density of the draws, shape (pair, draw), or None.
        normalized: Whether these densities are normalised.
        weights: Weights of the draws, shape (pair, draw), or None.
        names: Parameter names; empty when the file has none.
    """

    theta: FloatArray
    draws: FloatArray
    x: AnyArray | None = None
    log_prob_true: FloatArray | None = None
    log_prob_draws: FloatArray | None = None
    normalized: bool = False
    weights: FloatArray | None = None
    names: tuple[str, ...] = ()

    def first(self, pairs: int | None = None, draws: int | None = None) -> DrawFile:
        """Return the first so many pairs, and of each the first so many draws."""

        def cut(array: Any, *, drawn: bool) -> Any:
            if array is None:
                return None
            return array[:pairs, :draws] if drawn else array[:pairs]

        return DrawFile(
            theta=cut(self.theta, drawn=False),
            draws=cut(self.draws, drawn=True),
            x=cut(self.x, drawn=False),
            log_prob_true=cut(self.log_prob_true, drawn=False),
            log_prob_draws=cut(self.log_prob_draws, drawn=True),
            normalized=self.normalized,
            weights=cut(self.weights, drawn=True),
            names=self.names,
        )

    def validate(self, rng: np.random.Generator, progress: Progress = SILENT) -> Coverage:
        """Validate the draws, see `validate_draws`."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self)}
        return validate_draws(**arrays, rng=rng, progress=progress)


def read_draws(path: str | Path) -> DrawFile:
    """Read a file of posterior draws; its ending says of which kind it is.

    Raises:
        DataFileError: If there is no such file.
        ValidationError: If it can't be read, or its content does not fit together.
    """
    source = Path(path)
    if not source.is_file():
        raise DataFileError(f"there is no file {str(source)!r} (current folder: {Path.cwd()})")
    if source.suffix == ".npz":
        return read_npz(source)
    if source.suffix in NETCDF_SUFFIXES:
        return read_netcdf(source)
    raise ValidationError(f"{source}: draws are read from {', '.join(SUFFIXES)} files")


def read_npz(path: Path) -> DrawFile:
    """Read draws from a NumPy file, see the module.

    Raises:
        ValidationError: If it can't be read, or its content does not fit together.
    """
    known = [f.name for f in fields(DrawFile)]
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValidationError(
            f"{path} is not readable as .npz: {error}. Write it with numpy.savez(path, "
            "theta=..., draws=...), without object arrays"
        ) from error
    for name in arrays:
        if name not in known:
            nearest = nearest_name(name, known)
            guess = f" Did you mean {nearest!r}?" if nearest else ""
            raise ValidationError(
                f"{path} holds an array {name!r} that nothing is known about.{guess} Known: "
                f"{', '.join(known)}"
            )
    return _checked(path, arrays)


def read_netcdf(path: Path) -> DrawFile:
    """Read draws from a netCDF file as ArviZ writes it.

    The group `posterior` holds one variable for each parameter with dimensions `chain`, `draw`
    and one for the pairs, in any order; chains are joined. The group `truth` (or
    `constant_data`) holds the true values, variables of the same names without `chain` and
    `draw`. A parameter with several components has further dimensions in both. Optional:
    `observed_data` (every variable begins with the pairs), `sample_stats/log_prob` together with
    `truth/log_prob`, and `sample_stats/weights`.

    Raises:
        ValidationError: If it can't be read, or its content does not fit together.
    """
    import h5netcdf  # type: ignore[import-untyped]

    try:
        with h5netcdf.File(str(path), "r") as file:
            groups = {name: _variables(group) for name, group in file.groups.items()}
    except OSError as error:
        raise ValidationError(f"{path} is not readable as netCDF 4: {error}") from error
    posterior = _group(path, groups, ("posterior",))
    truth = _group(path, groups, _TRUTH_GROUPS)
    stats, data = groups.get("sample_stats", {}), groups.get("observed_data", {})
    arrays: dict[str, Any] = {}
    pair_dim = ""
    names, columns, drawn = [], [], []
    for name, (dims, values) in truth.items():
        if name not in posterior:
            continue
        if not dims or any(d in dims for d in _SAMPLE_DIMS):
            raise ValidationError(
                f"{path}: the true values of {name} have dimensions {dims or '()'}; expected the "
                "pairs first, and neither chain nor draw"
            )
        pair_dim = pair_dim or dims[0]
        columns.append(values.reshape(len(values), -1))
        drawn.append(_pairs_first(path, f"posterior/{name}", posterior[name], dims))
        size = columns[-1].shape[1]
        names += [name] if size == 1 else [f"{name}_{k + 1}" for k in range(size)]
    if not names:
        raise ValidationError(
            f"{path}: no variable of the group posterior ({', '.join(posterior) or 'empty'}) has "
            f"true values of the same name; those given are {', '.join(truth) or 'none'}"
        )
    if len({len(c) for c in columns}) > 1 or len({d.shape[:2] for d in drawn}) > 1:
        raise ValidationError(f"{path}: the parameters have different numbers of pairs or draws")
    arrays |= {
        "theta": np.concatenate(columns, axis=1),
        "draws": np.concatenate([d.reshape(*d.shape[:2], -1) for d in drawn], axis=2),
        "names": np.array(names),
    }
    if data:
        observed = [_data(path, name, v, pair_dim) for name, v in data.items()]
        arrays["x"] = np.concatenate(observed, axis=1) if len(observed) > 1 else observed[0]
    for target, group, name in (
        ("log_prob_true", truth, "log_prob"),
        ("log_prob_draws", stats, "log_prob"),
        ("weights", stats, "weights"),
    ):
        if name in group and group is truth:
            arrays[target] = group[name][1]
        elif name in group:
            arrays[target] = _pairs_first(path, f"sample_stats/{name}", group[name], (pair_dim,))
    return _checked(path, arrays)


def autocorrelation(draws: FloatArray) -> float:
    """Return the lag-1 correlation of successive draws, averaged over pairs and parameters.

    For independent draws it is -1/draw on average, with a standard deviation of about
    1/sqrt(pair draw); Markov chains that were not thinned are far above.

    Args:
        draws: Shape (pair, draw, param).
    """
    centred = draws - draws.mean(axis=1, keepdims=True)
    variance = (centred**2).mean(axis=1)
    lagged = (centred[:, 1:] * centred[:, :-1]).mean(axis=1)
    varies = variance > 0
    return float(np.mean(lagged[varies] / variance[varies])) if varies.any() else 0.0


def _checked(path: Path, arrays: Mapping[str, Any]) -> DrawFile:
    """Build the record; what `validate_draws` checks too is checked here with the file's name."""
    for name in ("theta", "draws"):
        if name not in arrays:
            raise ValidationError(
                f"{path} holds no array {name!r}; it holds {', '.join(arrays) or 'nothing'}"
            )
    numbers: dict[str, Any] = {}
    for name in ("theta", "draws", "log_prob_true", "log_prob_draws", "weights"):
        if name in arrays:
            numbers[name] = _numbers(path, name, arrays[name], np.float64)
    theta, draws = numbers["theta"], numbers["draws"]
    if theta.ndim != 2 or 0 in theta.shape:
        raise ValidationError(
            f"{path}: theta has shape {theta.shape}; expected (pair, param) with at least one of "
            "each" + ("; for one parameter use theta[:, None]" if theta.ndim == 1 else "")
        )
    n, d = theta.shape
    if draws.ndim != 3 or draws.shape[::2] != (n, d) or draws.shape[1] == 0:
        turned = draws.ndim == 3 and (draws.shape[1], draws.shape[2]) == (n, d)
        raise ValidationError(
            f"{path}: draws has shape {draws.shape}; expected ({n}, draw, {d}) to match theta"
            + ("; swap its first two axes" if turned else "")
        )
    for name, shape in (
        ("log_prob_true", (n,)),
        ("log_prob_draws", draws.shape[:2]),
        ("weights", draws.shape[:2]),
    ):
        if name in numbers and numbers[name].shape != shape:
            raise ValidationError(
                f"{path}: {name} has shape {numbers[name].shape}; expected {shape}"
            )
    for name in ("theta", "draws"):
        if not np.isfinite(numbers[name]).any():
            raise ValidationError(f"{path}: {name} has no finite entry")
    x = None if "x" not in arrays else _numbers(path, "x", arrays["x"], None)
    if x is not None and (x.ndim == 0 or len(x) != n):
        raise ValidationError(f"{path}: x has shape {x.shape}; expected {n} observations first")
    if x is not None and not np.isfinite(x).all():
        raise ValidationError(
            f"{path}: {int((~np.isfinite(x)).sum())} of {x.size} entries of x are not finite"
        )
    return DrawFile(
        **numbers,
        x=x,
        normalized=_flag(path, arrays.get("normalized", False)),
        names=_names(path, arrays.get("names", ()), d),
    )


def _numbers(path: Path, name: str, array: Any, dtype: Any) -> AnyArray:
    values = np.asarray(array)
    if values.dtype.kind not in "fiub":
        raise ValidationError(f"{path}: {name} holds {values.dtype}, not real numbers")
    return values if dtype is None else values.astype(dtype)


def _flag(path: Path, value: Any) -> bool:
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "bi":
        raise ValidationError(f"{path}: normalized must be true or false, got {value!r}")
    return bool(array.reshape(()))


def _names(path: Path, value: Any, d: int) -> tuple[str, ...]:
    array = np.asarray(value)
    if array.size == 0:
        return ()
    if array.dtype.kind not in "US" or array.shape != (d,):
        raise ValidationError(
            f"{path}: names has shape {array.shape} and type {array.dtype}; expected {d} texts, "
            "one for each parameter"
        )
    names = tuple(n.decode() if isinstance(n, bytes) else str(n) for n in array.tolist())
    if len(set(names)) < d or any(not n or set(n) & set(":,") for n in names):
        raise ValidationError(
            f"{path}: the names {', '.join(map(repr, names))} must differ, and must not be empty "
            "or hold ':' or ','"
        )
    return names


Variable = tuple[tuple[str, ...], AnyArray]


def _variables(group: Any) -> dict[str, Variable]:
    """Variables of a group with dimensions and values; coordinates are left out."""
    return {
        name: (tuple(v.dimensions), np.asarray(v[...]))
        for name, v in group.variables.items()
        if name not in v.dimensions
    }


def _group(
    path: Path, groups: Mapping[str, dict[str, Variable]], wanted: tuple[str, ...]
) -> dict[str, Variable]:
    for name in wanted:
        if name in groups:
            return groups[name]
    raise ValidationError(
        f"{path} has no group {' or '.join(map(repr, wanted))}; it has "
        f"{', '.join(groups) or 'none'}. Expected are posterior draws for many simulated "
        "observations next to the true values"
    )


def _pairs_first(
    path: Path, what: str, variable: Variable, truth_dims: tuple[str, ...]
) -> AnyArray:
    """Return a variable of draws as (pair, draw, ...), chains one after the other."""
    dims, values = variable
    missing = [d for d in (*_SAMPLE_DIMS, *truth_dims) if d not in dims]
    if missing or len(dims) != 2 + len(truth_dims):
        raise ValidationError(
            f"{path}: {what} has dimensions {dims}; expected chain, draw and "
            f"{', '.join(truth_dims)}"
        )
    order = [dims.index(d) for d in (truth_dims[0], *_SAMPLE_DIMS, *truth_dims[1:])]
    turned = values.transpose(order)
    joined: AnyArray = turned.reshape(len(turned), -1, *turned.shape[3:])
    return joined


def _data(path: Path, name: str, variable: Variable, pair_dim: str) -> AnyArray:
    dims, values = variable
    if not dims or dims[0] != pair_dim:
        raise ValidationError(
            f"{path}: observed_data/{name} has dimensions {dims}; expected {pair_dim} first"
        )
    return values.reshape(len(values), -1)
