"""What is where a page is to be written."""

import os
from pathlib import Path

from softlabels.errors import UsageError

MARK = b'<meta name="generator" content="softlabels">'
HEAD = 4096  # bytes of a page in which its mark stands


def check_out(out: str) -> None:
    """Raises UsageError for a place of anything else than an earlier page, which a new one may
    replace, and for one in no folder that is there and may be written: before the work, not after
    it."""
    path = Path(out)
    folder = path.parent
    if not folder.is_dir():
        raise UsageError(
            f"--out is {out}, and {folder} is no folder that is there; make it first, or name "
            f"another"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(
            f"--out is {out}, and {folder} is a folder in which nothing may be written; name "
            f"another"
        )
    if path.is_dir():
        raise UsageError(f"--out is {out}, a folder; name a file, such as {out.rstrip('/')}/a.html")
    if not os.path.lexists(path):
        return
    if not path.is_file() or MARK not in _head(path):
        raise UsageError(
            f"--out is {out}, which is there and is no page of softlabels; name another file, or "
            f"remove it first"
        )


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD)
