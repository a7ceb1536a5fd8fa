"""The model that is trained: built, tried on a few inputs, and held against the other ranks."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from softlabels.errors import UsageError
from softlabels.inputs.examples import Examples
from softlabels.inputs.preprocess import Preprocess
from softlabels.models.causes import cause
from softlabels.models.hashes import weight_hashes
from softlabels.models.starting import Beginning, ModelChoice, begin
from softlabels.students.ranks import Ranks
from softlabels.students.student import Student, Use, check_model, check_training


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


def build(
    choice: ModelChoice, examples: Examples, classes: int, precision: str, share: int, ranks: Ranks
) -> Built:
    """share: the fewest rows that a training step will have.

    Raises UsageError for a model that can't be built or trained on these inputs, and TeacherError
    for weights that are another model's.
    """
    try:
        begun = begin(choice, examples.input_shape, classes)
        begun.module.to(ranks.device)
    except RuntimeError as error:  # larger than memory
        raise UsageError(f"model {choice.title} can't be built: {cause(error)}") from error
    made_for = f"; it is made for --preprocess {begun.preprocess!r}" if begun.preprocess else ""
    student = Student(begun.module, classes, begun.spec, made_for)
    sample = examples.finish(examples.sample().to(ranks.device))
    check_model(student, sample)
    return Built(begun, student, check_training(student, sample, precision, share, ranks.world))


def prepared_otherwise(begun: Beginning, examples: Examples) -> list[str]:
    """A warning where weights come from inputs of another range: nothing else would show it. Sizes
    are left to the user, since nets are often trained further at another one."""
    ours = examples.preprocess
    if not begun.pretrained or begun.preprocess is None or ours.is_opaque:
        return []
    theirs, channels = Preprocess.parse(begun.preprocess), examples.input_shape[0]
    if theirs.is_opaque or ours.numbers == theirs.numbers:
        return []
    pixels = torch.arange(256).expand(1, channels, 256)[..., None]
    with suppress(UsageError):  # of another number of channels
        if ours.on_numbers(pixels).allclose(theirs.on_numbers(pixels), atol=1e-4):
            return []
    return [
        f"warning: the weights were trained on inputs prepared by {theirs}; these are prepared by "
        f"{ours}. --preprocess gives the student its own"
    ]
