"""Words and pictures about a dump: its facts, its card, what its logits say of the teacher."""

from softlabels.reports.info import dump_info, list_dumps
from softlabels.reports.rows import show

__all__ = ["dump_info", "list_dumps", "show"]
