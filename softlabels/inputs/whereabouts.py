"""Where data lie on this machine. A record names a file or folder and says no more, since it is
published; the path is noted here, by the fingerprint of the rows, and found again by it.

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
    """Where `data` is from, as `open_source` takes it: `embedded`, `hub` or `local`."""
    if local_path(data) is not None:
        return "local"
    return "embedded" if data == EMBEDDED else "hub"


def public_name(data: str) -> str:
    """What a record says of `data`: a Hub id as it is, of a path the last name alone. A name that
    is no UTF-8 is kept as far as it is."""
    if origin(data) != "local":
        return data
    path = os.path.abspath(os.path.expanduser(data))
    name = PureWindowsPath(PurePosixPath(path).name).name or "data"
    return name.encode("utf-8", "replace").decode()


def remember(fingerprint: str, data: str) -> None:
    """Note where rows with this fingerprint lie. Raises OSError where that can't be written."""
    target = _note(fingerprint)
    path = os.path.abspath(os.path.expanduser(data))
    with appearing(target) as file:
        file.write(json.dumps({"path": path}).encode())


def recall(fingerprint: str) -> str | None:
    """Where rows with this fingerprint were seen last on this machine, if it is still there."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        path = json.loads(_note(fingerprint).read_text(encoding="utf-8"))["path"]
        if os.path.exists(path):
            return str(path)
    return None


def _note(fingerprint: str) -> Path:
    return cache_place() / "sources" / f"{fingerprint.removeprefix('sha256:')}.json"
