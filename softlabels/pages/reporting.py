"""`report`: one HTML page about what is in a folder."""

from dataclasses import dataclass
from pathlib import Path

from softlabels.errors import StoreError
from softlabels.options import ReportOptions
from softlabels.options.verb import verb
from softlabels.pages.dump import dump_page
from softlabels.pages.earlier import check_out
from softlabels.places.folders import dump_folder
from softlabels.places.newest import newest_dump
from softlabels.reports.info import dumps_in
from softlabels.reports.page import Page, write_page
from softlabels.store.reader import DumpReader
from softlabels.students.sweeps.page import sweep_page
from softlabels.students.sweeps.reading import is_sweep
from softlabels.system.humanize import counted, size_words
from softlabels.system.progress import Progress


@dataclass(frozen=True)
class Report:
    """path: of the page; bytes: its size; about: what it is about, as the page says."""

    path: str
    bytes: int
    about: str

    def __repr__(self) -> str:
        return f"Report({self.path}: {self.about}, {size_words(self.bytes)})"


@verb(ReportOptions)
def report(options: ReportOptions, progress: Progress) -> Report:
    """Write one HTML page about a dump: what it is, the teacher's accuracy and calibration, how
    soft its targets are, which classes it confuses, and rows with their soft targets under a slider
    over T. Or about a sweep: errors against T, the best settings, learning curves.

    The page is one file, which asks for nothing from anywhere, and stays below 5 MB. All logits
    are read, and the inputs of the rows that are shown, if they are in the dump or on this disk, or
    `source` has them.

    Raises UsageError where `out` is a file that is no page of softlabels, or in no folder that may
    be written, where the dump has no rows, or where the sweep is not finished; MissingExtra without
    matplotlib and scipy (softlabels[plot]); IncompleteDump, StoreError or DamagedDump for what is
    no complete dump.
    """
    place = options.dump
    if place is None:
        place = str(newest_dump())
        progress.say(f"dump: {place}, the newest complete one")
    out = options.out or f"{_name(place)}.html"
    check_out(out)
    page = _page(place, options, progress)
    return Report(out, write_page(page, out), page.kind)


def _page(place: str, options: ReportOptions, progress: Progress) -> Page:
    """The page about what is there, which its contents tell."""
    if is_sweep(place):
        return sweep_page(place)
    folder = dump_folder(place, "nothing", progress)
    if dumps := dumps_in(folder):
        raise StoreError(
            f"{place} is no dump but holds {counted(len(dumps), 'dump')}; name one, such as "
            f"softlabels report {dumps[0].path}"
        )
    return dump_page(DumpReader(folder), place, options.rows, progress, options.source)


def _name(place: str) -> str:
    """The last part of a dump's name: of a folder, an address or ORG/NAME."""
    last = place.rstrip("/").rpartition("/")[2].partition("@")[0]
    return last if last not in ("", ".", "..") else Path(place).resolve().name or "report"
