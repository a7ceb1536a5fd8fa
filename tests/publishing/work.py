"""What the processes of these tests do: functions with a name, which a fresh process can import."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from huggingface_hub import HfApi, hf_hub_download

import softlabels
from softlabels.store.codecs.kinds import Dense
from softlabels.store.folder import Folder
from softlabels.store.names import commit_name
from softlabels.store.reader import DumpReader
from softlabels.store.records import Commit, Manifest
from softlabels.store.writer import ShardWriter, shard_schema
from tests.conftest import Lines
from tests.hub import OWNER, Hub

SHARDS = 6


def environment(hub: Hub, home: Path, user: str = OWNER) -> dict[str, str]:
    return hub.environment(home, user=user) | {"SOFTLABELS_CACHE": str(home / "softlabels")}


def stored(folder: Path) -> list[list[float]]:
    dataset = softlabels.load(folder, T=1, inputs=False)
    return dataset.take(np.arange(len(dataset)))["logits"].tolist()


def shard(number: int) -> str:
    return f"data/train-{number:05}-of-{SHARDS:05}.parquet"


def push(dump: str, repo: str, **words: Any) -> dict[str, Any]:
    return asdict(softlabels.push(dump=dump, repo=repo, **words))


def push_in_pieces(dump: str, repo: str, files: int) -> dict[str, Any]:
    with patch("softlabels.hub.pushing.COMMIT_FILES", files):
        return push(dump, repo)


def pull(repo: str, **words: Any) -> dict[str, Any]:
    done = softlabels.pull(repo=repo, **words)
    return asdict(done) | {"manifest": done.manifest.as_json}


def is_good(repo: str) -> bool:
    return softlabels.verify(dump=repo).good


def first_logits(repo: str, **words: Any) -> list[list[float]]:
    """The logits of a whole shuffled epoch in the order of their ids."""
    batches = softlabels.load(repo, T=8, **words).batches(100, shuffle=True)
    parts = [(batch["id"], batch["logits"]) for batch in batches]
    order = torch.cat([ids for ids, _ in parts]).argsort()
    return torch.cat([logits for _, logits in parts])[order].tolist()


def mixed_epoch(
    places: dict[str, str], **words: Any
) -> tuple[list[str], list[list[float]], list[str]]:
    """The ids and the soft targets, at T = 2, of a shuffled epoch of several teachers' mixture, and
    what was said."""
    progress = Lines()
    mixed = softlabels.load(places, T=2, progress=progress, **words).mix("prob", "0.25,0.75")
    batches = list(mixed.batches(7, shuffle=True))
    targets = torch.cat([batch["soft_target"] for batch in batches]).tolist()
    return [id for batch in batches for id in batch["id"]], targets, progress.lines


def rows_of(repo: str, split: str = "train", **words: Any) -> list[dict[str, Any]]:
    import datasets

    return list(datasets.load_dataset(repo, split=split, **words))


def class_names_of(repo: str, **words: Any) -> list[str]:
    import datasets

    names: list[str] = datasets.load_dataset(repo, split="train", **words).features["label"].names
    return names


def splits_of(repo: str, *config: str) -> dict[str, int]:
    """The rows of each split, as `datasets` loads it."""
    import datasets

    return {name: len(rows) for name, rows in datasets.load_dataset(repo, *config).items()}


def upload(repo: str, content: bytes, path: str) -> None:
    HfApi().upload_file(
        path_or_fileobj=content, path_in_repo=path, repo_id=repo, repo_type="dataset"
    )


def tag(repo: str, name: str) -> None:
    HfApi().create_tag(repo, tag=name, repo_type="dataset")


def words_of_push(dump: str, repo: str, **words: Any) -> list[str]:
    """What a push says."""
    progress = Lines()
    softlabels.push(progress=progress, dump=dump, repo=repo, **words)
    return progress.lines


def publish_source(repo: str, files: dict[str, bytes], private: bool = False) -> None:
    HfApi().create_repo(repo, repo_type="dataset", private=private)
    for path, content in files.items():
        upload(repo, content, path)


def remove(repo: str, folder: str) -> None:
    HfApi().delete_folder(folder, repo, repo_type="dataset")


def spoil_the_cached(repo: str, name: str) -> None:
    """Change a byte of this disk's copy."""
    path = Path(hf_hub_download(repo, name, repo_type="dataset")).resolve()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def dump(**words: Any) -> None:
    softlabels.dump(**words)


def redo_shard(folder: Path, shard: int, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """As another GPU might have made it: the same plan and rows, other logits."""
    place = Folder(folder)
    reader = DumpReader(place)
    plan = reader.plan
    table = reader.read_shard(shard, ["id", "input_hash", "label", "logits"])
    logits = reader.codec.of_arrays(reader.shard(shard).decode(table)).dense()
    schema = shard_schema(plan, None)
    with ShardWriter(place, plan, shard, schema) as writer:
        columns = (table[name].to_numpy() for name in ("id", "label", "input_hash"))
        writer.add(*columns, Dense(change(logits)))
    place.write_json(commit_name(shard), writer.commit.as_json)
    records = list(reader.manifest.shards)
    records[shard] = writer.commit.record
    commits = [place.read_json(commit_name(i)) for i in range(plan.shards)]
    made = Manifest.derive(plan, [Commit.parse(c, "a commit") for c in commits],
                           reader.manifest.versions)  # fmt: skip
    place.write_json("softlabels.json", made.replace(created=reader.manifest.created).as_json)


def command(environment: dict[str, str], *words: object, cwd: Path) -> subprocess.Popen[str]:
    """A process of the command line that is not waited for."""
    return subprocess.Popen(
        [sys.executable, "-m", "softlabels", *map(str, words)], cwd=cwd, text=True,
        env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
