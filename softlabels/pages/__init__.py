"""Pages for people: the report of a dump. Their frame is `reports/page/`."""

from softlabels.pages.reporting import Report, report

__all__ = ["Report", "report"]
