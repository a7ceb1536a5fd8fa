"""`softlabels export`: each format read back as its own readers read it, and imported again."""

import importlib.util
import io
import json
import sys
import tarfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import softlabels
from softlabels.errors import DamagedDump, IncompleteDump, StoreError, UsageError
from softlabels.exchange import export_dump, import_logits, mds
from softlabels.inputs.hashing import hash_bytes
from softlabels.store.folder import Folder
from softlabels.store.reader import DumpReader
from tests.conftest import every, make_vectors, png
from tests.exchange.foreign_files import soft

ROWS = 120


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A dump of 120 images with text ids, labels and inputs, in three shards."""
    import datasets

    place = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    images = [{"bytes": png(random.integers(0, 256, (8, 8))), "path": None} for _ in range(ROWS)]
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=list("abcde")),
            "file": datasets.Value("string"),
        }
    )
    content = {
        "image": images,
        "label": [row % 5 for row in range(ROWS)],
        "file": [f"x/ü.{row}.png" for row in range(ROWS)],
    }
    data = str(place / "pictures.parquet")
    datasets.Dataset.from_dict(content, features=features).to_parquet(data)
    np.save(place / "z.npy", soft(ROWS, 5)[0].astype(np.float16))
    return import_logits(
        file=str(place / "z.npy"), data=data, id_column="file", with_inputs=True, shard_rows=50,
        out=str(place / "dump"),
    ).out  # fmt: skip


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A dump of 120 vectors without inputs, float32, ids that are numbers, in two shards."""
    place = tmp_path_factory.mktemp("numbers")
    data = make_vectors(place / "v.parquet", ROWS)
    np.save(place / "z.npy", soft(ROWS, 3)[0])
    words = {"file": str(place / "z.npy"), "data": data, "shard_rows": 70}
    return import_logits(**words, out=str(place / "dump")).out


def opened(dump: str) -> DumpReader:
    return DumpReader(Folder(dump))


def read_tars(place: Path) -> list[dict[str, bytes]]:
    """Samples as the convention has them: neighbours whose names agree up to the first dot."""
    samples: list[dict[str, bytes]] = []
    for path in sorted(place.glob("*.tar")):
        with tarfile.open(path) as tar:
            for entry in tar:
                key, _, ending = entry.name.partition(".")
                if not samples or samples[-1]["__key__"] != key.encode():
                    samples.append({"__key__": key.encode()})
                assert ending not in samples[-1]
                file = tar.extractfile(entry)
                assert file is not None
                samples[-1][ending] = file.read()
    return samples


def read_mds(place: Path) -> list[dict[str, bytes]]:
    """Samples as the format's reader takes them apart, from index.json and the offsets."""
    found = []
    for shard in json.loads((place / "index.json").read_text())["shards"]:
        content = (place / shard["raw_data"]["basename"]).read_bytes()
        assert len(content) == shard["raw_data"]["bytes"]
        count = int.from_bytes(content[:4], "little")
        assert count == shard["samples"]
        ends = np.frombuffer(content[4 : 8 + 4 * count], "<u4")
        for start, end in pairwise(ends.tolist()):
            sample, sizes, at = content[start:end], [], 0
            for size in shard["column_sizes"]:
                if not size:
                    size = int.from_bytes(sample[at : at + 4], "little")
                    at += 4
                sizes.append(size)
            values = {}
            for name, size in zip(shard["column_names"], sizes, strict=True):
                values[name] = sample[at : at + size]
                at += size
            assert at == len(sample)
            found.append(values)
    return found


def test_npz_there_and_back(numbers, tmp_path):
    done = export_dump(dump=numbers, to="npz", out=str(tmp_path / "z"))
    assert done.files == [
        "softlabels-export.json", "train-00000-of-00002.npz", "train-00001-of-00002.npz",
    ]  # fmt: skip
    assert done.rows == ROWS
    data = opened(numbers).plan.source["data"]
    import_logits(file=str(tmp_path / "z"), data=data, out=str(tmp_path / "back"), shard_rows=70)
    first, second = opened(numbers), opened(str(tmp_path / "back"))
    assert softlabels.verify(dump=str(tmp_path / "back"), source=True).good
    assert every(first).tobytes() == every(second).tobytes()
    for column in ("ids", "hashes", "labels"):
        assert np.array_equal(getattr(first, column), getattr(second, column))
    assert first.plan.source == second.plan.source


def test_npz_of_images(pictures, tmp_path):
    export_dump(dump=pictures, to="npz", out=str(tmp_path / "z"))
    reader, cells, ids = opened(pictures), [], []
    for path in sorted((tmp_path / "z").glob("*.npz")):
        with np.load(path, allow_pickle=False) as held:
            ids += held["ids"].tolist()
            ends = [0, *held["inputs_ends"].tolist()]
            content = held["inputs_bytes"].tobytes()
            cells += [content[a:b] for a, b in pairwise(ends)]
            assert held["logits"].dtype == np.float16
    assert ids == reader.ids.tolist()
    assert [hash_bytes(cell) for cell in cells] == reader.hashes.tolist()


def test_npz_in_another_order_is_matched_by_its_ids(pictures, tmp_path):
    export_dump(dump=pictures, to="npz", out=str(tmp_path / "z"))
    with np.load(tmp_path / "z" / "train-00001-of-00003.npz") as held:
        np.savez(tmp_path / "z" / "train-00001-of-00003.npz", **{n: held[n][::-1] for n in (
            "logits", "ids", "labels", "input_hash")})  # fmt: skip
    plan = opened(pictures).plan
    words = {"data": plan.source["data"], "id_column": "file", "out": str(tmp_path / "back")}
    import_logits(file=str(tmp_path / "z"), **words)
    assert every(opened(pictures)).tobytes() == every(opened(str(tmp_path / "back"))).tobytes()


def test_webdataset_of_images(pictures, tmp_path):
    done = export_dump(dump=pictures, to="webdataset", out=str(tmp_path / "w"))
    assert done.files[1:] == [f"train-{shard:06d}.tar" for shard in range(3)]
    reader, samples = opened(pictures), read_tars(tmp_path / "w")
    assert len(samples) == ROWS
    logits = [np.load(io.BytesIO(sample["logits.npy"])) for sample in samples]
    assert np.stack(logits).tobytes() == every(reader).tobytes()
    for row, sample in enumerate(samples):
        about = json.loads(sample["json"])
        assert about["id"] == reader.ids[row]
        assert about["input_hash"] == int(reader.hashes[row]) == hash_bytes(sample["png"])
        assert int(sample["cls"]) == about["label"] == reader.labels[row]
    assert Image.open(io.BytesIO(samples[0]["png"])).size == (8, 8)


def test_webdataset_is_read_by_its_library(pictures, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    export_dump(dump=pictures, to="webdataset", out=str(tmp_path / "w"))
    urls = [str(path) for path in sorted((tmp_path / "w").glob("*.tar"))]
    found = webdataset.WebDataset(urls, shardshuffle=False).decode()
    logits = [sample["logits.npy"] for sample in found]
    assert np.stack(logits).tobytes() == every(opened(pictures)).tobytes()


def test_mds_of_images(pictures, tmp_path):
    export_dump(dump=pictures, to="mds", out=str(tmp_path / "m"))
    reader, samples = opened(pictures), read_mds(tmp_path / "m")
    assert b"".join(sample["logits"] for sample in samples) == every(reader).tobytes()
    assert [sample["id"].decode() for sample in samples] == reader.ids.tolist()
    assert b"".join(sample["input_hash"] for sample in samples) == reader.hashes.tobytes()
    assert b"".join(sample["label"] for sample in samples) == reader.labels.tobytes()
    assert [hash_bytes(sample["input"]) for sample in samples] == reader.hashes.tolist()
    (shard,) = json.loads((tmp_path / "m" / "index.json").read_text())["shards"]
    assert shard["column_names"] == sorted(shard["column_names"])
    assert dict(zip(shard["column_names"], shard["column_encodings"], strict=True)) == {
        "id": "str", "input": "bytes", "input_hash": "uint64", "label": "int",
        "logits": "ndarray:float16:5",
    }  # fmt: skip


def test_mds_shards_end_at_their_limit(numbers, tmp_path, monkeypatch):
    monkeypatch.setattr(mds, "SHARD_BYTES", 2000)
    export_dump(dump=numbers, to="mds", out=str(tmp_path / "m"))
    shards = json.loads((tmp_path / "m" / "index.json").read_text())["shards"]
    assert len(shards) > 2
    assert all(shard["raw_data"]["bytes"] <= 2000 for shard in shards)
    samples = read_mds(tmp_path / "m")
    assert b"".join(sample["logits"] for sample in samples) == every(opened(numbers)).tobytes()
    assert b"".join(sample["id"] for sample in samples) == opened(numbers).ids.tobytes()


def test_mds_is_read_by_its_library(pictures, tmp_path):
    """Where mosaicml-streaming is installed, as `make bench` does."""
    rivals = Path(sys.prefix) / "rivals"
    if rivals.exists():
        sys.path.append(str(rivals))
    if importlib.util.find_spec("streaming") is None:
        pytest.skip("mosaicml-streaming is not installed")
    from benchmarks.rivals import _streaming

    _streaming()
    formats = importlib.import_module("streaming.base.format")
    export_dump(dump=pictures, to="mds", out=str(tmp_path / "m"))
    (shard,) = json.loads((tmp_path / "m" / "index.json").read_text())["shards"]
    found, reader = formats.reader_from_json(str(tmp_path / "m"), "", shard), opened(pictures)
    samples = [found[row] for row in range(ROWS)]
    assert [sample["id"] for sample in samples] == reader.ids.tolist()
    assert np.stack([s["logits"] for s in samples]).tobytes() == every(reader).tobytes()
    assert [hash_bytes(s["input"]) for s in samples] == reader.hashes.tolist()


@pytest.mark.parametrize("to", ["npz", "webdataset", "mds"])
def test_soft_targets_at_a_temperature(numbers, tmp_path, to):
    export_dump(dump=numbers, to=to, out=str(tmp_path / "o"), T=4)
    if to == "npz":
        parts = [np.load(path)["soft_targets"] for path in sorted((tmp_path / "o").glob("*.npz"))]
        found = np.concatenate(parts)
    elif to == "webdataset":
        samples = read_tars(tmp_path / "o")
        found = np.stack([np.load(io.BytesIO(s["soft_targets.npy"])) for s in samples])
    else:
        found = np.stack(
            [np.frombuffer(s["soft_targets"], "<f4") for s in read_mds(tmp_path / "o")]
        )
    assert found.dtype == np.float32
    dataset = softlabels.load(numbers, T=4, inputs=False)
    assert np.array_equal(found[9], dataset[9]["soft_target"].numpy())
    about = json.loads((tmp_path / "o" / "softlabels-export.json").read_text())
    assert about["T"] == 4
    assert about["teacher"] == opened(numbers).plan.teacher


@pytest.mark.parametrize("to", ["npz", "webdataset", "mds"])
def test_an_interrupted_export_leaves_nothing(numbers, tmp_path, to):
    import shutil

    hurt = tmp_path / "hurt"
    shutil.copytree(numbers, hurt)
    (hurt / "data" / "train-00001-of-00002.parquet").unlink()
    with pytest.raises(DamagedDump, match="is missing"):
        export_dump(dump=str(hurt), to=to, out=str(tmp_path / "o" / "out"))
    assert list((tmp_path / "o").iterdir()) == []


def test_an_export_that_is_no_import_is_refused(numbers, tmp_path):
    """Soft targets in .npz, and the tars of WebDataset, which FKD's files are called like."""
    from softlabels.errors import SourceError

    data = opened(numbers).plan.source["data"]
    for to, match in (("npz", "no array 'logits'; it has soft_targets"), ("webdataset", "read")):
        export_dump(dump=numbers, to=to, out=str(tmp_path / to), T=2)
        with pytest.raises(SourceError, match=match):
            import_logits(file=str(tmp_path / to), data=data, out=str(tmp_path / "o"))


def test_where_an_export_may_not_go(numbers, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    for out, match in ((tmp_path / "full", "is there already"), ("s3://b/x", "local folder")):
        with pytest.raises(UsageError, match=match):
            export_dump(dump=numbers, to="npz", out=str(out))
    with pytest.raises(UsageError, match="--to is 'csv'"):
        export_dump(dump=numbers, to="csv", out=str(tmp_path / "o"))
    Folder(tmp_path / "begun").write_json("plan.json", vars(opened(numbers).plan))
    with pytest.raises(IncompleteDump):
        export_dump(dump=str(tmp_path / "begun"), to="npz", out=str(tmp_path / "o"))


def test_the_command(cli, numbers, tmp_path):
    done = cli("export", numbers, "--to", "webdataset", "--out", "tars", "--json")
    assert done.code == 0, done.err
    assert done.value["rows"] == ROWS
    assert len(read_tars(tmp_path / "tars")) == ROWS


def test_a_shard_without_rows_is_no_obstacle(pictures, tmp_path):
    data = opened(pictures).plan.source["data"]
    ids = [f"x/ü.{row}.png" for row in range(50, ROWS)]
    logits = soft(ROWS, 5)[0][50:]
    np.savez(tmp_path / "z.npz", logits=logits, ids=np.array(ids))
    words = {"data": data, "id_column": "file", "on_missing": "skip", "shard_rows": 50}
    dump = import_logits(
        file=str(tmp_path / "z.npz"), with_inputs=True, out=str(tmp_path / "d"), **words
    ).out
    for to in ("npz", "webdataset", "mds"):
        assert export_dump(dump=dump, to=to, out=str(tmp_path / to)).rows == ROWS - 50
    index = json.loads((tmp_path / "mds" / "index.json").read_text())
    assert sum(shard["samples"] for shard in index["shards"]) == ROWS - 50
    assert "input" in index["shards"][0]["column_names"]
    again = import_logits(file=str(tmp_path / "npz"), out=str(tmp_path / "e"), **words).out
    assert np.array_equal(every(opened(again)), logits)


def test_a_link_is_no_place_for_an_export(numbers, tmp_path):
    (tmp_path / "there").mkdir()
    for target in ("there", "nowhere"):
        link = tmp_path / f"to-{target}"
        link.symlink_to(tmp_path / target)
        with pytest.raises(UsageError, match="is a link"):
            export_dump(dump=numbers, to="npz", out=str(link))


@pytest.mark.parametrize(
    ("out", "match"),
    [
        ("x" * 300, "x: File name too long; choose another folder with --out"),
        ("below/" + "x" * 300, "x: File name too long; choose another folder with --out"),
        ("file/o", "file/o: Not a directory; choose another folder with --out"),
        ("file/o/o", "file/o/o: Not a directory; choose another folder with --out"),
        ("a\0b", r"--out is 'a\\x00b'; expected is the path of a local folder"),
        ("", "--out is ''; expected is the path of a local folder"),
        ("empty", "is the folder that you are in; name another"),
        (".", "is the folder that you are in; name another"),
    ],
)
def test_names_that_no_folder_can_have_are_refused(numbers, tmp_path, monkeypatch, out, match):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty" if out == "." else tmp_path)
    if out == "empty":
        monkeypatch.chdir(tmp_path / "empty")
        out = str(tmp_path / "empty")
    with pytest.raises((UsageError, StoreError), match=match):
        export_dump(dump=numbers, to="npz", out=out)
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".partial")]


def test_the_longest_name_that_a_folder_can_have_is_taken(numbers, tmp_path):
    for name in ("x" * 255, "ü" * 127):
        assert export_dump(dump=numbers, to="npz", out=str(tmp_path / name)).rows == ROWS


def test_a_home_that_nobody_has_is_a_name_like_others(numbers, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    export_dump(dump=numbers, to="npz", out="~nobody-at-all/o")
    assert (tmp_path / "~nobody-at-all" / "o").is_dir()
