"""Pages for people: the report of a dump, two dumps compared. Their frame is `reports/page/`."""

from softlabels.pages.comparing import compare
from softlabels.pages.reporting import Report, report

__all__ = ["Report", "compare", "report"]
