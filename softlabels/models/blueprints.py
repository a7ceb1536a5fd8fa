"""A model by name, before it has weights: what its library knows of it. C classes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from torch import Tensor, nn

from softlabels.errors import TeacherError
from softlabels.models.model import Model
from softlabels.models.tokenizers import Tokenizer
from softlabels.system.humanize import few


@dataclass(frozen=True)
class Weighed:
    """A module with its own weights.

    files: those that they were read from, where that is known
    remarks: what was left out of them
    missing: the names of those that no file had, which are random: a teacher needs all of them, and
        a student starts with what there is
    """

    module: nn.Module
    files: list[Path] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Blueprint:
    """A model by name.

    kind: the library that makes it; name: for people; spec: for records, without a path
    build: the module for C classes, or for its own number, with whatever weights
    pretrained: the module with its own weights
    preprocess, unsaid, transform, class_names: see `Model`
    task: what it was trained for, multilabel or classification, if that is known
    flaw: see `Model`
    tokenizer: of a model that reads texts, what opens its own; None for other models
    convert: from the names that weights were published under to the library's
    """

    kind: str
    name: str
    spec: str
    build: Callable[[int | None], nn.Module]
    pretrained: Callable[[], Weighed]
    preprocess: str | None = None
    unsaid: str = ""
    transform: Callable[[Image.Image], Tensor] | None = None
    class_names: list[str] | None = None
    task: str | None = None
    flaw: str = ""
    tokenizer: Callable[[], Tokenizer] | None = None
    convert: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] | None = None

    def load(self) -> Model:
        """The model with its own weights. Raises TeacherError where some of them are missing: they
        would be random."""
        if self.flaw:
            raise TeacherError(self.flaw)
        weighed = self.pretrained()
        if weighed.missing:
            total = len(weighed.module.state_dict())
            raise TeacherError(
                f"{self.name}: {len(weighed.missing):,} of the {total:,} weights of a "
                f"{type(weighed.module).__name__} are missing ({few(weighed.missing)}), so it is "
                f"no trained classifier"
            )
        model = self.model(self.kind, weighed.module)
        model.files, model.remarks = weighed.files, weighed.remarks
        return model

    def model(self, kind: str, module: nn.Module, classes: int | None = None) -> Model:
        """A module of this blueprint, in eval mode. classes: their number, if it may be another
        than the blueprint's: the names are then not its."""
        names = self.class_names
        if names is not None and classes not in (None, len(names)):
            names = None
        return Model(
            name=self.name,
            kind=kind,
            module=module.eval(),
            spec=self.spec,
            preprocess=self.preprocess,
            unsaid=self.unsaid,
            transform=self.transform,
            class_names=names,
            flaw=self.flaw,
            own_tokenizer=self.tokenizer,
            data={} if self.task is None else {"task": self.task},
        )
