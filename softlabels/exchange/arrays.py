"""Plain logits: .npy, .npz (one, or a folder of them) and .pt. No pickle is ever run.

    .npy    [R, C]
    .npz    logits [R, C]; and if there: ids [R], labels [R], input_hash [R]
    .pt     a tensor [R, C], or a dict of logits, and if there: ids, labels, input_hash

Shapes: R rows, N rows asked for, C classes.
"""

import math
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from softlabels.errors import SoftlabelsError, SourceError
from softlabels.exchange.foreign import (
    Foreign,
    look_at_shape,
    make_texts,
    unreadable,
)
from softlabels.exchange.torch_files import load_torch
from softlabels.system.local_files import file_fingerprint, fold_fingerprint

FIELDS = {"ids": "iuU", "labels": "iu", "input_hash": "iu"}  # and the kinds of their dtypes


def open_npy(path: Path) -> Foreign:
    """Mapped into memory, so it may be larger than that."""
    logits_RC = load_numpy(path, mapped=True)
    look_at_shape(logits_RC.shape, path)

    def read(rows: np.ndarray) -> np.ndarray:
        return _native(logits_RC[rows])

    rows, classes = logits_RC.shape
    return Foreign("npy", file_fingerprint(path), rows, classes, logits_RC.dtype.name, read)


def open_npz(path: Path) -> Foreign:
    """One .npz, or the files of a folder in the order of their names; the last one used is kept
    in memory."""
    paths = sorted(path.glob("*.npz")) if path.is_dir() else [path]
    heads = [_read_npz(one, FIELDS) for one in paths]
    shapes = [_logits_head(one) for one in paths]
    for one, (shape, dtype) in zip(paths, shapes, strict=True):
        look_at_shape(shape, one)
        if (shape[1], dtype) != (shapes[0][0][1], shapes[0][1]):
            raise SourceError(f"{one} has other classes, or another dtype, than {paths[0]}")
    starts = np.cumsum([0, *(shape[0] for shape, _ in shapes)])

    @lru_cache(maxsize=1)
    def logits_of(number: int) -> np.ndarray:
        return _native(_read_npz(paths[number], ["logits"])["logits"])

    def read(rows: np.ndarray) -> np.ndarray:
        numbers = np.searchsorted(starts, rows, side="right") - 1
        values = np.empty((len(rows), shapes[0][0][1]), shapes[0][1].newbyteorder("="))
        for number in np.unique(numbers):
            here = numbers == number
            values[here] = logits_of(int(number))[rows[here] - starts[number]]
        return values

    ids, labels, hashes = _columns(heads, [shape[0] for shape, _ in shapes], path)
    whole = path.is_dir()
    return Foreign(
        kind="npz",
        fingerprint=fold_fingerprint(path, paths) if whole else file_fingerprint(path),
        rows=int(starts[-1]),
        classes=shapes[0][0][1],
        dtype=shapes[0][1].name,
        read=read,
        ids=ids,
        labels=labels,
        hashes=hashes,
    )


def open_pt(path: Path) -> Foreign:
    """A tensor or a dict; mapped where torch can."""
    content = load_torch(path)
    held = content if isinstance(content, dict) else {"logits": content}
    logits_RC = held.get("logits")
    if not isinstance(logits_RC, Tensor):
        shown = ", ".join(map(str, list(held)[:5])) if isinstance(content, dict) else type(content)
        raise SourceError(
            f"{path} holds {shown}; expected is a tensor [rows, classes], or a dict with it as "
            f"'logits'"
        )
    if logits_RC.layout != torch.strided or logits_RC.is_meta or logits_RC.is_nested:
        raise SourceError(
            f"{path} holds a sparse, nested or meta tensor ({logits_RC.layout} on "
            f"{logits_RC.device}); expected is a dense one. Save it with .to_dense()"
        )
    look_at_shape(tuple(logits_RC.shape), path)
    logits_RC = logits_RC.detach()

    def read(rows: np.ndarray) -> np.ndarray:
        chosen = logits_RC[torch.from_numpy(rows)]
        return (chosen.float() if chosen.dtype == torch.bfloat16 else chosen).numpy()

    rows, classes = logits_RC.shape
    head = {name: as_array(held[name], f"{path}: {name}") for name in FIELDS if name in held}
    ids, labels, hashes = _columns([head], [rows], path)
    return Foreign(
        kind="pt",
        fingerprint=file_fingerprint(path),
        rows=rows,
        classes=classes,
        dtype=str(logits_RC.dtype).removeprefix("torch."),
        read=read,
        ids=ids,
        labels=labels,
        hashes=hashes,
    )


def load_numpy(path: Path, mapped: bool = False) -> Any:
    """An array, or what np.load gives for .npz. Raises UntrustedPickle for Python objects in it,
    and SourceError where it can't be read."""
    with _reading(path):
        return np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)


def _read_npz(path: Path, names: Collection[str]) -> dict[str, np.ndarray]:
    with _reading(path), load_numpy(path) as archive:
        if "logits" not in archive.files:
            raise SourceError(
                f"{path} has no array 'logits'; it has {', '.join(archive.files) or 'none'}"
            )
        chosen = [name for name in archive.files if name in names]
        for name in chosen:
            _head(archive.zip, name)  # before memory is asked for
        return {name: archive[name] for name in chosen}


def _logits_head(path: Path) -> tuple[tuple[int, ...], np.dtype]:
    with _reading(path), zipfile.ZipFile(path) as archive:
        return _head(archive, "logits")


def _head(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """The shape and dtype of an archive's array, from its header. Raises ValueError where the
    file is shorter than that."""
    info = archive.getinfo(name if name in archive.namelist() else f"{name}.npy")
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        header = {(1, 0): np.lib.format.read_array_header_1_0}.get(
            version, np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = header(file)
        promised, there = math.prod(shape) * dtype.itemsize, info.file_size - file.tell()
    if not dtype.hasobject and (min(shape, default=0) < 0 or promised != there):
        raise ValueError(f"{name} of the shape {list(shape)} has {there:,} bytes, not {promised:,}")
    return shape, dtype


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Whatever goes wrong inside is an error of this package: the readers of damaged files end in
    exceptions of a dozen kinds."""
    try:
        yield
    except SoftlabelsError:
        raise
    except Exception as error:
        raise unreadable(path, error) from error


def _native(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("="))


def as_array(value: Any, what: str) -> np.ndarray:
    """A column that a torch file holds. Raises SourceError for what is no plain array."""
    if isinstance(value, list) and value and all(isinstance(cell, str) for cell in value):
        return make_texts(value, what)
    try:
        return value.detach().numpy() if isinstance(value, Tensor) else np.asarray(value)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        shown = f"a tensor of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
        raise SourceError(
            f"{what} is {shown} that is no plain array: {str(error).splitlines()[0]}. Save numbers "
            f"of one kind, or texts, one for each row"
        ) from error


def as_int64(values: np.ndarray, what: str) -> np.ndarray:
    """Whole numbers as int64. Raises SourceError for those that would wrap around."""
    if values.dtype.kind == "u" and values.size and values.max() >= 2**63:
        raise SourceError(f"{what} has {values.max()}; expected are numbers below 2^63 (int64)")
    return values.astype(np.int64)


def _columns(
    heads: list[dict[str, np.ndarray]], rows: list[int], where: object
) -> list[np.ndarray | None]:
    """ids, labels and input hashes of all files, each None where no file has them. Raises
    SourceError where only some files do, or where one is no column beside the logits."""
    columns: list[np.ndarray | None] = []
    for name, kinds in FIELDS.items():
        parts = [head[name] for head in heads if name in head]
        if not parts:
            columns.append(None)
            continue
        if [part.shape for part in parts] != [(count,) for count in rows]:
            raise SourceError(
                f"{where}: {name} has the shape {[list(part.shape) for part in parts][:3]}, "
                f"expected one value for each of {sum(rows)} rows of logits"
            )
        whole = np.concatenate(parts)
        if whole.dtype.kind not in kinds:
            text = " or text" * ("U" in kinds)
            raise SourceError(f"{where}: {name} is {whole.dtype}; expected whole numbers{text}")
        if whole.dtype.kind != "U":
            hashes = name == "input_hash"
            whole = whole.astype(np.uint64) if hashes else as_int64(whole, f"{where}: {name}")
        columns.append(whole)
    return columns
