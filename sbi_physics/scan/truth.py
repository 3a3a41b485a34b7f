"""Observing the same latents again, with other options of the observation."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sbi_physics.errors import ContractError
from sbi_physics.priors import Prior
from sbi_physics.seeding import PURPOSES, generator
from sbi_physics.simulate import store_for
from sbi_physics.simulator import Simulator
from sbi_physics.store import SimulationStore

_LATENTS = "z/"
_ROWS = 8
"""Simulations of the check that options leave latents alone."""


def observe_again(
    truth: Path, simulator: Simulator, store: Path, *, n: int, prior: Prior, seed: int
) -> None:
    """Fill a store with the latents of another and new observations of them, or go on filling it.

    Chunk k is observed with a generator of its own, so that an interrupted store ends the same.

    Args:
        truth: Store of a simulator that differs only in `observe_options`.
        simulator: What observes.
        store: Folder of the store to fill.
        n: Rows, at most those of `truth`.
        prior: What theta was drawn from.
        seed: Seed of both stores.
    """
    with SimulationStore.open(truth, "r") as source:
        purpose = source.header.purpose
        size = source.header.chunk_size
        opened = store_for(
            simulator, store, prior=prior, seed=seed, purpose=purpose, chunk_size=size
        )
        with opened as target:
            target.begin_round(0, prior)
            target.reserve(0, n)
            for part in source.parts(0, n):
                chunk = part.entry.chunk
                if target.chunk_rows(0, chunk) >= part.rows:
                    continue
                rng = generator(seed, "scan", 0, PURPOSES[purpose], chunk)
                theta = np.asarray(source.read(part.entry, "theta"), dtype=np.float64)
                z = {k: source.read(part.entry, f"{_LATENTS}{k}") for k in source.latents}
                x = simulator.observe(z, theta, rng)
                rows = slice(part.rows)
                latents = {k: v[rows] for k, v in z.items()}
                target.append(0, chunk, theta[rows], x[rows], latents)


def check_same_latents(first: Simulator, other: Simulator, seed: int) -> None:
    """Refuse a simulator whose declaration that options enter only the observation is wrong.

    Raises:
        ContractError: If latents of the same parameters and generator state differ.
    """
    theta = first.prior.sample(_ROWS, generator(seed, "scan", 1))
    one, two = (s.simulate_latent(theta, generator(seed, "scan", 1, 1)) for s in (first, other))
    if one.keys() != two.keys() or any(
        not np.array_equal(one[k], two[k], equal_nan=one[k].dtype.kind == "f") for k in one
    ):
        mine, its = first.identity.options, other.identity.options
        changed = ", ".join(k for k in mine if mine[k] != its[k])
        raise ContractError(
            f"simulator {first.name!r} declares that {changed} enter only its observation "
            "(observe_options), but its latents depend on them; they cannot be shared"
        )
