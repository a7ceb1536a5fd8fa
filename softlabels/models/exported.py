"""Programs of torch.export (.pt2).

Loading one can run code in four ways: pickled weights and constants, the operators that the graph
names, symbolic sizes (which sympy evaluates) and guards. So the archive is read as data first, and
whatever is not plainly a tensor program is refused like a pickle.
"""

import ast
import io
import json
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from softlabels.errors import TeacherError, UntrustedPickle
from softlabels.models.causes import first_line
from softlabels.models.feeding import Feed
from softlabels.models.graphs import class_names_in
from softlabels.models.keywords import Keywords, input_options
from softlabels.models.metadata import known_of, of_archive
from softlabels.models.model import Model, ModelFile
from softlabels.models.named import exactly
from softlabels.models.tokens import IDS

OPERATORS = re.compile(r"torch\.ops\.\w+(\.\w+)+|_operator\.\w+|torch\.sym_\w+|math\.\w+")
TABLES = ("_weights_config.json", "_constants_config.json")
TENSOR = re.compile(r"(weight|tensor)_\d+")
NOTES = re.compile(
    r"(^|/)(archive_format|archive_version|byteorder|version|\.data/serialization_id|extra/[^/]*"
    r"|extra_files/[^/]*)$"
)  # members that torch reads as text
SYMBOLS = re.compile(r"[a-z]+\d+")
SIZE_WORDS = {
    "Symbol", "Integer", "Add", "Mul", "Pow", "Max", "Min", "Mod", "FloorDiv", "CeilDiv",
    "PythonMod", "CleanDiv", "IntTrueDiv", "TruncToInt", "True", "False",
}  # fmt: skip


def load_exported(file: ModelFile) -> Model:
    if not file.trust_pickle:
        for finding in suspicious_parts(file.path):
            raise UntrustedPickle(
                f"{file.path} holds {finding}; loading it could run code, so it was not loaded. "
                f"If you trust whoever made the file, add --trust-pickle"
            )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            program = torch.export.load(str(file.path))
        except Exception as error:  # a damaged archive fails in many ways
            raise TeacherError(f"{file.path} can't be loaded: {first_line(error)}") from error
    inputs, texts = _inputs(program), of_archive(file.path)
    module: nn.Module = program.module()
    if not inputs:
        raise TeacherError(f"{file.path} takes no tensor; a model takes the inputs")
    taken = inputs.get(IDS, next(iter(inputs.values())))
    if len(inputs) > 1:
        module = Named(module, inputs, len(program.call_spec.in_spec.children()[0].children()))
    elif not taken.dtype.is_floating_point:
        module = Whole(module, taken.dtype, file.path)
    return Model(
        name=file.path.stem,
        kind="exported",
        module=module,
        class_names=class_names_in(texts),
        **known_of(texts),
        feed=Feed(rows=taken.shape[0] if isinstance(taken.shape[0], int) else None),
    )


def _inputs(program: torch.export.ExportedProgram) -> dict[str, Tensor]:
    """A picture of each input by its name, in their order."""
    shapes = {node.name: node.meta["val"] for node in program.graph.nodes if "val" in node.meta}
    return {str(name): shapes[name] for name in program.graph_signature.user_inputs}


class Named(nn.Module):
    """A program of several inputs, by name: tokens, and what stands beside them, or columns of
    numbers.

    keywords: its inputs, the first `places` of which it takes by their place
    """

    def __init__(self, module: nn.Module, inputs: dict[str, Tensor], places: int) -> None:
        super().__init__()
        self.module, self.places, names = module, places, tuple(inputs)
        tokens = inputs.get(IDS)
        length = tokens.shape[1] if tokens is not None and tokens.ndim == 2 else None
        self.keywords = Keywords(names, names, length=length if isinstance(length, int) else None)
        self.dtypes = {name: values.dtype for name, values in inputs.items()}

    def forward(self, inputs: Tensor | None = None, **named: Tensor) -> Any:
        names = self.keywords.names
        if inputs is not None:
            raise TeacherError(
                f"the program takes {len(names)} inputs, {', '.join(names)}, and is given one: the "
                f"data need columns of these names, {input_options(names)}"
            )
        given = {name: exactly(named[name], self.dtypes[name], name) for name in names}
        by_place = [given.pop(name) for name in names[: self.places]]
        return self.module(*by_place, **given)


class Whole(nn.Module):
    """A program that takes whole numbers, such as pixels of 0 to 255."""

    def __init__(self, module: nn.Module, dtype: torch.dtype, path: Path) -> None:
        super().__init__()
        self.module, self.dtype, self.path = module, dtype, path

    def forward(self, inputs: Tensor) -> Any:
        """Raises TeacherError for numbers that the type can't hold."""
        whole = inputs.to(self.dtype)
        changed = whole.to(inputs.dtype) != inputs
        if bool(changed.any()):
            kind = str(self.dtype).removeprefix("torch.")
            raise TeacherError(
                f"{self.path} takes {kind}, and these inputs hold {inputs[changed][0].item():.6g}, "
                f"which {kind} can't hold. For pixels of 0 to 255 leave scale and normalize out of "
                f"--preprocess"
            )
        return self.module(whole)


def suspicious_parts(path: Path) -> Iterator[str]:
    """What in the archive could run code when it is loaded, for a message."""
    try:
        with zipfile.ZipFile(path) as archive:
            raw = _raw_tensors(archive)
            for entry in archive.infolist():  # not by name, of which there may be two
                name, content = entry.filename, archive.read(entry)
                if name.endswith(".json"):
                    yield from _suspicious_json(name, json.loads(content))
                elif name not in raw and not NOTES.search(name):  # a pickle may begin in any way
                    yield from _suspicious_pickle(name, content)
    except (zipfile.BadZipFile, json.JSONDecodeError, RecursionError, SyntaxError) as error:
        raise TeacherError(f"{path} is truncated or damaged: {first_line(error)}") from error


def _raw_tensors(archive: zipfile.ZipFile) -> set[str]:
    """The members that torch reads as the bytes of a tensor, which may begin like a pickle: those
    that a table of the archive lists as none, under the names that torch gives tensors alone. A
    table that lists one as a pickle is suspicious itself."""
    raw = set()
    for name in archive.namelist():
        if name.endswith(TABLES):
            table = json.loads(archive.read(name))
            payloads = table.get("config") if isinstance(table, dict) else None
            for payload in payloads.values() if isinstance(payloads, dict) else ():
                path = payload.get("path_name") if isinstance(payload, dict) else None
                if isinstance(path, str) and TENSOR.fullmatch(path):
                    raw.add(f"{name.rpartition('/')[0]}/{path}")
    return raw


def _suspicious_pickle(name: str, content: bytes) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old pickles
            torch.load(io.BytesIO(content), weights_only=True)
    except Exception:
        yield f"a pickle ({name})"


def _suspicious_json(name: str, value: Any, key: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for inner, item in value.items():
            yield from _suspicious_json(name, item, inner)
    elif isinstance(value, list):
        for item in value:
            yield from _suspicious_json(name, item, key)
    elif key == "use_pickle" and value:
        yield f"pickled weights ({name})"
    elif isinstance(value, str):
        if key == "target" and not OPERATORS.fullmatch(value):
            yield f"the operator {value!r}"
        if key == "expr_str" and not is_plain_size(value):
            yield f"the size {value!r}"
        if key == "guards_code" and not is_plain_guard(value):
            yield f"the guard {value!r}"


def is_plain_size(text: str) -> bool:
    """Whether a symbolic size is arithmetic over symbols, and nothing else."""
    return _only(text, names=SIZE_WORDS, attributes=set(), strings=SYMBOLS)


def is_plain_guard(text: str) -> bool:
    """Whether a guard compares sizes of the inputs, and does nothing else."""
    attributes = {"size", "stride", "storage_offset", "shape", "ndim", "numel", "dim"}
    return _only(text, {"L", "len", "isinstance"} | SIZE_WORDS, attributes, re.compile(r"\w+"))


def _only(text: str, names: set[str], attributes: set[str], strings: re.Pattern[str]) -> bool:
    plain = (
        ast.Expression | ast.Call | ast.keyword | ast.BinOp | ast.UnaryOp | ast.BoolOp | ast.Compare
        | ast.Subscript | ast.Load | ast.operator | ast.unaryop | ast.boolop | ast.cmpop
    )  # fmt: skip
    try:
        nodes = list(ast.walk(ast.parse(text, mode="eval")))
    except SyntaxError:
        return False
    for node in nodes:
        if isinstance(node, ast.Name):
            fine = node.id in names or bool(SYMBOLS.fullmatch(node.id))
        elif isinstance(node, ast.Attribute):
            fine = node.attr in attributes
        elif isinstance(node, ast.Constant):
            fine = not isinstance(node.value, str) or bool(strings.fullmatch(node.value))
        else:
            fine = isinstance(node, plain)
        if not fine:
            return False
    return True
