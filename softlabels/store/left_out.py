"""The source rows of a shard: those that it stores, and those that were left out of it."""

import numpy as np

from softlabels.inputs.hashing import Fingerprint
from softlabels.store.records import Skipped


def put_back(
    ids: np.ndarray, hashes: np.ndarray, labels: np.ndarray, skipped: list[Skipped], start: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids, input hashes and labels of a shard's source rows, which begin at `start`, in the
    source's order."""
    return (
        _put_back(ids, skipped, start, "id"),
        _put_back(hashes, skipped, start, "input_hash"),
        _put_back(labels, skipped, start, "label"),
    )


def fingerprints(ids: np.ndarray, hashes: np.ndarray, labels: np.ndarray) -> tuple[str, str]:
    """The short fingerprints of the keys of these rows, as the plan has it, and of the rows, as the
    commit has it."""
    keys, rows = Fingerprint(), Fingerprint()
    keys.update(ids, labels)
    rows.update(ids, hashes, labels)
    return keys.short, rows.short


def _put_back(stored: np.ndarray, skipped: list[Skipped], start: int, name: str) -> np.ndarray:
    if not skipped:
        return stored
    entries = sorted(skipped, key=lambda entry: entry.row)
    kind = np.str_ if stored.dtype.kind == "U" else stored.dtype
    values = np.array([getattr(entry, name) for entry in entries], dtype=kind)
    places = np.array([entry.row - start for entry in entries])
    whole = np.empty(len(stored) + len(values), np.result_type(stored.dtype, values.dtype))
    kept = np.ones(len(whole), bool)
    kept[places] = False
    whole[places], whole[kept] = values, stored
    return whole
