"""ALPs of a proton beam dump that decay to two photons: a simulator plugin for sbi-physics."""

from __future__ import annotations

__version__ = "0.1.0"
