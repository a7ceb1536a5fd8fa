"""Errors that other libraries raise while data is read, as SourceErrors."""

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from softlabels.errors import SoftlabelsError, SourceError

FOREIGN = (pa.ArrowException, ValueError, TypeError, KeyError, IndexError, NotImplementedError,
           OverflowError, RecursionError, OSError)  # fmt: skip


@contextmanager
def as_source_error(where: str) -> Iterator[None]:
    """Raise a SourceError that says where and, in 100 characters, why: libraries may print whole
    cells."""
    try:
        yield
    except SoftlabelsError:
        raise
    except FOREIGN as error:
        reason = " ".join(str(error).split())
        reason = reason[:100] + "…" if len(reason) > 100 else reason
        raise SourceError(f"{where} can't be read: {reason or type(error).__name__}") from error
