"""What FKD (szq0214/FKD) stores: one torch file an image, of its crops and their soft labels.

    train/n01440764/n01440764_10026.tar     [coords [V, 4], flips [V], labels]

    labels   [V, C]       the probabilities of all classes
             [V, 2, K]    marginal: classes and probabilities of the top K
             [V, 2]       smoothing: the top class and its probability
             [V]          hard: the top class, and nothing else

Only the first is taken, of one crop that is the whole image (coordinates 0, 0, 1, 1, no flip):
top-k storage and views are not here yet. The files are pickles; they are read as tensors, arrays
and plain values, or not at all. An image's key is its file's path in the folder, without `.tar`.
Shapes: N rows asked for, V crops of an image, C classes, K kept classes.
"""

from pathlib import Path
from typing import Any

import numpy as np

from softlabels.errors import AlignmentError, LogitsError, SourceError
from softlabels.exchange.arrays import as_array
from softlabels.exchange.foreign import Foreign
from softlabels.exchange.torch_files import load_torch
from softlabels.system.local_files import fold_fingerprint


def is_fkd(place: Path) -> bool:
    return next(place.rglob("*.tar"), None) is not None


def open_fkd(place: Path, classes: int) -> Foreign:
    """All .tar files below a folder; each is opened when its row is read.

    Raises UntrustedPickle, SourceError, LogitsError for labels that don't give the probabilities of
    all classes, and AlignmentError for crops.
    """
    files = sorted(place.rglob("*.tar"))
    keys = [path.relative_to(place).with_suffix("").as_posix() for path in files]

    def read(rows: np.ndarray) -> np.ndarray:
        return np.stack([_read(files[row], classes) for row in rows.tolist()])

    read(np.arange(1))
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
    )


def _read(path: Path, classes: int) -> np.ndarray:
    """The probabilities of one image, float32 [C]."""
    content = load_torch(path, _numpy_globals())
    if not isinstance(content, list | tuple) or len(content) != 3:
        raise SourceError(f"{path} is no FKD file; expected [coordinates, flips, soft labels]")
    names = ("coordinates", "flips", "labels")
    pairs = zip(content, names, strict=True)
    coordinates, flips, labels = (as_array(part, f"{path}: {name}") for part, name in pairs)
    _check_labels(path, labels, classes)
    whole = coordinates.size == 4 and (coordinates.reshape(-1) == [0, 0, 1, 1]).all()
    if len(labels) > 1 or not whole or flips.any():
        crops = f"{len(labels)} crops" if len(labels) > 1 else "a crop, or a mirror image,"
        raise AlignmentError(
            f"{path} is of {crops} of its image; a dump has a row for each image as it is, and "
            f"views are not here yet. Expected is one crop: coordinates 0, 0, 1, 1 and no flip"
        )
    p_C: np.ndarray = labels[0].astype(np.float32)
    return p_C


def _check_labels(path: Path, labels: np.ndarray, classes: int) -> None:
    """Raises LogitsError for top k and hard labels, SourceError for what is no label."""
    shape = list(labels.shape)
    if labels.dtype.kind not in "fiu" or not 1 <= labels.ndim <= 3 or not len(labels):
        raise SourceError(
            f"{path} has labels of {labels.dtype}, shape {shape}; expected numbers, one entry for "
            f"each crop"
        )
    if labels.ndim == 1:
        raise LogitsError(
            f"{path} holds the top class alone (hard labels); there are no probabilities to take "
            f"logarithms of"
        )
    if labels.ndim == 2 and shape[1] == classes:
        return
    if shape[1] == 2:
        kept = shape[2] if labels.ndim == 3 else 1
        raise LogitsError(
            f"{path} keeps the top {kept} of {classes} classes; a dump has the logits of all, and "
            f"top-k storage is not here yet. Store the soft labels of all classes"
        )
    raise SourceError(
        f"{path} has labels of the shape {shape}; expected is [1, {classes}]. Check --classes and "
        f"--data"
    )


def _numpy_globals() -> list[Any]:
    """What a pickled array of numbers names: numpy's own constructors, which build arrays and
    dtypes and do nothing else. Older files have an older name for the first."""
    rebuild = np.ndarray.__reduce__(np.empty(0))[0]
    kinds = {type(np.dtype(code)) for code in ("f2", "f4", "f8", "i2", "i4", "i8", "u1", "?")}
    names = ("numpy._core.multiarray._reconstruct", "numpy.core.multiarray._reconstruct")
    return [*((rebuild, name) for name in names), np.ndarray, np.dtype, *kinds]
