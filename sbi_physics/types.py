"""Array vocabulary shared by all modules.

Shapes are written as jaxtyping annotations; they cost nothing at run time and are checked in the
tests. Axis names: `batch` (observations or simulations), `draw` (posterior draws), `param`
(parameters).
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float64]
"""Parameters and log densities."""

DataArray: TypeAlias = NDArray[np.float32]
"""Simulated data, as stored and as seen by networks."""

BoolArray: TypeAlias = NDArray[np.bool_]
IntArray: TypeAlias = NDArray[np.int64]
AnyArray: TypeAlias = NDArray[np.generic]

Latents: TypeAlias = dict[str, AnyArray]
"""Latent variables of a two-stage simulator, each with leading axis `batch`."""
