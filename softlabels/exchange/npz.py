"""Exports as .npz, one file a shard: `train-00000-of-00004.npz` with these arrays.

    logits or soft_targets   float16 or float32 [N, C]
    ids                      int64 or str [N]
    input_hash               uint64 [N]
    labels                   int64 [N], −1 for none; absent where the dump has none
    inputs                   numbers [N, …]; of images inputs_bytes uint8 and inputs_ends int64 [N]:
                             image i is inputs_bytes[inputs_ends[i − 1] : inputs_ends[i]]

A shard of which every row was left out has no file. No array needs a pickle.
Uncompressed. `softlabels import` reads the ones with logits again.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from softlabels.exchange.rows import Block, Layout


def write(place: Path, layout: Layout, blocks: Iterator[Block]) -> None:
    for block in blocks:
        if not len(block):
            continue
        arrays = {
            layout.values: block.values_NC,
            "ids": block.ids,
            "input_hash": block.hashes,
        }
        if block.labels is not None:
            arrays["labels"] = block.labels
        if isinstance(block.inputs, list):
            arrays["inputs_bytes"] = np.frombuffer(b"".join(block.inputs), np.uint8)
            arrays["inputs_ends"] = np.cumsum([len(cell) for cell in block.inputs], dtype=np.int64)
        elif block.inputs is not None:
            arrays["inputs"] = block.inputs
        name = f"{layout.split}-{block.shard:05d}-of-{layout.shards:05d}.npz"
        np.savez(place / name, allow_pickle=False, **arrays)
