"""Dumps made to do harm: whoever opens one gets a clear error, soon, and nothing else happens."""

import hashlib
import json
import os
import random
import re
import resource
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import softlabels
from softlabels.errors import SoftlabelsError
from softlabels.store.records import Plan
from tests.capture import harm
from tests.conftest import whole
from tests.processes import start

Json = dict[str, Any]


def records(folder: Path) -> tuple[Json, Json]:
    names = ("softlabels.json", "plan.json")
    manifest, plan = (json.loads((folder / name).read_text()) for name in names)
    return manifest, plan


def forge_plan(folder: Path, change: Callable[[Json], None]) -> None:
    """Another plan with every hash of it in order, as a forger would leave it."""
    manifest, plan = records(folder)
    change(plan)
    text = json.dumps(plan, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    digest = "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    (folder / "plan.json").write_text(json.dumps(plan))
    manifest |= {"plan": plan, "plan_hash": digest}
    (folder / "softlabels.json").write_text(json.dumps(manifest))
    for path in (folder / "commits").iterdir():
        path.write_text(json.dumps(json.loads(path.read_text()) | {"plan": digest}))


def forge_manifest(folder: Path, change: Callable[[Json], None]) -> None:
    manifest, _ = records(folder)
    change(manifest)
    (folder / "softlabels.json").write_text(json.dumps(manifest))


def forge_shard(folder: Path, content: bytes, rows: int | None = None) -> None:
    """Other bytes in shard 1, and every record of it in order."""
    file = harm.shards(folder)[1]
    file.write_bytes(content)
    told: Json = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    told |= {} if rows is None else {"rows": rows}
    record = folder / "commits" / "00001.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | told))

    def change(manifest: Json) -> None:
        manifest["shards"][1] |= told
        for name in ("bytes", "rows"):
            manifest[name] = sum(shard[name] for shard in manifest["shards"])

    forge_manifest(folder, change)


def name_of_shard(name: str) -> Callable[[Path], None]:
    return lambda folder: forge_manifest(folder, lambda m: m["shards"][0].update(file=name))


def plan_with(**change: Any) -> Callable[[Path], None]:
    return lambda folder: forge_plan(folder, lambda plan: plan.update(change))


def source_with(**change: Any) -> Callable[[Path], None]:
    return lambda folder: forge_plan(folder, lambda plan: plan["source"].update(change))


def text_of(name: str, text: str | bytes) -> Callable[[Path], None]:
    content = text.encode() if isinstance(text, str) else text
    return lambda folder: (folder / name).write_bytes(content) and None


def all_rows(count: int) -> Callable[[Path], None]:
    """Every number of rows in the records agrees, and none is true."""

    def change(folder: Path) -> None:
        def plan(value: Json) -> None:
            value |= {"inputs": count, "shard_inputs": -(-count // 3)}
            value["source"]["rows"] = count

        def manifest(value: Json) -> None:
            for shard in value["shards"]:
                shard["rows"] = count // 3
            value["rows"] = count // 3 * 3

        forge_plan(folder, plan)
        forge_manifest(folder, manifest)

    return change


def statistics(**change: Any) -> Callable[[Path], None]:
    return lambda folder: forge_manifest(folder, lambda m: m["statistics"].update(change))


def replaced(name: str, how: Callable[[Path], None]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        how(folder / name)

    return change


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def lying_footer(folder: Path) -> None:
    """A shard of one row that is declared to be 500, by a valid file with other columns."""
    schema = pq.read_schema(harm.shards(folder)[1])
    column = pa.array([[1.0] * 10] * 500, pa.list_(pa.float64()))
    table = pa.table({"id": list(range(500, 1000)), "view": [0] * 500, "input_hash": [0] * 500,
                      "label": [0] * 500, "logits": column})  # fmt: skip
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(schema.metadata), sink)
    forge_shard(folder, sink.getvalue().to_pybytes())


def lost_rows(folder: Path) -> None:
    """An unfinished dump whose commit tells of a row far away."""
    (folder / "softlabels.json").unlink()
    record = folder / "commits" / "00001.json"
    entry = {"id": 1, "row": 10**12, "input_hash": 1, "label": 1, "reason": "x"}
    record.write_text(json.dumps(json.loads(record.read_text()) | {"skipped": [entry]}))


FIRST = "data/train-00000-of-00003.parquet"
HOSTILE: dict[str, Callable[[Path], Any]] = {
    "a name that leads up": name_of_shard("../../victim"),
    "an absolute name": name_of_shard("/etc/passwd"),
    "a giant name": name_of_shard("x" * (1 << 20)),
    "a name with a zero byte": name_of_shard("data/a\0b"),
    "a split that leads up": source_with(split="../../x"),
    "an absolute split": source_with(split="/etc/x"),
    "a giant split": source_with(split="x" * (1 << 20)),
    "no shards at all": lambda f: forge_manifest(f, lambda m: m.update(shards=[], rows=0, bytes=0)),
    "a shard that is no object": lambda f: forge_manifest(f, lambda m: m.update(shards=[1, 2, 3])),
    "negative bytes": lambda f: forge_manifest(f, lambda m: m["shards"][0].update(bytes=-1)),
    "a thousand billion rows": all_rows(10**12),
    "more rows than numbers": all_rows(10**30),
    "a million shards": plan_with(inputs=10**9, shard_inputs=1),
    "shards of no rows": plan_with(shard_inputs=0),
    "row groups of no rows": plan_with(group_rows=0),
    "many classes": plan_with(classes=2**23),
    "more classes than memory": plan_with(classes=2**62),
    "no classes": plan_with(classes=0),
    "a class count that is true": plan_with(classes=True),
    "rows that are no number": lambda f: forge_manifest(f, lambda m: m.update(rows=float("nan"))),
    "an unknown dtype": plan_with(dtype="object"),
    "an unknown codec": plan_with(codec="__import__('os')"),
    "a plan with a field that nobody knows": plan_with(unheard=True),
    "views": plan_with(views=[{"a": 1}]),
    "a teacher that is a list": plan_with(teacher=[]),
    "columns that are text": source_with(columns="label"),
    "class names that are numbers": source_with(class_names=list(range(10))),
    "another number of class names": source_with(class_names=["a"]),
    "a preprocessing that makes giants": plan_with(
        preprocess="resize(9000000, bilinear, torch)|scale(255)"
    ),
    "a preprocessing that is code": plan_with(preprocess="__import__('os').system('touch /pwned')"),
    "statistics that are text": statistics(entropy="x" * 1000),
    "statistics that are infinite": statistics(min=float("-inf")),
    "statistics that are an object": statistics(correct={"a": 1}),
    "an empty manifest": text_of("softlabels.json", ""),
    "a deep manifest": text_of("softlabels.json", "[" * 2_000_000),
    "deep objects": text_of("softlabels.json", '{"a":' * 500_000),
    "a number of many digits": text_of("softlabels.json", '{"format":' + "9" * 100_000 + "}"),
    "no UTF-8": text_of("softlabels.json", b'{"format": "\xff\xfe"}'),
    "a deep plan": text_of("plan.json", "[" * 2_000_000),
    "a deep record": text_of("commits/00001.json", '{"a":' * 500_000),
    "text that is none": plan_with(preprocess="\ud800"),
    "rows left out that are not there": lost_rows,
    "a manifest of a terabyte": replaced("softlabels.json", sparse),
    "a plan of a terabyte": replaced("plan.json", sparse),
    "a record of a terabyte": replaced("commits/00001.json", sparse),
    "a shard of a terabyte": replaced(FIRST, sparse),
    "a manifest that is a pipe": replaced("softlabels.json", os.mkfifo),
    "a plan that is a pipe": replaced("plan.json", os.mkfifo),
    "a record that is a pipe": replaced("commits/00001.json", os.mkfifo),
    "a shard that is a pipe": replaced(FIRST, os.mkfifo),
    "a shard that is a folder": replaced(FIRST, os.mkdir),
    "a shard that is a device": replaced(FIRST, lambda p: p.symlink_to("/dev/zero")),
    "a shard that is a circle": replaced(FIRST, lambda p: p.symlink_to(p)),
    "a manifest that is a circle": replaced("softlabels.json", lambda p: p.symlink_to(p)),
    "a shard that is no Parquet": lambda f: forge_shard(f, b"PAR1" + b"\0" * 20_000 + b"PAR1"),
    "a shard whose footer is larger than it": lambda f: forge_shard(
        f, b"PAR1" + b"\0" * 20_000 + b"\xff\xff\xff\x7fPAR1"
    ),
    "a shard with other types": lying_footer,
}  # fmt: skip


def open_in_all_ways(folder: str, teacher: str, log: str) -> None:
    """Each door, and what it said; anything but an answer or an error of ours ends with 3."""
    doors: dict[str, Callable[[], Any]] = {
        "info": lambda: softlabels.info(folder),
        "load": lambda: softlabels.load(folder, T=2)[0],
        "logits": lambda: whole(softlabels.load(folder, T=2)),
        "verify": lambda: softlabels.verify(dump=folder, source=True).good or _not_good(),
        "resume": lambda: softlabels.dump(teacher=teacher, out=folder, resume=True),
    }
    with open(log, "w") as file:
        for name, door in doors.items():
            try:
                door()
                said = "fine"
            except SoftlabelsError as error:
                said = f"{type(error).__name__}: {error}"
            print(name, said[:2000].replace("\n", " "), file=file, flush=True)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print("peak", peak >> 10, file=file)


def _not_good() -> None:
    raise SoftlabelsError("damage")


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_dump_harms_nobody(what, dump_folder, teacher, tmp_path):
    folder = Path(shutil.copytree(dump_folder, tmp_path / "a" / "b" / "d"))
    victim = tmp_path / "a" / "victim"
    victim.write_text("precious")
    HOSTILE[what](folder)
    log = tmp_path / "log"
    began = time.monotonic()
    process = start(open_in_all_ways, folder=str(folder), teacher=teacher, log=str(log))
    process.join(60)
    said = dict(line.split(" ", 1) for line in log.read_text().splitlines())
    assert process.exitcode == 0, (said, sys.stderr)
    assert time.monotonic() - began < 50
    assert int(said["peak"]) < 1500, "MiB"
    assert said["verify"] != "fine"
    assert victim.read_text() == "precious"
    assert not Path("/pwned").exists()
    around = {p.name for p in (tmp_path / "a").iterdir()} | {
        p.name for p in folder.parent.iterdir()
    }
    assert around == {"victim", "b", "d"}
    assert all(len(words) < 1500 for words in said.values()), "no megabytes in an error"


@pytest.mark.parametrize(
    "step", ["resize(8)", "resize(8, bicubic)", "contain(8, torch)", "crop_pct(0.9, 8)"]
)
def test_a_plan_that_does_not_say_how_pictures_are_scaled_is_refused(step, dump_folder, tmp_path):
    folder = shutil.copytree(dump_folder, tmp_path / "d")
    plan_with(preprocess=f"upright|{step}|scale(255)")(folder)
    message = rf"step {re.escape(step)}, and a record says with which filter and resizer"
    for door in (softlabels.info, softlabels.load):
        with pytest.raises(SoftlabelsError, match=message):
            door(folder)


def mutate(content: bytes, chance: random.Random) -> bytes:
    """The same shard with some bytes of its footer changed: lengths, counts, types, offsets."""
    size = int.from_bytes(content[-8:-4], "little")
    first = len(content) - 8 - size
    changed = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 5, 40])):
        place = chance.randrange(first, len(content) - 4)
        changed[place] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)])
    if chance.random() < 0.2:
        chunk = chance.randrange(4, first)
        changed[chunk : chunk + 8] = chance.randbytes(8)
    return bytes(changed)


def open_mutants(folder: str, seeds: list[int], log: str) -> None:
    original = harm.shards(Path(folder))[1].read_bytes()
    for seed in seeds:
        Path(log).write_text(str(seed))
        forge_shard(Path(folder), mutate(original, random.Random(seed)))
        softlabels.verify(dump=folder)
        try:
            dataset = softlabels.load(folder, T=2)
            assert whole(dataset).shape == (1200, 10)
        except SoftlabelsError:
            continue
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    Path(log).write_text(f"peak {peak}")


@pytest.mark.slow
def test_footers_that_lie_break_nothing(dump_folder, tmp_path):
    folder = shutil.copytree(dump_folder, tmp_path / "d")
    log = tmp_path / "log"
    process = start(open_mutants, folder=str(folder), seeds=list(range(300)), log=str(log))
    process.join(120)
    assert process.exitcode == 0, f"seed {log.read_text()}"
    assert int(log.read_text().removeprefix("peak ")) < 3000, "MiB"


def test_a_plan_from_strangers_is_checked_by_name_and_type(dump_folder):
    _, plan = records(Path(dump_folder))
    assert Plan.parse(plan, "plan.json").shards == 3
    for name in plan:
        optional = name == "decoder"  # not all inputs are decoded
        for wrong in ([], {}, -1, "", 1.5, *(() if optional else (None,))):
            if type(wrong) is not type(plan[name]):
                with pytest.raises(SoftlabelsError, match=r"plan\.json"):
                    Plan.parse(plan | {name: wrong}, "plan.json")
        if optional:
            continue
        without = {key: value for key, value in plan.items() if key != name}
        with pytest.raises(SoftlabelsError, match=r"plan\.json"):
            Plan.parse(without, "plan.json")


@pytest.mark.parametrize("field", ["teacher", "source"])
def test_a_plan_nested_too_deeply_is_damaged(dump_folder, tmp_path, field):
    folder = shutil.copytree(dump_folder, tmp_path / "d")
    deep: Any = 1
    for _ in range(500):
        deep = {"a": deep}
    forge_plan(folder, lambda plan: plan[field].__setitem__("more", deep))
    for use in (lambda: softlabels.load(folder, T=2), lambda: softlabels.info(str(folder))):
        with pytest.raises(SoftlabelsError, match="nested too deeply"):
            use()
    assert "nested too deeply" in str(softlabels.verify(dump=str(folder)).findings)
