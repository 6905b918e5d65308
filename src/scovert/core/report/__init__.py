"""What a fit is said to be: the parts of a report, as text and as a page of HTML."""

from scovert.core.report._page import write_reports, written
from scovert.core.report._parts import Figure, Report, Table, parameters_of

__all__ = [
    "Figure",
    "Report",
    "Table",
    "parameters_of",
    "write_reports",
    "written",
]
