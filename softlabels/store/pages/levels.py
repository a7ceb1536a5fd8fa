"""The levels of a page of equally long lists without nulls, which don't depend on the values."""

from functools import lru_cache

import numpy as np

from softlabels.store.pages.thrift import varint

PACKED_UP_TO = 32  # values a list; for longer lists, runs are shorter than a bit for each value


@lru_cache(maxsize=8)
def page_levels(rows: int, classes: int) -> bytes:
    """The levels of `rows` lists of `classes` values each, none of them null, in a version 1 page.

    A repetition level is 0 where a list begins and 1 inside it: eight of them packed, then a run of
    ones. Every definition level is 1.
    """
    count = rows * classes
    if classes == 1:
        repetition = varint(count << 1) + b"\0"
    elif classes <= PACKED_UP_TO:
        eights = -(-count // 8)
        bits = np.ones(eights * 8, np.uint8)
        bits[:count:classes] = 0
        repetition = varint(eights << 1 | 1) + np.packbits(bits, bitorder="little").tobytes()
    else:
        repetition = (b"\x03\xfe" + varint(classes - 8 << 1) + b"\x01") * rows
    return b"".join(
        len(levels).to_bytes(4, "little") + levels
        for levels in (repetition, varint(count << 1) + b"\x01")
    )
