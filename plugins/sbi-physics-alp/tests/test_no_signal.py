"""What posteriors without signal say about the mass, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from sbi_physics_alp.ngc1275 import AlpNgc1275
from sbi_physics_alp.no_signal import mass_divergence

from sbi_physics import LogUniform, Parameter, ParameterSpace, Prior
from sbi_physics.errors import ContractError

INTEREST = [Parameter("m_a", LogUniform(1.0, 1e3)), Parameter("g", LogUniform(0.1, 10.0))]


class Tilted:
    """The prior times 1 + s(x) cos(2 pi u) below g = 0.2, u the prior's quantile of the mass;
    above, masses in the middle are depleted."""

    observable = AlpNgc1275(energy_min="1 TeV", energy_max="2 TeV", reco_bins=2).observable

    def __init__(self, names=("m_a", "g")):
        by_name = {p.name: p for p in INTEREST}
        self.prior = Prior(ParameterSpace([by_name[name] for name in names]))

    def log_prob(self, theta, x):
        m = theta[:, self.prior.names.index("m_a")]
        g = theta[:, self.prior.names.index("g")]
        u = np.log10(m) / 3.0
        low = 1.0 + x[:, :1] * np.cos(2.0 * np.pi * u)
        high = np.where(np.abs(u - 0.5) < 0.2, 0.01, 1.0)
        return self.prior.log_prob(theta) + np.log(np.where(g < 0.2, low, high))


@pytest.mark.parametrize("names", [("m_a", "g"), ("g", "m_a")])
def test_it_is_the_divergence_of_the_conditional(names):
    tilt = np.array([0.0, 0.3, 0.9])
    x = np.stack([tilt, np.zeros(3)], axis=1)
    found = mass_divergence(Tilted(names), x, g11_below=0.15)
    u = (np.arange(100_000) + 0.5) / 100_000
    ratio = 1.0 + tilt[:, None] * np.cos(2.0 * np.pi * u)
    # Bins of a thirtieth and midpoints flatten the cosine by less than a percent of its square.
    np.testing.assert_allclose(found, (ratio * np.log(ratio)).mean(axis=1), rtol=0.01, atol=1e-12)


def test_all_couplings_together_would_not_do():
    # Depleted masses at visible couplings are right, and no sign of a wrong posterior.
    x = np.zeros((1, 2))
    assert mass_divergence(Tilted(), x, g11_below=0.19)[0] < 1e-12
    assert mass_divergence(Tilted(), x, g11_below=9.9)[0] > 0.1


def test_one_observation_alone_is_enough():
    assert mass_divergence(Tilted(), np.zeros(2), g11_below=0.15).shape == (1,)


def test_other_posteriors_and_couplings_are_refused():
    with pytest.raises(ContractError, match="of m_a, not of m_a and g alone"):
        mass_divergence(Tilted(("m_a",)), np.zeros(2), g11_below=0.15)
    with pytest.raises(ContractError, match="g11_below is 0.01; accepted is .* 0.1 to 10"):
        mass_divergence(Tilted(), np.zeros(2), g11_below=0.01)
