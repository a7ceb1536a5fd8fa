"""The source rows of a shard: those that it stores, and those that were left out of it."""

import numpy as np

from softlabels.inputs.hashing import Fingerprint
from softlabels.inputs.label_lists import LabelLists, Labels, joined, of_records
from softlabels.store.records import Skipped


def put_back(
    ids: np.ndarray, hashes: np.ndarray, labels: Labels, skipped: list[Skipped], start: int
) -> tuple[np.ndarray, np.ndarray, Labels]:
    """Ids, input hashes and labels of a shard's source rows, which begin at `start`, in the
    source's order."""
    if not skipped:
        return ids, hashes, labels
    entries = sorted(skipped, key=lambda entry: entry.row)
    places = np.array([entry.row - start for entry in entries])
    kept = np.ones(len(ids) + len(places), bool)
    kept[places] = False
    order = np.empty(len(kept), np.int64)  # of what is stored, followed by what was left out
    order[kept], order[places] = np.arange(len(ids)), len(ids) + np.arange(len(places))
    kind = np.str_ if ids.dtype.kind == "U" else ids.dtype
    others = np.array([entry.id for entry in entries], dtype=kind)
    more = np.array([entry.input_hash for entry in entries], dtype=hashes.dtype)
    left = of_records([e.label for e in entries], isinstance(labels, LabelLists))
    return (
        np.concatenate([ids, others])[order],
        np.concatenate([hashes, more])[order],
        joined([labels, left])[order],
    )


def fingerprints(ids: np.ndarray, hashes: np.ndarray, labels: Labels) -> tuple[str, str]:
    """The short fingerprints of the keys of these rows, as the plan has it, and of the rows, as the
    commit has it."""
    keys, rows = Fingerprint(), Fingerprint()
    keys.update(ids, labels)
    rows.update(ids, hashes, labels)
    return keys.short, rows.short
