"""The place of a row group's column in a shard's file, if its values are one run of bytes there.

A column chunk of our writer is one uncompressed PLAIN page: a header in Thrift's compact encoding
(parquet-format, PageHeader and DataPageHeader), the levels, the values. The header is read
strictly; for anything else the answer is None, and the reader decodes the page.
"""

from typing import IO, Any

from softlabels.errors import DamagedDump
from softlabels.store.pages.columns import Column

HEADER_BYTES = 128
DATA_PAGE, PLAIN = 0, 0
I32, STRUCT = 5, 12


def chunk_of(group: Any, name: str) -> Any:
    """The metadata of a row group's column chunk. Raises DamagedDump without one."""
    chunks = map(group.column, range(group.num_columns))
    chunk = next((c for c in chunks if c.path_in_schema.partition(".")[0] == name), None)
    if chunk is None:
        raise DamagedDump(f"a row group of it has no {name}")
    return chunk


def plain_values(file: IO[bytes], group: Any, column: Column) -> int | None:
    """The offset in `file` at which the values of a mapped column begin, one row after the other,
    or None. group: pyarrow's metadata of the row group, in which the column has the right type."""
    chunk, count = chunk_of(group, column.name), group.num_rows
    if chunk.compression != "UNCOMPRESSED" or chunk.has_dictionary_page:
        return None
    start, total = chunk.data_page_offset, chunk.total_compressed_size
    needed = count * column.row_bytes
    if chunk.num_values != count * column.length:
        return None  # a list is null or has another length
    file.seek(0, 2)
    if not 0 < start <= start + total <= file.tell() or total < needed:
        return None
    file.seek(start)
    try:
        header, length = read_page_header(file.read(HEADER_BYTES))
    except (IndexError, ValueError):
        return None
    one_page = length + header["compressed"] == total and header["compressed"] >= needed
    whole = header["values"] == chunk.num_values and header["compressed"] == header["uncompressed"]
    if not (one_page and whole and (header["type"], header["encoding"]) == (DATA_PAGE, PLAIN)):
        return None
    values = start + length
    for _ in range(2 if column.is_list else 0):  # repetition levels, definition levels
        file.seek(values)
        values += 4 + int.from_bytes(file.read(4), "little")
    return int(values) if values + needed == start + total else None  # a null has no bytes


def read_page_header(content: bytes) -> tuple[dict[str, int], int]:
    """A version 1 data page's header without statistics, and its length in bytes.

    Raises ValueError for another header and IndexError for one that is cut off.
    """
    fields: dict[str, int] = {}
    at = _read_struct(
        content, 0, fields, {1: "type", 2: "uncompressed", 3: "compressed", 4: "crc"}, inner=5
    )
    inside = {1: "values", 2: "encoding", 3: "definition_encoding", 4: "repetition_encoding"}
    at = _read_struct(content, at, fields, inside, inner=None)
    if content[at] != 0:
        raise ValueError("more fields than a data page's header has")
    if not {"type", "uncompressed", "compressed", "values", "encoding"} <= set(fields):
        raise ValueError("fields are missing")
    return fields, at + 1


def _read_struct(
    content: bytes, at: int, fields: dict[str, int], names: dict[int, str], inner: int | None
) -> int:
    """Read i32 fields up to the end of the struct, or up to the start of the struct `inner`."""
    field = 0
    while content[at]:
        field += content[at] >> 4
        kind = content[at] & 15
        at += 1
        if kind == STRUCT and field == inner:
            return at
        if kind == STRUCT and inner is None and field == 5 and content[at] == 0:
            at += 1  # empty statistics
            continue
        if kind != I32 or field not in names or content[at - 1] >> 4 == 0:
            raise ValueError(f"field {field} of type {kind}")
        fields[names[field]], at = _read_zigzag(content, at)
    if inner is not None:
        raise ValueError("no data page's header")
    return at + 1


def _read_zigzag(content: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 35, 7):
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return (value >> 1) ^ -(value & 1), at
    raise ValueError("a number of more than 32 bits")
