"""Constants of photon-ALP mixing in the units of this package.

Magnetic field in muG, coupling in 1e-11 GeV^-1, ALP mass in neV, electron density in cm^-3, photon
energy in GeV, length in kpc, momentum differences in kpc^-1. The values are those that the
code gammaALPs 0.4 arrives at from CODATA constants; CODATA revisions move them at the 1e-8 level,
so they are written out to keep results reproducible. Formulas: arXiv:1406.5972, section 2.
"""

from __future__ import annotations

from typing import Final

MIXING: Final = 1.527403058277e-02
"""Mixing: D_ag = MIXING g B_T.

(1 muG in GeV^2)(1e-11 GeV^-1) / (2 hbar c), natural Heaviside-Lorentz units with
1 G = 1.953527712953e-20 GeV^2 and hbar c = 6.394931915211e-36 GeV kpc.
"""

MASS: Final = 7.818691529939e-02
"""ALP mass: D_a = -MASS m^2 / E. (1 neV)^2 / (2 GeV hbar c)."""

PLASMA: Final = 1.078074255168e-04
"""Plasma: D_pl = -PLASMA n_e / E.

4 pi alpha cm^-3 / (m_e 2 GeV hbar c) with 1 cm = 5.067730716156e13 GeV^-1.
"""

CMB: Final = 7.969267332972e-08
"""Dispersion on the microwave background: D_CMB = CMB E.

chi GeV / (hbar c) with chi = (44 alpha^2 / 135)(pi^2 / 15)(k T)^4 / m_e^4 = 5.0962922e-43 at
T = 2.7255 K (arXiv:1412.4777).
"""

QED: Final = 4.142870239468e-09
"""Vacuum birefringence: D_QED = QED E B_T^2.

alpha / (45 pi) B_crit^-2 GeV / (hbar c), B_crit = m_e^2 / sqrt(4 pi alpha) = 4.414005e19 muG.
Higher orders in B_T / B_crit are below 1e-30 for every field of this package.
"""

QED_PERPENDICULAR: Final = 2.0
QED_PARALLEL: Final = 3.5
"""Weights of D_QED for polarisation across and along the transverse field."""

PLASMA_FREQUENCY: Final = 3.713276575e-02
"""Plasma frequency: omega_pl = PLASMA_FREQUENCY sqrt(n_e), in neV."""
