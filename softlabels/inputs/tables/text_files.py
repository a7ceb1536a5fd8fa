"""CSV and JSON files, read whole at each opening and never from a cache.

A broken file is refused with the number of the line. Arrow's readers don't report lines, so once
something is wrong, a slow reader of the standard library looks for it.
"""

import csv
import gzip
import io
import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json

from softlabels.errors import SourceError
from softlabels.inputs.plain import is_text
from softlabels.inputs.pointers import refuse_pointer
from softlabels.inputs.tables.table import mark_padded
from softlabels.inputs.texts import half_pair
from softlabels.system.humanize import size_words
from softlabels.system.memory import free_memory

PIECE_BYTES = 64 << 20
BLOCK_BYTES = 1 << 30  # Arrow infers types from one block, so that is nearly every file as a whole
HEADER_BYTES = 1 << 20
NULL_ROW = re.compile(rb"(?:\A|\}[ \t\r]*\n)\s*(null)\b")  # never in a text
PADDED = rb'[%s\r\n"][ \t]*-?0[0-9]'  # somewhere a cell begins with a zero and a digit
NO_OBJECT = 'it is no JSON object ({"column": value, …})'


def read_csv(path: Path, delimiter: str = ",") -> pa.Table:
    """The rows of a CSV file. In a column of text, only an empty cell is a missing value; in a
    column of numbers, so are NA, NaN and the other usual spellings."""
    content = _content(path)
    _check_quotes(path, content, delimiter)
    header = _header(path, content, delimiter)
    table = _parse_csv(path, content, delimiter, {})
    as_text = {field.name: pa.string() for field in table.schema if not _is_known(field.type)}
    if as_text:  # dates and times
        table = _parse_csv(path, content, delimiter, as_text)
    if re.search(PADDED % re.escape(delimiter).encode(), content):
        table = _with_zeros(table, path, content, delimiter, as_text)
    table = table.rename_columns(header)
    for number, field in enumerate(table.schema):
        if is_text(field.type):
            column = table.column(number)
            empty = pc.equal(column, "")
            table = table.set_column(number, field, pc.if_else(empty, None, column))
    return table


def read_written(path: Path, names: Sequence[str], delimiter: str = ",") -> pa.Table:
    """These columns of a CSV file as texts, each cell as it is written: 007 has its zeros, and NA
    is a text. An empty cell is a missing value."""
    content = _content(path)
    header = _header(path, content, delimiter)
    known = _parse_csv(path, content, delimiter, {}).column_names  # before unnamed ones got a name
    chosen = [inner for inner, name in zip(known, header, strict=True) if name in names]
    table = _parse_csv(path, content, delimiter, dict.fromkeys(chosen, pa.string()))
    columns = dict(zip(header, table.columns, strict=True))
    return pa.table({n: pc.if_else(pc.equal(columns[n], ""), None, columns[n]) for n in names})


def _with_zeros(
    table: pa.Table, path: Path, content: bytes, delimiter: str, as_text: dict[str, pa.DataType]
) -> pa.Table:
    """The table in which columns of whole numbers stay text if some begin with zeros: as a number,
    the name `001` would become 1."""
    numbers = [field.name for field in table.schema if _is_number_type(field.type)]
    texts = _parse_csv(path, content, delimiter, as_text | dict.fromkeys(numbers, pa.string()))
    for name in numbers:
        column = pc.if_else(table[name].is_null(), None, pc.utf8_trim_whitespace(texts[name]))
        digits = pc.match_substring_regex(column, r"^-?[0-9]+$")
        zeros = pc.match_substring_regex(column, r"^-?0[0-9]")
        if pc.all(digits).as_py() and pc.any(zeros).as_py():
            place = table.schema.get_field_index(name)
            table = table.set_column(place, mark_padded(pa.field(name, pa.string())), column)
    return table


def read_json(path: Path) -> pa.Table:
    """The rows of a JSON file: one object a line, or one list of objects."""
    content = _content(path)
    if content.lstrip()[:1] == b"[":
        content = _lines_of_list(path, content)
    elif null := NULL_ROW.search(content):  # which pyarrow.json crashes on, or takes for a row
        line = content.count(b"\n", 0, null.start(1)) + 1
        raise SourceError(f"{path}, line {line}: {NO_OBJECT}")
    table = _parse_json(path, content, None)
    as_text = [field for field in table.schema if pa.types.is_temporal(field.type)]
    if as_text:  # texts that look like times
        schema = pa.schema([(field.name, pa.string()) for field in as_text])
        table = _parse_json(path, content, schema)
    return table


def _content(path: Path) -> bytes:
    """The file's bytes, decompressed, without a byte-order mark. Raises SourceError if they are not
    UTF-8 text or don't fit into memory."""
    try:
        pieces, size, limit = [], 0, free_memory() // 2  # the rows take as much again
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            while piece := file.read(PIECE_BYTES):
                pieces.append(piece)
                size += len(piece)
                if size > limit:
                    raise SourceError(
                        f"{path} holds more than {size_words(limit)}, which is what the free "
                        f"memory has room for; save it as Parquet, which is read in pieces"
                    )
    except (OSError, EOFError) as error:
        raise SourceError(f"{path} can't be read: {error}") from error
    content = b"".join(pieces).removeprefix(b"\xef\xbb\xbf")
    if not content.strip():
        raise SourceError(f"{path} is empty")
    refuse_pointer(path, content)
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SourceError(
            f"{path} is not UTF-8: byte 0x{content[error.start]:02x} in line {line}; save it as "
            f"UTF-8"
        ) from error
    if (place := content.find(b"\0")) >= 0:
        line = content.count(b"\n", 0, place) + 1
        raise SourceError(
            f"{path} holds a byte of zero in line {line}, as UTF-16 and binary files do; save it "
            f"as UTF-8 text"
        )
    return content


def _parse_csv(
    path: Path, content: bytes, delimiter: str, types: dict[str, pa.DataType]
) -> pa.Table:
    try:
        return pyarrow.csv.read_csv(
            io.BytesIO(content),
            read_options=pyarrow.csv.ReadOptions(block_size=min(len(content) + 1, BLOCK_BYTES)),
            parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(column_types=types),
        )
    except pa.ArrowException as error:
        cause = _broken_row(content, delimiter) or _shortened(error)
        raise SourceError(f"{path}, {cause}") from error


def _header(path: Path, content: bytes, delimiter: str) -> list[str]:
    """The names of the columns. A column without a name gets the one that pandas gives it."""
    text = io.StringIO(content[:HEADER_BYTES].decode(errors="ignore"), newline="")
    named = next(row for row in csv.reader(text, delimiter=delimiter) if row)
    header = [name or f"Unnamed: {number}" for number, name in enumerate(named)]
    other = [mark for mark in ",;\t|" if mark in header[0]]
    if len(header) == 1 and other:
        raise SourceError(
            f"{path}: its one column is called {header[0][:60]!r}; values are parted by "
            f"{delimiter!r} here, not by {other[0]!r}"
        )
    if all(map(_is_number, named)) and named != [str(n) for n in range(len(named))]:
        raise SourceError(
            f"{path}: its first line holds numbers ({', '.join(named)[:60]}); it should name the "
            f"columns"
        )
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise SourceError(
            f"{path}: the column {twice[0]!r} comes {header.count(twice[0])} times; columns have "
            f"names of their own"
        )
    return header


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _check_quotes(path: Path, content: bytes, delimiter: str) -> None:
    """Raises SourceError for a quotation mark that is never closed, which would make one cell of
    all the rows after it."""
    if content.count(b'"') % 2 == 0:
        return
    text = io.StringIO(content.decode(), newline="")
    last = 1
    try:
        for _ in csv.reader(text, delimiter=delimiter, strict=True):
            last += 1
    except csv.Error as error:
        if "unexpected end" in str(error):
            raise SourceError(
                f"{path}, row {last}: a cell begins with a quotation mark that is never closed"
            ) from error


def _broken_row(content: bytes, delimiter: str) -> str | None:
    reader = csv.reader(io.StringIO(content.decode(), newline=""), delimiter=delimiter)
    expected = None
    try:
        for row in reader:
            if not row:
                continue
            expected = len(row) if expected is None else expected
            if len(row) != expected:
                return f"line {reader.line_num}: it has {len(row)} fields, not {expected}"
    except csv.Error as error:
        return f"line {reader.line_num}: {error}"
    return None


def _is_number_type(type: pa.DataType) -> bool:
    return pa.types.is_integer(type) or pa.types.is_floating(type)


def _is_known(type: pa.DataType) -> bool:
    return (
        _is_number_type(type)
        or pa.types.is_boolean(type)
        or is_text(type)
        or pa.types.is_null(type)
    )


def _parse_json(path: Path, content: bytes, schema: pa.Schema | None) -> pa.Table:
    try:
        return pyarrow.json.read_json(
            io.BytesIO(content),
            read_options=pyarrow.json.ReadOptions(block_size=min(len(content) + 1, BLOCK_BYTES)),
            parse_options=pyarrow.json.ParseOptions(explicit_schema=schema),
        )
    except pa.ArrowException as error:
        cause = _broken_line(content) or _shortened(error)
        raise SourceError(f"{path}, {cause}") from error


def _broken_line(content: bytes) -> str | None:
    kinds: dict[str, str] = {}
    for number, line in enumerate(content.split(b"\n"), 1):  # U+2028 ends no line
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            reason = str(error).partition(": line")[0]
            return f"line {number}: {reason}; each line is one JSON object"
        if not isinstance(row, dict):
            return f"line {number}: {NO_OBJECT}"
        for name, value in row.items():
            if half := half_pair(name, value):
                return f"line {number}: {half}"
            kind = _kind(value)
            if kind and kinds.setdefault(name, kind) != kind:
                return (
                    f"line {number}: the column {name!r} holds {kind}, and {kinds[name]} before; "
                    f"a column holds one type"
                )
    return None


def _kind(value: object) -> str | None:
    if value is None:
        return None
    names: dict[type, str] = {bool: "true or false", int: "a number", float: "a number",
                              str: "text", list: "a list", dict: "an object"}  # fmt: skip
    return names[type(value)]


def _lines_of_list(path: Path, content: bytes) -> bytes:
    try:
        rows = json.loads(content)
    except ValueError as error:
        raise SourceError(f"{path}: {error}") from error
    strange = [number for number, row in enumerate(rows) if not isinstance(row, dict)]
    if strange or not rows:
        what = f"entry {strange[0]} is no object" if strange else "the list is empty"
        raise SourceError(f"{path}: {what}; it should be a list of objects, one a row")
    return "\n".join(json.dumps(row) for row in rows).encode()


def _shortened(error: Exception) -> str:
    """Arrow's error message without the row that it appends."""
    text = re.sub(r"^(CSV|JSON) parse error: |^In CSV column #\d+: ", "", str(error))
    return text.splitlines()[0].partition(": ")[0][:120]


DELIMITERS = {".csv": ",", ".tsv": "\t"}
READERS: dict[str, Callable[[Path], pa.Table]] = {
    **{ending: partial(read_csv, delimiter=mark) for ending, mark in DELIMITERS.items()},
    ".jsonl": read_json,
    ".json": read_json,
}
