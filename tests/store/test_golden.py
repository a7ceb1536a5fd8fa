"""The bytes of a plain dump's logits, which never change: a published file is the memory map."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from softlabels.store.folder import Folder
from tests.dumps import make_plan, write_shard

PAGES = {
    ("float16", 5, 32): "d9231e6fcddf904ad3fa51a028e43cbb4d3d5028e181acc498115a58ba9df71a",
    ("float32", 5, 32): "acb912cc9bab943814c47e2731871251cbff420969f6dd532a2ca90b81966c8d",
    ("float16", 37, 16): "f4d0e1f46180d11ae2e0df063ea1507f392220e11792a07e5181bbeead70bcbe",
    ("float32", 1, 64): "687cd583731dbfb6800e7106bc133d1f740b8f41aef5c21ee8074687fb6837db",
}


def logits_pages(path: Path, dtype: str) -> bytes:
    """Header, levels and values of each row group's logits, and where they begin."""
    content, metadata = path.read_bytes(), pq.ParquetFile(path).metadata
    found = b""
    for group in range(metadata.num_row_groups):
        chunk = metadata.row_group(group).column(metadata.num_columns - 1)
        assert chunk.path_in_schema == "logits.list.element"
        assert (chunk.compression, chunk.has_dictionary_page) == ("UNCOMPRESSED", False)
        start = chunk.data_page_offset
        found += content[start : start + chunk.total_compressed_size]
        width = 2 if dtype == "float16" else 4
        values = start + chunk.total_compressed_size - chunk.num_values * width
        assert values % 64 == 0
    return found


@pytest.mark.parametrize(("dtype", "classes", "group"), PAGES)
def test_pages_of_plain_logits_are_the_same_bytes_as_ever(tmp_path, dtype, classes, group):
    logits = (np.arange(100 * classes).reshape(100, classes) * 37 % 101 / 8 - 6).astype(dtype)
    plan = make_plan(100, classes, dtype, group)
    write_shard(Folder(tmp_path), plan, 0, logits, batch=23)
    pages = logits_pages(tmp_path / plan.file(0), dtype)
    assert hashlib.sha256(pages).hexdigest() == PAGES[dtype, classes, group]
