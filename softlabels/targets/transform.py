"""Soft targets for those who stay with `datasets`."""

from pathlib import Path
from typing import Any

import datasets
import numpy as np

from softlabels.errors import AlignmentError, UsageError
from softlabels.targets.joining import find_ids
from softlabels.targets.loading import load
from softlabels.targets.soft_dataset import Dump


def with_soft_targets(
    dataset: datasets.Dataset, dump: str | Path, T: float, **words: Any
) -> datasets.Dataset:
    """The same dataset with `logits` (stored dtype [N, C]) and `soft_target` (float32 [N, C]) of a
    dump, as a transform: nothing is computed before a row is asked for.

    `dataset` is `datasets.load_dataset(DIR)` of the dump or any other with its column `id`, in any
    order. Its other columns come as `set_transform` gives them, but for `input_hash`, which torch
    can't collate. Logits are read from the dump's mapped files, not through Python lists; `words`
    are those of `load`, such as `keep`.

    Raises UsageError for something else than a Dataset with ids, AlignmentError in a batch that has
    ids which the dump has not.
    """
    if not isinstance(dataset, datasets.Dataset):
        raise UsageError(
            f"dataset is a {type(dataset).__name__}; give one split, such as dataset['train']"
        )
    if "id" not in dataset.column_names:
        raise UsageError(f"dataset has no column id; it has {', '.join(dataset.column_names)}")
    found = load(dump, T, inputs=False, **words)
    assert isinstance(found, Dump), "one folder was named"
    others = [name for name in dataset.column_names if name not in ("logits", "input_hash")]
    return dataset.with_transform(_Transform(found), columns=others)


class _Transform:
    def __init__(self, found: Dump) -> None:
        self.found = found
        ids = found.reader.ids
        counted = ids.dtype.kind == "i" and np.array_equal(ids, np.arange(len(ids)))
        self.order = None if counted else np.argsort(ids, kind="stable")

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        taken = self.found.take(self._rows(np.asarray(batch["id"])))
        return batch | {"logits": taken["logits"], "soft_target": taken["soft_target"]}

    def _rows(self, ids: np.ndarray) -> np.ndarray:
        known = self.found.reader.ids
        if ids.dtype.kind != known.dtype.kind:
            rows = np.full(len(ids), -1)
        elif self.order is not None:
            rows = find_ids(known, ids, self.order)
        else:
            rows = np.where((ids >= 0) & (ids < len(known)), ids, -1)
        if len(rows) and rows.min() < 0:
            missing = ids[rows < 0]
            raise AlignmentError(
                f"{len(missing)} of {len(ids)} rows are not in {self.found.reader.folder}: first "
                f"the ids {', '.join(map(str, missing[:5]))}"
            )
        return rows

    def __reduce__(self) -> tuple:
        return _Transform, (self.found,)
