"""Engine of sbi-physics built on the networks of swyft: marginal neural ratio estimation."""

__version__ = "0.1.0"

PACKAGES = ("sbi-physics-swyft", "swyft", "torch", "pytorch-lightning")
"""Distributions whose versions are recorded with a posterior."""
