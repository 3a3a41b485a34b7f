"""The propagation of `kernels` in PyTorch, for graphics processors.

One step a cell for all simulations and energies at once, each cell's transfer matrix written out
in the frame of its field (formulas in `kernels`). On a processor the compiled loops are many
times faster; this one is for devices on which thousands of them would run side by side.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sbi_physics_alp import constants

Array = np.ndarray[Any, np.dtype[np.float64]]
Indices = np.ndarray[Any, np.dtype[np.int64]]


def propagate_alp(
    energy_gev: Array,
    first: Indices,
    b_x: Array,
    b_y: Array,
    n_e: Array,
    length: Array,
    m_nev: Array,
    g11: Array,
    *,
    backwards: bool = False,
    single: bool = False,
    device: str | None = None,
) -> Array:
    """Send a pure ALP through cells; arguments and result as for `kernels.propagate_alp`.

    Args:
        energy_gev: Local photon energies in GeV, shape (n_energy,).
        first: Index of the first energy that mixes at all, shape (n,).
        b_x: Field component in muG, shape (n or 1, n_cells).
        b_y: Field component in muG, shape (n or 1, n_cells).
        n_e: Electron density in cm^-3, shape (n or 1, n_cells).
        length: Cell lengths in kpc, shape (n or 1, n_cells).
        m_nev: ALP mass in neV, shape (n,).
        g11: Coupling in 1e-11 GeV^-1, shape (n,).
        backwards: Travel from the last cell to the first.
        single: Everything in single precision, also large phases.
        device: Device of PyTorch; None: the first graphics processor, else the processor.

    Raises:
        ImportError: If PyTorch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            "kernel 'torch' needs PyTorch: pip install sbi-physics-alp[torch]"
        ) from error

    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    number = torch.float32 if single else torch.float64

    def tensor(array: Array) -> Any:
        # Differences of large phases matter: products of factors are made in double precision.
        return torch.as_tensor(np.ascontiguousarray(array), dtype=torch.float64, device=where)

    x, y, density, step = (tensor(a) for a in (b_x, b_y, n_e, length))
    squared = x * x + y * y
    half = 0.5 * step
    mass = constants.MASS * tensor(m_nev)[:, None] ** 2
    linear = constants.CMB + constants.QED_PARALLEL * constants.QED * squared
    difference = constants.QED_PARALLEL - constants.QED_PERPENDICULAR
    angle = torch.atan2(x, y)
    factors = (
        half * (mass - constants.PLASMA * density),  # of 1 / E
        half * linear,  # of E
        step * difference * constants.QED * squared,  # of E, polarisations apart
        step * constants.MIXING * tensor(g11)[:, None] * squared.sqrt(),
        torch.cos(angle),
        torch.sin(angle),
    )
    n, n_cells = len(m_nev), x.shape[-1]
    # One row a cell, contiguous: (n_cells, n, 1).
    inverse, growing, qed, mixing, cos_psi, sin_psi = (
        f.expand(n, n_cells).T.to(number).contiguous()[:, :, None] for f in factors
    )
    energy = tensor(energy_gev).to(number)
    reciprocal = tensor(1.0 / energy_gev).to(number)
    state = torch.zeros(3, n, energy.numel(), dtype=number, device=where)
    state = torch.complex(state, torch.zeros_like(state))
    a_x, a_y, a = state[0], state[1], torch.ones_like(state[2])
    for j in reversed(range(n_cells)) if backwards else range(n_cells):
        h = inverse[j] * reciprocal + growing[j] * energy
        phase = h - qed[j] * energy
        w = torch.sqrt(h * h + mixing[j] ** 2)
        cosine, sine = torch.cos(w), torch.sinc(w / torch.pi)
        across = cos_psi[j] * a_x - sin_psi[j] * a_y
        along = sin_psi[j] * a_x + cos_psi[j] * a_y
        across = across * torch.polar(torch.ones_like(phase), -phase)
        turn, exchange = torch.complex(cosine, h * sine), mixing[j] * sine
        along, a = (
            turn.conj() * along - 1j * exchange * a,
            turn * a - 1j * exchange * along,
        )
        a_x, a_y = (
            cos_psi[j] * across + sin_psi[j] * along,
            cos_psi[j] * along - sin_psi[j] * across,
        )
    state = torch.stack([a_x, a_y, a], dim=1)
    if single:  # rounded products of unitary matrices are not quite unitary
        state = state / torch.linalg.vector_norm(state, dim=1, keepdim=True)
    found = torch.view_as_real(state).movedim(-1, 2).reshape(n, 6, -1)
    out: Array = found.to(torch.float64).cpu().numpy()
    below = np.arange(energy_gev.size) < first[:, None]
    return np.where(below[:, None], np.array([0.0, 0.0, 0.0, 0.0, 1.0, 0.0])[:, None], out)
