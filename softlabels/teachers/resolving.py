"""Which loader reads a teacher's file. The contents decide, never the name."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from softlabels.errors import TeacherError, UsageError
from softlabels.teachers.exported import load_exported
from softlabels.teachers.sniffing import sniff
from softlabels.teachers.teacher import Teacher, TeacherFile
from softlabels.teachers.torchscript import load_torchscript
from softlabels.teachers.weights import load_pickle, load_safetensors

LOADERS: dict[str, Callable[[TeacherFile], Teacher]] = {
    "torchscript": load_torchscript,
    "exported": load_exported,
    "pickle": load_pickle,
    "safetensors": load_safetensors,
}


def resolve(
    teacher: str,
    *,
    model: str | None = None,
    input_shape: Callable[[], Sequence[int]] | None = None,
    trust_pickle: bool = False,
    weights: str | None = None,
) -> Teacher:
    """Load a teacher's file on the CPU, in eval mode.

    `model` builds what a bare state dict belongs to, for inputs of the shape that `input_shape()`
    gives; it is asked only then. `weights` names the ones that are meant where a file holds several
    (see `state_dicts`).
    Raises TeacherError for a file that is missing, truncated or no teacher, and UntrustedPickle
    for one that could run code, unless `trust_pickle`.
    """
    path = Path(teacher).expanduser()
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise TeacherError(f"--teacher {teacher} {what}; it should be a file such as t.pt")
    kind = sniff(path)
    if kind != "pickle" and not _is_utf8(str(path)):  # which torch and safetensors want of theirs
        raise TeacherError(
            f"--teacher {teacher!a}: a {kind} file can't be read under a name that is no "
            f"UTF-8; rename it"
        )
    file = TeacherFile(path, file_fingerprint(path), model, input_shape, trust_pickle, weights)
    found = LOADERS[kind](file)
    if weights is not None and found.kind not in ("state_dict", "pickle"):
        raise UsageError(f"--weights is for files of several weights; {teacher} is a {found.kind}")
    return found


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def file_fingerprint(path: Path) -> str:
    """`sha256:` and the hex digest of the file, as `sha256sum` prints it."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
