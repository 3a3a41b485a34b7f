"""Make data/example.lhe.gz: 300 Standard Model events with weights at the morphing basis."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sbi_physics_smeft.generator import generate
from sbi_physics_smeft.lhe_writer import write_lhe
from sbi_physics_smeft.model import BR_W, BR_Z
from sbi_physics_smeft.smeft_wz import SmeftWz

TARGET = Path(__file__).parent.parent / "sbi_physics_smeft" / "data" / "example.lhe.gz"


def main() -> None:
    """Write the file."""
    rng = np.random.default_rng(300)
    points = {"sm": (0.0, 0.0, 0.0)}
    points |= {f"basis_{k + 1}": point for k, point in enumerate(SmeftWz.basis)}
    cross_section = SmeftWz().sigma_gram()[0, 0] * 4 * BR_W * BR_Z
    events = generate(np.tile([1.0, 0, 0, 0], (300, 1)), rng)
    TARGET.parent.mkdir(exist_ok=True)
    write_lhe(TARGET, events, points, rng, cross_section=cross_section)
    print(f"{TARGET}: {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
