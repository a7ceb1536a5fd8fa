"""From a path to a `Foreign`: what it holds decides, not what it is called."""

import os
import zipfile
from pathlib import Path

from softlabels.errors import SourceError, UsageError
from softlabels.exchange.arrays import open_npy, open_npz, open_pt
from softlabels.exchange.fkd import is_fkd, open_fkd
from softlabels.exchange.foreign import Foreign
from softlabels.exchange.tinyvit import is_tinyvit, open_tinyvit

KNOWN = (
    "a .npy, .npz or .pt of logits, a folder of .npz, a TinyViT folder logits_topK_epochE, or an "
    "FKD folder"
)


def open_foreign(file: str, classes: int | None, data: str) -> Foreign:
    """classes: their number, where it is known without the file; data: the source, for messages.

    Raises SourceError for what is not there or of no known kind, UsageError where the number of
    classes is needed and not known, and what the formats' own modules raise.
    """
    try:
        return _open(Path(os.path.expanduser(file)), classes, data)
    except OSError as error:
        reason = error.strerror or error
        raise SourceError(f"{file} can't be read: {reason}; expected {KNOWN}") from error


def _open(path: Path, classes: int | None, data: str) -> Foreign:
    if path.is_dir():
        return _open_folder(path, classes, data)
    if not path.is_file():
        raise SourceError(f"{path} does not exist; expected {KNOWN}")
    with path.open("rb") as file:
        head = file.read(8)
    if head[:6] == b"\x93NUMPY":
        return open_npy(path)
    if head[:2] == b"PK":
        return _open_zip(path)
    if head[:1] == b"\x80":
        return open_pt(path)
    raise SourceError(f"{path} begins with {head!r}; expected {KNOWN}")


def _open_zip(path: Path) -> Foreign:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception as error:  # of a damaged one, of a dozen kinds
        raise SourceError(f"{path} is cut short or damaged ({error}); copy it again") from error
    if any(name.endswith("/data.pkl") for name in names):
        return open_pt(path)
    return open_npz(path)


def _open_folder(path: Path, classes: int | None, data: str) -> Foreign:
    if (path / "softlabels.json").exists() or (path / "plan.json").exists():
        raise SourceError(f"{path} is a dump of softlabels; it needs no import")
    if any(path.glob("*.npz")):
        return open_npz(path)
    if is_tinyvit(path):
        return open_tinyvit(path, _known(classes, path, data))
    if is_fkd(path):
        return open_fkd(path, _known(classes, path, data))
    raise SourceError(f"{path} holds nothing that can be imported; expected {KNOWN}")


def _known(classes: int | None, path: Path, data: str) -> int:
    if classes is None:
        raise UsageError(
            f"neither {path} nor {data!r} tells how many classes there are; say it with --classes"
        )
    return classes
