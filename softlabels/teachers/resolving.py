"""From what a person writes after --teacher to a `Teacher`."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from softlabels.errors import TeacherError, UsageError
from softlabels.models.hashes import weight_hashes
from softlabels.models.model import Loading, Model
from softlabels.models.objects import open_object
from softlabels.models.opening import open_model
from softlabels.system.humanize import few
from softlabels.teachers.fingerprints import fingerprint_of
from softlabels.teachers.teacher import Teacher


@dataclass(frozen=True)
class TeacherChoice:
    """What a command names of its teacher: options of these names, which `resolve` takes."""

    teacher: Any
    model: str | None
    weights: str | None
    key: str | None
    logits: str | None
    trust_pickle: bool
    version: str | None


def resolve(
    teacher: Any,
    *,
    model: str | None = None,
    weights: str | None = None,
    key: str | None = None,
    logits: str | None = None,
    input_shape: Callable[[], Sequence[int]] | None = None,
    trust_pickle: bool = False,
    name: str | None = None,
    version: str | None = None,
) -> Teacher:
    """A teacher on the CPU, in eval mode; a module in memory stays as it is.

    teacher: a path, a name such as package.module:factory, a module, or a callable from a batch to
    logits
    model: the spec of what a bare state dict belongs to
    weights: a file with the weights of a teacher that is given by name
    key: which weights are meant where a file holds several (see `state_dicts`)
    logits: which tensor of an ONNX graph is meant
    input_shape: the shape of an input of that model; called only if it is needed
    trust_pickle: whether a file that could run code is loaded
    name, version: of a callable, by which it is known; a module's name in records

    Raises TeacherError for what is missing, damaged or no teacher, UntrustedPickle for a file that
    could run code, unless `trust_pickle`, and UsageError for options that don't fit the teacher.
    """
    teacher = os.fspath(teacher) if isinstance(teacher, os.PathLike) else teacher
    if not isinstance(teacher, str):
        given = {"model": model, "weights": weights, "key": key, "logits": logits}
        for option, value in given.items():
            if value is not None:
                raise UsageError(f"--{option} is {value!r}, for files; the teacher is in memory")
        held = open_object(teacher, name, version)
        return Teacher(**vars(held), fingerprint=fingerprint_of(held))
    if version is not None:
        raise UsageError(f"version is {version!r}, for a callable; {teacher} is known by its files")
    loading = Loading(spec=model, input_shape=input_shape, trust_pickle=trust_pickle, key=key,
                      logits=logits)  # fmt: skip
    opened = open_model(teacher, loading, weights)
    if opened.kind == "factory":
        hashes = weight_hashes(opened.module)
        del opened  # memory may not hold two
        opened = open_model(teacher, loading, weights)
        _check_made_alike(opened, hashes)
    return Teacher(**vars(opened), fingerprint=fingerprint_of(opened))


def _check_made_alike(model: Model, hashes: dict[str, str]) -> None:
    """Raises TeacherError where a factory draws weights, which neither a rank nor a resume would
    get again. hashes: of those that it made before."""
    again = weight_hashes(model.module)
    other = [name for name in again | hashes if again.get(name) != hashes.get(name)]
    if other:
        raise TeacherError(
            f"{model.spec} makes other weights each time ({few(other)}); a teacher's are trained. "
            f"Let the factory load them, or name their file with --weights"
        )
