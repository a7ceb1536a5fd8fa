"""Damage done to a finished dump: verify names it, a resume redoes just that."""

import json
import re
import shutil
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import softlabels
from softlabels.errors import StoreError, TeacherError, UsageError
from softlabels.logits import DenseLogits
from softlabels.store.codecs.dense import DenseCodec
from softlabels.store.folder import Folder
from softlabels.store.pages.places import plain_values, read_page_header
from softlabels.store.shard_reader import ShardReader
from tests.capture import harm
from tests.conftest import Linear, make_vectors, png, save_script, whole


@pytest.fixture
def copied(dump_folder, tmp_path) -> Path:
    return Path(shutil.copytree(dump_folder, tmp_path / "copy"))


def resume(teacher: str, folder: Path, **words) -> int:
    return softlabels.dump(
        teacher=teacher, out=str(folder), batch_size=100, resume=True, **words
    ).rows_run


def test_a_good_dump_is_good(dump_folder, cli):
    before = harm.contents(Path(dump_folder))
    done = cli("verify", dump_folder)
    assert (done.code, done.err) == (0, "")
    assert "digits-t: good; 1,200 rows of 3 shards checked" in done.out
    value = cli("verify", dump_folder, "--source", "--json").value
    assert value["good"]
    assert (value["rows"], value["shards"], value["source_checked"]) == (1200, 3, True)
    manifest = json.loads(Path(dump_folder, "softlabels.json").read_text())
    assert value["correct"] == manifest["statistics"]["correct"] > 1000
    assert before == harm.contents(Path(dump_folder))


@pytest.mark.parametrize("do", harm.HARMS, ids=lambda f: f.__name__)
def test_every_harm_is_named_and_only_that_is_redone(do, copied, dump_folder, teacher):
    before, places = harm.contents(copied), harm.places(copied)
    named = do(copied)
    verdict = softlabels.verify(dump=str(copied))
    assert not verdict.good
    assert {Path(finding.file).name for finding in verdict.findings} == set(named)
    resume(teacher, copied)
    assert softlabels.verify(dump=str(copied)).good
    assert harm.contents(copied) == before
    redone = [name for name, place in harm.places(copied).items() if places[name] != place]
    lost = (
        {"train-00001-of-00003.parquet"} if do in (harm.lose_a_record, harm.cut_a_record) else set()
    )
    assert set(redone) == (set(named) & set(places)) | lost


def test_the_command_line_names_the_file_and_exits_with_1(copied, cli):
    harm.swap(copied)
    done = cli("verify", "copy", cwd=copied.parent)
    assert done.code == 1
    assert done.err == ""
    lines = done.out.splitlines()
    assert lines[0].startswith("data/train-00000-of-00003.parquet: ")
    assert "copy: 2 problems" in done.out
    assert "\nTo repair: run softlabels dump --teacher TEACHER --name t " in done.out
    assert ", where TEACHER is the teacher's file: it redoes only what is damaged." in done.out
    assert cli("verify", "copy", "--json", cwd=copied.parent).value["good"] is False


@pytest.mark.parametrize("seed", range(40))
def test_a_flipped_bit_anywhere_in_a_shard_is_found(copied, seed):
    named = harm.flip_anywhere(copied, seed)
    verdict = softlabels.verify(dump=str(copied))
    assert [finding.file for finding in verdict.findings] == [f"data/{named[0]}"]


def test_a_resume_may_look_at_sizes_only(copied, teacher):
    harm.flip_a_logit(copied)
    assert resume(teacher, copied, check="size") == 0
    assert not softlabels.verify(dump=str(copied)).good
    assert resume(teacher, copied) == 500


def test_a_file_of_somebody_else_is_named_and_not_removed(copied, teacher):
    (copied / "data" / "notes.txt").write_text("mine")
    verdict = softlabels.verify(dump=str(copied))
    assert [finding.file for finding in verdict.findings] == ["data/notes.txt"]
    with pytest.raises(
        StoreError, match=r"data/notes\.txt is not a file of this dump.*Move it away"
    ):
        resume(teacher, copied)
    assert (copied / "data" / "notes.txt").read_text() == "mine"


def test_an_unfinished_dump_is_not_good_but_what_is_there_is_checked(copied):
    for name in ("softlabels.json", "commits/00002.json"):
        (copied / name).unlink()
    verdict = softlabels.verify(dump=str(copied))
    assert not verdict.complete
    assert (verdict.rows, verdict.shards) == (1000, 2)
    assert any("2 of 3 shards are committed" in str(finding) for finding in verdict.findings)


def test_a_dump_that_is_being_made_is_said_to_be(copied, cli):
    from softlabels.store.claims import claimed

    (copied / "softlabels.json").unlink()
    with claimed(Folder(copied), "run"):
        verdict = softlabels.verify(dump=str(copied))
    assert any("is being made by process" in finding.problem for finding in verdict.findings)


def test_what_is_not_read_is_not_counted(copied, cli):
    for file in harm.shards(copied):
        file.unlink()
    done = cli("verify", "copy", cwd=copied.parent)
    assert "copy: 3 problems; no row could be checked" in done.out
    (copied / "data" / "notes.txt").write_text("mine")
    (copied / "commits" / "notes.txt").write_text("mine")
    told = {f.file: f.redone for f in softlabels.verify(dump=str(copied)).findings}
    assert (told["data/notes.txt"], told["commits/notes.txt"]) == (False, False)


def test_options_that_say_nothing_alone(dump_folder, teacher):
    for words, message in (({"data": "digits"}, "--data is for --source and --replay"),
                           ({"teacher": teacher}, "--teacher is for --replay")):  # fmt: skip
        with pytest.raises(UsageError, match=message):
            softlabels.verify(dump=dump_folder, **words)


def test_no_dump_at_all(tmp_path, cli):
    done = cli("verify", "none")
    assert done.code == 1
    assert "none does not exist" in done.err
    (tmp_path / "file").write_text("x")
    assert "file is a file; a dump is a folder" in cli("verify", "file").err


def test_records_that_agree_among_themselves_and_lie(dump_folder, tmp_path):
    """Somebody edits the labels of a shard and updates hashes and records to match."""
    import hashlib

    folder = Path(shutil.copytree(dump_folder, tmp_path / "copy"))
    file = harm.shards(folder)[1]
    table = pq.read_table(file)
    labels = table["label"].to_numpy().copy()
    labels[7] = (labels[7] + 1) % 10
    column = pa.array(labels)
    table = table.set_column(3, table.schema.field("label"), column)
    group = json.loads((folder / "plan.json").read_text())["group_rows"]
    pq.write_table(table, file, compression="none", use_dictionary=False, row_group_size=group)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    change = {"bytes": file.stat().st_size, "sha256": digest}
    record, manifest = folder / "commits" / "00001.json", folder / "softlabels.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | change))
    whole = json.loads(manifest.read_text())
    whole["shards"][1] |= change
    whole["bytes"] = sum(shard["bytes"] for shard in whole["shards"])
    manifest.write_text(json.dumps(whole))
    verdict = softlabels.verify(dump=str(folder))
    assert [finding.file for finding in verdict.findings] == [f"data/{file.name}"]
    assert "not those of the source's rows 500 to 999" in verdict.findings[0].problem


def changed_vectors(tmp_path: Path, change) -> tuple[str, str, str]:
    data = make_vectors(tmp_path / "v.parquet", rows=60, name=[f"r{i}" for i in range(60)])
    script = save_script(Linear(), tmp_path / "s.pt")
    out = str(tmp_path / "d")
    softlabels.dump(teacher=script, data=data, out=out, id_column="name", shard_rows=20)
    other = str(tmp_path / "other.parquet")
    change(datasets.Dataset.from_parquet(data, cache_dir=str(tmp_path / "c"))).to_parquet(other)
    return script, out, other


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda d: d.map(lambda r, i: {"x": [v + (i in (3, 41)) for v in r["x"]]},
                         with_indices=True), "2 of 60 inputs .* with id r3, r41"),
        (lambda d: d.map(lambda r, i: {"label": (r["label"] + (i == 8)) % 3}, with_indices=True),
         "1 of 60 labels .* with id r8"),
        (lambda d: d.select(range(2, 60)), "2 of 60 rows .* first the ids r0, r1"),
        (lambda d: d.shuffle(seed=3), None),
    ],
)  # fmt: skip
def test_the_source_is_hashed_again(tmp_path, change, problem):
    _, out, other = changed_vectors(tmp_path, change)
    verdict = softlabels.verify(dump=out, source=True, data=other)
    if problem is None:
        assert verdict.good
    else:
        assert len(verdict.findings) == 1
        assert re.search(problem, verdict.findings[0].problem)


def test_the_teacher_is_asked_again(dump_folder, teacher, tmp_path, cli):
    done = cli("verify", dump_folder, "--replay", 200, "--teacher", teacher, "--json")
    assert done.code == 0
    found = done.value["replay"]
    assert found["rows"] == 200
    assert found["wrong"] == []
    assert 0 < found["drift"] <= found["rounding"] + found["allowed"]
    assert found["control"] < found["allowed"] < 0.1
    assert found["agreement"] == 1
    other = str(tmp_path / "other.pt")
    softlabels.fit(data="digits", model="linear", epochs=1, out=other)
    with pytest.raises(TeacherError, match="not this dump's teacher"):
        softlabels.verify(dump=dump_folder, replay=5, teacher=other)
    with pytest.raises(UsageError, match="name it with --teacher"):
        softlabels.verify(dump=dump_folder, replay=5)


def test_a_replay_finds_rows_that_moved(tmp_path):
    """A writer that misplaced two rows' logits, with every record and hash in order."""
    data = make_vectors(tmp_path / "v.parquet", rows=60)

    class Shifted(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Linear()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            z = self.inner(x)
            return torch.roll(z, 1, 0) if x.shape[0] == 20 else z

    script = save_script(Shifted(), tmp_path / "s.pt")
    out = str(tmp_path / "d")
    softlabels.dump(teacher=script, data=data, out=out, batch_size=20, allow_batch_dependence=True)
    verdict = softlabels.verify(dump=out, replay=60, teacher=script, batch_size=13)
    assert not verdict.good
    assert verdict.replay is not None
    assert len(verdict.replay.wrong) >= 15
    assert "replayed rows are farther from the teacher" in verdict.findings[0].problem


def test_labels_that_have_nothing_to_do_with_the_logits_raise_an_alarm(tmp_path):
    rows = 400
    data = make_vectors(tmp_path / "v.parquet", rows=rows)
    shuffled = str(tmp_path / "w.parquet")
    table = pq.read_table(data)
    mixed = np.random.default_rng(0).permutation(table["label"].to_numpy())
    table = table.set_column(1, table.schema.field("label"), pa.array(mixed))
    pq.write_table(table, shuffled)
    script = save_script(Knowing(), tmp_path / "s.pt")
    for source, warned in ((data, False), (shuffled, True)):
        out = str(tmp_path / ("bad" if warned else "good"))
        softlabels.dump(teacher=script, data=source, out=out)
        verdict = softlabels.verify(dump=out)
        assert verdict.good
        assert bool(verdict.warnings) is warned
        assert not warned or "no better than guessing among 3 classes" in verdict.warnings[0]


class Knowing(torch.nn.Module):
    """Right more often than not about the vectors of `make_vectors`: their mean is the label."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        centres = torch.tensor([0.0, 1.0, 2.0])
        return -((x.mean(-1, keepdim=True) - centres) ** 2)


def test_rows_left_out_are_part_of_the_fingerprint(tmp_path):
    cells = [{"bytes": png(np.full((8, 8), i)), "path": None} for i in range(30)]
    for broken in (0, 17, 29):
        cells[broken] = {"bytes": b"broken", "path": None}
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=list("0123456789"))}
    )
    data = str(tmp_path / "i.parquet")
    content = {"image": cells, "label": [0] * 30}
    datasets.Dataset.from_dict(content, features=features).to_parquet(data)
    torch.save({"w": torch.randn(10, 64), "b": torch.zeros(10)}, tmp_path / "w.pt")
    out = tmp_path / "d"
    softlabels.dump(teacher=str(tmp_path / "w.pt"), model="linear", data=data, out=str(out),
                    shard_rows=10, batch_size=4, on_error="skip")  # fmt: skip
    verdict = softlabels.verify(dump=str(out))
    assert verdict.good
    assert verdict.rows == 27
    manifest = json.loads((out / "softlabels.json").read_text())
    assert [entry["row"] for entry in manifest["skipped"]] == [0, 17, 29]
    manifest["skipped"][1]["row"] = 18
    (out / "softlabels.json").write_text(json.dumps(manifest))
    assert not softlabels.verify(dump=str(out)).good


@given(
    st.lists(st.lists(st.integers(0, 2**16 - 1), min_size=3, max_size=3), min_size=1, max_size=20)
)
def test_top_class_and_finiteness_of_any_float16(bits):
    values = np.array(bits, np.uint16).view(np.float16)
    top, bad = DenseLogits(torch.from_numpy(values)).check()
    finite = np.isfinite(values).all(-1)
    assert bad == (None if finite.all() else int(np.flatnonzero(~finite)[0]))
    wide = values.astype(np.float64)
    rows = np.arange(len(values))[finite]
    assert (wide[rows, top[finite]] == wide[finite].max(-1, initial=-np.inf)).all()


@given(rows=st.integers(1, 200), classes=st.integers(1, 70), kind=st.sampled_from(["<f2", "<f4"]))
def test_pages_are_found_in_place_and_only_where_they_are(tmp_path_factory, rows, classes, kind):
    values = np.random.default_rng(rows).normal(size=(rows, classes)).astype(kind)
    element = pa.field("element", pa.from_numpy_dtype(values.dtype), nullable=False)
    flat = pa.array(values.reshape(-1))
    column = pa.FixedSizeListArray.from_arrays(flat, type=pa.list_(element, classes))
    schema = pa.schema([pa.field("logits", column.type, nullable=False)])
    table = pa.table([column], schema=schema)
    path = tmp_path_factory.mktemp("p") / "x.parquet"
    ways = {
        "plain": {"compression": "none", "use_dictionary": False, "write_statistics": False,
                      "write_batch_size": 1 << 20, "data_page_size": 1 << 30,
                      "max_rows_per_page": 1 << 20, "write_page_checksum": True},
        "packed": {"compression": "zstd", "use_dictionary": False},
        "pages": {"compression": "none", "use_dictionary": False, "data_page_size": 64,
                      "write_batch_size": 1},
        "second": {"compression": "none", "use_dictionary": False, "data_page_version": "2.0"},
        "dictionary": {"compression": "none", "use_dictionary": True},
    }  # fmt: skip
    for name, words in ways.items():
        pq.write_table(table, path, **words)
        group = pq.ParquetFile(path).metadata.row_group(0)
        with path.open("rb") as file:
            codec = DenseCodec(classes, str(values.dtype))
            offset = plain_values(file, group, codec.columns[0])
            if name == "plain":
                file.seek(offset)
                assert file.read(values.nbytes) == values.tobytes()
            elif name != "pages" or rows > 64:
                assert offset is None, name


@given(st.binary(max_size=60))
def test_a_page_header_is_read_or_refused(content):
    try:
        found, length = read_page_header(content)
    except (ValueError, IndexError):
        return
    assert length <= len(content)
    assert {"type", "compressed", "values"} <= set(found)


def test_values_are_read_in_place_from_our_own_dumps(dump_folder, monkeypatch):
    def refuse(*_):
        raise AssertionError("decoded")

    monkeypatch.setattr("softlabels.store.pages.columns.Column.decode", refuse)
    assert softlabels.verify(dump=dump_folder).good


def test_a_replay_reads_only_the_shards_of_its_rows(dump_folder, teacher, monkeypatch):
    read = []
    real = ShardReader.table

    def noted(self, group, columns):
        read.append((self.shard, *columns))
        return real(self, group, columns)

    monkeypatch.setattr(ShardReader, "table", noted)
    assert softlabels.verify(dump=dump_folder, replay=1, teacher=teacher).good
    assert len([entry for entry in read if "logits" in entry]) == 1


def test_a_dump_made_of_links_is_as_good_as_its_files(dump_folder, teacher, tmp_path):
    """As the cache of the Hub lays it out: every file is a link into another folder."""
    blobs = Path(shutil.copytree(dump_folder, tmp_path / "blobs"))
    snapshot = tmp_path / "snapshot"
    for path in blobs.rglob("*"):
        if path.is_file():
            link = snapshot / path.relative_to(blobs)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    assert softlabels.verify(dump=str(snapshot)).good
    assert whole(softlabels.load(snapshot, T=2)).shape == (1200, 10)
    assert resume(teacher, snapshot) == 0


def test_what_people_write_into_the_card_is_theirs(copied, teacher):
    card = copied / "README.md"
    card.write_text(card.read_text() + "\nMade on a rainy Tuesday.\n")
    assert softlabels.verify(dump=str(copied)).good
    assert resume(teacher, copied) == 0
    assert card.read_text().endswith("rainy Tuesday.\n")


def test_a_folder_that_is_not_local_is_verified(teacher):
    softlabels.dump(teacher=teacher, out="memory://verify/digits", shard_rows=600)
    assert softlabels.verify(dump="memory://verify/digits").good
    folder = Folder("memory://verify/digits")
    name = next(iter(folder.files("data")))
    content = bytearray(folder.open(name).read())
    content[len(content) // 2] ^= 1
    folder.fs.pipe_file(folder.path(name), bytes(content))
    verdict = softlabels.verify(dump="memory://verify/digits")
    assert [finding.file for finding in verdict.findings] == [name]
