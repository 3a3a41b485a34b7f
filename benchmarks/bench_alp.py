# ruff: noqa: E402 - thread counts must be set before anything imports NumPy
"""Photon-ALP propagation and whole observations, side by side with gammaALPs and gammapy.

    python benchmarks/bench_alp.py [--repeats 5] [--throughput | --alternatives]

The comparisons run on one thread; the codes take turns, so that a busy machine slows both alike,
and CPU time of the process is counted. Two comparisons:

1. propagation: 200 energies through the 4499 cells of one Perseus field, gammaALPs' ``run()``
   against `photon_survival` of the same cells (which must agree to 1e-8);
2. whole observation: new field, cluster, background light, Milky Way, folding, Poisson; gammaALPs
   with a gammapy `SpectrumDataset` against the simulator `alp-ngc1275`, same energies, same
   response file (needs $GAMMAPY_DATA). Then with options that are faster and not exact: how far
   they move P(E) of 48 draws of the prior, largest and root mean square, is in the last columns.

``--throughput`` prints instead the processor time of draws of the prior, by level and option, that
of a million on two cores, and what two threads gain: the time of one thread over that of the
busier of two. Waiting is not counted, so that other jobs on the machine do not matter.

``--alternatives`` prints what two ways of going faster would gain, which the simulators do not
take, on draws of the prior: one field for several masses and couplings saves at most the share of
the time that fields take; every second energy, with a cubic spline in ln E between them, saves
time and moves P(E).
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ["NUMBA_NUM_THREADS"] = "2"
os.environ["OMP_WAIT_POLICY"] = "passive"  # threads that wait use no processor time

import argparse
import logging
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numba
import numpy as np
import scipy.integrate

# gammaALPs 0.4 imports the old name of this SciPy function.
if not hasattr(scipy.integrate, "simps"):
    scipy.integrate.simps = scipy.integrate.simpson

from gammaALPs.core import ALP, ModuleList, Source
from llvmlite import binding
from sbi_physics_alp.conversion import Conversion
from sbi_physics_alp.field import FieldSampler
from sbi_physics_alp.milky_way import milky_way_cells
from sbi_physics_alp.ngc1275 import PERSEUS, AlpNgc1275
from sbi_physics_alp.propagation import Domains, photon_survival
from scipy.interpolate import CubicSpline

REDSHIFT = 0.017559
SOURCE = {"z": REDSHIFT, "ra": "03h19m48.1s", "dec": "+41d30m42s"}
CLUSTER = {
    "nsim": 1,
    "B0": 10.0,
    "n0": 39e-3,
    "n2": 4.05e-3,
    "r_abell": 500.0,
    "r_core": 80.0,
    "r_core2": 280.0,
    "beta": 1.2,
    "beta2": 0.58,
    "eta": 0.5,
    "kL": 0.18,
    "kH": 9.0,
    "q": -2.8,
}
MASS_NEV, COUPLING = 30.0, 0.5
HEAVY_NEV, STRONG = 300.0, 10.0
"""A harder point: large phases at low energies, strong mixing at high ones."""

RESPONSE = "cta-prod5-north-20deg-50h"


def main() -> None:
    """Run both comparisons and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="turns of each code")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--throughput", action="store_true", help="simulators, not the codes")
    which.add_argument("--alternatives", action="store_true", help="ways that are not taken")
    given = parser.parse_args()
    if given.throughput:
        throughput()
        return
    if given.alternatives:
        alternatives()
        return
    repeats = given.repeats
    numba.set_num_threads(1)
    logging.disable(logging.ERROR)
    warnings.simplefilter("ignore")
    features = binding.get_host_cpu_features()
    widest = next((f for f in ("avx512f", "avx2", "avx") if features.get(f)), "no AVX")
    print(f"CPU {binding.get_host_cpu_name()}, widest vector instructions: {widest}; one thread")
    print(f"{'':52s}{'peer':>12s}{'sbi-physics':>14s}{'ratio':>8s}{'error of P':>20s}")
    propagation(repeats)
    observation(repeats)


def propagation(repeats: int) -> None:
    """Gammaalps' run() against photon_survival."""
    energy = np.logspace(1.0, 5.0, 200)
    modules = module_list(energy, seed=0)
    cluster = modules.modules[0]
    cells = Domains(
        np.ravel(cluster.B), np.ravel(cluster.psin), np.ravel(cluster.nel), np.ravel(cluster.dL)
    )
    for m, g in ((MASS_NEV, COUPLING), (HEAVY_NEV, STRONG)):
        modules.alp.m, modules.alp.g = m, g
        p_x, p_y, _ = modules.run(multiprocess=1)
        p = photon_survival(energy, cells, m_nev=m, g11=g, redshift=REDSHIFT)
        difference = np.abs(p_x[0] + p_y[0] - p[0]).max()
        if difference > 1e-8:
            raise SystemExit(f"the codes differ by {difference:.1e} at m = {m} neV, g = {g}")
        masses = np.full(8, m)
        peer, ours = take_turns(
            partial(modules.run, multiprocess=1),
            partial(photon_survival, energy, cells, m_nev=masses, g11=g, redshift=REDSHIFT),
            repeats,
            per_call=8,
        )
        report(f"propagation, {energy.size} x {cells.b_ug.size}, m = {m:g}, g = {g:g}", peer, ours)


def observation(repeats: int) -> None:
    """New field to Poisson counts."""
    if not os.environ.get("GAMMAPY_DATA"):
        print("whole observation: skipped, $GAMMAPY_DATA is not set")
        return
    from astropy import units as u
    from gammapy.modeling.models import SkyModel, TemplateSpectralModel
    from sbi_physics_alp.data_files import locate
    from sbi_physics_alp.gammapy_response import Selection, spectrum_dataset

    simulator = AlpNgc1275(response=RESPONSE, cell_mode="compat")  # the peer's cells
    energy = simulator.conversion.energy_gev
    rng = np.random.default_rng(1)
    theta = np.repeat(simulator.theta("m30-g05")[None], 16, axis=0)
    dataset, _ = spectrum_dataset(locate(RESPONSE), Selection(), livetime_s=180000.0)
    amplitude, index, e_cut = theta[0, 2:]
    flux = amplitude * (energy / 300.0) ** -index * np.exp(-energy / e_cut)
    seeds = iter(range(1, 1_000_000))

    def peer_observation() -> Any:
        modules = module_list(energy, seed=next(seeds))
        modules.add_propagation("EBL", 1, eblmodel="dominguez")
        modules.add_propagation("GMF", 2, model="jansson12")
        p_x, p_y, _ = modules.run(multiprocess=1)
        values = flux * (p_x[0] + p_y[0]) * u.Unit("cm-2 s-1 TeV-1")
        model = TemplateSpectralModel(energy=energy * u.GeV, values=values)
        dataset.models = [SkyModel(spectral_model=model, name="source")]
        return rng.poisson(dataset.npred().data)

    peer, ours = take_turns(
        peer_observation, lambda: simulator.simulate(theta, rng), repeats, per_call=16
    )
    report(f"whole observation, {energy.size} energies, exact", peer, ours)
    some = simulator.prior.sample(48, rng)
    for name, options in FASTER:
        other = AlpNgc1275(response=RESPONSE, **options)
        exact = AlpNgc1275(response=RESPONSE, cell_mode=other.options.cell_mode)
        p, q = (
            s.simulate_latent(some, np.random.default_rng(4))["survival"] for s in (other, exact)
        )
        difference = np.abs(p - q)
        run = partial(other.simulate, theta, rng)
        ours = min(processor_time(run)[0] for _ in range(repeats)) / len(theta)
        rms = np.sqrt(np.mean(difference**2))
        report(name, peer, ours, f"{difference.max():.0e}, {rms:.0e}")
    z = {"survival": simulator.simulate_latent(theta, rng)["survival"]}
    run = partial(simulator.observe, z, theta, rng)
    ours = min(processor_time(run)[0] for _ in range(repeats)) / len(theta)
    report("observing a stored curve again", peer, ours)


BOTH = {"precision": "single", "merge_cells": 0.2}
FASTER: tuple[tuple[str, dict[str, Any]], ...] = (
    ("... precision single", {"cell_mode": "compat", "precision": "single"}),
    ("... merge_cells 0.2", {"cell_mode": "compat", "merge_cells": 0.2}),
    ("... both", {"cell_mode": "compat", **BOTH}),
    ("... cells half as long (the default), exact", {}),
    ("... and both", BOTH),
)

CASES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("five (default)", {}),
    ("five, compat", {"cell_mode": "compat"}),
    ("five, compat, 200 energies", {"cell_mode": "compat", "true_bins_per_decade": 44}),
    ("five, single", {"precision": "single"}),
    ("five, merge 0.2", {"merge_cells": 0.2}),
    ("five, single, merge 0.2", BOTH),
    ("informed", {"level": "informed"}),
    (
        "informed, single, merge 0.2",
        {"level": "informed", "precision": "single", "merge_cells": 0.2},
    ),
    ("agnostic", {"level": "agnostic"}),
)


def throughput(n: int = 64, repeats: int = 2) -> None:
    """Processor time a simulation and of a million, and the gain of two threads."""
    heads = f"{'energies':>10s}{'a simulation':>14s}{'1e6, 2 cores':>14s}{'gain':>8s}"
    print(f"{'alp-ngc1275':30s}{heads}")
    for name, options in CASES:
        simulator = AlpNgc1275(**options)
        theta = simulator.prior.sample(n, np.random.default_rng(1))
        best = {}
        for threads in (1, 2):
            numba.set_num_threads(threads)
            simulator.simulate(theta[:2], np.random.default_rng(2))
            run = partial(simulator.simulate, theta, np.random.default_rng(2))
            best[threads] = min(processor_time(run)[1] for _ in range(repeats)) / n
        gain = best[1] / best[2]
        hours = best[2] * 1e6 / 3600.0
        print(
            f"{name:30s}{simulator.conversion.energy_gev.size:10d}{1e3 * best[1]:11.2f} ms"
            f"{hours:12.2f} h{gain:8.2f}",
            flush=True,
        )


def alternatives(n: int = 192, repeats: int = 3) -> None:
    """What sharing fields could save at most, and what every second energy costs and saves."""
    numba.set_num_threads(1)
    heads = f"{'P(E)':>10s}{'field':>10s}{'share':>8s}{'half':>10s}{'saved':>8s}"
    print(f"{'alp-ngc1275, one thread':30s}{heads}{'largest, rms error of P':>26s}")
    for name, options in (CASES[0], CASES[5]):
        simulator = AlpNgc1275(**options)
        theta = simulator.prior.sample(n, np.random.default_rng(1))
        m_nev, g11 = theta[:, 0], theta[:, 1]
        full = simulator.conversion
        energy = full.energy_gev
        kept = np.unique(np.append(np.arange(0, energy.size, 2), energy.size - 1))
        half = simulator.options.conversion(
            energy[kept], PERSEUS, redshift=REDSHIFT, milky_way=milky_way_cells()
        )
        sampler = FieldSampler(PERSEUS, simulator.options.cell_mode)

        def draw(conversion: Conversion, m: Any = m_nev, g: Any = g11) -> Any:
            return conversion.draw(m, g, np.random.default_rng(2))  # the same fields

        def interpolated(e: Any = energy, kept: Any = kept, half: Conversion = half) -> Any:
            spline = CubicSpline(np.log(e[kept]), draw(half), axis=1)
            return np.clip(spline(np.log(e)), 0.0, 1.0)

        runs = {
            "full": partial(draw, full),
            "field": partial(sampler.sample, n, np.random.default_rng(2)),
            "half": interpolated,
        }
        difference = np.abs(runs["full"]() - runs["half"]())
        best = dict.fromkeys(runs, np.inf)
        for _ in range(repeats):
            for code, run in runs.items():
                best[code] = min(best[code], processor_time(run)[0] / n)
        error = f"{difference.max():.2f}, {np.sqrt(np.mean(difference**2)):.3f}"
        print(
            f"{name:30s}{1e3 * best['full']:7.2f} ms{1e3 * best['field']:7.2f} ms"
            f"{best['field'] / best['full']:8.1%}{1e3 * best['half']:7.2f} ms"
            f"{1.0 - best['half'] / best['full']:8.0%}{error:>26s}",
            flush=True,
        )


def processor_time(run: Callable[[], Any]) -> tuple[float, float]:
    """Seconds of all threads, and of the busier of two."""
    start, start_here = time.process_time(), time.thread_time()
    run()
    everywhere, here = time.process_time() - start, time.thread_time() - start_here
    return everywhere, max(here, everywhere - here)


def module_list(energy: np.ndarray[Any, Any], *, seed: int) -> Any:
    """Gammaalps' modules with a new cluster field."""
    unpolarised = np.diag([0.5, 0.5, 0.0]).astype(complex)
    modules = ModuleList(
        ALP(m=MASS_NEV, g=COUPLING), Source(**SOURCE), pin=unpolarised, EGeV=energy
    )
    modules.add_propagation("ICMGaussTurb", 0, seed=seed, **CLUSTER)
    return modules


def take_turns(
    peer: Callable[[], Any], ours: Callable[[], Any], repeats: int, *, per_call: int
) -> tuple[float, float]:
    """Best CPU seconds for one simulation of both codes, which alternate."""
    peer(), ours()
    times: dict[Callable[[], Any], list[float]] = {peer: [], ours: []}
    for _ in range(repeats):
        for code in (peer, ours):
            start = time.process_time()
            code()
            times[code].append(time.process_time() - start)
    return min(times[peer]), min(times[ours]) / per_call


def report(what: str, peer: float, ours: float, error: str = "") -> None:
    """Print one row."""
    print(
        f"{what:52s}{1e3 * peer:9.1f} ms{1e3 * ours:11.3f} ms{peer / ours:8.0f}{error:>20s}",
        flush=True,
    )


if __name__ == "__main__":
    main()
