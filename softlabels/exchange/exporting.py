"""The verb `export`: a dump's rows in another format, shard by shard.

Everything is written into a hidden folder beside the one that was asked for, which gets its name
when all is there: a folder of that name is whole. Shapes: N rows of a shard, C classes.
"""

import errno
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from softlabels.config.exchange import ExportOptions
from softlabels.errors import DiskFull, StoreError, UsageError
from softlabels.exchange import mds, npz, webdataset
from softlabels.exchange.rows import Block, Layout
from softlabels.inputs.cells import encoded_images, numbers
from softlabels.logits import DenseLogits
from softlabels.progress import SILENT, Progress
from softlabels.store.folder import Folder
from softlabels.store.local_files import sync_directory
from softlabels.store.reader import DumpReader

ABOUT = "softlabels-export.json"
WRITERS: dict[str, Callable[[Path, Layout, Iterator[Block]], None]] = {
    "npz": npz.write,
    "webdataset": webdataset.write,
    "mds": mds.write,
}


@dataclass(frozen=True)
class Exported:
    """The folder, its files' names, and how many rows and bytes are in them."""

    out: str
    files: list[str]
    rows: int
    bytes: int


def export_dump(progress: Progress = SILENT, **options: Any) -> Exported:
    """Write a complete dump in another format.

    Options are those of `softlabels export` (see `config.exchange.ExportOptions`): dump, to, out,
    T. Without T the raw logits are written in their stored dtype, with it soft targets in float32.

    Raises UsageError for a folder that is there already or not local, StoreError, IncompleteDump or
    DamagedDump for the dump, and DiskFull. `out` exists only when all of it is written.
    """
    words = ExportOptions(**options)
    reader = DumpReader(Folder(words.dump))
    out = _place(words.out)
    layout = _layout(reader, words.T)
    with _appearing(out) as place:
        with progress.bar("export", len(reader), "rows") as advance:

            def heard() -> Iterator[Block]:
                for block in _blocks(reader, words.T):
                    yield block
                    advance(len(block))

            WRITERS[words.to](place, layout, heard())
        (place / ABOUT).write_text(_about(reader, words), encoding="utf-8")
        files = {path.name: path.stat().st_size for path in sorted(place.iterdir())}
    return Exported(words.out, list(files), len(reader), sum(files.values()))


def _place(out: str) -> Path:
    if "://" in out:
        raise UsageError(f"--out {out}: an export goes to a local folder; copy it on from there")
    if not out or "\0" in out:
        raise UsageError(f"--out is {out!r}; expected is the path of a local folder to make")
    path = Path(os.path.expanduser(out))
    try:
        if path.is_symlink():
            raise UsageError(f"--out {out} is a link; name the folder that it should lead to")
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            raise UsageError(f"--out {out} is there already; choose another folder, or remove it")
        if path.resolve() == Path.cwd():  # which a rename would take from under its user
            raise UsageError(f"--out {out} is the folder that you are in; name another")
    except OSError as error:
        raise _refused(out, error) from error
    return path


def _refused(out: str | Path, error: OSError) -> StoreError:
    reason = error.strerror or error
    if isinstance(error, FileExistsError) and not Path(out).parent.is_dir():
        reason = "Not a directory"  # what is above it
    return StoreError(f"can't write {out}: {reason}; choose another folder with --out")


@contextmanager
def _appearing(out: Path) -> Iterator[Path]:
    """A hidden folder beside `out`, renamed to it when the block ends without an exception."""
    place = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        short = out.name[:50]  # and no longer than a name may be
        place = out.parent / f".{short}.{uuid.uuid4().hex[:12]}.partial"
        place.mkdir()
        yield place
        for path in place.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        sync_directory(str(place))
        place.rename(out)
        sync_directory(str(out.parent))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"no space left for {out}; nothing of it was kept") from error
        raise _refused(out, error) from error
    finally:
        if place is not None:
            shutil.rmtree(place, ignore_errors=True)


def _layout(reader: DumpReader, T: float | None) -> Layout:
    plan = reader.plan
    return Layout(
        split=plan.source["split"],
        shards=plan.shards,
        classes=plan.classes,
        values="logits" if T is None else "soft_targets",
        dtype=plan.dtype if T is None else "float32",
        text_ids=plan.ids == "string",
        labelled=reader.labelled,
    )


def _blocks(reader: DumpReader, T: float | None) -> Iterator[Block]:
    """A dump's shards, one in memory at a time."""
    plan = reader.plan
    columns = ["id", "input_hash", "logits"] + ["label"] * reader.labelled
    columns += ["input"] * plan.with_inputs
    start = 0
    for shard in range(plan.shards):
        table = reader.read_shard(shard, columns)
        values_NC = reader.codec.decode(table["logits"])
        if T is not None:
            values_NC = DenseLogits(torch.from_numpy(values_NC)).temper(T).probs().numpy()
        ids = table["id"]
        held = np.array(ids.to_pylist(), np.str_) if plan.ids == "string" else ids.to_numpy()
        yield Block(
            shard=shard,
            start=start,
            ids=held,
            hashes=table["input_hash"].to_numpy(),
            labels=table["label"].to_numpy() if reader.labelled else None,
            values_NC=values_NC,
            inputs=_inputs(table, held) if plan.with_inputs else None,
        )
        start += len(table)


def _inputs(table: pa.Table, ids: np.ndarray) -> list[bytes] | np.ndarray:
    column = table["input"]
    if pa.types.is_struct(column.type):
        return encoded_images(column, ids)
    return numbers([column], ids)


def _about(reader: DumpReader, words: ExportOptions) -> str:
    plan = reader.plan
    told = {
        "format": words.to,
        "holds": "raw logits" if words.T is None else "soft targets, softmax(logits / T)",
        "T": words.T,
        "rows": len(reader),
        "classes": plan.classes,
        "class_names": plan.source["class_names"],
        "plan_hash": plan.hash,
        "teacher": plan.teacher,
        "source": {name: plan.source[name] for name in ("data", "split", "fingerprint")},
        "preprocess": plan.preprocess,
    }
    return json.dumps(told, indent=2, ensure_ascii=False) + "\n"
