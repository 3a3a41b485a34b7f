r"""The model: electroweak inputs {G_F, m_W, m_Z}, couplings, and three Warsaw-basis operators.

Lagrangian terms :math:`C_i/\Lambda^2\, O_i` with Lambda = 1 TeV, so coefficients are in TeV^-2:

===== =============================================================================================
HWB   :math:`(\phi^\dagger \tau^I \phi) W^I_{\mu\nu} B^{\mu\nu}` (c_phiWB)
W     :math:`\epsilon_{IJK} W^{I\nu}_\mu W^{J\rho}_\nu W^{K\mu}_\rho` (c_WWW)
Hq3   :math:`i(\phi^\dagger \overleftrightarrow{D}{}^I_\mu \phi)(\bar q \gamma^\mu \tau^I q)`
      (c_phiq3), both light generations
===== =============================================================================================

The sign of C_W is that for :math:`D_\mu = \partial_\mu + i g \dots`; models with the opposite sign
in the covariant derivative have the opposite C_W. Values: particle data group, arXiv:2410.07315.
"""

from __future__ import annotations

import math
from typing import Final

G_FERMI: Final = 1.1663788e-5
"""Fermi constant, GeV^-2."""
M_W: Final = 80.3692
"""Mass of the W, GeV."""
M_Z: Final = 91.1880
"""Mass of the Z, GeV."""
VEV: Final = (math.sqrt(2.0) * G_FERMI) ** -0.5
"""Vacuum expectation value, GeV."""
G: Final = 2.0 * M_W / VEV
"""SU(2) coupling."""
COS_W: Final = M_W / M_Z
"""Cosine of the weak angle."""
SIN2_W: Final = 1.0 - COS_W**2
"""Squared sine of the weak angle."""
SIN_W: Final = math.sqrt(SIN2_W)
TAN_W: Final = SIN_W / COS_W
X: Final = VEV**2 / 1e6
"""v^2/Lambda^2 at Lambda = 1 TeV: shift of a coupling by a unit coefficient."""

_LEFT, _RIGHT = -0.5 + SIN2_W, SIN2_W
Z_LEFT: Final = _LEFT**2 / (_LEFT**2 + _RIGHT**2)
"""Share of left-handed leptons in Z -> l l."""

BR_W: Final = 0.1086
"""Branching ratio of W -> l nu, for each lepton flavour."""
BR_Z: Final = 0.033658
"""Branching ratio of Z -> l l, for each lepton flavour."""

THRESHOLD: Final = M_W + M_Z
"""Smallest invariant mass of the pair, GeV."""
PB: Final = 0.3893793721e9
"""1 GeV^-2 in pb."""

COEFFICIENTS: Final = ("C_HWB", "C_W", "C_Hq3")
"""Names of the coefficients, in the order of every array."""
