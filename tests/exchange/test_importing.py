"""`softlabels import`: files as others write them become dumps, or are refused with a reason."""

import csv
import json
import pickle
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch

import softlabels
from softlabels.errors import (
    AlignmentError,
    LogitsError,
    PlanMismatch,
    SoftlabelsError,
    SourceError,
    StoreError,
    UntrustedPickle,
    UsageError,
)
from softlabels.exchange import import_logits
from softlabels.inputs.opening import open_source
from softlabels.store.folder import Folder
from softlabels.store.reader import DumpReader
from tests.conftest import Lines, every, make_vectors, png
from tests.dumps import change
from tests.exchange.foreign_files import marginal, soft, write_fkd, write_tinyvit

ROWS = 300


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> str:
    """300 vectors in 3 classes, named n299 … n000."""
    place = tmp_path_factory.mktemp("named") / "named.parquet"
    return make_vectors(place, name=[f"n{299 - row:03d}" for row in range(ROWS)])


@pytest.fixture
def words(named: str, tmp_path: Path) -> dict:
    return {"data": named, "id_column": "name", "out": str(tmp_path / "d")}


def names() -> list[str]:
    return [f"n{299 - row:03d}" for row in range(ROWS)]


def stored(path: str) -> np.ndarray:
    """The logits of a dump that is good, [R, C], in the source's order."""
    assert softlabels.verify(dump=path, source=True).findings == []
    return every(DumpReader(Folder(path)))


def centred(logits: np.ndarray) -> np.ndarray:
    """What no softmax sees, taken away: two rows that differ by a constant become the same."""
    logits = logits.astype(np.float64)
    return logits - logits.mean(1, keepdims=True)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_an_npy_in_the_sources_order_becomes_a_whole_dump(vectors, tmp_path, dtype):
    logits = soft(ROWS, 3)[0].astype(dtype)
    np.save(tmp_path / "z.npy", logits)
    found = import_logits(
        file=str(tmp_path / "z.npy"), data=vectors, out=str(tmp_path / "d"), shard_rows=128
    )
    assert len(found.manifest.shards) == 3
    assert stored(found.out).tobytes() == logits.tobytes()
    plan = DumpReader(Folder(found.out)).plan
    assert plan.teacher.kind == "imported"
    assert plan.teacher.model == "npy; rows in the source's order, since there are no ids"
    assert plan.dtype == dtype
    dataset = softlabels.load(found.out, T=4)
    assert torch.equal(dataset[7]["logits"], torch.from_numpy(logits[7]))
    assert dataset[7]["input"].shape == (6,)


def test_the_fingerprint_is_the_files(vectors, tmp_path):
    import hashlib

    np.save(tmp_path / "z.npy", soft(ROWS, 3)[0])
    import_logits(file=str(tmp_path / "z.npy"), data=vectors, out=str(tmp_path / "d"))
    expected = hashlib.sha256((tmp_path / "z.npy").read_bytes()).hexdigest()
    plan = json.loads((tmp_path / "d" / "plan.json").read_text())
    assert plan["teacher"]["fingerprint"] == f"sha256:{expected}"


def save_ids(path: Path, ids: list) -> str:
    if path.suffix == ".npy":
        np.save(path, np.array(ids))
    elif path.suffix == ".json":
        path.write_text(json.dumps(ids))
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([id] for id in ids)
    else:
        path.write_text("".join(f"{id}\n" for id in ids))
    return str(path)


@pytest.mark.parametrize("ending", [".txt", ".csv", ".json", ".npy"])
def test_rows_are_matched_by_ids_and_not_by_order(words, tmp_path, ending):
    logits = soft(ROWS, 3)[0]
    order = np.random.default_rng(1).permutation(ROWS)
    np.save(tmp_path / "z.npy", logits[order])
    ids = save_ids(tmp_path / f"ids{ending}", [names()[row] for row in order])
    found = import_logits(file=str(tmp_path / "z.npy"), ids=ids, **words)
    assert np.array_equal(stored(found.out), logits)
    assert f"ids from ids{ending}" in softlabels.info(found.out)["facts"]["teacher"]


@pytest.mark.parametrize("ending", [".txt", ".npy"])
def test_ids_may_be_the_numbers_of_rows(vectors, tmp_path, ending):
    logits = soft(ROWS, 3)[0]
    order = np.random.default_rng(1).permutation(ROWS)
    np.save(tmp_path / "z.npy", logits[order])
    ids = save_ids(tmp_path / f"ids{ending}", order.tolist())
    import_logits(file=str(tmp_path / "z.npy"), ids=ids, data=vectors, out=str(tmp_path / "d"))
    assert np.array_equal(stored(str(tmp_path / "d")), logits)


def test_npz_and_pt_may_hold_their_ids(words, tmp_path):
    logits = soft(ROWS, 3)[0]
    order = np.random.default_rng(1).permutation(ROWS)
    ids = [names()[row] for row in order]
    np.savez(tmp_path / "z.npz", logits=logits[order], ids=np.array(ids))
    torch.save({"logits": torch.from_numpy(logits[order]), "ids": ids}, tmp_path / "z.pt")
    torch.save(torch.from_numpy(logits), tmp_path / "bare.pt", _use_new_zipfile_serialization=False)
    for file in ("z.npz", "z.pt", "bare.pt"):
        out = str(tmp_path / file.replace(".", "-"))
        import_logits(**words | {"file": str(tmp_path / file), "out": out})
        assert np.array_equal(stored(out), logits)


def test_a_dump_may_hold_the_inputs(words, tmp_path):
    np.save(tmp_path / "z.npy", soft(ROWS, 3)[0])
    found = import_logits(file=str(tmp_path / "z.npy"), store_inputs="original", **words)
    stored(found.out)
    Path(words["data"]).rename(tmp_path / "away.parquet")
    try:
        assert softlabels.load(found.out, T=1)[0]["input"].shape == (6,)
    finally:
        (tmp_path / "away.parquet").rename(words["data"])


def test_probabilities_become_the_logits_but_for_a_constant(vectors, tmp_path):
    logits, p = soft(ROWS, 3, T=4)
    np.save(tmp_path / "p.npy", p.astype(np.float32))
    words = {"file": str(tmp_path / "p.npy"), "data": vectors}
    import_logits(**words, out=str(tmp_path / "d"), probabilities=True, T=4)
    assert np.allclose(centred(stored(str(tmp_path / "d"))), centred(logits), atol=1e-5)
    at_four = softlabels.load(tmp_path / "d", T=4)[5]["soft_target"].numpy()
    assert np.allclose(at_four, p[5], atol=1e-6)
    plan = json.loads((tmp_path / "d" / "plan.json").read_text())
    assert plan["teacher"]["model"].endswith("log of probabilities made at T=4")
    assert plan["dtype"] == "float32"


def test_a_probability_of_0_needs_a_floor(vectors, tmp_path):
    p = soft(ROWS, 3)[1].astype(np.float32)
    p[17] = [1, 0, 0]
    np.save(tmp_path / "p.npy", p)
    words = {"file": str(tmp_path / "p.npy"), "data": vectors, "probabilities": True}
    with pytest.raises(LogitsError, match=r"row with id 17 has a probability of 0.*--floor"):
        import_logits(**words, out=str(tmp_path / "d"))
    assert not (tmp_path / "d" / "softlabels.json").exists()
    import_logits(**words, out=str(tmp_path / "e"), floor=1e-6)
    assert stored(str(tmp_path / "e"))[17].tolist() == pytest.approx([0, -13.815511, -13.815511])
    assert "floor 1e-06" in softlabels.info(str(tmp_path / "e"))["facts"]["teacher"]


def test_rows_without_logits_stop_or_are_left_out(words, tmp_path):
    logits = soft(ROWS, 3)[0]
    there = np.delete(np.arange(ROWS), [3, 200])
    np.savez(tmp_path / "z.npz", logits=logits[there], ids=np.array(names())[there])
    with pytest.raises(
        AlignmentError, match=r"no logits for 2 of 300 rows.*'n296', 'n099'.*on-missing"
    ):
        import_logits(file=str(tmp_path / "z.npz"), **words)
    found = import_logits(file=str(tmp_path / "z.npz"), on_missing="skip", shard_rows=100, **words)
    assert np.array_equal(stored(found.out), logits[there])
    assert [entry.id for entry in found.manifest.skipped] == ["n296", "n099"]


# What is refused, and with which words.


def refused(tmp_path: Path, words: dict, error: type[SoftlabelsError], match: str) -> None:
    out = tmp_path / "refused"
    with pytest.raises(error, match=match):
        import_logits(**words | {"out": str(out)})
    assert not (out / "softlabels.json").exists()


def broken(logits: np.ndarray) -> dict[str, tuple[np.ndarray, type[SoftlabelsError], str]]:
    nan, half = logits.copy(), logits.copy()
    nan[290, 1] = np.nan
    half[4, 2] = np.inf
    return {
        "rows": (logits[:-1], AlignmentError, "299 rows and no ids.*has 300 rows"),
        "classes": (logits[:, :2], LogitsError, r"has 2 classes, .* 3 \(a, b, c"),
        "nan": (nan, LogitsError, "has nan for the row with id 'n009'"),
        "inf": (half, LogitsError, "has inf for the row with id 'n295'"),
        "probabilities": (soft(ROWS, 3)[1].astype(np.float32), LogitsError, "--probabilities"),
        "float64": (logits.astype(np.float64), LogitsError, "holds float64.*--dtype float32"),
        "whole": (logits.astype(np.int64), LogitsError, "holds int64"),
        "one row": (logits[0], SourceError, r"shape \[3\].*rows, classes"),
        "none": (logits[:0], SourceError, r"shape \[0, 3\]"),
        "objects": (logits.astype(object), UntrustedPickle, "could run code"),
    }


@pytest.mark.parametrize("what", list(broken(np.zeros((ROWS, 3), np.float32))))
def test_what_are_no_logits_of_the_source_is_refused(words, tmp_path, what):
    content, error, match = broken(soft(ROWS, 3)[0])[what]
    np.save(tmp_path / "z.npy", content)
    refused(tmp_path, words | {"file": str(tmp_path / "z.npy")}, error, match)


@pytest.mark.parametrize(
    ("ids", "match"),
    [
        (names()[:-1], "299 ids for 300 rows"),
        ([*names()[:-1], "n999"], "1 of 300 ids .* first 'n999'.*Its ids are 'n299', 'n298"),
        ([*names()[:-1], "n299"], "id 'n299' more than once"),
    ],
)
def test_other_ids_are_refused(words, tmp_path, ids, match):
    np.save(tmp_path / "z.npy", soft(ROWS, 3)[0])
    given = {"file": str(tmp_path / "z.npy"), "ids": save_ids(tmp_path / "ids.txt", ids)}
    refused(tmp_path, words | given, AlignmentError, match)


def test_ids_of_another_kind_are_refused(words, vectors, tmp_path):
    np.save(tmp_path / "z.npy", soft(ROWS, 3)[0])
    given = words | {"file": str(tmp_path / "z.npy")}
    numbers = save_ids(tmp_path / "n.npy", list(range(ROWS)))
    refused(tmp_path, given | {"ids": numbers}, AlignmentError, "whole numbers, those .* text")
    texts = save_ids(tmp_path / "t.txt", [f"0{row}" for row in range(ROWS)])
    by_number = given | {"data": vectors, "id_column": None}
    refused(tmp_path, by_number | {"ids": texts}, AlignmentError, "id '00'.*rows' numbers")
    wide = tmp_path / "w.csv"
    wide.write_text("a,b\n")
    refused(tmp_path, given | {"ids": str(wide)}, SourceError, "2 cells")


def test_labels_and_hashes_in_a_file_must_be_the_sources(vectors, tmp_path):
    logits = soft(ROWS, 3)[0]
    words = {"file": str(tmp_path / "z.npz"), "data": vectors}
    np.savez(tmp_path / "z.npz", logits=logits, labels=np.full(ROWS, 1))
    refused(tmp_path, words, AlignmentError, "has the label 1 for the row with id .* it is")
    np.savez(tmp_path / "z.npz", logits=logits, input_hash=np.zeros(ROWS, np.uint64))
    refused(tmp_path, words, AlignmentError, "has the input hash 0 for the row with id 0")


class Harmful:
    def __reduce__(self):
        return (print, ("this ran",))


def test_pickles_are_refused_and_not_run(words, tmp_path, capsys):
    logits = torch.from_numpy(soft(ROWS, 3)[0])
    torch.save({"logits": logits, "ids": Harmful()}, tmp_path / "z.pt")
    np.savez(tmp_path / "z.npz", logits=logits.numpy(), ids=np.array([Harmful()] * ROWS))
    (tmp_path / "z.pkl").write_bytes(pickle.dumps(Harmful()))
    for file in ("z.pt", "z.npz", "z.pkl"):
        given = words | {"file": str(tmp_path / file)}
        refused(tmp_path, given, UntrustedPickle, "could run code")
    assert "this ran" not in capsys.readouterr().out


def test_damaged_and_unknown_files_are_refused(words, tmp_path):
    np.savez(tmp_path / "z.npz", scores=soft(ROWS, 3)[0])
    np.save(tmp_path / "z.npy", soft(ROWS, 3)[0])
    (tmp_path / "cut.npy").write_bytes((tmp_path / "z.npy").read_bytes()[:900])
    (tmp_path / "cut.npz").write_bytes((tmp_path / "z.npz").read_bytes()[:900])
    (tmp_path / "text").write_text("1 2 3\n")
    torch.save({"weights": torch.ones(2)}, tmp_path / "w.pt")
    (tmp_path / "empty").mkdir()
    for file, match in {
        "z.npz": "no array 'logits'; it has scores",
        "cut.npy": "can't be read",
        "cut.npz": "cut short or damaged",
        "text": "begins with b'1 2 3",
        "w.pt": "holds weights",
        "empty": "nothing that can be imported",
        "nowhere.npy": "does not exist",
    }.items():
        refused(tmp_path, words | {"file": str(tmp_path / file)}, SourceError, match)
    (tmp_path / "empty" / "softlabels.json").write_text("{}")
    given = words | {"file": str(tmp_path / "empty")}
    refused(tmp_path, given, SourceError, "is a dump of softlabels")


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        ({"floor": 1e-6}, "--floor is about probabilities"),
        ({"T": 4}, "--T is about probabilities"),
        ({"probabilities": True, "floor": 2}, "--floor is 2"),
    ],
)
def test_flags_that_mean_nothing_are_refused(words, tmp_path, flags, match):
    refused(tmp_path, words | {"file": "z.npy"} | flags, UsageError, match)


def test_flags_for_other_formats_are_refused(words, tmp_path):
    np.save(tmp_path / "z.npy", soft(ROWS, 3)[0])
    given = words | {"file": str(tmp_path / "z.npy")}
    refused(tmp_path, given | {"classes": 4}, UsageError, "--classes is 4; .* has 3")


def test_an_import_again_is_the_same_or_refused(words, tmp_path):
    np.save(tmp_path / "z.npy", soft(ROWS, 3)[0])
    np.save(tmp_path / "y.npy", soft(ROWS, 3, seed=1)[0])
    given = words | {"file": str(tmp_path / "z.npy"), "shard_rows": 100}
    first = import_logits(**given).manifest
    assert import_logits(**given).manifest == first
    out = Path(words["out"])
    (out / "softlabels.json").unlink()  # as if it had been stopped there
    (out / "commits" / "00001.json").unlink()
    assert import_logits(**given, resume=True).manifest.agrees(first)
    stored(words["out"])
    change(out / first.shards[1].file, lambda content: content.__setitem__(2000, 255))
    assert not softlabels.verify(dump=words["out"]).good
    assert import_logits(**given, resume=True).manifest.agrees(first)
    stored(words["out"])
    with pytest.raises(PlanMismatch, match=r"teacher\.fingerprint"):
        import_logits(**given | {"file": str(tmp_path / "y.npy"), "name": "z"})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("dear")
    with pytest.raises(StoreError, match=r"not empty.*letter\.txt"):
        import_logits(**given | {"out": str(tmp_path / "other")})


# TinyViT and FKD.


def test_a_tinyvit_epoch_of_all_classes(words, tmp_path):
    logits, p = soft(ROWS, 3)
    folder = write_tinyvit(tmp_path, names(), p, kept=3)
    progress = Lines()
    import_logits(progress=progress, **words, file=str(folder), probabilities=True)
    found = stored(words["out"])
    assert np.allclose(centred(found), centred(logits), atol=2e-2)  # probabilities in float16
    told = "a seed for each and does not tell what was drawn with it. If augmentation"
    assert [line for line in progress.lines if line.startswith("warning: ") and told in line]
    told = softlabels.info(words["out"])["facts"]["teacher"]
    for text in ("tinyvit", "does not tell what was drawn with it", "made at T=1"):
        assert text in told


def test_a_tinyvit_key_is_a_rows_number_or_translated(vectors, words, tmp_path):
    p = soft(ROWS, 3)[1]
    numbered = write_tinyvit(tmp_path / "a", [str(row) for row in range(ROWS)], p, kept=3)
    flags = {"probabilities": True}
    import_logits(file=str(numbered), data=vectors, out=str(tmp_path / "n"), **flags)
    keys = [f"n{row:08d}/x_{row}.JPEG" for row in range(ROWS)]
    pathlike = write_tinyvit(tmp_path / "b", keys, p, kept=3)
    table = tmp_path / "keys.json"
    table.write_text(json.dumps(dict(zip(keys, names(), strict=True))))
    import_logits(file=str(pathlike), ids=str(table), **flags, **words)
    assert np.array_equal(stored(str(tmp_path / "n")), stored(words["out"]))
    table.write_text(json.dumps({keys[0]: "n000"}))
    given = words | flags | {"file": str(pathlike), "ids": str(table)}
    refused(tmp_path, given, AlignmentError, "no id for 299 of 300 keys")


def test_other_records_of_tinyvit_are_refused(words, tmp_path):
    p = soft(ROWS, 3)[1]
    given = words | {"probabilities": True}
    few = given | {"file": str(write_tinyvit(tmp_path, names(), p, kept=2))}
    refused(tmp_path, few, LogitsError, "keeps the top 2 of 3 classes.*top-k storage is not here")
    parent = given | {"file": str(tmp_path)}
    refused(tmp_path, parent, SourceError, "it has logits_top2_epoch0. Name the folder of one")
    wrong = given | {"file": str(write_tinyvit(tmp_path / "w", names(), soft(ROWS, 5)[1], kept=3))}
    refused(tmp_path, wrong, LogitsError, r"a record names the classes \[.*each of 3 once")
    folder = write_tinyvit(tmp_path / "c", names(), p, kept=3)
    values = folder / "rank1-values.bin"
    values.write_bytes(values.read_bytes()[:-4])
    given |= {"file": str(folder)}
    refused(tmp_path, given, SourceError, "k is another, or the file is cut short")


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before zip"])
def test_fkd_labels_of_all_classes_of_the_whole_image(words, tmp_path, legacy):
    p = soft(ROWS, 3)[1].astype(np.float32)
    keys = [f"train/c/{name}" for name in names()]
    saved = {"_use_new_zipfile_serialization": False} if legacy else {}
    folder = write_fkd(tmp_path / "fkd", keys, [p[row : row + 1] for row in range(ROWS)], **saved)
    table = tmp_path / "keys.json"
    table.write_text(json.dumps(dict(zip(keys, names(), strict=True))))
    import_logits(file=str(folder), ids=str(table), probabilities=True, **words)
    assert np.allclose(np.exp(stored(words["out"])), p, atol=1e-6)


def test_other_labels_of_fkd_are_refused(words, tmp_path):
    p = [soft(1, 3, seed=row)[1].astype(np.float32) for row in range(ROWS)]
    later = "top-k storage is not here yet"
    for name, labels, error, match in (
        ("marginal", [marginal(crop, 2) for crop in p], LogitsError, f"the top 2 of 3.*{later}"),
        ("smoothing", [marginal(c, 1)[:, :, 0] for c in p], LogitsError, f"top 1 of 3.*{later}"),
        ("hard", [crop.argmax(1) for crop in p], LogitsError, "hard labels"),
        ("wide", [np.repeat(crop, 2, 1) for crop in p], SourceError, r"shape \[1, 6\]; expected"),
        ("crops", [np.repeat(c, 4, 0) for c in p], AlignmentError, "4 crops of its image.*views"),
        ("one", [*p[:7], np.repeat(p[7], 2, 0), *p[8:]], AlignmentError, "n292.tar is of 2 crops"),
    ):
        given = words | {"file": str(write_fkd(tmp_path / name, names(), labels))}
        refused(tmp_path, given | {"probabilities": True}, error, match)


@pytest.mark.parametrize(("box", "flip"), [([0, 0, 1, 0.9], False), ([0, 0, 1, 1], True)])
def test_a_crop_or_a_mirror_image_of_fkd_is_refused(words, tmp_path, box, flip):
    crop = np.array([[0.2, 0.3, 0.5]], np.float32)
    folder = write_fkd(tmp_path / "f", names(), [crop] * ROWS)
    torch.save([np.array([box], np.float32), np.array([flip]), crop], folder / "n200.tar")
    given = words | {"file": str(folder), "probabilities": True}
    refused(tmp_path, given, AlignmentError, "n200.tar is of a crop, or a mirror image.*0, 0, 1, 1")


def test_fkd_pickles_are_refused_and_not_run(words, tmp_path, capsys):
    folder = tmp_path / "fkd"
    folder.mkdir()
    torch.save([np.zeros((1, 4)), Harmful(), np.ones((1, 3))], folder / "n000.tar")
    given = words | {"file": str(folder), "probabilities": True}
    refused(tmp_path, given, UntrustedPickle, "could run code")
    assert "this ran" not in capsys.readouterr().out


def test_the_command_says_what_was_taken_for_what(cli, vectors, tmp_path):
    logits = soft(ROWS, 3)[0]
    np.save(tmp_path / "z.npy", logits)
    done = cli("import", "z.npy", "--data", vectors, "--out", "d", "--json")
    assert done.code == 0, done.err
    assert done.value["rows"] == ROWS
    assert "300 rows of 3 classes; npy; rows in the source's order, since there are no ids" in (
        done.err
    )
    assert "no better than guessing" in done.err
    assert softlabels.verify(dump=str(tmp_path / "d")).good
    card = (tmp_path / "d" / "README.md").read_text()
    assert "that the imported logits were matched with" in card
    wrong = cli("import", "z.npy", "--data", "digits")
    assert wrong.code == 1
    assert "\nsoftlabels: z.npy has 300 rows and no ids" in wrong.err


def test_odd_folders_of_tinyvit_are_refused(words, tmp_path):
    for kept in (0, 4, 10**20):
        folder = tmp_path / f"logits_top{kept}_epoch0"
        folder.mkdir()
        (folder / "rank0-values.bin").touch()
        match = f"top {kept} of 3 classes by its name; expected is 1 to 3"
        given = words | {"file": str(folder), "probabilities": True}
        refused(tmp_path, given, SourceError, match)


def test_a_key_of_tinyvit_ends_at_a_line_feed(words, tmp_path):
    keys = [f"a\x85b{row}" for row in range(ROWS)]
    folder = write_tinyvit(tmp_path, keys, soft(ROWS, 3)[1], kept=3)
    table = tmp_path / "keys.json"
    table.write_text(json.dumps(dict(zip(keys, names(), strict=True))))
    given = words | {"file": str(folder), "ids": str(table), "probabilities": True}
    stored(import_logits(**given).out)


def test_labels_are_not_compared_with_none(words, tmp_path):
    import datasets

    table = datasets.Dataset.from_parquet(words["data"]).remove_columns("label")
    table.to_parquet(str(tmp_path / "bare.parquet"))
    np.savez(tmp_path / "z.npz", logits=soft(ROWS, 3)[0], labels=np.zeros(ROWS, int))
    given = {"data": str(tmp_path / "bare.parquet"), "file": str(tmp_path / "z.npz")}
    import_logits(**words | given)
    assert "labels of the file unchecked" in softlabels.info(words["out"])["facts"]["teacher"]


@pytest.mark.parametrize(
    ("file", "folder"),
    [("net-0.5.npy", "net-0.5"), ("net.v2.NPZ", "net.v2"), ("net", "net"), (".npy", "logits")],
)
def test_a_name_keeps_its_dots(vectors, tmp_path, monkeypatch, file, folder):
    """Else two files would want the same folder."""
    monkeypatch.chdir(tmp_path)
    with Path(file).open("wb") as held:
        np.save(held, soft(ROWS, 3)[0])
    assert import_logits(file=file, data=vectors).out == f"data/vectors-{folder}"


def test_another_split_gets_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    test = open_source("digits", "test")
    np.save("z.npy", soft(len(test), 10)[0])
    assert import_logits(file="z.npy", data="digits", split="test").out == "data/digits-test-z"


def test_words_for_a_newcomer(vectors, tmp_path):
    np.save(tmp_path / "z.npy", soft(ROWS, 3)[0])
    np.save(tmp_path / "one.npy", soft(ROWS, 1)[0])
    words = {"data": vectors, "out": str(tmp_path / "d")}
    given = words | {"file": str(tmp_path / "z.npy"), "ids": "none.txt"}
    refused(tmp_path, given, SourceError, "^none.txt can't be read: No such file or directory$")
    one = words | {"file": str(tmp_path / "one.npy")}
    refused(tmp_path, one, LogitsError, r"has 1 class, .* 3 \(a, b, c\)")
    crops = [soft(1, 3, seed=row)[1].astype(np.float32) for row in range(ROWS)]
    folder = write_fkd(tmp_path / "fkd", [f"train/{row}" for row in range(ROWS)], crops)
    fkd = words | {"file": str(folder), "probabilities": True}
    match = "has the id 'train/0'.*--id-column, or translate .* with --ids, a .json object"
    refused(tmp_path, fkd, AlignmentError, match)


def test_an_import_decodes_no_input(tmp_path):
    """Its rows are hashed: a picture that no teacher could be shown has its logits all the same."""
    cells = [{"bytes": png(np.full((4, 4), row)), "path": None} for row in range(30)]
    cells[17] = {"bytes": b"\x89PNG\r\n\x1a\n no picture", "path": None}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    rows = datasets.Dataset.from_dict({"image": cells, "label": [0, 1, 2] * 10}, features)
    rows.to_parquet(tmp_path / "pictures.parquet")
    logits = soft(30, 3)[0]
    np.save(tmp_path / "z.npy", logits)
    out = str(tmp_path / "d")
    words = {"data": str(tmp_path / "pictures.parquet"), "store_inputs": "original"}
    done = import_logits(file=str(tmp_path / "z.npy"), out=out, **words)
    assert (done.manifest.rows, done.manifest.skipped) == (30, [])
    np.testing.assert_array_equal(stored(out), logits)
