"""One process at a time writes a file or a folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from softlabels.errors import UsageError


@contextmanager
def sole_writer(path: str | os.PathLike[str], writing: str) -> Iterator[None]:
    """Hold `path` within the block, by a lock on a hidden file beside it. The kernel releases the
    lock of a process that dies. writing: what would write there a second time, such as "training".

    Raises UsageError while it is held, in this process too.
    """
    whole = Path(os.path.abspath(path))
    beside = whole.with_name(f".{whole.name}.lock")
    lock = FileLock(beside, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise UsageError(
            f"another {writing} is writing {path}. Wait until it is done, or choose another place "
            f"with --out"
        ) from error
    except (NotImplementedError, OSError):  # a file system without locks
        yield
        return
    try:
        yield
    finally:
        # removed while it is held: who opens it from here on opens a new one
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        lock.release()
