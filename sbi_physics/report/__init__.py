"""One self-contained HTML page about a study.

    write_report(ReportInput(...), folder) -> folder / "report.html"

The page needs no network: styles are inline and figures are embedded, each for light and dark
screens. The same figures are written to `folder / "figures"` as PNG files. What the page shows is
decided by `ReportInput` alone, a plain record; `sbi_physics.study` fills it.
"""

from sbi_physics.report.page import render_report, write_report
from sbi_physics.report.record import PosteriorRow, ReportInput

__all__ = ["PosteriorRow", "ReportInput", "render_report", "write_report"]
