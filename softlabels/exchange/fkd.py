"""What FKD (szq0214/FKD) stores: one torch file an image, of its crops and their soft labels.

    train/n01440764/n01440764_10026.tar     [coords [V, 4], flips [V], labels]

    labels   [V, C]       the probabilities of all classes
             [V, 2, K]    marginal: classes and probabilities of the top K
             [V, 2]       smoothing: the top class and its probability
             [V]          hard: the top class, and nothing else

The files are pickles; they are read as tensors, arrays and plain values, or not at all. An image's
key is its file's path in the folder, without `.tar`. Shapes: N rows asked for, V crops of an image,
C classes, K kept classes.
"""

from pathlib import Path
from typing import Any

import numpy as np

from softlabels.errors import LogitsError, SourceError
from softlabels.exchange.arrays import as_array
from softlabels.exchange.foreign import Foreign, fold_fingerprint, spread
from softlabels.exchange.torch_files import load_torch


def is_fkd(place: Path) -> bool:
    return next(place.rglob("*.tar"), None) is not None


def open_fkd(place: Path, classes: int, tail: str | None, views: str | None) -> Foreign:
    """All .tar files below a folder; each is opened when its row is read.

    views: `first` or `mean` of an image's crops. Raises UntrustedPickle, SourceError, and
    LogitsError for labels that don't give the probabilities of all classes.
    """
    files = sorted(place.rglob("*.tar"))
    keys = [path.relative_to(place).with_suffix("").as_posix() for path in files]

    def read(rows: np.ndarray) -> np.ndarray:
        paths = [files[row] for row in rows.tolist()]
        return np.stack([_one(path, labels, classes, tail, views) for path in paths])

    labels = _labels(files[0])
    read(np.arange(1))
    kind = "all classes" if _is_full(labels, classes) else f"top {_kept(labels)} of {classes}"
    return Foreign(
        kind="fkd",
        fingerprint=fold_fingerprint(place, files),
        rows=len(files),
        classes=classes,
        dtype="float32",
        read=read,
        ids=np.array(keys, np.str_),
        keys=True,
        probabilities=True,
        partial=not _is_full(labels, classes),
        views=len(labels),
        augmented=f"{len(labels)} crops an image, whose coordinates and flips are dropped",
        words=kind,
    )


def _one(
    path: Path, first: np.ndarray, classes: int, tail: str | None, views: str | None
) -> np.ndarray:
    """The probabilities of one image, float32 [C]; its labels look like the first one's."""
    labels = _labels(path)
    if (labels.shape, labels.dtype) != (first.shape, first.dtype):
        raise SourceError(
            f"{path} has labels of {labels.dtype}, shape {list(labels.shape)}; the first file's "
            f"are {first.dtype}, {list(first.shape)}. All files are of one run; move the others "
            f"away"
        )
    labels = labels if views == "mean" else labels[:1]
    if labels.ndim == 1:
        raise LogitsError(
            f"{path} holds the crops' top classes alone (hard labels); there are no probabilities "
            f"to take logarithms of"
        )
    if _is_full(labels, classes):
        found_VC = labels.astype(np.float32)
    elif labels.ndim == 3 and labels.shape[1] == 2:
        found_VC = spread(labels[:, 1], labels[:, 0], classes, tail, str(path))
    elif labels.ndim == 2 and labels.shape[1] == 2:
        found_VC = spread(labels[:, 1:], labels[:, :1], classes, tail, str(path))
    else:
        raise SourceError(
            f"{path} has labels of the shape {list(labels.shape)}; expected [crops, {classes}], "
            f"[crops, 2, k] or [crops, 2]. Check --classes and --data"
        )
    mean_C: np.ndarray = found_VC.mean(0, dtype=np.float32)
    return mean_C


def _labels(path: Path) -> np.ndarray:
    content = load_torch(path, _numpy_globals())
    if not isinstance(content, list | tuple) or len(content) != 3:
        raise SourceError(f"{path} is no FKD file; expected [coordinates, flips, soft labels]")
    labels = as_array(content[2], f"{path}: labels")
    if labels.dtype.kind not in "fiu" or not 1 <= labels.ndim <= 3 or not len(labels):
        raise SourceError(
            f"{path} has labels of {labels.dtype}, shape {list(labels.shape)}; expected numbers, "
            f"one entry for each crop"
        )
    return labels


def _is_full(labels: np.ndarray, classes: int) -> bool:
    return labels.ndim == 2 and labels.shape[1] == classes


def _kept(labels: np.ndarray) -> int:
    return int(labels.shape[2]) if labels.ndim == 3 else 1


def _numpy_globals() -> list[Any]:
    """What a pickled array of numbers names: numpy's own constructors, which build arrays and
    dtypes and do nothing else. Older files have an older name for the first."""
    rebuild = np.ndarray.__reduce__(np.empty(0))[0]
    kinds = {type(np.dtype(code)) for code in ("f2", "f4", "f8", "i2", "i4", "i8", "u1", "?")}
    names = ("numpy._core.multiarray._reconstruct", "numpy.core.multiarray._reconstruct")
    return [*((rebuild, name) for name in names), np.ndarray, np.dtype, *kinds]
