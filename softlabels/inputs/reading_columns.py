"""A model that takes its data's columns by name: held against what it takes, before it runs."""

from torch import nn

from softlabels.inputs import reading_tokens
from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.sources import Source
from softlabels.models.keywords import keywords_of

NOTHING = Preprocess((), ())


def fit_to(
    module: nn.Module, title: str, source: Source, given: Preprocess | None = None
) -> tuple[Preprocess, list[str]]:
    """How a model reads the rows of a source, as text that a plan holds, and remarks.

    given: what a user wrote, or a plan says

    Raises TeacherError for a model that takes other inputs, or needs more of them; for tokens see
    `reading_tokens`.
    """
    if source.kind == "tokens":
        return reading_tokens.fit_to(module, title, source, given)
    columns, keywords = source.columns.inputs, keywords_of(module)
    keywords.check(columns, title)
    keywords.refuse([name for name in columns if not keywords.takes(name)], columns, title)
    return given or NOTHING, []
