"""ONNX files, run by onnxruntime. N inputs, C classes."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from softlabels.errors import TeacherError
from softlabels.models.feeding import Feed
from softlabels.models.graphs import PURPOSE, Graph, Port, read_graph, with_output
from softlabels.models.keywords import Keywords, input_options
from softlabels.models.metadata import known_of
from softlabels.models.model import Model, ModelFile
from softlabels.models.named import exactly
from softlabels.models.tokens import IDS
from softlabels.system.extras import need
from softlabels.system.humanize import counted, few, short

DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (torch.float16, torch.float32, torch.float64, torch.uint8, torch.int8, torch.int16,
                  torch.int32, torch.int64)
}  # fmt: skip
CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
FOLDER = "session.model_external_initializers_file_folder_path"  # where weights beside it lie
NO_MEMORY = "allocate memory"  # stands in what onnxruntime says where none is left


def load_onnx(file: ModelFile) -> Model:
    """Raises MissingExtra, and TeacherError for what is no classifier and where
    weights beside the file are missing. What this onnxruntime can't run is told at the first run,
    which knows the device."""
    need("onnxruntime", "onnx", PURPOSE)
    graph = read_graph(file.path)
    given = graph.choose_output(file.logits)
    for port in graph.inputs:
        if port.dtype not in DTYPES:
            raise TeacherError(
                f"{file.path} takes {port}, and softlabels gives {', '.join(DTYPES)}: export it "
                f"for one of these"
            )
    taken = graph.first_input
    by_name = len(graph.inputs) > 1 or taken.name == IDS
    dtype, rows = DTYPES[taken.dtype], (taken.shape or ("?",))[0]
    names, doubt = _class_names(graph, given)
    module = OnnxModule(graph, taken, given.name)
    feed = Feed(
        dtype=dtype if dtype.is_floating_point and not by_name else None,
        rows=rows if isinstance(rows, int) else None,
        remarks=module.remarks,
    )
    if feed.dtype is not None and dtype != torch.float32:
        feed.remarks.append(f"inputs are given in {taken.dtype}, as the graph takes them")
    if feed.rows is not None:
        feed.remarks.append(f"the graph takes {counted(feed.rows, 'row')} at once, and no others")
    return Model(
        name=file.path.stem,
        kind="onnx",
        module=module.eval(),
        class_names=names,
        **known_of(graph.metadata),
        output=given.name,
        own_precision=True,
        files=module.files,
        remarks=[f"{file.path}: {text}" for text in (*graph.remarks(given), *doubt)],
        feed=feed,
    )


def _class_names(graph: Graph, given: Port) -> tuple[list[str] | None, list[str]]:
    """The names in the metadata, if they are names of these classes, and a remark if not."""
    names, classes = graph.class_names, (given.shape or ())[1:2]
    if names is None:
        return None, []
    twice = [name for name, count in Counter(names).items() if count > 1]
    if not twice and (not classes or classes[0] in (1, len(names)) or isinstance(classes[0], str)):
        return names, []
    problem = f"{short(twice[0])!r} comes twice" if twice else f"{given} has not as many"
    return None, [f"the {len(names):,} class names in its metadata are left out: {problem}"]


class OnnxModule(nn.Module):
    """A graph as a module: inputs [N, …], one or several by name → one of its tensors. It runs
    where the inputs lie if onnxruntime can, else on the CPU. Pickled, it is the way to its file.

    keywords: the inputs of a graph, for tokens and columns of numbers
    remarks: how it runs, known after the first inputs
    """

    def __init__(self, graph: Graph, taken: Port, output: str) -> None:
        super().__init__()
        self.path, self.taken, self.output = graph.path, taken, output
        self.files = [graph.path, *graph.files]
        self.inner = all(output != port.name for port in graph.outputs)
        self.dtype = DTYPES[taken.dtype]
        self.ports = {port.name: port for port in graph.inputs}
        lengths = [size for size in (taken.shape or ())[1:2] if isinstance(size, int)]
        self.keywords = Keywords(
            tuple(self.ports), tuple(self.ports), length=next(iter(lengths), None)
        )
        self.remarks: list[str] = []
        self._sessions: dict[torch.device, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_sessions": {}}

    def forward(self, inputs: Tensor | None = None, **named: Tensor) -> Tensor:
        if inputs is None:
            given = {name: self._as_port(values, name) for name, values in named.items()}
        elif len(self.ports) > 1:
            raise TeacherError(
                f"{self.path} takes {counted(len(self.ports), 'input')}, "
                f"{few(list(self.ports), most=8)}, and is given one: the data need columns of "
                f"these names, {input_options(list(self.ports))}"
            )
        else:
            given = {self.taken.name: self._cast(self._laid_out(inputs))}
        device = next(iter(given.values())).device
        session = self._session(device)
        arrays = {name: values.contiguous().cpu().numpy() for name, values in given.items()}
        try:
            (value,) = session.run([self.output], arrays)
        except Exception as error:  # onnxruntime's own kinds have no common base
            raise _as_torch_would(error) from error
        if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
            kind = getattr(value, "dtype", type(value).__name__)
            raise TeacherError(
                f"{self.path}: {short(self.output)} is of {kind}; logits are floating numbers. "
                f"Choose another tensor with --logits"
            )
        output = torch.from_numpy(value).to(device)
        if output.ndim > 2 and output.shape[2:].numel() == 1:  # as fully convolutional nets end
            self._remark(f"{short(self.output)} is {list(output.shape)[1:]} a row, taken as a row")
            output = output.flatten(1)
        return output

    def _as_port(self, values: Tensor, name: str) -> Tensor:
        """A column as the graph takes it. Raises TeacherError where it takes another shape, or
        numbers that its dtype can't hold."""
        port = self.ports[name]
        if values.ndim == 1 and not _fits(port, values) and _fits(port, values[:, None]):
            values = values[:, None]  # as graphs of tables have it, a column [N, 1] each
        if not _fits(port, values):
            remedy = "export it with a length that may change" if IDS in self.ports else (
                "bring the column to that shape"
            )  # fmt: skip
            raise TeacherError(
                f"{self.path} takes {port}, and {short(name)!r} of the data is "
                f"{list(values.shape)}: {remedy}"
            )
        return exactly(values, DTYPES[port.dtype], name)

    def _session(self, device: torch.device) -> Any:
        if device not in self._sessions:
            self._sessions[device] = self._open(device)
        return self._sessions[device]

    def _open(self, device: torch.device) -> Any:
        runtime = need("onnxruntime", "onnx", PURPOSE)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()  # so that ranks share the cores
        # threads that wait in a loop would take the cores from those that read, decode and write
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4  # what goes wrong is raised too
        options.add_session_config_entry(FOLDER, str(self.path.absolute().parent))
        providers: list[Any] = [CPU]
        if device.type == "cuda" and CUDA in runtime.get_available_providers():
            # as `devices.tf32` has it for torch: it would make answers depend on the batch
            providers.insert(0, (CUDA, {"device_id": device.index or 0, "use_tf32": 0}))
        content = with_output(self.path, self.output) if self.inner else str(self.path)
        try:
            session = runtime.InferenceSession(content, options, providers=providers)
        except Exception as error:
            raise TeacherError(
                f"{self.path} can't be loaded by onnxruntime {runtime.__version__}: "
                f"{_one_line(error)}. {_remedy(self.files)}"
            ) from error
        provider = session.get_providers()[0]
        self._remark(f"the graph runs in onnxruntime {runtime.__version__}, {provider}")
        if device.type == "cuda" and provider != CUDA:
            self._remark(
                f"warning: the device is {device}, but this onnxruntime has no {CUDA}, so the "
                f"graph runs on the CPU: pip install onnxruntime-gpu in place of onnxruntime"
            )
        return session

    def _laid_out(self, inputs: Tensor) -> Tensor:
        """Channels last where the graph's shape takes pictures only so."""
        if _fits(self.taken, inputs):
            return inputs
        last = inputs.movedim(1, -1) if inputs.ndim == 4 else inputs
        if not _fits(self.taken, last):
            raise TeacherError(
                f"{self.path} takes {self.taken}, and these inputs are {list(inputs.shape)}: check "
                f"--data and --preprocess"
            )
        self._remark(
            f"the graph takes channels last: {list(inputs.shape[1:])} is given as "
            f"{list(last.shape[1:])}"
        )
        return last

    def _cast(self, inputs: Tensor) -> Tensor:
        """In the graph's dtype. Floating inputs come in it, from `Feed`; whole numbers may become
        others where that changes none of them. Raises TeacherError where it would."""
        if inputs.dtype == self.dtype:
            return inputs
        if inputs.is_floating_point() and self.dtype.is_floating_point:
            raise RuntimeError(f"the graph takes {self.taken}, not {inputs.dtype}")
        cast = inputs.to(self.dtype)
        changed = cast.to(inputs.dtype) != inputs
        if bool(changed.any()):
            raise TeacherError(
                f"{self.path} takes {self.taken}, and these inputs are {_kind(inputs)}, such as "
                f"{inputs[changed][0].item():.6g}, which {self.taken.dtype} can't hold. For pixels "
                f"of 0 to 255 leave scale and normalize out of --preprocess; for whole numbers of "
                f"a table use --preprocess tokens"
            )
        self._remark(f"inputs, {_kind(inputs)}, are given as {self.taken.dtype}, all unchanged")
        return cast

    def _remark(self, text: str) -> None:
        if text not in self.remarks:
            self.remarks.append(text)


def _remedy(files: list[Path]) -> str:
    if len(files) > 1 and any(
        path.is_symlink() for path in files
    ):  # as a cache of the Hub has them
        return (
            "Some of its files are links, which onnxruntime does not follow out of their folder: "
            "copy them into one, with cp -L"
        )
    return "If it was made for a later one, upgrade onnxruntime, or export it with an older opset"


def _kind(inputs: Tensor) -> str:
    return str(inputs.dtype).removeprefix("torch.")


def _fits(port: Port, inputs: Tensor) -> bool:
    """Whether the graph declares such a shape, whatever the number of rows."""
    if port.shape is None:
        return True
    sizes = zip(port.shape[1:], inputs.shape[1:], strict=False)
    same = all(isinstance(size, str) or size == own for size, own in sizes)
    return same and len(port.shape) == inputs.ndim


def _as_torch_would(error: Exception) -> Exception:
    text = _one_line(error)
    return torch.OutOfMemoryError(text) if NO_MEMORY in text else RuntimeError(text)


def _one_line(error: Exception) -> str:
    """Without what comes first: the kind of error, its number, and its place in their sources."""
    text = re.split(r"\[ONNXRuntimeError\] : \d+ : \w+ : ", str(error))[-1]
    text = re.sub(r"^(Load model from .* failed:)?(/\S+:\d+ [^)]*\) )?", "", text)
    return short(" ".join(text.split()), 300)
