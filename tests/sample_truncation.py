"""Truncated rounds on a toy whose posterior is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

import sbi_physics as sp
from sbi_physics.progress import SILENT
from sbi_physics.store import StoreHeader
from sbi_physics.testing.toys import ToyGaussian

NOISE = 0.02
X = [0.3, -0.1]
SIGMAS = np.sqrt(-2 * np.log(1e-6))  # where a normal likelihood is 1e-6 of its maximum: 5.26


def toy(**options):
    return ToyGaussian(noise=NOISE, **options)


def rounds_of(posterior):
    return posterior.context.truncation.rounds


def truncated(engine="exact", simulator=None, x=X, **options):
    values = {"rounds": 3, "simulations": 300, "seed": 1, "progress": SILENT, **options}
    return sp.truncate(simulator or toy(), x, engine, **values)


def header_of(simulator, seed=1):
    return StoreHeader(
        simulator.identity, simulator.prior, simulator.observable, seed, "train", 256
    )


def without_times(posterior):
    return [replace(r, seconds=0.0) for r in rounds_of(posterior)]
