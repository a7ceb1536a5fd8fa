"""The model that is trained: built, tried on a few inputs, and held against the other ranks."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from softlabels.errors import UsageError
from softlabels.inputs.examples import Examples
from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.token_inputs import TokenInputs
from softlabels.inputs.tokenizing import check_texts
from softlabels.label_spaces import told_apart
from softlabels.models.causes import cause
from softlabels.models.hashes import weight_hashes
from softlabels.models.limits import pad_token, reader_in
from softlabels.models.padding import find_side
from softlabels.models.specs import is_factory
from softlabels.models.starting import Beginning, ModelChoice, begin
from softlabels.models.tokens import Tokens
from softlabels.models.transformers import names_of_module
from softlabels.students.ranks import Ranks
from softlabels.students.student import (
    Student,
    Use,
    as_training_errors,
    check_model,
    check_training,
)
from softlabels.system.humanize import few

SAMPLED = 64  # rows of tokens, of several lengths
ROUNDING = 1e-3  # of a probability, where kernels of another batch size add in another order


@dataclass(frozen=True)
class Built:
    """A student on its device, and how training uses its parameters."""

    begun: Beginning
    student: Student
    use: Use

    @property
    def code(self) -> dict[str, Any]:
        """What else a training that goes on must have as before, where no name says it."""
        if not self.begun.is_users:
            return {}
        module = self.begun.module
        trained = [name for name, p in module.named_parameters() if p.requires_grad]
        return {"code of the model": str(module), "choice of trained parameters": trained}

    def facts(self, world: int) -> dict[str, Any]:
        """What else all ranks must have alike, by name. Weights count where they are the user's:
        all others are drawn by one seed."""
        if not self.begun.is_users or world == 1:
            return {}
        hashes = weight_hashes(self.begun.module)
        return self.code | {f"{name} of the model": text for name, text in hashes.items()}

    def leave(self, best: dict[str, Tensor]) -> None:
        """Leave a module of the user's with the weights of the best epoch, if there is one, in eval
        mode, also where training has stopped early."""
        if not self.begun.is_users:
            return
        if best:
            self.begun.module.load_state_dict(best)
        self.begun.module.zero_grad(set_to_none=True)
        self.begun.module.eval()


def built_by(choice: ModelChoice, input_shape: Sequence[int], classes: int) -> Beginning:
    """The model before it is trained. Raises UsageError for one that can't be built, and
    TeacherError for weights that are another model's."""
    try:
        return begin(choice, input_shape, classes)
    except RuntimeError as error:  # larger than memory
        raise UsageError(f"model {choice.title} can't be built: {cause(error)}") from error


def build(
    choice: ModelChoice,
    begun: Beginning | None,
    examples: Examples | TokenInputs,
    classes: int,
    precision: str,
    share: int,
    ranks: Ranks,
) -> Built:
    """begun: one that reads texts is begun before its inputs can be opened.
    share: the fewest rows that a training step will have.

    Raises UsageError for a model that can't be built or trained on these inputs, and TeacherError
    for weights that are another model's, and for answers that change with the padding beside a row.
    """
    begun = begun or built_by(choice, examples.input_shape, classes)
    sample = examples.sample()
    named = isinstance(choice.model, str) and not is_factory(choice.model)
    if named and begun.reads_text and not isinstance(sample, Tokens):
        check_texts(examples.source, f"the model {begun.spec}")
    try:
        begun.module.to(ranks.device)
    except RuntimeError as error:
        raise UsageError(f"model {choice.title} can't be built: {cause(error)}") from error
    made_for = f"; it is made for --preprocess {begun.preprocess!r}" if begun.preprocess else ""
    student = Student(begun.module, classes, begun.spec, made_for)
    if isinstance(sample, Tokens):
        student.pad = _pad_of(begun, examples.preprocess, f"the model {begun.spec}")
        begun.remarks.extend(_choose_side(student, examples, ranks.device))
    sample = examples.finish(sample.to(ranks.device))
    check_model(student, sample)
    return Built(begun, student, check_training(student, sample, precision, share, ranks.world))


def _pad_of(begun: Beginning, steps: Preprocess, title: str) -> int:
    """The token that the student's rows are padded with."""
    if steps.is_tokenizer:
        return steps.tokenization[0].pad_of(begun.module, title)
    own = pad_token(reader_in(begun.module) or begun.module)
    return (steps.pad if own is None else own) or 0


def _choose_side(
    student: Student, examples: Examples | TokenInputs, device: torch.device
) -> list[str]:
    """Set the side on which rows of tokens are padded. A remark where it is not the tokenizer's."""

    def logits(rows: Tokens, side: str) -> Tensor:
        student.side = side
        with torch.no_grad():
            return student(rows)

    steps = examples.preprocess
    side = steps.tokenization[0].side if steps.is_tokenizer else "right"
    tokens: Any = examples.sample(SAMPLED)
    title = f"model {student.spec}"
    student.eval()
    with as_training_errors(student.spec, len(tokens)):
        even = isinstance(examples, TokenInputs) and examples.source.is_even
        student.side, remark = find_side(
            logits, tokens.to(device), side, title, ROUNDING, even=even
        )
    return [remark] if remark else []


def prepared_otherwise(begun: Beginning, examples: Examples | TokenInputs) -> list[str]:
    """A warning where weights come from inputs of another range: nothing else would show it. Sizes
    are left to the user, since nets are often trained further at another one."""
    ours = examples.preprocess
    if not begun.pretrained or begun.preprocess is None or ours.is_opaque:
        return []
    if ours.is_tokenizer:
        return _other_tokenizer(begun, ours)
    theirs, shape = Preprocess.parse(begun.preprocess), examples.input_shape
    if not shape or theirs.is_opaque or ours.numbers == theirs.numbers:  # rows of tokens have none
        return []
    pixels = torch.arange(256).expand(1, shape[0], 256)[..., None]
    with suppress(UsageError):  # of another number of channels
        if ours.on_numbers(pixels).allclose(theirs.on_numbers(pixels), atol=1e-4):
            return []
    return [
        f"warning: the weights were trained on inputs prepared by {theirs}; these are prepared by "
        f"{ours}. --preprocess gives the student its own"
    ]


def named_otherwise(begun: Beginning, names: list[str] | None) -> list[str]:
    """A warning where weights were trained for as many classes of other names: their last layer is
    kept, since only another number of classes shows in its shape. Likewise where a module of the
    user's calls its classes otherwise than the data do, by whose numbers it is trained: what saves
    the module would write its own names."""
    before = None if begun.class_names is None else told_apart(begun.class_names)
    if names is not None and before is not None and before != names:
        return [
            f"warning: the last layer of {begun.weights} was trained to tell apart {few(before)}; "
            f"here the {len(names):,} classes are {few(names)}, in this order. It is kept, and "
            f"begins with the answers of the others"
        ]
    theirs = names_of_module(begun.module) if begun.is_users else None
    if names is None or theirs is None or theirs == names:
        return []
    return [
        f"warning: the configuration of {begun.spec} calls the classes {few(theirs)}; they are "
        f"numbered as in the data, {few(names)}. Before you save the module, set "
        f"model.config.id2label to these"
    ]


def _other_tokenizer(begun: Beginning, ours: Preprocess) -> list[str]:
    """A warning where the weights of a checkpoint come from other tokens."""
    theirs = Preprocess.parse(begun.preprocess or "")
    if not theirs.is_tokenizer or theirs.picture[0].args[1] == ours.picture[0].args[1]:
        return []
    return [
        f"warning: {begun.weights} were trained on tokens of {theirs}; these are of {ours}. "
        f"--tokenizer gives the student that one"
    ]
