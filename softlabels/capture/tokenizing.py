"""From texts to the tokens of a teacher, as a command's options say."""

from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.sources import Source
from softlabels.inputs.token_inputs import TokenInputs, longest_rows
from softlabels.inputs.tokenizing import Tokenizing, check_texts, tokenization
from softlabels.teachers import Teacher


def read_texts(teacher: Teacher, source: Source, how: Tokenizing) -> TokenInputs:
    """The inputs of a teacher that reads texts. What the tokenizer has to say goes to the teacher's
    remarks.

    Raises UsageError for inputs that are no texts, and for more tokens than the teacher takes;
    TeacherError for a tokenizer of another model; SourceError for a text that is too long.
    """
    check_texts(source, teacher.title)
    trained = None if teacher.preprocess is None else Preprocess.parse(teacher.preprocess)
    preprocess, remarks = tokenization(
        teacher.module, teacher.title, teacher.own_tokenizer, how, trained
    )
    teacher.remarks += remarks
    inputs = TokenInputs(source, preprocess)
    inputs.gather(longest_rows(source))  # refuses what is too long, before anything is written
    return inputs
