"""Thrift's compact encoding, in which Parquet writes its footer, page headers and page indexes.

A struct is {number of the field: (type, value)}, a list (type of its elements, [values]). The
caller knows what fields mean; unknown ones pass through unchanged. Only for bytes that a Parquet
library of this process wrote: this is not a parser for strangers' files.
"""

from typing import Any

TRUE, FALSE, I8, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)
FIXED = {I8: 1, DOUBLE: 8}

Struct = dict[int, tuple[int, Any]]


def i32(value: int) -> tuple[int, Any]:
    return I32, value


def i64(value: int) -> tuple[int, Any]:
    return I64, value


def struct(fields: Struct) -> tuple[int, Any]:
    return STRUCT, fields


def listed(kind: int, values: list[Any]) -> tuple[int, Any]:
    return LIST, (kind, values)


def read_struct(content: bytes, at: int = 0) -> tuple[Struct, int]:
    """The struct that begins at `at`, and the offset behind it.

    Raises ValueError for a type that Parquet does not use, IndexError for a struct that is cut off.
    """
    struct: Struct = {}
    number = 0
    while content[at]:
        step, kind = content[at] >> 4, content[at] & 15
        at += 1
        if step:
            number += step
        else:
            number, at = _read_zigzag(content, at)
        value, at = (None, at) if kind in (TRUE, FALSE) else _read(kind, content, at)
        struct[number] = kind, value
    return struct, at + 1


def write_struct(fields: Struct) -> bytes:
    """The inverse of `read_struct`; fields in the order of their numbers."""
    out = bytearray()
    last = 0
    for number, (kind, value) in sorted(fields.items()):
        step = number - last
        out += bytes([step << 4 | kind]) if 0 < step < 16 else bytes([kind]) + _zigzag(number)
        out += b"" if kind in (TRUE, FALSE) else _write(kind, value)
        last = number
    return bytes(out) + b"\0"


def varint(value: int) -> bytes:
    """A number from 0 on, seven bits a byte, the lowest first."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _read(kind: int, content: bytes, at: int) -> tuple[Any, int]:
    if kind in (I16, I32, I64):
        return _read_zigzag(content, at)
    if kind == STRUCT:
        return read_struct(content, at)
    if kind in (LIST, SET):
        return _read_list(content, at)
    if kind in FIXED:
        length = FIXED[kind]
    elif kind == BINARY:
        length, at = _read_varint(content, at)
    else:
        raise ValueError(f"Thrift's type {kind} is none of Parquet's")
    if at + length > len(content):
        raise IndexError("it is cut off")
    return content[at : at + length], at + length


def _read_list(content: bytes, at: int) -> tuple[Any, int]:
    count, kind = content[at] >> 4, content[at] & 15
    at += 1
    if count == 15:
        count, at = _read_varint(content, at)
    values = []
    for _ in range(count):
        value, at = _read(I8 if kind in (TRUE, FALSE) else kind, content, at)
        values.append(value)
    return (kind, values), at


def _read_varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while content[at] > 127:
        value |= (content[at] & 127) << shift
        shift += 7
        at += 1
    return value | content[at] << shift, at + 1


def _read_zigzag(content: bytes, at: int) -> tuple[int, int]:
    value, at = _read_varint(content, at)
    return value >> 1 ^ -(value & 1), at


def _write(kind: int, value: Any) -> bytes:
    if kind in (I16, I32, I64):
        return _zigzag(value)
    if kind == STRUCT:
        return write_struct(value)
    if kind in FIXED:
        return bytes(value)
    if kind == BINARY:
        return varint(len(value)) + value
    element, values = value
    count = len(values)
    head = bytes([min(count, 15) << 4 | element]) + (varint(count) if count > 14 else b"")
    inner = I8 if element in (TRUE, FALSE) else element
    return head + b"".join(_write(inner, one) for one in values)


def _zigzag(value: int) -> bytes:
    return varint(value << 1 if value >= 0 else -value * 2 - 1)
