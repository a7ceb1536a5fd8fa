"""The inputs of a model that is measured: numbers, or tokens of texts and columns."""

from typing import Any

from softlabels.inputs.examples import Examples
from softlabels.inputs.own_preprocessing import check_own_preprocessing
from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.preprocessing import Chosen, choose
from softlabels.inputs.reading_columns import fit_to
from softlabels.inputs.sources import Source
from softlabels.inputs.token_inputs import TokenInputs, open_tokens
from softlabels.inputs.tokenizing import Tokenizing, check_texts, tokenization
from softlabels.models.model import Model
from softlabels.students.held_out import Held
from softlabels.system.progress import Progress


def steps_of(model: Model, source: Source, given: Any, how: Tokenizing, is_object: bool) -> Chosen:
    """How the inputs of these rows are prepared, and who says so: texts are cut as in the model's
    training. What there is to say of tokens goes to the model's remarks.

    given: --preprocess
    is_object: whether the model was in memory: what it says of itself is about pictures

    Raises UsageError for inputs of another kind than the model's, TeacherError for tokens that are
    not its, SourceError for rows of tokens that it does not take.
    """
    known = None if model.preprocess is None else Preprocess.parse(model.preprocess)
    if source.kind == "text" and (model.own_tokenizer or how.tokenizer) is not None:
        if given is None:
            steps, remarks = tokenization(
                model.module, model.title, model.own_tokenizer, how, known
            )
            model.remarks += remarks
            return Chosen(steps)
    elif model.own_tokenizer is not None and source.kind != "tokens" and not is_object:
        check_texts(source, model.title)
    how.refuse_any(f"{model.title}, over these inputs,")
    own, unasked = model.preprocess, model.title if is_object else ""
    if source.kind == "tokens" and (known is None or not known.keeps_tokens):
        own = None
    if is_object and source.kind != "image":
        own = None
    elif given is None:
        check_own_preprocessing(model)
    chosen = choose(source, given, own, "the checkpoint", unasked)
    if source.is_by_name and not chosen.preprocess.is_opaque:
        steps, remarks = fit_to(model.module, model.title, source, chosen.preprocess)
        model.remarks += remarks
        model.pad = steps.pad or 0
        return Chosen(steps, chosen.origin)
    return chosen


def open_rows(
    source: Source, steps: Preprocess, held: Held, progress: Progress
) -> Examples | TokenInputs:
    """The rows to measure on."""
    if steps.is_tokenizer:
        return open_tokens(source, steps, progress, held.positions, held.hashes)
    if source.kind == "tokens" and not steps.is_opaque:
        return TokenInputs(source, steps, held.positions, held.hashes)
    return Examples(source, steps, held.positions, held.hashes)
