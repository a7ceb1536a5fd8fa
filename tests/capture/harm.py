"""What can happen to a dump, really done: each function changes a folder as its name says.

Used by the tests and by `benchmarks/harms.py`.
"""

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq


def shards(folder: Path) -> list[Path]:
    return sorted((folder / "data").iterdir())


def truncate(folder: Path) -> list[str]:
    file = shards(folder)[1]
    file.write_bytes(file.read_bytes()[:-9])
    return [file.name]


def flip_a_logit(folder: Path) -> list[str]:
    file = shards(folder)[1]
    chunk = pq.ParquetFile(file).metadata.row_group(0).column(4)
    return flip(file, chunk.data_page_offset + chunk.total_compressed_size // 2, 3)


def flip_anywhere(folder: Path, seed: int = 0) -> list[str]:
    chance = random.Random(seed)
    file = chance.choice(shards(folder))
    return flip(file, chance.randrange(file.stat().st_size), chance.randrange(8))


def flip(file: Path, byte: int, bit: int) -> list[str]:
    content = bytearray(file.read_bytes())
    content[byte] ^= 1 << bit
    file.write_bytes(content)
    return [file.name]


def delete(folder: Path) -> list[str]:
    file = shards(folder)[2]
    file.unlink()
    return [file.name]


def rename(folder: Path) -> list[str]:
    file = shards(folder)[0]
    other = file.with_name("train-00000-of-00001.parquet")
    file.rename(other)
    return [file.name, other.name]


def swap(folder: Path) -> list[str]:
    first, second = shards(folder)[:2]
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)
    return [first.name, second.name]


def copy(folder: Path) -> list[str]:
    other = folder / "data" / "train-00007-of-00008.parquet"
    shutil.copy(shards(folder)[0], other)
    return [other.name]


def empty(folder: Path) -> list[str]:
    file = shards(folder)[1]
    file.write_bytes(b"")
    return [file.name]


def lose_a_record(folder: Path) -> list[str]:
    (folder / "commits" / "00001.json").unlink()
    return ["00001.json"]


def cut_a_record(folder: Path) -> list[str]:
    file = folder / "commits" / "00001.json"
    file.write_text(file.read_text()[:-30])
    return ["00001.json"]


def forge_a_record(folder: Path) -> list[str]:
    """A damaged file whose commit record has its hash."""
    import hashlib

    flip_a_logit(folder)
    file, record = shards(folder)[1], folder / "commits" / "00001.json"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    record.write_text(json.dumps(json.loads(record.read_text()) | {"sha256": digest}))
    return [file.name, record.name]


def cut_the_manifest(folder: Path) -> list[str]:
    file = folder / "softlabels.json"
    file.write_text(file.read_text()[:-30])
    return [file.name]


def lose_the_plan(folder: Path) -> list[str]:
    (folder / "plan.json").unlink()
    return ["plan.json"]


def cut_the_plan(folder: Path) -> list[str]:
    file = folder / "plan.json"
    file.write_text(file.read_text()[:-30])
    return ["plan.json"]


def forge_the_statistics(folder: Path) -> list[str]:
    """A commit that tells of other right answers than the logits give."""
    record = folder / "commits" / "00001.json"
    told = json.loads(record.read_text())
    told["statistics"]["correct"] = 3
    record.write_text(json.dumps(told))
    return [shards(folder)[1].name, "softlabels.json"]


def forge_the_manifest(folder: Path) -> list[str]:
    """A manifest that tells of another entropy than its commits."""
    file = folder / "softlabels.json"
    told = json.loads(file.read_text())
    told["statistics"]["entropy"] += 1
    file.write_text(json.dumps(told))
    return [file.name]


def link_another(folder: Path) -> list[str]:
    """One more file for readers of the folder, by a link."""
    other = folder / "data" / "train-00099-of-00100.parquet"
    other.symlink_to(shards(folder)[0].name)
    return [other.name]


def cut_the_card(folder: Path) -> list[str]:
    file = folder / "README.md"
    file.write_text(file.read_text()[:200])
    return [file.name]


def lose_the_card(folder: Path) -> list[str]:
    (folder / "README.md").unlink()
    return ["README.md"]


HARMS: list[Callable[[Path], list[str]]] = [
    truncate, flip_a_logit, flip_anywhere, delete, rename, swap, copy, empty, lose_a_record,
    cut_a_record, forge_a_record, cut_the_manifest, lose_the_plan, cut_the_plan, lose_the_card,
    forge_the_statistics, forge_the_manifest, link_another, cut_the_card,
]  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    """All files that are not rewritten with another date."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("softlabels.json", "README.md")
    }


def places(folder: Path) -> dict[str, tuple[int, int]]:
    """What changes when a shard is written again: its place on the disk, and its time."""
    found = {path.name: os.stat(path) for path in shards(folder)}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in found.items()}
