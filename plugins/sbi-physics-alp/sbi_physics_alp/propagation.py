"""Photon survival through a galaxy cluster, the extragalactic background light and the Milky Way.

With T the transfer matrix of a stretch in the basis (A_x, A_y, a) and an unpolarised source,
P = (1/2) sum_{i,j in x,y} abs(T_ij)^2 (arXiv:1406.5972). T is unitary, so

    P = (1 + abs(T_aa)^2) / 2,

and one state vector per stretch does the work of a chain of 3 x 3 matrices. For a cluster C,
absorption diag(e, e, 1) with e = exp(-tau/2) and the Milky Way G in a row, let c be the ALP
column of C and r the ALP row of G (the column of the cells passed backwards, since every cell
is symmetric). Then

    P = (1/2) [ e^2 (2 - P_c - P_r + abs(o)^2) + P_c P_r + 2 e Re(o conj(c_a r_a)) ],
    P_c = abs(c_x)^2 + abs(c_y)^2,  P_r likewise,  o = c_x r_x + c_y r_y.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from sbi_physics_alp import constants, kernels, torch_kernel
from sbi_physics_alp.cells import Cells, Domains

__all__ = ["Cells", "Domains", "Kernel", "photon_survival", "state_probabilities"]

Array = np.ndarray[Any, np.dtype[np.float64]]
Kernel = Literal["numba", "torch"]

# Simulations a call of the kernel: bounds the memory of the amplitudes; devices want many.
_CHUNK = {"numba": 64, "torch": 512}


def photon_survival(
    energy_gev: ArrayLike,
    domains: Domains | Cells,
    *,
    m_nev: ArrayLike,
    g11: ArrayLike,
    redshift: float = 0.0,
    tau: ArrayLike | None = None,
    milky_way: Domains | Cells | None = None,
    k_cut_kpc: ArrayLike | None = None,
    merge_rad: float = 0.0,
    single: bool = False,
    kernel: Kernel = "numba",
) -> Array:
    """Probability that an unpolarised photon arrives as a photon.

    Args:
        energy_gev: Observed energies in GeV, increasing, shape (n_energy,).
        domains: Cells at the source, passed at the energy E (1 + redshift).
        m_nev: ALP mass in neV, scalar or shape (n,).
        g11: Photon-ALP coupling in 1e-11 GeV^-1, scalar or shape (n,).
        redshift: Redshift of the source.
        tau: Optical depth of the background light at each energy, shape (n_energy,). None: 0.
        milky_way: Cells at the observer, outermost first, passed at the energy E. None: no mixing
            there.
        k_cut_kpc: Largest wavenumber of the field in kpc^-1, scalar or shape (n,): energies where
            the momentum difference MASS m^2 / E exceeds twice that are taken not to mix in
            ``domains``, because a field without power there cannot convert them but a grid of
            equal cells would. None: every energy mixes.
        merge_rad: Join neighbouring cells of ``domains`` to their mean field where no phase in the
            joined cell exceeds this, in rad; 0: never.
        single: Pass ``domains`` in single precision (but for large phases, if compiled).
        kernel: ``numba``: compiled loops; ``torch``: PyTorch, on a graphics processor if there is
            one, where cells are not joined.

    Returns:
        Probabilities, shape (n, n_energy); n is 1 when everything is shared.

    Example:
        >>> import numpy as np
        >>> one = Domains(*np.array([[3.0], [0.2], [1e-2], [10.0]]))
        >>> p = photon_survival([1e2, 1e3], one, m_nev=10.0, g11=5.0)
        >>> p.shape
        (1, 2)
    """
    energy, cells, m, g, first = _prepare(energy_gev, domains, m_nev, g11, redshift, k_cut_kpc)
    galaxy = None if milky_way is None else _to_cells(milky_way)
    depth = np.zeros(energy.size) if tau is None else np.asarray(tau, dtype=np.float64)
    if depth.shape != energy.shape or not (depth >= 0).all():
        raise ValueError(
            f"tau has shape {depth.shape}; expected {energy.shape} non-negative optical depths, "
            f"one for each energy"
        )
    if kernel == "torch" and merge_rad > 0.0:
        raise ValueError(f"kernel 'torch' joins no cells; got merge_rad = {merge_rad}")
    n = max(m.size, cells.rows, 1 if galaxy is None else galaxy.rows)
    m, g, first = (np.broadcast_to(a, (n,)) for a in (m, g, first))
    survival = np.empty((n, energy.size))
    local_energy = energy * (1.0 + redshift)
    for start in range(0, n, _CHUNK[kernel]):
        part = slice(start, min(start + _CHUNK[kernel], n))
        source = _alp_state(
            local_energy,
            cells,
            m[part],
            g[part],
            first[part],
            part,
            merge=merge_rad,
            single=single,
            kernel=kernel,
        )
        if galaxy is None:
            survival[part] = np.exp(-depth) * (1.0 - 0.5 * _photon_part(source))
            continue
        everything = np.zeros_like(first[part])
        observer = _alp_state(
            energy, galaxy, m[part], g[part], everything, part, backwards=True, kernel=kernel
        )
        survival[part] = _combine(source, observer, depth)
    return survival


def state_probabilities(
    energy_gev: ArrayLike,
    domains: Domains | Cells,
    *,
    m_nev: ArrayLike,
    g11: ArrayLike,
    redshift: float = 0.0,
) -> tuple[Array, Array, Array]:
    """Probabilities that an unpolarised photon ends polarised along x, along y, or as an ALP.

    By unitarity p_x = (1 - abs(T_xa)^2) / 2, p_y likewise and p_a = (1 - abs(T_aa)^2) / 2.

    Args:
        energy_gev: Observed energies in GeV, increasing, shape (n_energy,).
        domains: Cells at the source, passed at the energy E (1 + redshift).
        m_nev: ALP mass in neV, scalar or shape (n,).
        g11: Photon-ALP coupling in 1e-11 GeV^-1, scalar or shape (n,).
        redshift: Redshift of the source.

    Returns:
        p_x, p_y, p_a, each of shape (n, n_energy).
    """
    energy, cells, m, g, first = _prepare(energy_gev, domains, m_nev, g11, redshift, None)
    n = max(m.size, cells.rows)
    m, g, first = (np.broadcast_to(a, (n,)) for a in (m, g, first))
    state = _alp_state(energy * (1.0 + redshift), cells, m, g, first, slice(0, n))
    squared = state * state
    x, y = squared[:, 0] + squared[:, 1], squared[:, 2] + squared[:, 3]
    return 0.5 * (1.0 - x), 0.5 * (1.0 - y), 0.5 * (x + y)


def _prepare(
    energy_gev: ArrayLike,
    domains: Domains | Cells,
    m_nev: ArrayLike,
    g11: ArrayLike,
    redshift: float,
    k_cut_kpc: ArrayLike | None,
) -> tuple[Array, Cells, Array, Array, np.ndarray[Any, np.dtype[np.int64]]]:
    """Check the arguments; energies, cells, and mass, coupling, first mixing energy, (n or 1,)."""
    energy = np.asarray(energy_gev, dtype=np.float64)
    if energy.ndim != 1 or not (np.isfinite(energy).all() and (np.diff(energy) > 0).all()):
        raise ValueError(
            f"energy_gev must be finite and increasing, of shape (n_energy,); got {energy}"
        )
    if energy.size and energy[0] <= 0:
        raise ValueError(f"energy_gev must be positive, in GeV; the smallest is {energy[0]}")
    if not redshift >= 0:
        raise ValueError(f"redshift must not be negative; got {redshift}")
    cells = _to_cells(domains)
    m, g = (
        _per_simulation(name, value, unit, cells.rows)
        for name, value, unit in (("m_nev", m_nev, "neV"), ("g11", g11, "1e-11 GeV^-1"))
    )
    m, g = np.broadcast_arrays(m, g)
    local = energy * (1.0 + redshift)
    longest = float(cells.length_kpc.max(initial=0.0))
    largest = constants.MASS * float(m.max(initial=0.0)) ** 2 * longest / local.min(initial=np.inf)
    if largest > kernels.MAX_PHASE:
        raise ValueError(
            f"a cell of {longest} kpc at m_nev = {m.max()} has a phase of {largest:.3g} rad at "
            f"{energy[0]} GeV; accepted up to {kernels.MAX_PHASE:.0e}. Use shorter cells, a lower "
            f"mass or higher energies"
        )
    if k_cut_kpc is None:
        return energy, cells, m, g, np.zeros(m.shape, dtype=np.int64)
    k_cut = _per_simulation("k_cut_kpc", k_cut_kpc, "kpc^-1", cells.rows)
    with np.errstate(divide="ignore"):
        first = np.searchsorted(local, constants.MASS * m**2 / (2.0 * k_cut))
    return energy, cells, m, g, np.asarray(first, dtype=np.int64)


def _per_simulation(name: str, value: ArrayLike, unit: str, rows: int) -> Array:
    array = np.atleast_1d(np.asarray(value, dtype=np.float64))
    if array.ndim != 1 or (rows > 1 and array.size not in (1, rows)):
        raise ValueError(f"{name} has shape {array.shape}; expected a scalar or ({rows},)")
    if not (np.isfinite(array).all() and (array >= 0).all()):
        raise ValueError(f"{name} must be finite and not negative, in {unit}; got {array.min()}")
    return array


def _to_cells(domains: Domains | Cells) -> Cells:
    return domains.to_cells() if isinstance(domains, Domains) else domains


def _alp_state(
    local_energy: Array,
    cells: Cells,
    m: Array,
    g: Array,
    first: np.ndarray[Any, np.dtype[np.int64]],
    part: slice,
    *,
    backwards: bool = False,
    merge: float = 0.0,
    single: bool = False,
    kernel: Kernel = "numba",
) -> Array:
    """Where a pure ALP ends, shape (n, 6, n_energy), for the simulations of ``part``."""
    rows = [
        a[part] if a.ndim == 2 and a.shape[0] > 1 else np.atleast_2d(a)
        for a in (cells.b_x, cells.b_y, cells.n_e_cm3, cells.length_kpc)
    ]
    # Views that cannot be written are another type to the compiler, which would start again.
    arrays = (local_energy, first, *rows, m, g)
    uniform = [np.require(a, requirements=("C", "W")) for a in arrays]
    if kernel == "torch":
        return torch_kernel.propagate_alp(*uniform, backwards=backwards, single=single)
    return kernels.propagate_alp(*uniform, backwards=backwards, merge_rad=merge, single=single)


def _photon_part(state: Array) -> Array:
    """abs(A_x)^2 + abs(A_y)^2, shape (n, n_energy)."""
    squared: Array = np.einsum("nce,nce->ne", state[:, :4], state[:, :4])
    return squared


def _combine(source: Array, observer: Array, depth: Array) -> Array:
    """The formula of the module's head; ``depth`` has shape (n_energy,)."""
    p_c, p_r = _photon_part(source), _photon_part(observer)
    c, r = (state[:, 0::2] + 1j * state[:, 1::2] for state in (source, observer))
    overlap = c[:, 0] * r[:, 0] + c[:, 1] * r[:, 1]
    interference = (overlap * np.conj(c[:, 2] * r[:, 2])).real
    absorbed = np.exp(-depth) * (2.0 - p_c - p_r + np.abs(overlap) ** 2)
    total: Array = 0.5 * (absorbed + p_c * p_r) + np.exp(-0.5 * depth) * interference
    return total
