"""The page of a compact dump's logits: bytes of one place beside each other, packed with zstd.

The lower bytes of logits are noise; the upper ones (sign, exponent, the mantissa's first bits)
repeat, and pack well once they stand together. That is Parquet's BYTE_STREAM_SPLIT: the first
bytes of all values, then all second bytes, and so on. Shapes: N rows, C classes.
"""

import zlib

import numpy as np
import pyarrow as pa

from softlabels.store.levels import page_levels
from softlabels.store.pages import DATA_PAGE, HEADER_BYTES, read_page_header

RLE, BYTE_STREAM_SPLIT = 3, 9
ZSTD_LEVEL = 1  # 3 is no smaller


def pack_page(levels: bytes, values_NC: np.ndarray) -> memoryview:
    """A page's levels and its values, float16 or float32, split and packed."""
    words = _as_words(values_NC)
    body = np.empty(len(levels) + values_NC.nbytes, np.uint8)
    body[: len(levels)] = np.frombuffer(levels, np.uint8)
    streams = body[len(levels) :].reshape(values_NC.itemsize, -1)
    for place, stream in enumerate(streams):
        np.right_shift(words, 8 * place, out=stream, casting="unsafe")
    return memoryview(pa.Codec("zstd", compression_level=ZSTD_LEVEL).compress(body))


def unpack_chunk(
    content: bytes, rows: int, classes: int, dtype: str, out: np.ndarray | None = None
) -> np.ndarray | None:
    """The logits [N, C] of a row group from the bytes of its column chunk, several times as fast as
    Arrow decodes lists; None where they are not exactly one sound page as `pack_page` makes it.

    `content` runs from the chunk's data_page_offset over its total_compressed_size bytes; `rows`,
    `classes` and `dtype` (float16 or float32) are those that the plan and the footer promise. No
    more memory is asked for than they need, and none for the values where `out` has room for them:
    contiguous [N, C] of that dtype, untouched if the answer is None. A wrong checksum is a None
    too: Arrow will say it.
    """
    try:
        header, start = read_page_header(bytes(content[:HEADER_BYTES]))
    except (IndexError, ValueError):
        return None
    levels, width = page_levels(rows, classes), np.dtype(dtype).itemsize
    body = memoryview(content)[start:]
    wanted = {
        "type": DATA_PAGE,
        "encoding": BYTE_STREAM_SPLIT,
        "definition_encoding": RLE,
        "repetition_encoding": RLE,
        "values": rows * classes,
        "uncompressed": len(levels) + rows * classes * width,
        "compressed": len(body),
    }
    if any(header.get(name) != value for name, value in wanted.items()):
        return None
    if "crc" not in header or header["crc"] & 0xFFFFFFFF != zlib.crc32(body):
        return None
    try:
        page = pa.decompress(body, decompressed_size=wanted["uncompressed"], codec="zstd")
    except (pa.ArrowException, OSError, ValueError):
        return None
    if bytes(memoryview(page)[: len(levels)]) != levels:
        return None
    streams = np.frombuffer(page, np.uint8, offset=len(levels)).reshape(width, rows * classes)
    values = np.empty((rows, classes), dtype) if out is None else out
    assert values.flags.c_contiguous, "it is written through a view"
    assert (values.shape, values.dtype) == ((rows, classes), np.dtype(dtype))
    words = values.reshape(-1).view(f"u{width}")
    words[:] = streams[-1]
    for stream in streams[-2::-1]:
        np.left_shift(words, 8, out=words)
        np.bitwise_or(words, stream, out=words)
    return values


def _as_words(values_NC: np.ndarray) -> np.ndarray:
    """Values as whole numbers whose lowest byte is the first one in the file."""
    kind = values_NC.dtype.newbyteorder("<")
    return np.ascontiguousarray(values_NC, kind).reshape(-1).view(f"<u{kind.itemsize}")
