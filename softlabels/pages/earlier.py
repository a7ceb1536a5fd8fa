"""What is where a page is to be written."""

import os
from pathlib import Path

from softlabels.errors import UsageError

MARK = b'<meta name="generator" content="softlabels">'
HEAD = 4096  # bytes of a page in which its mark stands


def check_out(out: str) -> None:
    """Raises UsageError for a place of anything else than an earlier page, which a new one may
    replace."""
    path = Path(out)
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
