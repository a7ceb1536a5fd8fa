"""What an import reads: rows of numbers that another program stored, and what their file tells.

Shapes: R rows of the file, N rows asked for, C classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from softlabels.errors import LogitsError, SourceError, UntrustedPickle

MAX_TEXT = 1024


@dataclass(frozen=True)
class Foreign:
    """A file or folder, opened.

    kind: npy, npz, pt, tinyvit or fkd; fingerprint: `sha256:` of what it is; rows: R; classes: C;
    dtype: the name of that of the numbers; read(rows [N]) → [N, C].

    What the file holds beside them, None where it doesn't: ids, int64 or str [R]; labels, int64
    [R]; hashes, uint64 [R]. keys: the ids are names that a --ids object may translate. details: how
    else rows were made from the file, for the record. unproven: what the file should tell and
    doesn't, for a warning. probabilities: the format has nothing else.
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
    details: str = ""
    unproven: str = ""
    probabilities: bool = False


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


def look_at_dtype(dtype: str, chosen: str | None, where: object, probabilities: bool) -> None:
    """Raises LogitsError for numbers that are no floats; and for logits that are no float16 or
    float32, unless the user chose what they become."""
    if dtype in ("float16", "float32"):
        return
    if dtype not in ("float64", "bfloat16"):
        what = "probabilities are floats" if probabilities else "logits are float16 or float32"
        raise LogitsError(f"{where} holds {dtype}; {what}. Save the numbers as float32")
    if probabilities:
        return
    if chosen is None:
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
