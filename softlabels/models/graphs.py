"""An ONNX graph, read as data: what it takes, what it gives, and what its last layer is.

Tensors of a graph have names; those inside it can be asked for like outputs.
"""

import ast
import difflib
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from softlabels.errors import TeacherError
from softlabels.models.causes import first_line
from softlabels.models.last_layers import find_ends
from softlabels.system.extras import need
from softlabels.system.humanize import few, short

PURPOSE = "an ONNX file"
NAMED = ("class_names", "names", "classes", "labels", "id2label")  # metadata that names classes
MOST_NEAR = 3
SIGMOID = (
    "a model of several labels a row ends so (--task multilabel), and one that gives one logit for "
    "two classes (--outputs binary)"
)


@dataclass(frozen=True)
class Port:
    """A tensor that a graph takes or gives. dtype: numpy's name, '' where it is not known, and a
    text in brackets for what is no tensor; shape: None where it is not known."""

    name: str
    dtype: str
    shape: tuple[int | str, ...] | None

    def __str__(self) -> str:
        shape = "" if self.shape is None else f" [{', '.join(map(str, self.shape))}]"
        return f"{short(self.name)} {self.dtype or '(type not known)'}{shape}"

    @property
    def is_of_numbers(self) -> bool:
        return self.dtype in ("", "bfloat16") or self.dtype.startswith("float")

    @property
    def is_row(self) -> bool:
        """Whether it can be one row of numbers for each input."""
        beyond = () if self.shape is None else self.shape[2:]
        return self.shape != () and all(size == 1 or isinstance(size, str) for size in beyond)


@dataclass(frozen=True)
class Graph:
    """inputs: without those that the file gives values to; files: of weights, beside it; ends: of
    each tensor that only a last layer stands before, its kind and what it takes."""

    path: Path
    inputs: list[Port]
    outputs: list[Port]
    inner: dict[str, Port]
    files: list[Path]
    class_names: list[str] | None
    metadata: dict[str, str] = field(default_factory=dict)
    ends: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def first_input(self) -> Port:
        """Raises TeacherError where there is none."""
        if not self.inputs:
            raise TeacherError(f"{self.path} takes no input; a teacher is given those of the data")
        return self.inputs[0]

    def choose_output(self, name: str | None) -> Port:
        """The tensor that is meant by --logits, else the only output, or the one that is called
        logits. Raises TeacherError, with what to write, where that is not the logits."""
        port = self._named(name) if name is not None else self._likely()
        last, before = self.ends.get(port.name, ("", ""))
        if last == "Softmax" or (last and last != "LogSoftmax" and name is None):
            raise TeacherError(
                f"{self.path}: {short(port.name)} comes out of a {last}, and raw logits are "
                f"needed: a temperature can't be applied to {_what(last)}."
                + f" As for a Sigmoid, {SIGMOID}." * (last == "Sigmoid")
                + f" Take what goes in: --logits {shlex.quote(before)}"
            )
        if not port.is_of_numbers or not port.is_row:
            raise TeacherError(
                f"{self.path}: {port} is no row of numbers for each input, [N, classes]. The graph "
                f"gives {_listed(self.outputs)}; --logits NAME takes another tensor of it"
            )
        return port

    def remarks(self, port: Port) -> list[str]:
        """What to know of these logits."""
        last, before = self.ends.get(port.name, ("", ""))
        if last == "LogSoftmax":
            return [
                f"{short(port.name)} comes out of a LogSoftmax: logits minus a constant in each "
                f"row, which gives the same soft targets at any temperature; for what goes in, say "
                f"--logits {shlex.quote(before)}"
            ]
        if ("Sigmoid", port.name) in [self.ends.get(output.name) for output in self.outputs]:
            return [f"{short(port.name)} goes into a Sigmoid: {SIGMOID}"]
        return []

    def _named(self, name: str) -> Port:
        for port in self.outputs:
            if port.name == name:
                return port
        if name in self.inner:
            return self.inner[name]
        names = [*(port.name for port in self.outputs), *self.inner]
        raise TeacherError(
            f"--logits is {short(name)!r}, which names no tensor among the {len(names):,} of "
            f"{self.path}; it gives {_listed(self.outputs)}{_near(name, names)}"
        )

    def _likely(self) -> Port:
        if len(self.outputs) == 1:
            return self.outputs[0]
        called = [port for port in self.outputs if port.name.lower() == "logits"]
        if len(called) == 1:
            return called[0]
        fitting = [port for port in self.outputs if port.is_of_numbers and port.is_row]
        likely = min(fitting or self.outputs, key=lambda port: len(port.shape or "  ") != 2)
        last, before = self.ends.get(likely.name, ("", ""))
        raise TeacherError(
            f"{self.path} gives {len(self.outputs)} outputs: {_listed(self.outputs)}. Say which "
            f"are the logits, such as --logits {shlex.quote(before if last else likely.name)}"
        )


def _near(name: str, names: list[str]) -> str:
    """Names of tensors that are like this one, whole or in their last segment, for a message."""
    ends = {re.split(r"[/.]", other)[-1].lower(): other for other in names}
    near = difflib.get_close_matches(name, names, MOST_NEAR)
    near += [ends[end] for end in difflib.get_close_matches(name.lower(), ends, MOST_NEAR)]
    near += [other for other in names if name.lower() in other.lower()]
    near = list(dict.fromkeys(near))[:MOST_NEAR]
    return f", and near are {', '.join(near)}" if near else ""


def _what(last: str) -> str:
    return "the number of a class" if last == "ArgMax" else "probabilities"


def _listed(ports: list[Port]) -> str:
    return few(list(map(str, ports)), most=8)


def read_graph(path: Path) -> Graph:
    """Raises TeacherError for what is no graph, and where a file of its weights is missing."""
    onnx = need("onnx", "onnx", PURPOSE)
    decode_error = need("google.protobuf.message", "onnx", PURPOSE).DecodeError
    try:
        model = onnx.load_model(str(path), format="protobuf", load_external_data=False)
    except decode_error as error:
        raise TeacherError(
            f"{path} is no whole ONNX file: {first_line(error)}. Copy or export it again"
        ) from error
    graph = model.graph
    given = {tensor.name for tensor in graph.initializer}
    given |= {tensor.values.name for tensor in graph.sparse_initializer}
    outputs = [_port(info) for info in graph.output]
    if not graph.node or not outputs or not model.opset_import:
        raise TeacherError(
            f"{path} holds no whole ONNX graph (nodes: {len(graph.node)}, outputs: "
            f"{len(outputs)}, opsets: {len(model.opset_import)}); copy or export it again"
        )
    known = {info.name: _port(info) for info in graph.value_info}
    made = [name for node in graph.node for name in node.output if name]
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    return Graph(
        path=path,
        inputs=[_port(info) for info in graph.input if info.name not in given],
        outputs=outputs,
        inner={name: known.get(name, Port(name, "", None)) for name in made},
        files=_beside(path, model),
        class_names=class_names_in(metadata),
        metadata=metadata,
        ends=find_ends(graph.node),
    )


def with_output(path: Path, name: str) -> bytes:
    """The same graph, as a file's bytes, with an inner tensor as its only output."""
    onnx = need("onnx", "onnx", PURPOSE)
    model = onnx.load_model(str(path), format="protobuf", load_external_data=False)
    del model.graph.output[:]
    model.graph.output.append(onnx.ValueInfoProto(name=name))  # the runtime infers its type
    content: bytes = model.SerializeToString()
    return content


def _port(info: Any) -> Port:
    import onnx

    kind = info.type.WhichOneof("value") or ""
    if kind != "tensor_type":
        return Port(info.name, f"({kind.removesuffix('_type') or 'type not known'})", None)
    tensor = info.type.tensor_type
    dtype = onnx.TensorProto.DataType.Name(tensor.elem_type).lower() if tensor.elem_type else ""
    shape = None
    if tensor.HasField("shape"):
        shape = tuple(
            dim.dim_value if dim.dim_value > 0 else dim.dim_param or "?" for dim in tensor.shape.dim
        )
    return Port(info.name, {"float": "float32", "double": "float64"}.get(dtype, dtype), shape)


def _beside(path: Path, model: Any) -> list[Path]:
    """The files that hold weights of the graph. Raises TeacherError where one is missing or cut
    off, or lies elsewhere: what a file names must not lead out of its folder."""
    sizes = _external_sizes(model)
    names = sorted(sizes)
    for name in names:
        parts = PurePosixPath(name).parts + PureWindowsPath(name).parts
        if ".." in parts or PurePosixPath(name).is_absolute() or PureWindowsPath(name).anchor:
            raise TeacherError(
                f"{path} names weights at {short(name)!r}, out of its folder; save it with its "
                f"weights beside it"
            )
    missing = [name for name in names if not (path.parent / name).is_file()]
    if missing:
        raise TeacherError(
            f"{path} keeps weights in {len(names)} other files, and {few(missing)} is missing: put "
            f"it beside the graph, into {path.parent}"
        )
    for name in names:
        size = (path.parent / name).stat().st_size
        if size < sizes[name]:
            raise TeacherError(
                f"{path.parent / name} has {size:,} bytes, and {path.name} reads weights up to "
                f"byte {sizes[name]:,}: it is cut off, or of another graph; copy it again"
            )
    return [path.parent / name for name in names]


def _external_sizes(model: Any) -> dict[str, int]:
    """Of each file that holds values: how many bytes it has at least."""
    sizes: dict[str, int] = {}
    for tensor in _tensors(model):
        if tensor.data_location == tensor.EXTERNAL:
            where = {entry.key: entry.value for entry in tensor.external_data}
            ends = [where.get(key, "") for key in ("offset", "length")]
            end = sum(int(text) for text in ends if text.isdecimal())
            name = where.get("location", "")
            sizes[name] = max(sizes.get(name, 0), end)
    return sizes


def _tensors(model: Any) -> Iterator[Any]:
    """All that can hold values, in subgraphs and functions too."""
    graphs, nodes = [model.graph], [node for part in model.functions for node in part.node]
    while graphs or nodes:
        for graph in graphs:
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)
            nodes.extend(graph.node)
        attributes = [attribute for node in nodes for attribute in node.attribute]
        graphs, nodes = [], []
        for attribute in attributes:
            yield from (attribute.t, *attribute.tensors)
            graphs += [attribute.g] if attribute.HasField("g") else []
            graphs += attribute.graphs


def class_names_in(metadata: Mapping[str, str]) -> list[str] | None:
    """The classes as metadata name them: a list of names, or a dict of a name to each number, in
    JSON or as Python prints it (Ultralytics). None for anything else."""
    for key in NAMED:
        names = _as_names(_parsed(metadata.get(key, "")))
        if names:
            return names
    return None


def _parsed(text: str) -> Any:
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return None


def _as_names(value: Any) -> list[str] | None:
    if isinstance(value, dict):
        numbered = {str(key): name for key, name in value.items()}
        value = [numbered.get(str(number)) for number in range(len(numbered))]
    whole = isinstance(value, list) and all(isinstance(name, str) for name in value)
    return value if whole else None
