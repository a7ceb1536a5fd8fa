"""A Hub, its owner and a stranger, and a dump to publish."""

import shutil
from pathlib import Path

import pytest

import softlabels
from tests.hub import OWNER, READER, Hub, client
from tests.publishing.work import environment


@pytest.fixture(scope="session")
def hub(tmp_path_factory):
    with Hub(tmp_path_factory.mktemp("hub")) as found:
        yield found


@pytest.fixture(scope="session")
def owner(hub, tmp_path_factory):
    with client(environment(hub, tmp_path_factory.mktemp("owner"))) as run:
        yield run


@pytest.fixture(scope="session")
def strangers_home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("stranger")


@pytest.fixture(scope="session")
def stranger(hub, strangers_home):
    """Another process, another account, and caches that hold nothing of a test's `repo` before."""
    with client(environment(hub, strangers_home, READER)) as run:
        yield run


@pytest.fixture(scope="session")
def original(teacher, tmp_path_factory) -> Path:
    """Six shards of 200 digits."""
    folder = tmp_path_factory.mktemp("original") / "d"
    softlabels.dump(teacher=teacher, out=str(folder), shard_rows=200)
    return folder


@pytest.fixture
def folder(original, tmp_path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "d"))


@pytest.fixture
def repo(hub, tmp_path) -> str:
    hub.forget()
    return f"{OWNER}/{tmp_path.name}"
