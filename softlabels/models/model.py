"""What is known of a model that was opened. Shapes: N rows, C classes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image
from torch import Tensor, nn

from softlabels.errors import OutOfMemory, SoftlabelsError, TeacherError, UsageError
from softlabels.models.causes import cause, first_line
from softlabels.models.compiling import compiled, is_of_compiler
from softlabels.models.feeding import Feed, apart, in_batches, weights_dtype
from softlabels.models.keywords import keywords_of, whole_hint
from softlabels.models.limits import pad_token
from softlabels.models.masks import refuse_unmasked
from softlabels.models.named import NamedInputs, NumberColumns
from softlabels.models.outputs import logits_of, pair_of
from softlabels.models.tokenizers import Tokenizer
from softlabels.models.tokens import IDS, Tokens
from softlabels.system.devices import autocast, resolve_device, tf32
from softlabels.system.humanize import counted, short
from softlabels.system.memory import is_known_out_of_memory, is_out_of_memory


@dataclass(frozen=True, kw_only=True)
class Loading:
    """How a model is loaded.

    spec: the model that a bare state dict belongs to
    input_shape: the shape of an input of that model; called only if it is needed
    trust_pickle: whether a file that could run code is loaded
    key: where in a file of several the state dict lies
    logits: the tensor of a graph that is meant
    """

    spec: str | None = None
    input_shape: Callable[[], Sequence[int]] | None = None
    trust_pickle: bool = False
    key: str | None = None
    logits: str | None = None


@dataclass(frozen=True, kw_only=True)
class ModelFile(Loading):
    """What a loader of files is given."""

    path: Path


@dataclass(kw_only=True)
class Model:
    """A function from preprocessed inputs [N, …] to logits [N, C].

    name: of its file, without the ending
    kind: checkpoint, state_dict, torchscript, exported, pickle, onnx, factory, module, callable, or
        the library of a model by name
    files: those that it was read from, if it was read from any
    spec: such as mlp:800x800, where there is one
    preprocess, class_names, data: what a checkpoint remembers, or a library knows; `data` has the
        `task` that it was trained for, if that is known
    flaw: why it is no classifier as it is, in a sentence; '' for one that is
    unsaid: what of the model's own preprocessing the words of --preprocess can't say
    transform: a picture → what the model's library makes of it, [C, H, W], for comparison
    classes: their number, if known; it tells logits from a model's other outputs
    key: where in a file of several the state dict lies
    output: of a graph, the tensor that is taken as the logits
    own_precision: whether it computes in the types that its file names, and in no others
    binary: whether one logit a row is meant for two classes, as the pair (0, z)
    is_pair: whether it gave such pairs, known after the first inputs
    version: that of a callable's answers
    stays: the device of an object of the user's, which is not moved; None for what may be moved
    remarks: what loading it has to say to a person
    feed: in which dtype it takes inputs, and how many at once
    own_tokenizer: of a model that reads texts, what opens its own tokenizer; None for others
    side: where rows of tokens are padded, right or left
    pad: the token that they are padded with
    apart: whether rows of tokens of one length alone are given at once, so that none is padded
    channels_last: whether it is given pictures in that memory format
    compiled: what runs in place of `module`, if it is compiled
    """

    name: str
    kind: str
    module: nn.Module
    files: list[Path] = field(default_factory=list)
    spec: str | None = None
    preprocess: str | None = None
    flaw: str = ""
    unsaid: str = ""
    transform: Callable[[Image.Image], Tensor] | None = None
    class_names: list[str] | None = None
    data: dict[str, Any] = field(default_factory=dict)
    classes: int | None = None
    key: str | None = None
    output: str | None = None
    own_precision: bool = False
    binary: bool = False
    is_pair: bool = False
    version: str | None = None
    stays: torch.device | None = None
    remarks: list[str] = field(default_factory=list)
    feed: Feed = field(default_factory=Feed)
    own_tokenizer: Callable[[], Tokenizer] | None = None
    side: str = "right"
    pad: int = 0
    apart: bool = False
    channels_last: bool = False
    compiled: Callable[..., Any] | None = None

    def __repr__(self) -> str:
        spec = f", {self.spec}" if self.spec else ""
        return f"{type(self).__name__}({self.name}, {self.kind}{spec})"

    def __post_init__(self) -> None:
        self.feed.dtype = self.feed.dtype or weights_dtype(self.module)
        self.pad = pad_token(getattr(self.module, "held", self.module)) or self.pad

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"the model {self.name}"

    @property
    def pads(self) -> bool:
        """Whether rows of tokens are padded, since a mask tells it what is padding."""
        return not self.apart and keywords_of(self.module).masked

    @property
    def remembered(self) -> dict[str, Any]:
        """The data that it was trained on, and the names of its classes."""
        return self.data | {"class_names": self.class_names}

    def device_for(self, asked: str) -> torch.device:
        """Where it runs for --device. Raises UsageError for an object that lies elsewhere."""
        if self.stays is None or (self.kind == "callable" and asked != "auto"):
            return resolve_device(asked)
        device = self.stays if asked == "auto" else resolve_device(asked)
        if (device.type, device.index or 0) != (self.stays.type, self.stays.index or 0):
            raise UsageError(
                f"--device is {asked!r}, and {self.title} lies on {self.stays}. A module in memory "
                f"is not moved: call its .to({asked!r}), or leave --device out"
            )
        return self.stays

    def to(self, device: torch.device) -> Self:
        self.module.to(device)
        return self

    def lay_out(self, channels_last: bool) -> None:
        """Pictures come with their channels last in memory, or not. The weights follow, but those
        of an object of the user's, which is not changed."""
        self.channels_last = channels_last
        if channels_last and self.stays is None:
            self.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def runs(self) -> Callable[..., Any]:
        """What is called: the module, or what was compiled of it."""
        return self.module if self.compiled is None else self.compiled

    def compile(self) -> None:
        """Run what torch.compile makes of it, from now on. Raises UsageError where it can't."""
        self.compiled = compiled(self.module)

    @torch.inference_mode()
    def logits(
        self, inputs: Tensor | NamedInputs, precision: str = "float32", spare: bool = False
    ) -> Tensor:
        """Raw logits, float32 [N, C] (float64 stays), on the inputs' device. Columns go to the
        model by name. Tokens are padded to the longest row, on `side`, and have a mask; to one that
        takes no mask they go `apart`.

        precision: float32 (IEEE, never TF32), tf32, bf16 or fp16.
        spare: whether the caller needs the inputs no more, whatever comes of it: a model that works
        in place may then spoil them, and they need not be copied for it.

        Raises TeacherError where the model rejects the inputs, or gives something else than
        one row of numbers for each input, and UsageError for another precision than its own.
        """
        if self.own_precision and precision != "float32":
            raise UsageError(
                f"--precision is {precision}, and {self.title} has its own precision, in its graph "
                f"({self.kind}): leave --precision out, or export the graph in another type"
            )

        def taken(output: Any, rows: int) -> Tensor:
            logits_NC = logits_of(output, rows, self.classes, self.title, self.binary)
            if self.binary and logits_NC.shape[1] == 1:
                self.is_pair = True
                return pair_of(logits_NC)
            return logits_NC.clone()  # it may give the same memory each time, as CUDA graphs do

        keywords = keywords_of(self.module)
        least = (keywords.length if keywords.masked else None) or 0

        def call(part: Tensor | NamedInputs) -> Tensor:
            if not isinstance(part, Tensor):
                given, named = keywords.chosen(part.by_name(self.side, self.pad, least))
                return taken(self.runs(*given, **named), len(part))
            if part.ndim == 4:  # how pictures lie is the plan's to say, not who made them
                last = torch.channels_last if self.channels_last else torch.contiguous_format
                part = part.contiguous(memory_format=last)
            return taken(self.runs(part), len(part))

        if isinstance(inputs, Tensor):
            refuse_unmasked(getattr(self.module, "held", self.module), inputs, self.title)
        try:
            with tf32(precision == "tf32"), autocast(inputs.device, precision):
                if isinstance(inputs, Tokens):
                    batches = partial(in_batches, call, rows=self.feed.rows)
                    logits_NC = batches(inputs) if self.pads else apart(batches, inputs)
                else:
                    logits_NC = self.feed.run(call, inputs, spare)
        except UsageError as error:
            raise TeacherError(str(error)) from error
        except SoftlabelsError:
            raise
        except Exception as error:  # of code that is not ours
            if is_out_of_memory(error):
                raise OutOfMemory(no_room(len(inputs), error)) from error
            reason = first_line(error) if isinstance(error, RuntimeError) else cause(error)
            if is_of_compiler(error):
                raise TeacherError(
                    f"{self.title} can't be compiled here: {reason}. Leave --compile out"
                ) from error
            if isinstance(inputs, NumberColumns):
                raise TeacherError(
                    f"{self.title} can't take {inputs}, given by name: {reason}{whole_hint(inputs)}"
                ) from error
            if self.kind == "callable":
                raise TeacherError(
                    f"{self.title} failed with a batch of shape {list(inputs.shape)}: {reason}. It "
                    f"is given a tensor of up to --batch-size preprocessed inputs"
                ) from error
            if isinstance(inputs, Tokens):
                raise TeacherError(
                    f"{self.title} can't take {len(inputs)} rows of up to {inputs.shape[1]:,} "
                    f"tokens, the largest {inputs.columns[IDS].max():,}: {reason}"
                ) from error
            raise TeacherError(
                f"{self.title} can't take inputs of shape {list(inputs.shape)}: {reason}. Check "
                f"--data and --preprocess; if it was traced for another number of rows, give that "
                f"as --batch-size{keywords.hint}"
            ) from error
        return logits_NC if logits_NC.dtype == torch.float64 else logits_NC.float()


def no_room(rows: int, error: BaseException) -> str:
    """That memory ran out with so many rows; in the words of the error, if it may be about
    another machine's memory."""
    reason = "" if is_known_out_of_memory(error) else f": {short(first_line(error), 200)}"
    remedy = (
        "use a smaller --batch-size, or in a dump --batch-size auto, which finds one and takes "
        "fewer rows where memory runs out"
        if rows > 1
        else "fewer can't be: free memory, or use a device that has more of it"
    )
    return f"out of memory with {counted(rows, 'row')} at once{reason}; {remedy}"
