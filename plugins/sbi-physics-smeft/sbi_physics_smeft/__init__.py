"""Effective field theory at the LHC: simulators and engines for sbi-physics."""

from __future__ import annotations

__version__ = "0.1.0"
