"""Where data lies on this machine. Records are published, so they hold the name of a file or folder
but not its path. The path is noted here and found again by the fingerprint of the rows.

    PLACE/sources/SHA256.json     {"path": …}

PLACE is $SOFTLABELS_CACHE, else ~/.cache/softlabels. Nothing of it is ever published, and
`softlabels cache --clear` leaves it.
"""

import json
import os
from contextlib import suppress
from pathlib import Path, PurePosixPath, PureWindowsPath

from softlabels.inputs.tables.opening import EMBEDDED, local_path
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
    target = _note(fingerprint)
    path = os.path.abspath(os.path.expanduser(data))
    with appearing(target) as file:
        file.write(json.dumps({"path": path}).encode())


def recall(fingerprint: str) -> str | None:
    """Where rows with this fingerprint were last seen on this machine, if that still exists."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        path = json.loads(_note(fingerprint).read_text(encoding="utf-8"))["path"]
        if os.path.exists(path):
            return str(path)
    return None


def _note(fingerprint: str) -> Path:
    return cache_place() / "sources" / f"{fingerprint.removeprefix('sha256:')}.json"
