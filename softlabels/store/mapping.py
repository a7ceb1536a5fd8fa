"""A shard's file mapped into memory, and where in it the mapped columns of each row group lie."""

import mmap
from contextlib import suppress

import numpy as np
import pyarrow.parquet as pq

from softlabels.store.footers import check_footer
from softlabels.store.gathering import Region
from softlabels.store.pages.places import plain_values
from softlabels.store.records import Plan

SPARE_FILES = 1024


def allow_open_files(more: int) -> None:
    """Raise this process's limit of open files as far as the system lets it: each map keeps its
    file open."""
    with suppress(ImportError, OSError, ValueError):  # not everywhere is there such a limit
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != resource.RLIM_INFINITY and soft < more + SPARE_FILES:
            needed = more + SPARE_FILES
            most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def map_file(path: str) -> Region:
    """A file's bytes as memory. Raises OSError, and ValueError for an empty file."""
    with open(path, "rb") as file:
        return Region.of(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def map_columns(
    path: str, plan: Plan, shard: int, rows: int
) -> tuple[Region, dict[str, np.ndarray]] | None:
    """The mapped file, and for each mapped column the addresses of its values, int64 [row groups].
    None if the values of a row group are not one run of bytes, so that they have to be decoded.

    Raises DamagedDump for a file that is not this shard, and one of PARQUET_ERRORS.
    """
    region, columns = map_file(path), plan.make_codec().mapped
    offsets: dict[str, list[int]] = {column.name: [] for column in columns}
    # headers are not read through the map, where the system would read megabytes around each
    with open(path, "rb", buffering=0) as file, pq.ParquetFile(path) as parquet:
        check_footer(parquet, plan, shard, rows)
        for index in range(parquet.metadata.num_row_groups):
            group = parquet.metadata.row_group(index)
            for column in columns:
                offset = plain_values(file, group, column)
                if offset is None:
                    return None
                offsets[column.name].append(offset)
    return region, {n: np.array(o, np.int64) + region.address for n, o in offsets.items()}
