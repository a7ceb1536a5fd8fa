"""`compare`: two dumps over the same rows, as values and as a page."""

import numpy as np

from softlabels.options import CompareOptions
from softlabels.options.verb import verb
from softlabels.pages.comparison import comparison_page
from softlabels.pages.earlier import check_out
from softlabels.pages.pictures import ShownInputs, show_inputs
from softlabels.reports.comparison import Comparison
from softlabels.reports.page import write_page
from softlabels.reports.rows import shown_rows
from softlabels.system.humanize import size_words
from softlabels.system.progress import Progress
from softlabels.targets.comparing import Compared, compared


@verb(CompareOptions)
def compare(options: CompareOptions, progress: Progress) -> Comparison:
    """How far the soft targets of b, the dump of a quantised, pruned or distilled model, are from
    those of a, its reference, over the same rows. Logits of any codec; in any order, since rows are
    joined by id and view, and the hash of each input is compared.

    At each T: the mean KL(a ‖ b) in nats and its percentiles, exact over all rows, with 8 bytes of
    memory for a row and a T; the total variation; what storing both made of it by itself. Which
    rows change their first class, from which class to which; against the labels, if there are any,
    accuracy, NLL and calibration of both at T = 1. One pass over all logits; two where rows have
    several labels, whose KL is the sum over labels, and which are compared label by label.

    Raises UsageError for a T that is none, and where `out` is a file that is no page of softlabels;
    AlignmentError for other rows or views, LabelSpaceMismatch for other classes or an order of its
    own; IncompleteDump for an unfinished dump, StoreError or DamagedDump for other folders;
    MissingExtra for a page without matplotlib.
    """
    if options.out is not None:
        check_out(options.out)
    made = compared(options.a, options.b, options.T, options.rows, progress)
    if options.out is not None:
        size = write_page(comparison_page(made.found, _inputs(made)), options.out)
        progress.say(f"{options.out}: {size_words(size)}, open it in a browser")
    return made.found


def _inputs(made: Compared) -> ShownInputs:
    """Those of the worst rows, in their order."""
    if not len(made.rows):
        return ShownInputs([])
    order = np.argsort(made.rows)
    reader, rows = made.readers[0], made.rows[order]
    shown = show_inputs(reader, rows, shown_rows(reader, rows, (1.0,), 1).rows)
    back = np.argsort(order)
    return ShownInputs([shown.inputs[place] for place in back], shown.missing)
