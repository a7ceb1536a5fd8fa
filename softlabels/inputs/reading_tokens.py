"""A model whose data are columns of token ids: held against what it takes, before it runs."""

from torch import nn

from softlabels.errors import SourceError, TeacherError
from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.sources import Source
from softlabels.inputs.token_span import Seen, TokenSpan
from softlabels.models.keywords import keywords_of
from softlabels.models.lengths import runs_on
from softlabels.models.limits import Limits, is_pretrained, limits_of, refuse_without_pad
from softlabels.models.tokens import BESIDE, IDS, MASK
from softlabels.system.humanize import few

MANY = 0.5  # of all rows, which are of one length: their ends are perhaps padding


def fit_to(
    module: nn.Module, title: str, source: Source, given: Preprocess | None = None
) -> tuple[Preprocess, list[str]]:
    """How a model reads the rows of a source of tokens, as text that a plan holds, and remarks.
    Reads all rows once.

    given: what a user wrote, such as `tokens(50256)`, whose token rows are padded with

    Raises TeacherError for a model that takes other inputs, that has no token for padding, or
    that would see padding since no mask tells it from tokens; SourceError, with the row, for tokens
    that are not in its vocabulary, and for more of them than it takes.
    """
    span, columns, remarks = source.token_span, list(source.columns.inputs), list[str]()
    keywords = keywords_of(module)
    keywords.check(columns, title)
    left = [name for name in columns[1:] if not keywords.takes(name)]
    kept = [name for name in columns if name not in left or name not in BESIDE]
    keywords.refuse([name for name in left if name not in BESIDE], kept, title)
    if left:
        remarks.append(f"{title} takes no {few(left)}, which is left out")
    limits = limits_of(module)
    if is_pretrained(getattr(module, "held", module)):
        refuse_without_pad(module, title)
    pad = limits.pad if given is None or given.pad is None else given.pad
    remarks += _check_span(span, limits, module, title)
    if source.columns.mask is None:
        remarks += _unmasked(span, pad, title)
    if not keywords.masked and not span.is_even:
        remarks.append(
            f"{title} takes no {MASK}: rows of one length alone are answered together, so "
            f"that none is padded"
        )
    return Preprocess.parse("tokens" if pad is None else f"tokens({pad})"), remarks


def _check_span(span: TokenSpan, limits: Limits, module: nn.Module, title: str) -> list[str]:
    """A warning where rows are longer than the model's configuration says, and it runs on them."""
    longer = limits.longest is not None and span.longest.value > limits.longest
    row = f"the row with id {span.longest.id!s} has {span.longest.value:,} tokens, and {title}"
    if longer and not runs_on(module, span.longest.value):
        raise SourceError(
            f"{row} takes {limits.longest:,}: cut it where its tokens are made, or leave out the "
            f"row"
        )
    if limits.vocabulary is not None and span.largest.value >= limits.vocabulary:
        raise SourceError(
            f"the row with id {span.largest.id!s} has the token {span.largest.value:,} in {IDS}, "
            f"and {title} knows {limits.vocabulary:,}, from 0 to {limits.vocabulary - 1:,}: make "
            f"the tokens with its own tokenizer"
        )
    if not longer:
        return []
    return [
        f"warning: {row} says {limits.longest:,}: it runs on longer rows, and was perhaps trained "
        f"on none"
    ]


def _unmasked(span: TokenSpan, pad: int | None, title: str) -> list[str]:
    """A warning where rows without a mask may be padded. Raises TeacherError where they begin or
    end with the teacher's own token for padding."""
    remedy = (
        f"put a column {MASK} beside {IDS}, 1 for a token and 0 for padding, or leave the padding "
        f"out: rows need not be equally long"
    )
    padded = None if pad is None else span.edges(pad)
    if padded is not None:
        raise TeacherError(
            f"{padded.value:,} of {span.rows:,} rows begin or end with the token {pad}, with which "
            f"{title} is padded, first the row with id {padded.id!s}, and no mask says whether it "
            f"is padding: {remedy}"
        )
    token, run = max(span.runs.items(), default=(0, Seen(0, None)), key=lambda one: one[1].value)
    if pad is not None or not span.is_even or run.value < MANY * span.rows:
        return []
    return [
        f"warning: all rows have {span.longest.value:,} tokens, and {run.value:,} of {span.rows:,} "
        f"begin or end with several of the token {token}, as padded rows do, such as the row with "
        f"id {run.id!s}. They are taken as tokens; where they are padding, {remedy}"
    ]
