r"""The simulator `smeft-wz`: pp -> W Z -> three leptons with three Wilson coefficients.

    z:  parton-level event of `generator`, with its Gram matrix G(z)
    x:  20 features of three leptons and missing momentum after `detector`

Setup of arXiv:2410.07315 with a generator of its own: tree level, on-shell bosons, exact spin
correlations, 13.6 TeV, e and mu. With `level="parton"` the data are the event itself, so that the
learned function is known exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import ClassVar, Final, Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from sbi_physics import Budget, Observable, Parameter, ParameterSpace, Uniform
from sbi_physics.errors import ContractError
from sbi_physics.types import BoolArray, DataArray, FloatArray, Latents
from sbi_physics_smeft import detector
from sbi_physics_smeft.amplitudes import gram_full, gram_production
from sbi_physics_smeft.conventions import pack
from sbi_physics_smeft.cross_section import sigma_gram
from sbi_physics_smeft.eft_simulator import EftOptions, EftSimulator
from sbi_physics_smeft.generator import Events, generate
from sbi_physics_smeft.model import BR_W, BR_Z

PARTON_FEATURES: Final = (
    "charge",
    "ln_mass",
    "eta",
    "cos_w",
    "cos_phi_w",
    "sin_phi_w",
    "cos_z",
    "cos_phi_z",
    "sin_phi_z",
)
"""Data at parton level: ln of the pair's mass in GeV, artanh of cos(theta), decay angles; only the
first three where labels are of production."""

_FIDUCIAL_EVENTS: Final = 400_000
_COMPONENT_SHARES: Final = np.array([0.4, 0.2, 0.2, 0.2])


class WzOptions(EftOptions):
    """Options of the WZ process, whatever provides the events."""

    level: Literal["detector", "parton"] = Field(
        "detector",
        description="'detector': 20 features after smearing; 'parton': charge, mass, production "
        "angle and decay angles as they are, without selection.",
    )
    selection: bool = Field(
        True,
        description="Keep only events that pass the detector's cuts, 34 % in the Standard Model.",
    )
    luminosity: float = Field(
        300.0,
        gt=0,
        le=1e6,
        description="Integrated luminosity of a data set, above 0, at most 1e6.",
        json_schema_extra={"unit": "fb-1"},
    )
    k_factor: float = Field(
        1.0,
        gt=0,
        le=10,
        description="Factor of all cross sections for higher orders, above 0, at most 10; about "
        "1.8 for the inclusive rate.",
    )


class SmeftWzOptions(WzOptions):
    """Options of `smeft-wz`."""

    label_level: Literal["full", "production"] = Field(
        "full",
        description="'full': decays depend on the coefficients; 'production': they do not, as if "
        "bosons were decayed after reweighting. Labels then have mild tails, but the "
        "interference of C_W is lost.",
    )
    beam_energy: float = Field(
        13600.0,
        ge=1000,
        le=100000,
        description="Centre-of-mass energy of the beams, 1000 to 100000.",
        json_schema_extra={"unit": "GeV"},
    )
    max_mass: float = Field(
        8000.0,
        ge=300,
        le=100000,
        description="Largest invariant mass of the pair, 300 up to the beam energy; a lower one "
        "keeps to where the expansion in 1/Lambda holds.",
        json_schema_extra={"unit": "GeV"},
    )


class WzSimulator(EftSimulator):
    """Base of simulators of W Z events: parameters, basis and data."""

    basis = (
        (-4.0, 0.0, 0.0),
        (4.0, 0.0, 0.0),
        (0.0, -0.2, 0.0),
        (0.0, 0.2, 0.0),
        (0.0, 0.0, -0.2),
        (0.0, 0.0, 0.2),
        (-1.2, -0.09, 0.0),
        (-1.2, 0.0, -0.09),
        (0.0, -0.09, -0.09),
    )
    fiducial: ClassVar[Mapping[str, Mapping[str, float]]] = {
        "sm": {"C_HWB": 0.0, "C_W": 0.0, "C_Hq3": 0.0},
        "bsm": {"C_HWB": 0.5, "C_W": 0.05, "C_Hq3": 0.02},
    }
    budgets: ClassVar[Mapping[str, Budget]] = {
        "quick": Budget(simulations=100_000),
        "standard": Budget(simulations=1_000_000),
        "thorough": Budget(simulations=4_000_000, pairs=4000, training={"ensemble": 5}),
    }
    # They change how many events a data set has, no single one.
    observe_options = ("luminosity", "k_factor")
    # Events that hardly ever pass, measured 200 000 times without success.
    max_failure_fraction = 1e-3

    @property
    def parameters(self) -> ParameterSpace:
        return ParameterSpace(
            [
                Parameter(
                    "C_HWB",
                    Uniform(-1.0, 1.0),
                    unit="TeV-2",
                    label=r"C_{\phi WB}",
                    description="Coefficient of (phi+ tau phi) W B over Lambda^2.",
                    support=(-20.0, 20.0),
                ),
                Parameter(
                    "C_W",
                    Uniform(-0.1, 0.1),
                    unit="TeV-2",
                    label="C_{WWW}",
                    description="Coefficient of the triple field strength WWW over Lambda^2.",
                    support=(-5.0, 5.0),
                ),
                Parameter(
                    "C_Hq3",
                    Uniform(-0.05, 0.05),
                    unit="TeV-2",
                    label=r"C_{\phi q}^{(3)}",
                    description="Coefficient of the triplet Higgs-quark current over Lambda^2.",
                    support=(-5.0, 5.0),
                ),
            ]
        )

    @property
    def observable(self) -> Observable:
        names = self._parton_features() if self._is_parton else detector.FEATURES
        return Observable("vector", (len(names),), names=names, label="feature")

    def _passes(self, z: Latents, rng: np.random.Generator) -> BoolArray | None:
        if self._is_parton or not self.options.selection:
            return None
        return detector.passes(z["momenta"], rng)

    def _observe(self, z: Latents, theta: FloatArray, rng: np.random.Generator) -> FloatArray:
        if self._is_parton:
            return self._parton_data(z)
        return detector.observe(z["momenta"], z["charge"], rng, selection=self.options.selection)

    def summary_statistics(self, x: DataArray) -> FloatArray:
        """The classical variable, shape (n, 1): ln of the transverse mass, or of the mass."""
        name = "ln_mass" if self._is_parton else "ln_mt_wz"
        return np.asarray(x, np.float64)[:, [self.observable.names.index(name)]]

    @property
    def _is_parton(self) -> bool:
        return bool(self.options.level == "parton")

    def _parton_features(self) -> tuple[str, ...]:
        return PARTON_FEATURES

    def _parton_data(self, z: Latents) -> FloatArray:
        decay = np.asarray(z["decay"], dtype=np.float64)
        columns = [
            np.asarray(z["charge"], dtype=np.float64),
            np.log(z["sqrt_s"]),
            np.arctanh(z["cos_theta"]),
        ]
        for k in (0, 2):
            columns += [decay[:, k], np.cos(decay[:, k + 1]), np.sin(decay[:, k + 1])]
        return np.stack(columns[: len(self._parton_features())], axis=1)


class SmeftWz(WzSimulator):
    """WZ production with leptonic decays and three Wilson coefficients."""

    name = "smeft-wz"
    summary = "pp -> WZ -> three leptons at 13.6 TeV with C_HWB, C_W and C_Hq3"
    citation = ("arXiv:2410.07315", "arXiv:1902.05759", "arXiv:2203.05506")
    Options = SmeftWzOptions

    def __init__(self, options: SmeftWzOptions | None = None, **values: object) -> None:
        super().__init__(options, **values)
        self.sigma_gram()  # says now if the energies do not fit

    def events(self, theta: ArrayLike, rng: np.random.Generator) -> Events:
        """Unweighted parton-level events before selection, one for each row of theta (n, 3)."""
        points = self._checked(theta)
        return self._generate(np.concatenate([np.ones((len(points), 1)), points], axis=1), rng)

    def _generate(self, vectors: FloatArray, rng: np.random.Generator) -> Events:
        o = self.options
        return generate(
            vectors,
            rng,
            beam_energy=o.beam_energy,
            max_mass=o.max_mass,
            decays_follow=o.label_level == "full",
        )

    def _draw(self, vectors: FloatArray, rng: np.random.Generator) -> Latents:
        e = self._generate(vectors, rng)
        return {
            "gram": pack(e.gram),
            "charge": e.charge,
            "channel": e.channel,
            "sqrt_s": e.sqrt_s,
            "rapidity": e.rapidity,
            "cos_theta": e.cos_theta,
            "decay": e.decay,
            "momenta": e.momenta.astype(np.float32),
        }

    def sigma_gram(self) -> FloatArray:
        """Integrated Gram matrix in pb, both charges, without branching ratios, shape (4, 4)."""
        o = self.options
        total = sum(sigma_gram(c, beam_energy=o.beam_energy, max_mass=o.max_mass) for c in (1, -1))
        return np.asarray(total)

    def inclusive_gram(self) -> FloatArray:
        sigma = self.sigma_gram()
        return np.asarray(sigma / sigma[0, 0])

    def fiducial_gram(self) -> FloatArray:
        """Mean Gram matrix of selected events in the Standard Model, shape (4, 4), 00 entry 1.

        With a selection by Monte Carlo (400 000 events, fixed seed): entry ab is known to half a
        per cent of the root of aa times bb.
        """
        return self._acceptance_gram() / self.acceptance()

    def acceptance(self) -> float:
        """Share of events of the Standard Model that pass the selection."""
        return float(self._acceptance_gram()[0, 0])

    def _acceptance_gram(self) -> FloatArray:
        """Mean over all events of the Standard Model of G(z) A(z)."""
        o = self.options
        if self._is_parton or not o.selection:
            return self.inclusive_gram()
        return _acceptance_gram(o.beam_energy, o.max_mass, o.label_level == "full").copy()

    def expected_sm_events(self) -> float:
        """Cross section times branching ratios (e, mu), acceptance, luminosity and K factor."""
        o = self.options
        cross_section_fb = 1000.0 * self.sigma_gram()[0, 0] * 2 * BR_W * 2 * BR_Z
        return float(cross_section_fb * o.luminosity * o.k_factor * self.acceptance())

    def exact_gram(self, x: ArrayLike) -> FloatArray:
        """Gram matrices of parton-level data, which leave nothing to learn, shape (n, 4, 4).

        Args:
            x: Data, shape (n, 9), or (n, 3) where labels are of production.

        Raises:
            ContractError: At detector level, where they are not known.
        """
        if not self._is_parton:
            raise ContractError("the Gram matrix of the data is known at level 'parton' only")
        values = np.asarray(self.observable.check(x), dtype=np.float64)
        point = np.exp(values[:, 1]), np.tanh(values[:, 2]), np.rint(values[:, 0])
        if self.options.label_level == "production":
            gram = gram_production(*point)
        else:
            angles = []
            for k in (3, 6):
                angles += [values[:, k], np.arctan2(values[:, k + 2], values[:, k + 1])]
            gram = gram_full(*point, *angles)
        return np.asarray(gram / gram[:, :1, :1])

    def _parton_features(self) -> tuple[str, ...]:
        full = self.options.label_level == "full"
        return PARTON_FEATURES if full else PARTON_FEATURES[:3]


@lru_cache(maxsize=16)
def _acceptance_gram(beam_energy: float, max_mass: float, decays_follow: bool) -> FloatArray:
    """Acceptance times Gram matrix, averaged over events of the Standard Model.

    Events are drawn from all four squared amplitudes: of those from the Standard Model alone, too
    few are where the others are large.
    """
    sigma = sum(sigma_gram(c, beam_energy=beam_energy, max_mass=max_mass) for c in (1, -1))
    mean = np.diagonal(sigma) / np.asarray(sigma)[0, 0]
    rng = np.random.default_rng(1902_05759)
    component = rng.choice(4, _FIDUCIAL_EVENTS, p=_COMPONENT_SHARES)
    events = generate(
        np.eye(4)[component],
        rng,
        beam_energy=beam_energy,
        max_mass=max_mass,
        decays_follow=decays_follow,
    )
    # Density of the sample over that of the Standard Model.
    q = np.einsum("naa,a->n", events.gram, _COMPONENT_SHARES / mean)
    weight = detector.passes(events.momenta, rng) / q
    return np.asarray(np.einsum("n,nab->ab", weight, events.gram) / _FIDUCIAL_EVENTS)
