"""From texts to the tokens of a model, as a command's options say."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from softlabels.errors import UsageError
from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.sources import Source
from softlabels.models.checkpoint import tokenizer_at
from softlabels.models.lengths import runs_on
from softlabels.models.tokenizers import Tokenizer, tokenizer_of
from softlabels.system.humanize import few


@dataclass(frozen=True)
class Tokenizing:
    """Options of these names.

    tokenizer: where another than the model's own is, or one in memory; None for its own
    max_length: tokens that longer texts are cut to
    truncate: whether longer texts are cut to what the model takes
    """

    tokenizer: Any = None
    max_length: int | None = None
    truncate: bool = False

    def refuse_any(self, model: str, data: str = "") -> None:
        """Raises UsageError where one is given for a model that reads no texts, or for `data` that
        are tokens already."""
        for flag, given in (
            ("--tokenizer", self.tokenizer is not None),
            ("--max-length", self.max_length is not None),
            ("--truncate", self.truncate),
        ):
            if given and data:
                raise UsageError(
                    f"{flag} is for texts, and the inputs of {data!r} are tokens already: leave it "
                    f"out, or name a column of texts with --input-column"
                )
            if given:
                raise UsageError(f"{flag} is for models that read texts, and {model} is none")


def check_texts(source: Source, title: str) -> None:
    """Raises UsageError where the inputs are no texts, which the model `title` reads."""
    if source.kind == "text":
        return
    named = few(list(source.columns.inputs))
    problem = f"{title} reads texts, and the inputs of {source.data!r} are"
    if source.kind == "image":
        raise UsageError(f"{problem} images, in {named}: name texts with --input-column")
    raise UsageError(
        f"{problem} numbers, in {named}: name a column of texts with --input-column. Of a CSV file "
        f"it may look like numbers, and is then read as it is written; other files hold texts as "
        f"such, '007'"
    )


def tokenization(
    module: nn.Module,
    title: str,
    own: Callable[[], Tokenizer] | None,
    how: Tokenizing,
    trained: Preprocess | None = None,
) -> tuple[Preprocess, list[str]]:
    """What makes tokens of texts for a model, and remarks.

    own: opens the model's own tokenizer; not called where another is named
    trained: how texts were tokenised when the model was trained; they are cut alike, unless the
        options say otherwise

    Raises TeacherError for a tokenizer of another model, UsageError for more tokens than the model
    takes.
    """
    tokenizer = own() if own is not None and how.tokenizer is None else _named(how.tokenizer)
    remarks = tokenizer.check(module, title)
    most, asked = tokenizer.longest(module), how.max_length
    if asked is None and not how.truncate and trained is not None:
        asked = trained.cut_at
    if asked is not None and most is not None and asked > most:
        if not runs_on(module, asked):
            raise UsageError(
                f"--max-length is {asked:,}, and {title} takes {most:,} tokens at most"
            )
        remarks.append(
            f"warning: --max-length is {asked:,}, and {title} or its tokenizer says {most:,}: it "
            f"runs on longer rows, and was perhaps trained on none"
        )
    if how.truncate and asked is None and most is None:
        raise UsageError(
            f"--truncate: neither {title} nor its tokenizer says how many tokens it takes; say "
            f"--max-length"
        )
    cuts = how.truncate or asked is not None
    return Preprocess.tokenize(tokenizer, asked or most, cuts, how.tokenizer is None), remarks


def _named(given: Any) -> Tokenizer:
    return tokenizer_at(given) if isinstance(given, str) else tokenizer_of(given)
