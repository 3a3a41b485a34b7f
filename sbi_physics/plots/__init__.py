"""Figures from records, drawn without pyplot: nothing global is read or changed.

Every function returns a matplotlib `Figure` for a light or a dark page; `save` writes it as PNG.

- `corner_figure`: the posterior of one observation.
- `rank_figure`, `pp_figure`, `coverage_figure`, `recovery_figure`: a `Coverage` record.
- `local_map_figure`, `local_overview_figure`: a `LocalMap`.
- `compared_coverage_figure`, `score_figure`, `effect_figure`: several of them side by side.
- `likelihood_curve_figure`, `likelihood_contour_figure`: scans of likelihoods.
- `widths_figure`: a `Scan`.
- `loss_figure`: a `TrainingHistory`.
- `observation_figure`: data, with posterior-predictive bands.

Names are imported at first use, because matplotlib takes most of a second.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sbi_physics.plots.calibration import (
        coverage_figure,
        pp_figure,
        rank_figure,
        recovery_figure,
        save_coverage_figures,
    )
    from sbi_physics.plots.comparison import (
        compared_coverage_figure,
        effect_figure,
        score_figure,
    )
    from sbi_physics.plots.corner import corner_figure
    from sbi_physics.plots.data import loss_figure, observation_figure
    from sbi_physics.plots.likelihood import (
        likelihood_contour_figure,
        likelihood_curve_figure,
    )
    from sbi_physics.plots.local import local_map_figure, local_overview_figure
    from sbi_physics.plots.scan import widths_figure
    from sbi_physics.plots.style import DARK, LIGHT, Theme, png, save

_HOMES = {
    "calibration": (
        "coverage_figure",
        "pp_figure",
        "rank_figure",
        "recovery_figure",
        "save_coverage_figures",
    ),
    "comparison": ("compared_coverage_figure", "effect_figure", "score_figure"),
    "corner": ("corner_figure",),
    "data": ("loss_figure", "observation_figure"),
    "likelihood": ("likelihood_contour_figure", "likelihood_curve_figure"),
    "local": ("local_map_figure", "local_overview_figure"),
    "scan": ("widths_figure",),
    "style": ("DARK", "LIGHT", "Theme", "png", "save"),
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "DARK",
    "LIGHT",
    "Theme",
    "compared_coverage_figure",
    "corner_figure",
    "coverage_figure",
    "effect_figure",
    "likelihood_contour_figure",
    "likelihood_curve_figure",
    "local_map_figure",
    "local_overview_figure",
    "loss_figure",
    "observation_figure",
    "png",
    "pp_figure",
    "rank_figure",
    "recovery_figure",
    "save",
    "save_coverage_figures",
    "score_figure",
    "widths_figure",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
