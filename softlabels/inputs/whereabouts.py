"""Where data lies on this machine. Records are published, so they hold the name of a file or folder
but not its path. The path is noted here and found again by the fingerprint of the rows.

    PLACE/sources/SHA256.json     {"path": …}
    PLACE/tokenizers/HASH.json    {"path": …}, of the tokenizer of a teacher

PLACE is $SOFTLABELS_CACHE, else ~/.cache/softlabels. Nothing of it is ever published, and
`softlabels cache --clear` leaves it.
"""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath, PureWindowsPath

from softlabels.errors import TeacherError
from softlabels.inputs.tables.opening import EMBEDDED, local_path
from softlabels.models.checkpoint import tokenizer_at
from softlabels.models.tokenizers import Tokenizer
from softlabels.system.cache import cache_place
from softlabels.system.local_files import appearing

ORIGINS = ("embedded", "hub", "local")


def origin(data: str) -> str:
    """Where `open_source` takes `data` from: `embedded`, `hub` or `local`."""
    if local_path(data) is not None:
        return "local"
    return "embedded" if data == EMBEDDED else "hub"


def public_name(data: str) -> str:
    """The name of `data` in a record: a Hub id as it is, the last part of a path. Bytes that are
    not UTF-8 are replaced."""
    if origin(data) != "local":
        return data
    path = os.path.abspath(os.path.expanduser(data))
    name = PureWindowsPath(PurePosixPath(path).name).name or "data"
    return name.encode("utf-8", "replace").decode()


def remember(fingerprint: str, data: str) -> None:
    """Note where rows with this fingerprint lie. Raises OSError if the note can't be written."""
    target = _note(fingerprint, "sources")
    path = os.path.abspath(os.path.expanduser(data))
    with appearing(target) as file:
        file.write(json.dumps({"path": path}).encode())


def recall(fingerprint: str, of: str = "sources") -> str | None:
    """Where rows, or a tokenizer, of this fingerprint were last seen on this machine, if that still
    exists."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        path = json.loads(_note(fingerprint, of).read_text(encoding="utf-8"))["path"]
        if os.path.exists(path):
            return str(path)
    return None


def remember_tokenizer(tokenizer: Tokenizer) -> None:
    """Note where a tokenizer lies, if it is on this disk. Raises OSError if the note can't be
    written."""
    path = os.path.abspath(os.path.expanduser(tokenizer.place))
    if tokenizer.place and os.path.exists(path):
        with appearing(_note(tokenizer.hash, "tokenizers")) as file:
            file.write(json.dumps({"path": path}).encode())


def find_tokenizer(known: str, names: Sequence[str]) -> Tokenizer | None:
    """The tokenizer with this hash: where it was last seen on this machine, or one of these names
    on the Hub. None where none of them has it."""
    noted = recall(known, "tokenizers")
    for place in ([] if noted is None else [noted]) + list(names):
        with suppress(TeacherError):
            tokenizer = tokenizer_at(place)
            if tokenizer.hash == known:
                return tokenizer
    return None


def _note(fingerprint: str, of: str) -> Path:
    return cache_place() / of / f"{fingerprint.removeprefix('sha256:')}.json"
