"""A dataset repository on the Hub as a folder that is read and written in place."""

import re
from typing import Any

from huggingface_hub import HfApi, HfFileSystem

from softlabels.places.hub_address import HubAddress, translated
from softlabels.store.folder import Folder, Origin
from softlabels.system.progress import SILENT, Progress

REPOSITORY = re.compile(r"hf://datasets/([\w.-]+/[\w.-]+)")


class HubFiles(HfFileSystem):
    """The client's file system without read-ahead, with FileNotFoundError for missing files."""

    every_write_is_a_commit = True

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **options: Any
    ) -> bytes:
        options.setdefault("cache_type", "none")  # by default a small range takes 5 MB
        content: bytes = super().cat_file(path, start=start, end=end, **options)
        return content

    def rm_file(self, path: str) -> None:
        if not self.exists(path):
            raise FileNotFoundError(path)
        super().rm_file(path)


def hub_folder(url: str) -> Folder:
    """The folder hf://datasets/ORG/NAME[@REVISION][/FOLDER]."""
    fs = HubFiles(use_listings_cache=False)  # other processes write there too
    return Folder(url, Origin("ask its owner to push it again"), fs, fs._strip_protocol(url))


def make_repository(folder: Folder, progress: Progress = SILENT) -> None:
    """Make the repository of a folder hf://datasets/ORG/NAME, private, if there is none. Does
    nothing for other folders."""
    match = REPOSITORY.match(folder.url)
    if match is None:
        return
    address, api = HubAddress(match[1]), HfApi()
    with translated(address):
        if not api.repo_exists(address.repo, repo_type="dataset"):
            api.create_repo(address.repo, repo_type="dataset", private=True, exist_ok=True)
            folder.fs.invalidate_cache()  # it may remember that there was no such repository
            progress.say(f"{api.endpoint}/datasets/{address.repo} is made, and private")
