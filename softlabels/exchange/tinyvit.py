"""What TinyViT (microsoft/Cream) stores of an epoch: top-k probabilities and a seed, key by key.

    logits_top100_epoch0/
      rank0-keys.txt       one key a line
      rank0-values.bin     a record of 4 + 4·k bytes for each: the seed of its augmentation (int32),
                           the classes (int16 [k]), their probabilities (float16 [k])

k is in the folder's name; the classes are not. Only files of all classes are taken: top-k storage
is not here yet. Of records with the same key the first in the order of the files' names is taken;
its own reader may take another. Shapes: R rows, N rows asked for, C classes.
"""

import re
from pathlib import Path

import numpy as np

from softlabels.errors import LogitsError, SourceError
from softlabels.exchange.foreign import Foreign, make_texts
from softlabels.system.local_files import fold_fingerprint

FOLDER = re.compile(r"logits_top(\d+)_epoch\d+")


def is_tinyvit(place: Path) -> bool:
    return any(place.glob("rank*-values.bin")) or any(
        FOLDER.fullmatch(child.name) for child in place.iterdir()
    )


def open_tinyvit(place: Path, classes: int) -> Foreign:
    """One epoch's folder. Raises SourceError where keys and records don't belong together, and
    LogitsError for top k of more classes."""
    kept = _kept(place, classes)
    record = np.dtype([("seed", "<i4"), ("index", "<i2", (kept,)), ("value", "<f2", (kept,))])
    files = sorted(place.glob("rank*-values.bin"))
    keys: list[str] = []
    parts: list[np.ndarray] = []
    for values in files:
        names = _keys(values.with_name(values.name.replace("-values.bin", "-keys.txt")))
        size = values.stat().st_size
        if size != len(names) * record.itemsize:
            raise SourceError(
                f"{values} has {size:,} bytes; {len(names):,} keys with the top {kept} are "
                f"{len(names) * record.itemsize:,}: k is another, or the file is cut short"
            )
        keys += names
        parts.append(np.memmap(values, record, "r") if names else np.empty(0, record))
    if not keys:
        raise SourceError(f"{place} holds no records")
    texts = make_texts(keys, place)
    ids, firsts = np.unique(texts, return_index=True)
    firsts = np.sort(firsts)  # padding of the sampler lets ranks store a key again
    starts = np.cumsum([0, *map(len, parts)])
    ids = texts[firsts]

    def read(rows: np.ndarray) -> np.ndarray:
        places = firsts[rows]
        numbers = np.searchsorted(starts, places, side="right") - 1
        records = np.empty(len(rows), record)
        for number in np.unique(numbers):
            here = numbers == number
            records[here] = parts[number][places[here] - starts[number]]
        return _by_class(records["value"], records["index"], place)

    repeated = len(keys) - len(ids)
    read(np.arange(1))  # refuse now what would be refused later
    return Foreign(
        kind="tinyvit",
        fingerprint=fold_fingerprint(place, [*files, *place.glob("rank*-keys.txt")]),
        rows=len(ids),
        classes=classes,
        dtype="float32",
        read=read,
        ids=ids,
        keys=True,
        probabilities=True,
        details=f"{repeated} repeated keys ignored" * bool(repeated),
        unproven="rows are taken for those of the images as they are, since the file has a seed "
        "for each and does not tell what was drawn with it",
    )


def _kept(place: Path, classes: int) -> int:
    """k, from the folder's name, which is the number of classes."""
    name = FOLDER.fullmatch(place.resolve().name)
    if name is None:
        epochs = sorted(p.name for p in place.iterdir() if FOLDER.fullmatch(p.name))
        more = f"; it has {', '.join(epochs[:3])}" if epochs else ""
        raise SourceError(
            f"{place} is not called logits_topK_epochE, from which k is known{more}. Name the "
            f"folder of one epoch"
        )
    kept = int(name[1])
    if not 1 <= kept <= classes:
        raise SourceError(
            f"{place} is of the top {kept} of {classes} classes by its name; expected is 1 to "
            f"{classes}. Check the name, --classes and --data"
        )
    if kept < classes:
        raise LogitsError(
            f"{place} keeps the top {kept} of {classes} classes; a dump has the logits of all, and "
            f"top-k storage is not here yet. Store all {classes} (LOGITS_TOPK)"
        )
    return kept


def _by_class(values_NC: np.ndarray, index_NC: np.ndarray, place: Path) -> np.ndarray:
    """Probabilities in the order of the classes, float32 [N, C]."""
    wrong = np.flatnonzero((np.sort(index_NC, 1) != np.arange(index_NC.shape[1])).any(1))
    if len(wrong):
        raise LogitsError(
            f"{place}: a record names the classes {index_NC[wrong[0]][:5].tolist()}, …; expected "
            f"is each of {index_NC.shape[1]} once. Check --classes and --data; else it is damaged"
        )
    p_NC = np.empty(values_NC.shape, np.float32)
    np.put_along_axis(p_NC, index_NC.astype(np.int64), values_NC.astype(np.float32), 1)
    return p_NC


def _keys(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
        return [line.strip() for line in text.removesuffix("\n").split("\n")] if text else []
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path} can't be read: {error}") from error
