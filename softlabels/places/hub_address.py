"""Dumps on the Hugging Face Hub, by name, and what its client raises, in words.

ORG/NAME, or ORG/NAME/FOLDER for one of several dumps in a repository; with @REVISION behind it, a
branch, tag or commit.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from traceback import walk_tb

from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)

from softlabels.errors import DiskFull, SoftlabelsError, StoreError, UsageError

ADDRESS = re.compile(
    r"(?:hf://datasets/)?([\w.-]+/[\w.-]+)((?:/[\w-][\w.-]*){0,2})(?:@([\w./-]+))?"
)
FULL = "os error 28"  # of a full disk, as hf_xet words it


@dataclass(frozen=True)
class HubAddress:
    """A dump in a dataset's repository on the Hub, and a revision of it. `folder` is where it lies
    in there, empty where it is the repository itself."""

    repo: str
    folder: str = ""
    revision: str | None = None

    def __str__(self) -> str:
        return f"{self.dump}@{self.revision}" if self.revision else self.dump

    @property
    def dump(self) -> str:
        """Its name at any revision."""
        return f"{self.repo}/{self.folder}" if self.folder else self.repo

    def inside(self, name: str) -> str:
        """The name in the repository of the dump's file `name`."""
        return f"{self.folder}/{name}" if self.folder else name

    @classmethod
    def parse(cls, text: str) -> "HubAddress | None":
        """None for what is none, or may be a folder here: one that exists, or one in a folder that
        does."""
        found = ADDRESS.fullmatch(text.rstrip("/"))
        if found is None:
            return None
        here = not text.startswith("hf://") and (
            os.path.exists(text) or os.path.isdir(text.partition("/")[0])
        )
        if here or text.startswith((".", "~")):
            return None
        return cls(found[1], found[2].lstrip("/"), found[3])


@contextmanager
def said(address: HubAddress) -> Iterator[None]:
    """What the Hub's client raises, in words, but for a file that is missing. Tokens are in none of
    its messages."""
    where = str(address)
    login = "log in with hf auth login, or set HF_TOKEN"
    try:
        yield
    except (SoftlabelsError, EntryNotFoundError):
        raise
    except HFValidationError as error:
        raise UsageError(f"{where} is no name of a dataset on the Hub: {error}") from error
    except RevisionNotFoundError as error:
        raise StoreError(
            f"{address.repo} has no revision {address.revision!r}; write ORG/NAME@REVISION, or "
            f"ORG/NAME/FOLDER@REVISION"
        ) from error
    except RepositoryNotFoundError as error:
        repo = f"{address.repo} " if address.folder else ""
        raise StoreError(
            f"{address.dump} is no folder here, and {repo}no dataset of the Hub that you may read; "
            f"if it is private, {login}"
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        told = {
            401: f"the Hub doesn't know you; {login}",
            403: f"your token may not do this there; {login} of one that may",
            412: "someone else changed it meanwhile; nothing is lost, run it again",
        }
        reason = error.server_message or first_line(error)
        raise StoreError(f"{where}: {told.get(status, reason)}") from error
    except OSError as error:
        if error.errno == 28 or FULL in str(error):
            raise DiskFull(f"no space left for {where}") from error
        network = isinstance(error, ConnectionError | TimeoutError)
        what = "the Hub can't be reached: " if network else ""
        raise StoreError(f"{where}: {what}{first_line(error)}") from error
    except Exception as error:  # its HTTP library's own, and hf_xet's of a transfer that failed
        gave_up = isinstance(error, RuntimeError) and _is_the_clients(error)
        if not gave_up and "http" not in type(error).__module__:
            raise
        if gave_up and FULL in str(error):
            raise DiskFull(f"no space left for {where}") from error
        what = "the Hub's client gave up" if gave_up else "the Hub can't be reached"
        raise StoreError(f"{where}: {what}: {first_line(error)}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Without the client's own bars; around threads, not in them: it is a switch for all."""
    shown = not are_progress_bars_disabled()
    if shown:
        disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            enable_progress_bars()


def abort_transfers() -> None:
    """End what is fetched through Xet now; its threads would wait for minutes for a server that
    doesn't answer."""
    with suppress(ImportError):
        from huggingface_hub.utils._xet import abort_xet_session

        abort_xet_session()


def _is_the_clients(error: BaseException) -> bool:
    """Whether the Hub's client raised it, or a library under it that has no frames of its own."""
    *_, (frame, _) = walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__")).startswith("huggingface_hub.")


def first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
