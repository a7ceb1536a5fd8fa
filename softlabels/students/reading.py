"""Students of texts: the model is begun before its inputs are opened, since its tokens are its own.

C classes.
"""

from collections.abc import Callable
from dataclasses import dataclass

from softlabels.errors import UsageError
from softlabels.inputs.examples import Examples
from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.reading_columns import fit_to
from softlabels.inputs.sources import Source
from softlabels.inputs.text_inputs import TextInputs
from softlabels.inputs.token_inputs import TokenInputs
from softlabels.inputs.tokenizing import Tokenizing, tokenization
from softlabels.inputs.whereabouts import find_tokenizer
from softlabels.models.keywords import keywords_of
from softlabels.models.specs import is_own
from softlabels.models.starting import Beginning, ModelChoice
from softlabels.models.tokenizers import Tokenizer
from softlabels.store.records import Plan
from softlabels.students.building import built_by
from softlabels.students.task import seed_everything


@dataclass(frozen=True)
class Reading:
    """A model that reads texts, and what makes its tokens of them."""

    begun: Beginning
    preprocess: Preprocess


def has_texts(inputs: Examples | TextInputs | TokenInputs | None) -> bool:
    """Whether inputs are texts, of which nothing has made numbers."""
    return inputs is not None and inputs.source.kind == "text" and not inputs.preprocess.is_opaque


def is_by_name(inputs: Examples | TextInputs | TokenInputs) -> bool:
    """Whether a model takes columns of these inputs by name. Rows of tokens that are streamed are
    not: how long all are is not known."""
    columns = isinstance(inputs, TokenInputs) or inputs.source.kind == "columns"
    return columns and not inputs.preprocess.is_opaque


def begin_reading(
    choice: ModelChoice, classes: int, how: Tokenizing, seed: int, plan: Plan | None = None
) -> Reading:
    """The model with its weights, and its tokenizer: the one that is named, else its own, else that
    of the dump's teacher.

    plan: of the dump

    Raises UsageError for a model that takes numbers, and where no tokenizer is known; TeacherError
    for a tokenizer of another model, or weights of one.
    """
    numbers = (
        f"the inputs are texts, and the model {choice.title} takes numbers: name a classifier of "
        f"texts, hf:FOLDER, or a module or factory whose forward takes input_ids and "
        f"attention_mask, with --tokenizer FOLDER (in Python tokenizer=); there "
        f"preprocess=FUNCTION makes numbers of each text, too"
    )
    if isinstance(choice.model, str) and is_own(choice.model):
        raise UsageError(numbers)
    seed_everything(seed)
    begun = built_by(choice, [], classes)
    if not begun.reads_text:
        raise UsageError(numbers)
    own = begun.own_tokenizer
    if own is None and how.tokenizer is None:
        own, remark = _of_teacher(plan, begun.spec)
        begun.remarks.append(remark)
    title = f"the model {begun.spec}"
    _refuse_unmasked(begun, title)
    preprocess, remarks = tokenization(begun.module, title, own, how)
    begun.remarks.extend(remarks)
    return Reading(begun, preprocess)


def begin_on_columns(
    choice: ModelChoice, classes: int, source: Source, given: Preprocess, seed: int
) -> Reading:
    """The model with its weights, held against columns of tokens or numbers that it takes by name.

    given: such as which token rows are padded with, if it is said

    Raises UsageError for a model that takes other inputs, or that would see padding; TeacherError
    and SourceError as for teachers.
    """
    columns = source.columns.inputs
    if isinstance(choice.model, str) and is_own(choice.model):
        if source.kind == "columns":
            raise UsageError(
                f"the inputs are {', '.join(columns)}, columns of numbers by name, and the model "
                f"{choice.title} takes one vector: join the columns into one, such as a column of "
                f"lists (columns of single numbers with --input-column {','.join(columns)}), or "
                f"give a module or factory whose forward takes them by name"
            )
        raise UsageError(
            f"the inputs are tokens, in {', '.join(columns)}, and the model "
            f"{choice.title} takes numbers: name a classifier of texts, hf:FOLDER, or give a "
            f"module that takes them by name"
        )
    seed_everything(seed)
    begun = built_by(choice, [], classes)
    title = f"the model {begun.spec}"
    preprocess, remarks = fit_to(begun.module, title, source, given)
    if source.kind == "tokens" and not source.token_span.is_even:
        _refuse_unmasked(begun, title)
    begun.remarks.extend(remarks)
    return Reading(begun, preprocess)


def _refuse_unmasked(begun: Beginning, title: str) -> None:
    if not keywords_of(begun.module).masked:
        raise UsageError(
            f"{title} takes no attention_mask, and rows have several lengths: it would see their "
            f"padding as tokens. Let its forward take attention_mask"
        )


def _of_teacher(plan: Plan | None, spec: str) -> tuple[Callable[[], Tokenizer], str]:
    """What opens the tokenizer of a dump's teacher, and a line that says so. Raises UsageError
    where none is known, or it is not on this machine."""
    problem = f"the model {spec} has no tokenizer of its own"
    remedy = "name the folder of one with --tokenizer"
    steps = None if plan is None else Preprocess.parse(plan.preprocess)
    if plan is None or steps is None or not steps.is_tokenizer:
        whose = "" if plan is None else ", and the records of the dump name none of its teacher"
        raise UsageError(f"{problem}{whose}: {remedy}")
    known = str(steps.picture[0].args[1])
    names = [steps.other_tokenizer or (plan.teacher.model or "").removeprefix("hf:")]
    tokenizer = find_tokenizer(known, [name for name in names if "/" in name])
    if tokenizer is None:
        raise UsageError(
            f"{problem}, and that of the teacher {plan.teacher.name}, {known}, is not known to "
            f"this machine: {remedy}"
        )
    line = f"{problem}: it reads with that of the teacher {plan.teacher.name}"
    return lambda: tokenizer, line
