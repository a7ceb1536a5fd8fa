"""Row groups of logits that don't lie in their file as they are: compressed, or of other writers.

Shapes: N rows of a row group, C classes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

import numpy as np
import pyarrow.parquet as pq

from softlabels.errors import DamagedDump
from softlabels.store.folder import Folder
from softlabels.store.reader import PARQUET_ERRORS, REDO, check_footer
from softlabels.store.records import Plan


class ShardDecoder:
    """Decodes row groups of one shard, page checksums verified; several threads may at once.

    A file elsewhere is read by ranges.
    """

    def __init__(self, folder: Folder, plan: Plan, shard: int, rows: int) -> None:
        self.folder, self.plan, self.shard, self.rows = folder, plan, shard, rows
        self.codec = plan.make_codec()

    def decode(self, group: int) -> np.ndarray:
        """The logits of a row group, [N, C] in the stored dtype. Raises DamagedDump."""
        name = self.plan.file(self.shard)
        try:
            with self._opened(self._metadata) as parquet:
                table = parquet.read_row_group(group, columns=["logits"], use_threads=False)
            return self.codec.decode(table["logits"])
        except FileNotFoundError as error:
            raise DamagedDump(f"{self.folder}/{name} is missing; {REDO}") from error
        except (DamagedDump, *PARQUET_ERRORS) as error:
            raise DamagedDump(f"{self.folder}/{name} is damaged: {error}; {REDO}") from error

    @cached_property
    def _metadata(self) -> pq.FileMetaData:
        with self._opened(None) as parquet:
            check_footer(parquet, self.plan, self.shard, self.rows)
            return parquet.metadata

    @contextmanager
    def _opened(self, metadata: pq.FileMetaData | None) -> Iterator[pq.ParquetFile]:
        name = self.plan.file(self.shard)
        words = {"metadata": metadata, "page_checksum_verification": True}
        if self.folder.is_local:
            with pq.ParquetFile(self.folder.path(name), **words) as parquet:
                yield parquet
            return
        with self.folder.open(name) as file, pq.ParquetFile(file, **words) as parquet:
            yield parquet
