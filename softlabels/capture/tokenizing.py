"""From texts to the tokens of a teacher, as a command's options say."""

from dataclasses import dataclass

from softlabels.errors import UsageError
from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.sources import Source
from softlabels.inputs.token_inputs import TokenInputs, longest_rows
from softlabels.models.tokenizers import open_tokenizer
from softlabels.teachers import Teacher


@dataclass(frozen=True)
class Tokenizing:
    """Options of these names.

    tokenizer: where another than the teacher's own is; None for its own
    max_length: tokens that longer texts are cut to
    truncate: whether longer texts are cut to what the teacher takes
    """

    tokenizer: str | None = None
    max_length: int | None = None
    truncate: bool = False

    def refuse_any(self, teacher: str) -> None:
        """Raises UsageError where one is given for a teacher that reads no texts."""
        for flag, given in (
            ("--tokenizer", self.tokenizer),
            ("--max-length", self.max_length),
            ("--truncate", self.truncate),
        ):
            if given:
                raise UsageError(f"{flag} is for teachers that read texts, and {teacher} is none")


def read_texts(teacher: Teacher, source: Source, how: Tokenizing) -> TokenInputs:
    """The inputs of a teacher that reads texts. What the tokenizer has to say goes to the teacher's
    remarks.

    Raises UsageError for inputs that are no texts, and for more tokens than the teacher takes;
    TeacherError for a tokenizer of another model; SourceError for a text that is too long.
    """
    if source.kind != "text":
        raise UsageError(
            f"{teacher.title} reads texts, and the inputs of {source.data!r} are "
            f"{'images' if source.kind == 'image' else 'numbers'}, in "
            f"{', '.join(source.columns.inputs)}: name a column of texts with --input-column"
        )
    assert teacher.own_tokenizer is not None, "it reads texts"
    named = how.tokenizer
    tokenizer = teacher.own_tokenizer() if named is None else open_tokenizer(named)
    teacher.remarks += tokenizer.check(teacher.module, teacher.title)
    most, asked = tokenizer.longest(teacher.module), how.max_length
    if asked is not None and most is not None and asked > most:
        raise UsageError(
            f"--max-length is {asked:,}, and {teacher.title} takes {most:,} tokens at most"
        )
    if how.truncate and asked is None and most is None:
        raise UsageError(
            f"--truncate: neither {teacher.title} nor its tokenizer says how many tokens it takes; "
            f"say --max-length"
        )
    cuts = how.truncate or asked is not None
    preprocess = Preprocess.tokenize(tokenizer, asked or most, cuts, named is None)
    inputs = TokenInputs(source, preprocess)
    inputs.gather(longest_rows(source))  # refuses what is too long, before anything is written
    return inputs
