"""Whether inputs have had their stored hashes before: then they need not be hashed again."""

import hashlib
import json
import os
import time

import numpy as np
import pyarrow

from softlabels.inputs.sources import Source
from softlabels.system.cache import LocalCache

SETTLED_SECONDS = 2.0  # a file that was changed just now may change again within the same tick


class Checked:
    """Of chosen rows of a source, remembered in the cache by the files that hold it (device, inode,
    size, time of change, and when the file system last noted one), the columns, the rows and their
    hashes. Of data in memory nothing is remembered.

    are_known: whether the inputs had these hashes, all of them, in an earlier run.
    """

    def __init__(
        self, cache: LocalCache, source: Source, positions: np.ndarray, hashes: np.ndarray
    ) -> None:
        self.cache, self.source = cache, source
        self.opened = time.time()
        self.what = hashlib.sha256()
        for part in (positions.astype("<i8"), hashes.astype("<u8")):
            self.what.update(part.tobytes())
        self.key = self._key()
        self.are_known = self.key is not None and cache.is_noted(self.key)

    def remember(self) -> bool:
        """All rows have been read and had their hashes. Whether that will be known later: the files
        did not change meanwhile."""
        holds = self.key is not None and self.key == self._key()
        if self.key is not None and holds and not self.are_known:
            self.cache.note(self.key)
        return holds

    def _key(self) -> str | None:
        files, states = self.source.table.files, []
        for path, mark in files or ():
            try:
                state = os.stat(path)
            except OSError:
                return None
            young = self.opened - max(state.st_mtime, state.st_ctime) < SETTLED_SECONDS
            if young or (state.st_size, state.st_mtime_ns) != mark:
                return None
            # cp -p, rsync and tar set the time of change, and unpacked data often share one, as
            # inodes are used again; no program sets st_ctime
            states.append([state.st_dev, state.st_ino, *mark, state.st_ctime_ns])
        how = [self.source.columns.inputs, pyarrow.__version__]  # which reads the numbers
        return json.dumps([states, how, self.what.hexdigest()]) if states else None
