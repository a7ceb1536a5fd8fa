"""The frozen plan of a dump: everything that decides its rows, before the first shard is begun."""

from softlabels.config import DumpOptions
from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.sources import Source
from softlabels.store.codec import parse_codec
from softlabels.store.manifest import Plan
from softlabels.teachers import Teacher

SHARD_BYTES = 128 << 20
GROUP_BYTES = 2 << 20
GROUP_WITH_INPUTS_BYTES = 32 << 20
MIN_SHARD_ROWS, MAX_SHARD_ROWS = 4096, 262_144
MAX_GROUP_ROWS = 16_384


def make_plan(
    options: DumpOptions,
    teacher: Teacher,
    source: Source,
    preprocess: Preprocess,
    classes: int,
    class_names: list[str] | None,
) -> Plan:
    """Reads every input of the source once, for its fingerprint."""
    codec = parse_codec("dense", classes, options.dtype)
    input_bytes = _mean_input_bytes(source) if options.with_inputs else 0
    return Plan(
        teacher={
            "name": teacher.name,
            "kind": teacher.kind,
            "fingerprint": teacher.fingerprint,
            "model": teacher.model,
        },
        source={
            "data": source.data,
            "split": source.split,
            "revision": source.revision,
            "columns": {
                "inputs": list(source.columns.inputs),
                "label": source.columns.label,
                "id": source.columns.id,
            },
            "class_names": class_names,
            "rows": len(source),
            "fingerprint": source.fingerprint,
        },
        preprocess=str(preprocess),
        precision=options.precision,
        views=["clean"],
        codec="dense",
        dtype=options.dtype,
        classes=classes,
        rows=len(source),
        shard_rows=options.shard_rows or shard_rows(codec.row_bytes + input_bytes),
        group_rows=group_rows(codec.row_bytes, input_bytes),
        ids="string" if source.ids.dtype.kind == "U" else "int64",
        with_inputs=options.with_inputs,
    )


def shard_rows(row_bytes: int) -> int:
    """Rows in a shard of about 128 MiB."""
    return min(MAX_SHARD_ROWS, max(MIN_SHARD_ROWS, SHARD_BYTES // max(1, row_bytes)))


def group_rows(logit_bytes: int, input_bytes: int) -> int:
    """Rows in a row group: logits of about 2 MiB, inputs of at most 32 MiB, a power of two."""
    rows = min(GROUP_BYTES // logit_bytes, GROUP_WITH_INPUTS_BYTES // max(1, input_bytes))
    return 1 << max(4, min(MAX_GROUP_ROWS, rows).bit_length() - 1)


def _mean_input_bytes(source: Source) -> int:
    cells = source.read(0, min(64, len(source))).cells
    sizes = [len(cell) if isinstance(cell, bytes) else cell.nbytes for cell in cells]
    return sum(sizes) // len(sizes)
