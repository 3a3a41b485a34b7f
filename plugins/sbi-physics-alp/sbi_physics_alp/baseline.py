"""The classical analysis: binned likelihood fits at fixed realisations of the field.

For one field, P(E; m_a, g) is a function, and counts are Poisson: the likelihood is known. It is
profiled over the source spectrum with Minuit at every (m_a, g) and every one of some fields, and
the fields are combined as in arXiv:1603.06978: at each point, the likelihood that a share Q of
them stays below. Without coupling there is no field, and the posterior of the spectrum is sampled
by Markov chains (emcee).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sbi_physics import Prior
from sbi_physics.errors import ContractError
from sbi_physics.types import FloatArray
from sbi_physics_alp.alp_simulator import AlpSimulator
from sbi_physics_alp.instruments import LogResiduals

Array = np.ndarray[Any, np.dtype[np.float64]]

THRESHOLD_95 = 5.991
"""Difference of -2 ln L that excludes at 95 % with two parameters, where Wilks' theorem holds."""

_SPECTRUM = slice(2, 5)


@dataclass(frozen=True)
class SpectrumFit:
    """Best source spectrum at one (m_a, g) and field.

    Attributes:
        values: Amplitude, index and third parameter of the spectrum, in their units.
        errors: Their standard deviations from the curvature of the likelihood.
        statistic: -2 ln L relative to that of the data themselves.
        converged: Whether Minuit calls the minimum valid.
    """

    values: Array
    errors: Array
    statistic: float
    converged: bool


class Baseline:
    """Likelihood fits of one observation with one simulator.

    Args:
        simulator: A simulator of this package whose cluster does not vary.
        x: The observation, shape observable.shape.

    Raises:
        ContractError: If parameters of the cluster vary: their likelihood is not this one. If the
            simulator's data are no counts.
    """

    def __init__(self, simulator: AlpSimulator, x: ArrayLike) -> None:
        if simulator.cluster_prior.names:
            varied = ", ".join(simulator.cluster_prior.names)
            raise ContractError(f"the baseline has a fixed cluster; {varied} vary")
        if isinstance(simulator.observation_model, LogResiduals):
            raise ContractError("the baseline needs counts; make the simulator with data=counts")
        self.simulator = simulator
        self.x = np.asarray(simulator.observable.check(x)[0], dtype=np.float64)
        self._space = simulator.parameters
        self._logarithmic = np.array(
            [self._space[i].scale == "log10" for i in range(*_SPECTRUM.indices(5))]
        )
        bounds = np.array([p.bounds for p in self._space[_SPECTRUM]])
        self._bounds = np.where(
            self._logarithmic[:, None], np.log(np.maximum(bounds, 1e-300)), bounds
        )

    def survival(self, m_nev: ArrayLike, g11: ArrayLike, seed: int) -> Array:
        """Survival curves through the field of one seed, shape (n, n_true).

        Raises:
            ContractError: If the seed is negative.
        """
        _check_seed(seed)
        m, g = np.broadcast_arrays(*(np.atleast_1d(np.asarray(a, float)) for a in (m_nev, g11)))
        cluster = self.simulator.cluster_prior.cluster
        seeds = np.full(m.size, seed, dtype=np.int64)
        curves = self.simulator.conversion.draw_varied(m, g, cluster, seeds)
        return curves.astype(np.float64)

    def statistic(self, survival: Array, spectra: Array) -> Array:
        """-2 ln L of spectra, shape (n, 3) in their units, behind given survival curves; (n,)."""
        theta = np.zeros((len(spectra), 5))
        theta[:, _SPECTRUM] = spectra
        signal = self.simulator.expected_signal(survival, theta)
        return self.simulator.observation_model.statistic(self.x, signal)

    def fit(self, survival: Array, start: ArrayLike | None = None) -> SpectrumFit:
        """Fit the spectrum behind one survival curve, inside the ranges of the prior.

        Args:
            survival: Survival probability of each true-energy bin, shape (n_true,).
            start: Where to begin, in their units; None: the middle of the prior.
        """
        from iminuit import Minuit

        def objective(z: Array) -> float:
            return float(self.statistic(survival[None], self._physical(z)[None])[0])

        middle = self._bounds.mean(axis=1)
        first = middle if start is None else self._coordinate(np.asarray(start, float))
        low, high = self._bounds.T
        inside = np.clip(first, low + 1e-6, high - 1e-6)
        minuit = Minuit(objective, inside)
        minuit.errordef, minuit.limits = 1.0, self._bounds.tolist()
        minuit.errors = 0.02 * np.diff(self._bounds).ravel()
        minuit.migrad()
        z, spread = np.array(minuit.values), np.array(minuit.errors)
        values = self._physical(z)
        errors = np.where(self._logarithmic, spread * values, spread)
        return SpectrumFit(values, errors, float(minuit.fval), bool(minuit.valid))

    def profile(
        self,
        m_nev: ArrayLike,
        g11: ArrayLike,
        seeds: Sequence[int],
        start: ArrayLike | None = None,
    ) -> Array:
        """-2 ln L, profiled over the spectrum, on a grid and for some fields.

        Args:
            m_nev: Masses in neV, shape (n_m,).
            g11: Couplings in 1e-11 GeV^-1, shape (n_g,).
            seeds: Seeds of the fields.
            start: Where every first fit begins; None: the best spectrum without ALPs.

        Returns:
            Shape (n_seeds, n_m, n_g).

        Raises:
            ContractError: If a seed is negative.
        """
        for seed in seeds:
            _check_seed(seed)
        m, g = (np.atleast_1d(np.asarray(a, dtype=np.float64)) for a in (m_nev, g11))
        if start is None:
            start = self.fit(self.without_alps).values
        found = np.empty((len(seeds), m.size, g.size))
        for k, seed in enumerate(seeds):
            curves = self.survival(np.repeat(m, g.size), np.tile(g, m.size), seed)
            for i in range(m.size):
                near = start
                for j in range(g.size):
                    best = self.fit(curves[i * g.size + j], near)
                    found[k, i, j] = best.statistic
                    near = best.values
        return found

    @property
    def without_alps(self) -> Array:
        """Survival curve without coupling, shape (n_true,)."""
        return np.asarray(np.exp(-self.simulator.conversion.tau))

    def sample_spectrum(
        self, n: int, *, seed: int, walkers: int = 32, thin: int = 10, burn_in: int = 1000
    ) -> FloatArray:
        """Draw spectra without ALPs from their posterior by Markov chains, shape (n, 3).

        Args:
            n: Number of draws; those of one walker are ``thin`` steps apart.
            seed: Seed of the chains.
            walkers: Walkers of the ensemble.
            thin: Steps between draws that are kept.
            burn_in: Steps that are thrown away.

        Raises:
            ContractError: If the seed is negative.
            ImportError: If emcee is not installed.
        """
        _check_seed(seed)
        try:
            import emcee
        except ImportError as error:
            raise ImportError("Markov chains need the package emcee: pip install emcee") from error
        prior = Prior(self._space[_SPECTRUM])
        survival = self.without_alps

        def log_density(z: Array) -> Array:
            values = prior.from_unconstrained(z)
            statistic = self.statistic(np.broadcast_to(survival, (len(z), survival.size)), values)
            # The prior in these coordinates is logistic: u (1 - u).
            logistic = -np.logaddexp(0.0, -z) - np.logaddexp(0.0, z)
            return np.asarray(logistic.sum(axis=1) - 0.5 * statistic)

        best = self.fit(survival)
        rng = np.random.default_rng(seed)
        centre = prior.to_unconstrained(best.values)
        first = centre + 0.05 * rng.standard_normal((walkers, centre.size))
        sampler = emcee.EnsembleSampler(walkers, centre.size, log_density, vectorize=True)
        state = np.random.RandomState(int(rng.integers(2**32))).get_state()
        begin = emcee.State(first, random_state=state)
        steps = thin * -(-n // walkers)
        sampler.run_mcmc(begin, burn_in + steps)
        chain = sampler.get_chain(discard=burn_in, thin=thin, flat=True)
        return prior.from_unconstrained(chain[:n])

    def _coordinate(self, values: Array) -> Array:
        return np.where(self._logarithmic, np.log(np.maximum(values, 1e-300)), values)

    def _physical(self, z: Array) -> Array:
        return np.where(self._logarithmic, np.exp(np.where(self._logarithmic, z, 0.0)), z)


def combine_fields(statistic: Array, quantile: float = 0.95) -> Array:
    """Combine fields: the -2 ln L that a share ``quantile`` of them exceeds, shape (n_m, n_g).

    A point is then excluded only if nearly all fields exclude it (arXiv:1603.06978, section III).

    Args:
        statistic: -2 ln L of each field, shape (n_fields, n_m, n_g).
        quantile: Share of the fields.

    Raises:
        ContractError: If there are no fields, or ``quantile`` is no probability.
    """
    if not 0.0 <= quantile <= 1.0:
        raise ContractError(f"quantile is a probability; got {quantile}")
    values = np.asarray(statistic, dtype=np.float64)
    if values.ndim != 3 or values.size == 0:
        raise ContractError(
            f"statistic has shape {values.shape}; accepted is (n_fields, n_m, n_g) with at least "
            f"one of each, as Baseline.profile returns it"
        )
    return np.asarray(np.quantile(values, 1.0 - quantile, axis=0))


def excluded(statistic: Array, threshold: float = THRESHOLD_95) -> np.ndarray[Any, Any]:
    """Points whose -2 ln L exceeds that of the best by more than ``threshold``, same shape.

    Wilks' theorem does not hold where the mass means nothing (g near 0): calibrate the threshold
    with toys before quoting a confidence level.
    """
    return np.asarray(statistic - statistic.min() > threshold)


def _check_seed(seed: int) -> None:
    if seed < 0:
        raise ContractError(f"the seed is {seed}; accepted is an integer from 0")
