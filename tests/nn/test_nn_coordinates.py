"""Normal coordinates against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import special, stats

from sbi_physics.nn.coordinates import from_normal, log_normal, log_slope, to_normal

pytestmark = pytest.mark.engine


def test_logit_coordinates_of_a_uniform_become_normal_quantiles():
    p = np.array([1e-9, 1e-3, 0.2, 0.5, 0.9, 1 - 1e-7])
    z = to_normal(torch.from_numpy(special.logit(p)))
    np.testing.assert_allclose(z.numpy(), stats.norm.ppf(p), rtol=1e-9, atol=1e-12)


def test_the_map_is_inverted_over_the_whole_range_of_the_core():
    u = torch.linspace(-20.7, 20.7, 401, dtype=torch.float64)
    torch.testing.assert_close(from_normal(to_normal(u)), u, rtol=1e-9, atol=1e-9)
    narrow = u.float()
    torch.testing.assert_close(from_normal(to_normal(narrow)), narrow, rtol=1e-5, atol=1e-5)


def test_the_slope_is_the_derivative():
    u = torch.linspace(-15, 15, 31, dtype=torch.float64)
    step = 1e-5
    numeric = torch.log((to_normal(u + step) - to_normal(u - step)) / (2 * step))
    torch.testing.assert_close(log_slope(to_normal(u)[:, None]), numeric, rtol=1e-5, atol=1e-6)


def test_far_draws_of_a_flow_stay_finite():
    z = torch.tensor([-30.0, 30.0], dtype=torch.float64)
    assert torch.isfinite(from_normal(z)).all()
    assert torch.isfinite(log_slope(z[:, None])).all()


def test_the_normal_density_is_right():
    z = np.linspace(-5, 5, 11)
    np.testing.assert_allclose(log_normal(torch.from_numpy(z)).numpy(), stats.norm.logpdf(z))
