"""What an export's writers get: how rows look, and the rows of one shard after another.

Shapes: N rows of a shard, C classes.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Layout:
    """What holds for all rows. values: `logits` or `soft_targets`; dtype: of these."""

    split: str
    shards: int
    classes: int
    values: str
    dtype: str
    text_ids: bool
    labelled: bool


@dataclass(frozen=True)
class Block:
    """The rows of one shard.

    start: the first one's number in the dump; ids: int64 or str [N]; hashes: uint64 [N];
    labels: int64 [N], −1 for none, or None; values_NC: logits as stored, or soft targets (float32);
    inputs: encoded images, numbers [N, …], or None.
    """

    shard: int
    start: int
    ids: np.ndarray
    hashes: np.ndarray
    labels: np.ndarray | None
    values_NC: np.ndarray
    inputs: list[bytes] | np.ndarray | None

    def __len__(self) -> int:
        return len(self.ids)
