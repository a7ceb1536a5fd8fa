"""Dumps on the Hugging Face Hub: ORG/NAME, or ORG/NAME@REVISION with a branch, tag or commit.

A revision is looked up once and stands for one commit from then on, so that nothing changes while
it is read. Files are fetched by the Hub's own client, into its own cache: what was cut off goes on,
and without a network what is there is used.
"""

import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from traceback import walk_tb

from huggingface_hub import HfApi, hf_hub_download, is_offline_mode
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)

from softlabels.errors import DiskFull, IncompleteDump, SoftlabelsError, StoreError, UsageError
from softlabels.progress import SILENT, Progress
from softlabels.store.folder import Folder
from softlabels.store.manifest import CARD, MANIFEST, PLAN, commit_name, read_manifest

ADDRESS = re.compile(r"(?:hf://datasets/)?([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
CONNECTIONS = 8
FULL = "os error 28"  # of a full disk, as hf_xet words it


@dataclass(frozen=True)
class HubAddress:
    """A dataset's repository on the Hub and a revision of it."""

    repo: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision}" if self.revision else self.repo

    @classmethod
    def parse(cls, text: str) -> "HubAddress | None":
        """None for what is none, or may be a folder here: one that exists, or whose parent does."""
        found = ADDRESS.fullmatch(text)
        if found is None:
            return None
        here = not text.startswith("hf://") and (
            os.path.exists(text) or os.path.isdir(os.path.dirname(text))
        )
        return None if here or text.startswith((".", "~")) else cls(found[1], found[2])


def dump_folder(
    path: str | os.PathLike[str], want: str = "all", progress: Progress = SILENT
) -> Folder:
    """The folder of a dump that someone named: a folder, an address such as s3://…, or a Hub id.

    Of a dump on the Hub, `want` is what must be on this disk: `all` its files, those with its
    `rows`, its `manifest`, or `nothing`, to read it where it lies. Raises StoreError where it can't
    be had.
    """
    address = HubAddress.parse(os.fspath(path))
    if address is None:
        return Folder(path)
    copy = fetch_manifest(address)
    if want == "nothing" and not is_offline_mode():
        return Folder(f"hf://datasets/{address.repo}@{commit_of(copy)}")
    if want != "manifest":
        fetch_files(address, copy, progress, rows_only=want == "rows")
    return copy


def make_repository(folder: Folder, progress: Progress = SILENT) -> None:
    """The dataset that a folder hf://datasets/ORG/NAME lies in, private, where it isn't there; of
    another folder nothing is asked."""
    found = re.match(r"hf://datasets/([\w.-]+/[\w.-]+)", folder.url)
    if found is None:
        return
    address, api = HubAddress(found[1]), HfApi()
    with said(address):
        if not api.repo_exists(address.repo, repo_type="dataset"):
            api.create_repo(address.repo, repo_type="dataset", private=True, exist_ok=True)
            progress.say(f"{api.endpoint}/datasets/{address.repo} is made, and private")


def fetch_manifest(address: HubAddress) -> Folder:
    """The copy of a dump in the Hub client's cache, with its manifest; without a network, as it was
    when it was seen last. Raises StoreError, and IncompleteDump for a push that isn't finished."""
    try:
        with quiet():
            return Folder(Path(_get(address, MANIFEST, address.revision)).parent)
    except LocalEntryNotFoundError as error:
        offline = " (HF_HUB_OFFLINE is set)" if is_offline_mode() else ""
        raise StoreError(
            f"{address} is no folder here; the Hub can't be reached{offline}, and its client has "
            f"no copy: {_first_line(error)}"
        ) from error
    except EntryNotFoundError as error:
        raise IncompleteDump(
            f"{address} has no {MANIFEST}: it is no dump, or isn't finished; the same softlabels "
            f"push goes on, or the same softlabels dump with --resume"
        ) from error


def fetch_files(
    address: HubAddress, copy: Folder, progress: Progress = SILENT, rows_only: bool = False
) -> None:
    """The shards that its manifest names, plan, records and card too if not `rows_only`; several at
    once. Hashes are not looked at: readers do."""
    commit = commit_of(copy)
    manifest, plan = read_manifest(copy)
    sizes = {record["file"]: record["bytes"] for record in manifest.shards}
    others = [] if rows_only else [PLAN, CARD, *map(commit_name, range(plan.shards))]

    def get(name: str) -> int:
        try:
            _get(address, name, commit)
        except EntryNotFoundError as error:
            if name == CARD:
                return 0
            raise StoreError(f"{address}/{name} can't be fetched: {_first_line(error)}") from error
        return sizes.get(name, 0) // 1_000_000

    total = sum(sizes.values()) // 1_000_000
    bar = progress.bar("fetch", total, "MB")
    with quiet(), bar as advance, ThreadPoolExecutor(CONNECTIONS) as pool:
        futures: list[Future[int]] = []
        try:
            for name in [*sizes, *others]:
                futures.append(pool.submit(get, name))
            for future in futures:
                while not wait([future], 1).done:  # one that waits without an end may miss Ctrl-C
                    pass
                advance(future.result())
        except BaseException as error:  # the pool waits for its threads, which no signal reaches
            pool.shutdown(wait=False, cancel_futures=True)
            while isinstance(error, KeyboardInterrupt) and any(f.running() for f in futures):
                _abort()  # not once: one of them may only be about to begin
                time.sleep(0.1)
            raise


def commit_of(copy: Folder) -> str:
    """The commit that a copy in the Hub client's cache is of."""
    return os.path.basename(copy.root)


def _get(address: HubAddress, name: str, revision: str | None) -> str:
    with said(address):
        found: str = hf_hub_download(address.repo, name, repo_type="dataset", revision=revision)
        return found


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
        raise StoreError(f"{address.repo} has no revision {address.revision!r}") from error
    except RepositoryNotFoundError as error:
        raise StoreError(
            f"{address.repo} is no folder here, and no dataset of the Hub that you may read; if it "
            f"is private, {login}"
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        told = {
            401: f"the Hub doesn't know you; {login}",
            403: f"your token may not do this there; {login} of one that may",
            412: "someone else changed it meanwhile; nothing is lost, run it again",
        }
        reason = error.server_message or _first_line(error)
        raise StoreError(f"{where}: {told.get(status, reason)}") from error
    except OSError as error:
        if error.errno == 28 or FULL in str(error):
            raise DiskFull(f"no space left for {where}") from error
        network = isinstance(error, ConnectionError | TimeoutError)
        what = "the Hub can't be reached: " if network else ""
        raise StoreError(f"{where}: {what}{_first_line(error)}") from error
    except Exception as error:  # its HTTP library's own, and hf_xet's of a transfer that failed
        gave_up = isinstance(error, RuntimeError) and _is_the_clients(error)
        if not gave_up and "http" not in type(error).__module__:
            raise
        if gave_up and FULL in str(error):
            raise DiskFull(f"no space left for {where}") from error
        what = "the Hub's client gave up" if gave_up else "the Hub can't be reached"
        raise StoreError(f"{where}: {what}: {_first_line(error)}") from error


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


def _is_the_clients(error: BaseException) -> bool:
    """Whether the Hub's client raised it, or a library under it that has no frames of its own."""
    *_, (frame, _) = walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__")).startswith("huggingface_hub.")


def _abort() -> None:
    """End what is fetched through Xet now. Without it, a thread waits for minutes for a server that
    doesn't answer."""
    with suppress(ImportError):
        from huggingface_hub.utils._xet import abort_xet_session

        abort_xet_session()


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
