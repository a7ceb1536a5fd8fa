"""One process at a time writes a file or a folder."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from softlabels.errors import UsageError
from softlabels.system.progress import Progress

# of a file system without locks. Any other error says that nothing can be written there
NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}


@contextmanager
def sole_writer(path: str | os.PathLike[str], writing: str, progress: Progress) -> Iterator[None]:
    """Hold `path` within the block, by a lock on a hidden file beside it. The kernel releases the
    lock of a process that dies. Where the file system has no locks, it warns and holds nothing.
    writing: what would write there a second time, such as "training".

    Raises UsageError while it is held, in this process too, and where that file can't be made.
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
    except (NotImplementedError, OSError) as error:  # NotImplementedError: filelock's, for ENOSYS
        if isinstance(error, OSError) and error.errno not in NO_LOCKS:
            raise UsageError(
                f"{beside}, which keeps a second {writing} from writing {path}, can't be made: "
                f"{error.strerror or error}. Choose another place with --out"
            ) from error
        progress.say(
            f"warning: the file system of {path} has no locks; start no second {writing} that "
            f"writes it"
        )
    try:
        yield
    finally:
        if lock.is_locked:
            # removed while it is held: who opens it from here on opens a new one, and who has
            # opened it finds, once it has its lock, that the file has no name (filelock >= 3.21)
            with suppress(OSError):
                beside.unlink(missing_ok=True)
            lock.release()
