"""Engines of sbi-physics built on the networks of sbi: neural posterior and ratio estimation."""

__version__ = "0.1.0"

PACKAGES = ("sbi-physics-sbi", "sbi", "torch", "nflows", "zuko")
"""Distributions whose versions are recorded with a posterior."""
