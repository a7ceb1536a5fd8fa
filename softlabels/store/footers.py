"""A shard's Parquet file checked against the plan: its footer, its columns, its empty cells."""

from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from softlabels.errors import DamagedDump
from softlabels.inputs.label_lists import STORED
from softlabels.inputs.views.mixing import PARTNER_LABEL
from softlabels.store.plan import LISTS, VIEW_HASH
from softlabels.store.records import Plan


def read_columns(
    file: IO[bytes] | str, plan: Plan, shard: int, rows: int, columns: list[str]
) -> pa.Table:
    """Columns of one shard's file, page checksums verified, after its footer was checked.

    Raises DamagedDump for a file that is not this shard, and one of PARQUET_ERRORS.
    """
    with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
        check_footer(parquet, plan, shard, rows)
        # Arrow's threads may release a Python file's buffers late; if the interpreter is ending by
        # then, the process aborts
        table = parquet.read(columns=columns, use_threads=isinstance(file, str))
    if len(table) != rows:
        raise DamagedDump(f"it gave {len(table)} rows; expected are {rows}")
    refuse_empty_cells(table, plan)
    return table


def whose_shard(path: IO[bytes] | str, plan: Plan) -> int | None:
    """The number of the shard that a file is by its footer; None for any other file."""
    try:
        footer = pq.read_schema(path).metadata or {}
        if footer.get(b"softlabels.plan") == plan.hash.encode():
            return int(footer.get(b"softlabels.shard", b""))
    except PARQUET_ERRORS:
        pass
    return None


def refuse_empty_cells(table: pa.Table, plan: Plan) -> None:
    """Raises DamagedDump if a column has empty cells, except `input`, `view_hash` and the codec's
    decoded columns. A row without a label has −1, not null; of several labels, null says
    unknown."""
    may_have = {"input", VIEW_HASH, *(column.name for column in plan.make_codec().decoded)}
    may_have |= {"label", PARTNER_LABEL} if plan.several_labels else set()
    for name in table.column_names:
        if name not in may_have and table[name].null_count:
            is_label = name in plan.label_columns
            remark = "; a row without a label has the label -1" if is_label else ""
            raise DamagedDump(f"its column {name} has empty cells{remark}")


def check_footer(parquet: pq.ParquetFile, plan: Plan, shard: int, rows: int) -> None:
    """Raises DamagedDump if a footer is not the one that this shard must have, or promises more
    rows than the file can hold."""
    footer = parquet.schema_arrow.metadata or {}
    if footer.get(b"softlabels.plan", b"") != plan.hash.encode():
        raise DamagedDump("it belongs to another dump")
    if footer.get(b"softlabels.shard") != str(shard).encode():
        number = footer.get(b"softlabels.shard", b"none")[:20].decode(errors="replace")
        raise DamagedDump(f"it is another shard of this dump, number {number}")
    metadata = parquet.metadata
    groups = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    if metadata.num_rows != rows or groups != plan.group_sizes(rows).tolist():
        raise DamagedDump(f"its footer tells of {metadata.num_rows} rows, expected are {rows}")
    schema = parquet.schema_arrow
    types = {"id": KINDS[plan.ids], "view": pa.int32(), "input_hash": pa.uint64()}
    types |= {} if plan.stored is None else {"stored_hash": pa.uint64()}
    types |= {column.name: column.arrow_type for column in plan.make_codec().columns}
    for name, kind in plan.view_columns.items():
        types[name] = STORED if kind == LISTS else pa.type_for_alias(kind)
    types |= dict.fromkeys(plan.label_columns, STORED if plan.several_labels else pa.int64())
    for name, kind in types.items():
        if schema.names.count(name) != 1 or schema.field(name).type != kind:
            raise DamagedDump(f"its columns are {', '.join(schema.names)}, or of other types")


KINDS = {"int64": pa.int64(), "string": pa.string()}
PARQUET_ERRORS = (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError)
