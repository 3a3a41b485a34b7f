"""`python -m sbi_physics` is `sbi-physics`."""

from __future__ import annotations

from sbi_physics.cli import main

if __name__ == "__main__":
    main()
