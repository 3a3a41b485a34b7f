"""Posterior draws as ArviZ InferenceData, readable by the whole Bayesian ecosystem.

Units, labels and roles of the parameters, the prior, and where the draws come from are stored as
attributes, so the netCDF file explains itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from sbi_physics import __version__
from sbi_physics.errors import ContractError
from sbi_physics.posterior import Posterior
from sbi_physics.seeding import generator
from sbi_physics.types import AnyArray, FloatArray

if TYPE_CHECKING:
    from arviz import InferenceData

N_PRIOR_DRAWS = 2000

Variable: TypeAlias = tuple[Sequence[str], AnyArray, Mapping[str, str]]
"""Names of the axes, values and attributes."""


def to_arviz(
    theta: ArrayLike, posterior: Posterior, *, x: ArrayLike | None = None
) -> InferenceData:
    """Return posterior draws of one observation with prior draws, data, units and provenance.

    Args:
        theta: Independent draws in physical units, shape (n, param).
        posterior: Where they come from.
        x: The observation, shape observable.shape.

    Returns:
        Groups `posterior` (one chain, variables by parameter name), `prior` (draws of the prior)
        and, with x, `observed_data`.
    """
    import arviz
    import xarray

    groups: dict[str, Any] = {
        name: xarray.Dataset(variables, attrs=_provenance(posterior))
        for name, variables in _groups(theta, posterior, x).items()
    }
    data: InferenceData = arviz.InferenceData(**groups)
    return data


def write_netcdf(
    path: str | Path, theta: ArrayLike, posterior: Posterior, *, x: ArrayLike | None = None
) -> None:
    """Write what `to_arviz` returns to a netCDF file, without the seconds ArviZ takes to import.

    Args:
        path: File to write.
        theta: Independent draws in physical units, shape (n, param).
        posterior: Where they come from.
        x: The observation, shape observable.shape.
    """
    import h5netcdf  # type: ignore[import-untyped]

    with h5netcdf.File(str(path), "w") as file:
        for name, variables in _groups(theta, posterior, x).items():
            group = file.create_group(name)
            group.attrs.update(_provenance(posterior))
            for variable, (dims, values, attributes) in variables.items():
                for dim, extent in zip(dims, values.shape, strict=True):
                    if dim not in group.dimensions:
                        group.dimensions[dim] = extent
                group.create_variable(variable, tuple(dims), data=values).attrs.update(attributes)


def _groups(
    theta: ArrayLike, posterior: Posterior, x: ArrayLike | None
) -> dict[str, dict[str, Variable]]:
    draws = np.asarray(theta, dtype=np.float64)
    d = posterior.prior.d
    if draws.ndim != 2 or draws.shape[1] != d or len(draws) == 0:
        raise ContractError(
            f"draws have shape {draws.shape}, expected (n, {d}) with n at least 1 for "
            f"{', '.join(posterior.prior.names)}"
        )
    prior_draws = posterior.prior.sample(
        N_PRIOR_DRAWS, generator(posterior.context.seed, "pool", 1)
    )
    groups = {
        "posterior": _variables(draws, posterior),
        "prior": _variables(prior_draws, posterior),
    }
    if x is not None:
        groups["observed_data"] = _data(x, posterior)
    return groups


def _variables(draws: FloatArray, posterior: Posterior) -> dict[str, Variable]:
    variables: dict[str, Variable] = {
        "chain": (("chain",), np.arange(1), {}),
        "draw": (("draw",), np.arange(len(draws)), {}),
    }
    for j, parameter in enumerate(posterior.parameters):
        attributes = {
            "units": parameter.unit or "1",
            "label": parameter.label or parameter.name,
            "long_name": parameter.description or parameter.name,
            "scale": parameter.scale,
            "role": parameter.role,
            "prior": json.dumps(parameter.distribution.to_dict()),
        }
        variables[parameter.name] = (("chain", "draw"), draws[None, :, j], attributes)
    return variables


def _data(x: ArrayLike, posterior: Posterior) -> dict[str, Variable]:
    observable = posterior.observable
    values = observable.check(x, "observation")[0]
    dims = [f"x_dim_{k}" for k in range(values.ndim)]
    variables: dict[str, Variable] = {
        "x": (dims, values, {"units": observable.unit or "1", "label": observable.label or "x"})
    }
    if observable.edges is not None:
        edges = np.asarray(observable.edges, dtype=np.float64)
        about = {"units": observable.edge_unit or "1", "label": observable.edge_label or "edges"}
        variables["edges"] = (["edge"], edges, about)
    return variables


def _provenance(posterior: Posterior) -> dict[str, str]:
    """Attributes as text: netCDF knows neither nested records nor None."""
    context = posterior.context
    record = {
        "inference_library": "sbi-physics",
        "inference_library_version": __version__,
        "engine": context.engine,
        "simulator": "" if context.simulator is None else json.dumps(context.simulator.to_dict()),
        "prior": json.dumps(posterior.prior.to_dict()),
        # Draws of a marginal posterior hold no correlations; readers must be able to tell.
        "marginal_blocks": json.dumps(posterior.blocks) if len(posterior.blocks) > 1 else "",
        "settings": json.dumps(dict(context.settings)),
        "simulations": json.dumps(dict(context.simulations)),
        "training_seed": str(context.seed),
        "versions": json.dumps(dict(context.versions)),
    }
    return {k: v for k, v in record.items() if v}
