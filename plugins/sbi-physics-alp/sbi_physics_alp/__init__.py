"""Photon-ALP conversion in gamma-ray spectra: a simulator plugin for sbi-physics."""

from __future__ import annotations

__version__ = "0.1.0"
