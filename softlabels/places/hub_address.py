"""Names of dumps on the Hugging Face Hub, and the errors of its client, raised as ours.

ORG/NAME, or ORG/NAME/FOLDER for one of several dumps in a repository; with @REVISION behind it, a
branch, tag or commit.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

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
from softlabels.system.local_files import is_full

ADDRESS = re.compile(
    r"(?:hf://datasets/)?([\w.-]+/[\w.-]+)((?:/[\w-][\w.-]*){0,2})(?:@([\w./-]+))?"
)


@dataclass(frozen=True)
class HubAddress:
    """A dump in a dataset repository on the Hub, at a revision. folder: its folder in the
    repository, empty if the dump lies at the top."""

    repo: str
    folder: str = ""
    revision: str | None = None

    def __str__(self) -> str:
        return f"{self.dump}@{self.revision}" if self.revision else self.dump

    @property
    def dump(self) -> str:
        """Its name without the revision."""
        return f"{self.repo}/{self.folder}" if self.folder else self.repo

    def inside(self, name: str) -> str:
        """The path in the repository of the dump's file `name`."""
        return f"{self.folder}/{name}" if self.folder else name

    @classmethod
    def parse(cls, text: str) -> "HubAddress | None":
        """None for text that is not an address, or may be a local path: it exists, or its first
        part is a folder here."""
        match = ADDRESS.fullmatch(text.rstrip("/"))
        if match is None:
            return None
        here = not text.startswith("hf://") and (
            os.path.exists(text) or os.path.isdir(text.partition("/")[0])
        )
        if here or text.startswith((".", "~")):
            return None
        return cls(match[1], match[2].lstrip("/"), match[3])


@contextmanager
def translated(address: HubAddress) -> Iterator[None]:
    """Raise the errors of the Hub's client as ours; errors about missing files pass.

    The block may only call the client, since every RuntimeError is taken for one of its own. No
    message contains a token.
    """
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
        reasons = {
            401: f"the Hub doesn't know you; {login}",
            403: f"your token may not do this there; {login} of one that may",
            412: "someone else changed it meanwhile; nothing is lost, run it again",
        }
        reason = reasons.get(status, error.server_message or first_line(error))
        raise StoreError(f"{where}: {reason}") from error
    except (OSError, RuntimeError) as error:  # hf_xet raises RuntimeError for a failed transfer
        if is_full(error):
            raise DiskFull(f"no space left for {where}") from error
        what = "the Hub's client gave up: " if isinstance(error, RuntimeError) else ""
        if isinstance(error, ConnectionError | TimeoutError):
            what = "the Hub can't be reached: "
        raise StoreError(f"{where}: {what}{first_line(error)}") from error
    except Exception as error:
        if "http" not in type(error).__module__:  # of the client's HTTP library
            raise
        raise StoreError(f"{where}: the Hub can't be reached: {first_line(error)}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Turn off the client's own progress bars. The switch is global, so enter this before starting
    threads, not inside them."""
    shown = not are_progress_bars_disabled()
    if shown:
        disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            enable_progress_bars()


def abort_transfers() -> None:
    """End all transfers through Xet, whose threads would wait for a silent server for minutes."""
    with suppress(ImportError):
        from huggingface_hub.utils._xet import abort_xet_session

        abort_xet_session()


def first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
