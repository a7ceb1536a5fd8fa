"""The stand-in Hub with Xet, held against the real client."""

import json
import struct
import urllib.error
import urllib.request
from typing import Any

import numpy as np
import pytest
from huggingface_hub import HfApi, HfFileSystem, hf_hub_download

from tests.hub import OWNER, READER, Hub, client
from tests.hub.chunks import DESCRIBED, LAST

REPO = f"{OWNER}/files"
FILES = {
    "random.bin": np.random.default_rng(0).bytes(300_000),
    "text.bin": b"much of the same, " * 20_000,
    "numbers.bin": (np.arange(70_001, dtype=np.float32) / 7).tobytes()[:-1],
    "small.bin": b"\0",
}


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """With FILES of one repository, sent by clients that pack chunks differently."""
    with Hub(tmp_path_factory.mktemp("hub"), xet=True) as found:
        for policy, names in {
            "none": ["random.bin"],
            "lz4": ["text.bin"],
            "bg4-lz4": ["numbers.bin", "small.bin"],
        }.items():
            home = found.environment(tmp_path_factory.mktemp(policy))
            with client(home | {"HF_XET_XORB_COMPRESSION_POLICY": policy}) as run:
                run(send, {name: FILES[name] for name in names})
        yield found


def send(files: dict[str, bytes]) -> None:
    api = HfApi()
    api.create_repo(REPO, repo_type="dataset", exist_ok=True)
    for name, content in files.items():
        api.upload_file(
            path_or_fileobj=content, path_in_repo=name, repo_id=REPO, repo_type="dataset"
        )


def get(name: str) -> bytes:
    with open(hf_hub_download(REPO, name, repo_type="dataset"), "rb") as file:
        return file.read()


def part(name: str, start: int, end: int) -> bytes:
    return HfFileSystem().cat_file(f"datasets/{REPO}/{name}", start, end)


def test_what_was_sent_is_got(hub, tmp_path):
    assert {n: c for n, c in hub.files(REPO).items() if n in FILES} == FILES
    assert hub.received["POST", "xorb"] < sum(map(len, FILES.values())), "some of it is packed"
    assert hub.requests["PUT", "upload"] == 0
    hub.forget()
    with client(hub.environment(tmp_path, READER)) as run:
        for name, content in FILES.items():
            assert run(get, name) == content
        assert hub.requests["GET", "chunk_range"] >= len(FILES)
        assert hub.requests["GET", "cdn"] == 0
        assert run(part, "numbers.bin", 1000, 3000) == FILES["numbers.bin"][1000:3000]
        assert hub.requests["GET", "cdn"] > 0
        assert not hub.elsewhere
    with client(hub.environment(tmp_path) | {"HF_HUB_DISABLE_XET": "1"}) as run:
        run(send, {"by-lfs.bin": FILES["small.bin"] * 9})
        assert hub.requests["PUT", "upload"] == 1


def test_of_a_range_the_chunks_it_is_in_are_told(hub):
    told = token(hub, "read")
    name = hub.repositories[REPO].find("main").files["random.bin"].xet_hash
    path = f"/v1/reconstructions/{name}"
    whole = json.loads(ask(hub, "GET", path, told)[1])
    assert sum(term["unpacked_length"] for term in whole["terms"]) == 300_000
    some = json.loads(ask(hub, "GET", path, told, Range="bytes=299999-300005")[1])
    assert some["terms"] == whole["terms"][-1:]
    before = sum(term["unpacked_length"] for term in whole["terms"][:-1])
    assert some["offset_into_first_range"] == 299_999 - before
    assert ask(hub, "GET", path, told, Range="bytes=300000-300005")[0] == 416


def test_refusals(hub):
    read, write = token(hub, "read"), token(hub, "write")
    file = hub.repositories[REPO].find("main").files["random.bin"]
    assert ask(hub, "GET", f"/api/datasets/{REPO}/xet-write-token/main", f"hf_{READER}")[0] == 403
    assert ask(hub, "GET", f"/v1/reconstructions/{file.xet_hash}", "")[0] == 401
    assert ask(hub, "POST", "/v1/shards", read, b"")[0] == 403
    assert ask(hub, "POST", "/v2/shards", write, b"")[0] == 404
    assert ask(hub, "POST", f"/v1/xorbs/default/{'0' * 64}", write, b"\1" * 100)[0] == 400
    told = json.loads(ask(hub, "GET", f"/v1/reconstructions/{file.xet_hash}", read)[1])
    (place,) = told["fetch_info"][told["terms"][0]["hash"]]
    path = place["url"].removeprefix(hub.other_url)
    first, last = place["url_range"].values()
    assert ask(hub, "GET", path, "", Range=f"bytes={first}-{last}")[0] == 206
    assert ask(hub, "GET", path, "", Range=f"bytes={first}-{last - 1}")[0] == 403
    assert ask(hub, "GET", path, "")[0] == 403


def test_chunks_that_are_not_the_file_are_refused(hub):
    files = hub.repositories[REPO].find("main").files
    told = hub.store.recipes[files["random.bin"].xet_hash].terms[0]
    for sha256, size, word in (
        (files["random.bin"].sha256, told.size, 200),
        (files["text.bin"].sha256, told.size, 400),
        (files["random.bin"].sha256, told.size - 1, 400),
    ):
        shard = b"".join(
            (
                bytes(48),
                struct.pack("<32sIIQ", b"1" * 32, DESCRIBED, 1, 0),
                struct.pack("<32s4I", stored(told.xorb), 0, size, told.start, told.end),
                struct.pack("<32sQQ", stored(sha256), 0, 0),
                LAST,
            )
        )
        assert ask(hub, "POST", "/v1/shards", token(hub, "write"), shard)[0] == word


def stored(name: str) -> bytes:
    return b"".join(bytes.fromhex(name[at : at + 16])[::-1] for at in range(0, 64, 16))


def token(hub: Hub, scope: str) -> str:
    path = f"/api/datasets/{REPO}/xet-{scope}-token/main"
    found: str = json.loads(ask(hub, "GET", path, f"hf_{OWNER}")[1])["accessToken"]
    return found


def ask(
    hub: Hub, method: str, path: str, token: str, body: bytes | None = None, **headers: Any
) -> tuple[int, bytes]:
    if token:
        headers["Authorization"] = f"Bearer {token}"
    asked = urllib.request.Request(hub.other_url + path, body, headers, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(asked) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
