"""From texts to the tokens of a teacher, as a command's options say."""

from contextlib import suppress

from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.sources import Source
from softlabels.inputs.token_inputs import TokenInputs, open_tokens
from softlabels.inputs.tokenizing import Tokenizing, check_texts, tokenization
from softlabels.inputs.whereabouts import remember_tokenizer
from softlabels.system.progress import Progress
from softlabels.teachers import Teacher


def read_texts(
    teacher: Teacher, source: Source, how: Tokenizing, progress: Progress
) -> TokenInputs:
    """The inputs of a teacher that reads texts. What the tokenizer has to say goes to the teacher's
    remarks.

    Raises UsageError for inputs that are no texts, and for more tokens than the teacher takes;
    TeacherError for a tokenizer of another model; SourceError for a row without a text.
    """
    check_texts(source, teacher.title)
    trained = None if teacher.preprocess is None else Preprocess.parse(teacher.preprocess)
    preprocess, remarks = tokenization(
        teacher.module, teacher.title, teacher.own_tokenizer, how, trained
    )
    teacher.remarks += remarks
    teacher.pad = preprocess.tokenization[0].pad_of(teacher.module, teacher.title)
    with suppress(OSError):  # students without a tokenizer of their own look for it
        remember_tokenizer(preprocess.tokenization[0])
    return open_tokens(source, preprocess, progress)
