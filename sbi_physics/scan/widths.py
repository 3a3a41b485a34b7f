"""How wide posteriors are: over the prior, and at fiducial points."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

import numpy as np

from sbi_physics.posterior import Posterior
from sbi_physics.priors import Prior
from sbi_physics.progress import Progress
from sbi_physics.scan.record import PRIOR
from sbi_physics.seeding import generator
from sbi_physics.simulator import Simulator
from sbi_physics.study import Study
from sbi_physics.study.ledger import digest, file_digest, write_text
from sbi_physics.types import DataArray

PRIOR_PAIRS: Final = 500
"""Observations whose widths are averaged over the prior; the first pairs of the validation."""

POINT_SETS: Final = 200
"""Observations at each fiducial point."""

DRAWS: Final = 400
"""Posterior draws for each: their standard deviation is known to 3.5 %, the median far better."""

Widths = Mapping[str, Mapping[str, float]]


def study_widths(study: Study, simulator: Simulator, seed: int, progress: Progress) -> Widths:
    """Return the widths of a study's posterior, from its run directory if they are there.

    Args:
        study: The finished study.
        simulator: Simulates observations at fiducial points. Under one seed their latents are the
            same for all simulators that differ in the observation only.
        seed: Seed of observations and draws.
        progress: Where to show progress.

    Returns:
        Where -> parameter -> median over observations of the posterior standard deviation, in
        the parameter's scale.
    """
    file = study.directory / "widths.json"
    key = _key(study, simulator, seed)
    if file.is_file():
        kept = json.loads(file.read_text(encoding="utf-8"))
        if kept["inputs"] == key:
            found: Widths = kept["widths"]
            return found
    places = {PRIOR: study.pairs.x[:PRIOR_PAIRS]}
    prior = study.posterior.context.simulation_prior
    assert prior is not None  # a study's posterior knows it
    for k, name in enumerate(simulator.fiducial):
        x = _at_point(simulator, name, prior, seed, k)
        if x is not None:
            places[name] = x
    widths = {
        place: _median_sd(study.posterior, x, np.random.default_rng([seed, k]), progress)
        for k, (place, x) in enumerate(places.items())
    }
    write_text(file, json.dumps({"inputs": key, "widths": widths}, indent=1) + "\n")
    return widths


def _at_point(
    simulator: Simulator, name: str, prior: Prior, seed: int, k: int
) -> DataArray | None:
    """Observations at a fiducial point, with fixed parameters where they are fixed."""
    theta = simulator.theta(name)
    for j, parameter in enumerate(prior.parameters):
        if parameter.is_fixed:
            theta[j] = parameter.bounds[0]
    if not prior.contains(theta[None])[0]:
        return None
    points = np.tile(theta, (POINT_SETS, 1))
    if simulator.is_two_stage:
        z = simulator.simulate_latent(points, generator(seed, "scan", 2, k))
        x = simulator.observe(z, points, generator(seed, "scan", 3, k))
    else:
        x = simulator.simulate(points, generator(seed, "scan", 2, k))
    finite: DataArray = x[np.isfinite(x).reshape(len(x), -1).all(axis=1)]
    return finite if len(finite) else None


def _median_sd(
    posterior: Posterior, x: DataArray, rng: np.random.Generator, progress: Progress
) -> dict[str, float]:
    draws = posterior.draw(x, DRAWS, rng, progress=progress).theta
    found = {}
    for j, parameter in enumerate(posterior.prior.parameters):
        values = draws[..., j]
        if parameter.scale == "log10":
            values = np.log10(values)
        found[parameter.name] = float(np.median(values.std(axis=1, ddof=1)))
    return found


def _key(study: Study, simulator: Simulator, seed: int) -> str:
    headers = sorted((study.directory / "posterior").rglob("posterior.json"))
    return digest(
        {
            "posterior": [file_digest(h) for h in headers],
            "simulator": simulator.identity.to_dict(),
            "pairs": study.pairs.digest(),
            "sizes": [PRIOR_PAIRS, POINT_SETS, DRAWS],
            "seed": seed,
        }
    )
