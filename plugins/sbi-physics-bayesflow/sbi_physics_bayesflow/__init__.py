"""Engine of sbi-physics built on the networks of BayesFlow: conditional invertible networks."""

__version__ = "0.1.0"

PACKAGES = ("sbi-physics-bayesflow", "bayesflow", "keras", "torch")
"""Distributions whose versions are recorded with a posterior."""
