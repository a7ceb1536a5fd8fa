"""One self-contained HTML page: sections of text, facts, tables and charts, in a frame that follows
light and dark, narrow and wide, and asks for nothing from anywhere."""

from softlabels.reports.page.blocks import (
    Block,
    Chart,
    Command,
    Facts,
    Heat,
    Page,
    Remark,
    Section,
    Table,
    Text,
    Tile,
)
from softlabels.reports.page.paired_rows import PairedClass, PairedRow, PairedRows
from softlabels.reports.page.rendering import render, write_page
from softlabels.reports.page.soft_rows import Group, SoftRow, SoftRows

__all__ = [
    "Block",
    "Chart",
    "Command",
    "Facts",
    "Group",
    "Heat",
    "Page",
    "PairedClass",
    "PairedRow",
    "PairedRows",
    "Remark",
    "Section",
    "SoftRow",
    "SoftRows",
    "Table",
    "Text",
    "Tile",
    "render",
    "write_page",
]
