"""What an import reads: rows of numbers that another program stored, and what it said of them.

Shapes: R rows of the file, N rows asked for, C classes, V views of a row, K kept classes.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from softlabels.errors import LogitsError, SourceError, UntrustedPickle

EXACT = 2048  # the whole numbers up to here are float16, each of them

MAX_TEXT = 1024


@dataclass(frozen=True)
class Foreign:
    """A file or folder, opened.

    kind: npy, npz, pt, tinyvit or fkd; fingerprint: `sha256:` of what it is; rows: R; classes: C;
    dtype: the name of that of the numbers; read(rows [N]) → [N, C].

    What the file holds beside them, None where it doesn't: ids, int64 or str [R]; labels, int64
    [R]; hashes, uint64 [R]. keys: the ids are names that a --ids object may translate. augmented:
    on what the rows were made, if not on the inputs as they are. words: how else rows were made
    from the file, for the record. probabilities: the format has nothing else.
    partial: classes are left out. views: how many of a row the file holds.
    """

    kind: str
    fingerprint: str
    rows: int
    classes: int
    dtype: str
    read: Callable[[np.ndarray], np.ndarray]
    ids: np.ndarray | None = None
    keys: bool = False
    labels: np.ndarray | None = None
    hashes: np.ndarray | None = None
    augmented: str = ""
    words: str = ""
    probabilities: bool = False
    partial: bool = False
    views: int = 1


def fold_fingerprint(place: Path, files: Iterable[Path]) -> str:
    """The fingerprint of several files: of the lines `HEX  NAME` that `sha256sum` prints, in the
    order of their names below `place`."""
    whole = hashlib.sha256()
    for name, path in sorted((path.relative_to(place).as_posix(), path) for path in files):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        whole.update(f"{digest}  {name}\n".encode())
    return "sha256:" + whole.hexdigest()


def make_texts(values: Sequence[str], what: object) -> np.ndarray:
    """Texts as an array, str [R]. Raises SourceError for one that no id is as long as: numpy gives
    each the room of the longest."""
    longest = max(values, key=len, default="")
    if len(longest) > MAX_TEXT:
        raise SourceError(
            f"{what} has a text of {len(longest):,} characters, {longest[:20]!r}…; ids have "
            f"{MAX_TEXT:,} at most. Is it one id a line?"
        )
    return np.array(values, np.str_)


def spread(
    values_VK: np.ndarray, index_VK: np.ndarray, classes: int, tail: str | None, who: str
) -> np.ndarray:
    """Top-k probabilities → probabilities of all classes, float32 [V, C].

    With tail `uniform`, each class that was not kept gets an even part of what is left of 1; this
    may be 0 where the kept ones sum to 1 in their precision, and is never below. Raises LogitsError
    where classes are missing and `tail` is None, and for indices that are no classes, come twice or
    are stored in a dtype that rounds them.
    """
    kept = values_VK.shape[1]
    if kept < classes and tail is None:
        raise LogitsError(
            f"{who} keeps the top {kept} of {classes} classes; the logits of the others are not "
            f"there, and a dump has those of all. --tail uniform takes what is left of 1 as spread "
            f"evenly over them, as the training of TinyViT does, and that of FKD with smoothing "
            f"labels but not with marginal_renorm"
        )
    if index_VK.dtype == np.float16 and classes > EXACT:
        raise LogitsError(
            f"{who} names classes in float16, which tells them apart up to {EXACT:,}; there are "
            f"{classes:,}. Store the labels again in float32 (FKD: without --use_fp16)"
        )
    with np.errstate(invalid="ignore"):
        whole_VK = np.isfinite(index_VK) & (index_VK == np.floor(index_VK))
    if not whole_VK.all():
        raise LogitsError(
            f"{who} names the class {index_VK[~whole_VK][0]}; classes are whole numbers. Are these "
            f"the labels of another kind, or of another number of --classes?"
        )
    index_VK = index_VK.astype(np.int64)
    if index_VK.size and (index_VK.min() < 0 or index_VK.max() >= classes):
        wrong = index_VK.min() if index_VK.min() < 0 else index_VK.max()
        raise LogitsError(
            f"{who} names the class {wrong}; there are {classes}. Check --classes and --data (an "
            f"int16 of TinyViT ends at 32,767)"
        )
    ordered_VK = np.sort(index_VK, axis=1)
    if (ordered_VK[:, 1:] == ordered_VK[:, :-1]).any():
        raise LogitsError(f"{who} has a row that names a class twice; the file is damaged")
    values_VK = values_VK.astype(np.float32)
    left_V = np.maximum(0, 1 - values_VK.sum(1, dtype=np.float64)) / max(1, classes - kept)
    found_VC = np.repeat(left_V.astype(np.float32)[:, None], classes, 1)
    np.put_along_axis(found_VC, index_VK, values_VK, 1)
    return found_VC


def look_at_dtype(dtype: str, wanted: str | None, where: object, probabilities: bool) -> None:
    """Raises LogitsError for numbers that are no floats; and for logits that are no float16 or
    float32, unless the user chose what they become."""
    if dtype in ("float16", "float32"):
        return
    if dtype not in ("float64", "bfloat16"):
        what = "probabilities are floats" if probabilities else "logits are float16 or float32"
        raise LogitsError(f"{where} holds {dtype}; {what}. Save the numbers as float32")
    if probabilities:
        return
    if wanted is None:
        raise LogitsError(
            f"{where} holds {dtype}; logits are stored as float16 or float32: say "
            f"--dtype float32 to round them"
        )


def look_at_shape(shape: tuple[int, ...], where: object) -> None:
    """Raises SourceError unless it is [R, C] with at least one of each."""
    if len(shape) != 2 or 0 in shape:
        raise SourceError(
            f"{where} has the shape {list(shape)}; expected is [rows, classes], one row of logits "
            f"for each example"
        )


def unreadable(path: Path, error: Exception) -> Exception:
    """What the reader of a file ended in, as an error that says why."""
    if "contains pickled" in str(error):  # what numpy says of all that it doesn't know
        return SourceError(f"{path} is no .npy or .npz; save the numbers with np.save")
    if "allow_pickle" in str(error) or "Python objects" in str(error):
        return UntrustedPickle(
            f"{path} holds Python objects (a pickle), and loading it could run code. Save plain "
            f"numbers or texts: ids as whole numbers or with dtype=str"
        )
    shown = next(iter(str(error).splitlines()), "")[:200] or type(error).__name__
    return SourceError(f"{path} can't be read: {shown}. Is it whole? Copy or save it again")
