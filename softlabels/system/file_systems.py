"""Remote file systems through fsspec: from an address to one, and its errors as ours."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from os.path import expanduser

import fsspec
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from softlabels.errors import MissingExtra, SoftlabelsError, StoreError

NO_DIRECTORIES = {"s3", "s3a", "gs", "gcs", "az", "abfs", "memory"}
EXTRAS = {
    "s3": ("s3fs", "s3"),
    "s3a": ("s3fs", "s3"),
    "gs": ("gcsfs", "gcs"),
    "gcs": ("gcsfs", "gcs"),
}
AGAIN = "What is committed is safe; try again when the store answers (a dump: with --resume)"


def open_file_system(url: str) -> tuple[AbstractFileSystem, str]:
    """The file system of a path or an address such as s3://bucket/d, and the path in it.

    Raises MissingExtra where its library is not installed, StoreError for what is no address.
    """
    if re.search(r"\A\w{2,}:/(?!/)|\0", url):
        raise StoreError(f"{url!r} has a NUL, or one slash after a colon instead of two")
    try:
        # other processes write there too, so a remembered listing would be a wrong one
        fs, root = fsspec.core.url_to_fs(expanduser(url), use_listings_cache=False)
    except (ImportError, ValueError) as error:
        scheme = url.partition("://")[0]
        if isinstance(error, ImportError) and scheme in EXTRAS:
            raise MissingExtra(*EXTRAS[scheme], f"{scheme}://") from error
        raise StoreError(f"can't open {url!r}: {error}") from error
    return fs, root


def make_parent(fs: AbstractFileSystem, path: str) -> None:
    """Make the directory that a file will be in. Object stores have no directories; asked for one,
    a client might create a bucket."""
    protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
    if not NO_DIRECTORIES & protocols:
        fs.makedirs(path.rpartition("/")[0], exist_ok=True)


@contextmanager
def translated(fs: AbstractFileSystem, where: str, writing: bool = False) -> Iterator[None]:
    """Raise StoreError for what a remote file system's library raises. A local OSError passes, and
    so does FileNotFoundError unless `writing`, since a missing file is an answer."""
    try:
        yield
    except SoftlabelsError:
        raise
    except Exception as error:
        absent = isinstance(error, FileNotFoundError | NotADirectoryError)
        if isinstance(fs, LocalFileSystem) or (absent and not writing):
            raise
        remedy = AGAIN
        if "Credentials" in type(error).__name__:
            remedy = "Set what the store's client looks for, such as AWS_PROFILE"
        reason = str(error).strip() or type(error).__name__
        raise StoreError(f"{where}: {reason}. {remedy}") from error
