"""A trained model as a program of torch.export, with what of its preprocessing is arithmetic, and
as a graph of ONNX. N inputs, C classes."""

import io
import json
import logging
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from softlabels.errors import ExportError, SoftlabelsError
from softlabels.inputs.preprocess import Preprocess
from softlabels.models.causes import cause
from softlabels.models.metadata import EXTRA, Metadata
from softlabels.models.outputs import logits_of
from softlabels.system.extras import need
from softlabels.system.humanize import size_words

INPUT, OUTPUT = "input", "logits"
MOST_BYTES = (1 << 31) - (1 << 24)  # of weights in one ONNX file: protobuf holds 2 GiB
FIXED = re.compile(r"specialized it to be a constant \((\d+)\)")
OPERATOR = re.compile(r"target=torch\.ops\.(\w+\.\w+)")


class Program(nn.Module, ABC):
    """A model as it is exported, in eval mode, on the CPU: inputs → logits [N, C].

    title: what messages call it
    names: of its inputs
    sizes: of each input the dimensions that may have any size, by name
    largest: the largest sizes that it takes
    """

    model: nn.Module
    preprocess: Preprocess
    title: str
    classes: int
    names: tuple[str, ...] = (INPUT,)
    sizes: tuple[dict[int, str], ...] = ({0: "batch"},)
    largest: Mapping[str, int] = {}

    @abstractmethod
    def draw(self, rows: int, seed: int = 0) -> tuple[Tensor, ...]:
        """Random inputs of so many rows."""

    @abstractmethod
    def describe_inputs(self, before: str) -> str:
        """What it takes, for people. before: what has been done to inputs"""


class Numeric(Program):
    """Inputs as decoded, [N, …] → logits [N, C], in eval mode, on the CPU.

    dtype: of the inputs: uint8 for pictures, int64 for tokens, else float32
    """

    def __init__(
        self, model: nn.Module, preprocess: Preprocess, shape: list[int], classes: int, title: str
    ) -> None:
        super().__init__()
        self.model, self.preprocess = model, preprocess
        self.shape, self.classes, self.title = shape, classes, title
        self.dtype = torch.float32
        if preprocess.picture and not preprocess.is_opaque:
            self.dtype = torch.uint8
        elif [call.name for call in preprocess.numbers] == ["tokens"]:
            self.dtype = torch.int64
        self.eval()

    def forward(self, inputs: Tensor) -> Tensor:
        output = self.model(self.preprocess.on_numbers(inputs))
        return logits_of(output, inputs.shape[0], self.classes, self.title).float()

    def draw(self, rows: int, seed: int = 0) -> tuple[Tensor, ...]:
        """Random inputs: all values of a pixel, numbers around 0, or the first two tokens."""
        source, size = torch.Generator().manual_seed(seed), (rows, *self.shape)
        if self.dtype == torch.float32:
            return (torch.randn(size, generator=source),)
        largest = 256 if self.dtype == torch.uint8 else 2
        return (torch.randint(0, largest, size, generator=source, dtype=self.dtype),)

    def describe_inputs(self, before: str) -> str:
        sizes = ", ".join(["N", *map(str, self.shape)])
        kind = str(self.dtype).removeprefix("torch.")
        return f"{kind} [{sizes}]" + (f", after {before}" if before else "")


def program_of(model: Program) -> torch.export.ExportedProgram:
    """For any number of rows. Raises ExportError where torch can't follow the model's code."""
    every = {
        name: torch.export.Dim(name, max=model.largest.get(name))
        for sizes in model.sizes
        for name in sizes.values()
    }
    shapes = tuple({d: every[name] for d, name in sizes.items()} for sizes in model.sizes)
    try:
        with _quiet(), torch.no_grad():
            program = torch.export.export(model, model.draw(2), dynamic_shapes=shapes, strict=False)
    except SoftlabelsError:
        raise
    except Exception as error:  # of the model's own code, or of torch's many kinds
        fixed = FIXED.search(str(error))
        reason = (
            f"its code works with {fixed[1]} rows at once alone; let it take their number from "
            f"x.shape[0], or write -1 in its place"
            if fixed
            else cause(error)
        )
        raise ExportError(f"{model.title} can't be exported by torch.export: {reason}") from error
    for module in program.graph_module.modules():
        for node in getattr(getattr(module, "graph", None), "nodes", ()):
            node.meta.pop("stack_trace", None)  # paths of this machine
    return program


def as_pt2(program: torch.export.ExportedProgram, metadata: Metadata) -> bytes:
    buffer = io.BytesIO()
    with _quiet():
        extra = {EXTRA: json.dumps(metadata.as_text(), ensure_ascii=False)}
        torch.export.save(program, buffer, extra_files=extra)
    return buffer.getvalue()


def as_onnx(
    program: torch.export.ExportedProgram, model: Program, metadata: Metadata, title: str
) -> bytes:
    """Raises ExportError for an operator that ONNX lacks, and for weights too large for a file."""
    purpose = f"the export of {title}"
    onnx = need("onnx", "onnx", purpose)
    need("onnxscript", "onnx", purpose)
    tensors = program.state_dict.values()
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if size > MOST_BYTES:
        raise ExportError(
            f"{title} has {size_words(size)} of weights, and an ONNX file holds 2 GB; use --to pt2"
        )
    try:
        with _quiet():
            exported: Any = torch.onnx.export(
                program, dynamo=True, input_names=list(model.names), output_names=[OUTPUT],
                verbose=False, dynamic_shapes=model.sizes,
            )  # fmt: skip
    except Exception as error:
        operator = OPERATOR.search(_whole(error))
        if operator is None:
            raise ExportError(f"{title} can't be exported to ONNX: {cause(error)}") from error
        raise ExportError(
            f"{title} uses the operator {operator[1]}, which torch can't write as ONNX: compute it "
            f"otherwise, or use --to pt2"
        ) from error
    graph = exported.model_proto
    onnx.helper.set_model_props(graph, metadata.as_text())
    content: bytes = graph.SerializeToString()
    return content


def _whole(error: BaseException | None) -> str:
    """What an error and its causes say."""
    texts = []
    while error is not None:
        texts.append(str(error))
        error = error.__cause__
    return "\n".join(texts)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's notes on libraries that it misses and on its own code."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
