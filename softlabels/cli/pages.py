"""The commands that write pages for people."""

from collections.abc import Callable
from dataclasses import asdict

from softlabels.cli.flags import Terminal
from softlabels.options import ReportOptions
from softlabels.system.humanize import size_words


def add_commands(command: Callable[[type], Callable]) -> None:
    """Register them with `command`, the decorator that `make_command` gives."""
    command(ReportOptions)(report)


def report(terminal: Terminal, options: ReportOptions) -> None:
    """Write one HTML page about a dump, to look at or to send: the teacher's accuracy and
    calibration, which classes it holds for alike, rows with their soft targets under a slider
    over T. About a sweep: errors against T, the best settings, learning curves.

    The page is one file below 5 MB, which asks for nothing from anywhere. It needs
    softlabels[plot].

    Examples:

    - `softlabels report`
    - `softlabels report data/digits-t --out digits.html`
    - `softlabels report ORG/NAME --rows 24`
    - `softlabels report sweep`
    """
    import softlabels

    done = terminal.run(softlabels.report, options)
    text = f"{done.path}: {size_words(done.bytes)}, open it in a browser; {terminal.took}"
    terminal.result(text, asdict(done))
