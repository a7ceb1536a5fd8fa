"""A shard's file mapped into memory, and where in it each row group's logits lie."""

import mmap
from contextlib import suppress

import numpy as np
import pyarrow.parquet as pq

from softlabels.store.gathering import Region
from softlabels.store.pages import logits_chunk, plain_values
from softlabels.store.reader import check_footer
from softlabels.store.records import Plan

SPARE_FILES = 1024


def allow_open_files(more: int) -> None:
    """A map keeps its file open: raise this process's limit where the system lets it."""
    with suppress(ImportError, OSError, ValueError):  # not everywhere is there such a limit
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != resource.RLIM_INFINITY and soft < more + SPARE_FILES:
            wanted = more + SPARE_FILES
            most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def map_file(path: str) -> Region:
    """A file's bytes as memory. Raises OSError, and ValueError for an empty file."""
    with open(path, "rb") as file:
        return Region.of(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def map_logits(path: str, plan: Plan, shard: int, rows: int) -> tuple[Region, np.ndarray] | None:
    """The mapped file and the address of each row group's logits, int64 [groups]; None where one
    of them does not lie there as one run of bytes, and must be decoded.

    Raises DamagedDump for a file that is not this shard, and one of PARQUET_ERRORS.
    """
    region = map_file(path)
    # not read through the map: there the system would read megabytes around each page's header
    with open(path, "rb", buffering=0) as file, pq.ParquetFile(path) as parquet:
        check_footer(parquet, plan, shard, rows)
        offsets = []
        for index in range(parquet.metadata.num_row_groups):
            group = parquet.metadata.row_group(index)
            row_bytes = plan.make_codec().row_bytes
            offset = plain_values(file, logits_chunk(group), group.num_rows, row_bytes)
            if offset is None:
                return None
            offsets.append(offset)
    return region, np.array(offsets, np.int64) + region.address
