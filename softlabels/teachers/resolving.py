"""From what a person writes after --teacher to a `Teacher`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from softlabels.errors import TeacherError
from softlabels.models.model import ModelFile
from softlabels.models.opening import open_model
from softlabels.system.local_files import file_fingerprint
from softlabels.teachers.teacher import Teacher


@dataclass(frozen=True)
class TeacherChoice:
    """What a command names of its teacher: options of these names, which `resolve` takes."""

    teacher: str
    model: str | None
    key: str | None
    trust_pickle: bool


def resolve(
    teacher: str,
    *,
    model: str | None = None,
    input_shape: Callable[[], Sequence[int]] | None = None,
    trust_pickle: bool = False,
    key: str | None = None,
) -> Teacher:
    """Load a teacher's file on the CPU, in eval mode.

    model: the spec of what a bare state dict belongs to
    input_shape: the shape of an input of that model; called only if it is needed
    trust_pickle: whether a file that could run code is loaded
    key: which weights are meant where a file holds several (see `state_dicts`)

    Raises TeacherError for a file that is missing, truncated or no teacher, and UntrustedPickle
    for one that could run code, unless `trust_pickle`.
    """
    path = Path(teacher).expanduser()
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise TeacherError(f"--teacher {teacher} {what}; it should be a file such as t.pt")
    opened = open_model(ModelFile(path, model, input_shape, trust_pickle, key))
    return Teacher(**vars(opened), fingerprint=file_fingerprint(path))
