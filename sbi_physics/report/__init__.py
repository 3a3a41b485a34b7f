"""Self-contained HTML pages about a study, or about a coverage record alone.

    write_report(ReportInput(...), folder) -> folder / "report.html"
    write_coverage(coverage, "coverage.html")

A page needs no network: styles are inline and figures are embedded, each for light and dark
screens. The figures of a study are also written to `folder / "figures"` as PNG files. What its
page shows is decided by `ReportInput` alone, a plain record; `sbi_physics.study` fills it.
"""

from sbi_physics.report.page import (
    render_coverage,
    render_report,
    write_coverage,
    write_report,
)
from sbi_physics.report.record import PosteriorRow, ReportInput

__all__ = [
    "PosteriorRow",
    "ReportInput",
    "render_coverage",
    "render_report",
    "write_coverage",
    "write_report",
]
