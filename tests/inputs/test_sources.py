import csv
import hashlib
import json

import datasets
import numpy as np
import pytest

from softlabels.errors import SourceError, UnreadableInput, UsageError
from softlabels.inputs.examples import Examples
from softlabels.inputs.hashing import Fingerprint, hash_arrays, hash_bytes
from softlabels.inputs.opening import open_source
from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.preprocessing import choose
from tests.conftest import make_vectors, png


def images(path, shapes, labels=None, **columns):
    random = np.random.default_rng(0)
    cells = [
        {"bytes": png(random.integers(0, 256, shape)), "path": None}
        if isinstance(shape, tuple)
        else {"bytes": shape, "path": None}
        for shape in shapes
    ]
    features = {"picture": datasets.Image()}
    content = {"picture": cells, **columns}
    if labels is not None:
        features["kind"] = datasets.ClassLabel(names=["cat", "dog"])
        content["kind"] = labels
    for name, values in columns.items():
        features[name] = datasets.Value("string" if isinstance(values[0], str) else "int64")
    datasets.Dataset.from_dict(content, features=datasets.Features(features)).to_parquet(str(path))
    return str(path)


def test_digits_are_the_uci_images():
    train, test = open_source("digits", "train"), open_source("digits", "test")
    assert (len(train), len(test)) == (1200, 597)
    assert train.class_names == list("0123456789")
    values = Examples(test, choose(test, None).preprocess).gather(np.arange(597))
    assert values.shape == (597, 1, 8, 8)
    from sklearn.datasets import load_digits

    known = {np.round(x * 255 / 16).astype(np.uint8).tobytes() for x in load_digits().images}
    assert all(v.numpy().tobytes() in known for v in values)


def test_every_local_spelling_gives_the_same_rows(tmp_path):
    path = make_vectors(tmp_path / "v.parquet", rows=40)
    expected = open_source(path)
    whole = datasets.load_dataset("parquet", data_files=path, split="train")
    whole.save_to_disk(str(tmp_path / "disk"))
    datasets.DatasetDict({"train": whole, "test": whole}).save_to_disk(str(tmp_path / "dict"))
    (tmp_path / "folder").mkdir()
    whole.to_parquet(str(tmp_path / "folder" / "train.parquet"))
    for name in ("disk", "dict", "folder"):
        found = open_source(str(tmp_path / name))
        assert found.fingerprint == expected.fingerprint
        assert found.class_names == ["a", "b", "c"]


def test_a_revision_is_of_the_hub_alone(tmp_path, cli):
    path = make_vectors(tmp_path / "v.parquet", rows=4)
    for data, what in ((path, "is a file or folder here"), ("digits", "comes with this package")):
        with pytest.raises(UsageError, match=f"--revision is 'v1', and '{data}' {what}"):
            open_source(data, revision="v1")
    done = cli("fit", "--data", "digits", "--revision", "v1")
    assert done.code == 2
    assert "leave out --revision" in done.err


def test_json_lists_and_text_labels(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [{"x": [i, i + 0.5], "label": name} for i, name in enumerate(["z", "a", "z"])]
    path.write_text("\n".join(map(json.dumps, rows)))
    source = open_source(str(path))
    assert source.class_names == ["a", "z"]
    assert source.read(0, 3).labels.tolist() == [1, 0, 1]
    assert source.read(0, 3).cells.tolist() == [[0, 0.5], [1, 1.5], [2, 2.5]]


def test_csv_columns_become_one_vector(tmp_path):
    path = tmp_path / "rows.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["w", "h", "label"], [1, 2, 0], [3, 4, 1]])
    source = open_source(str(path))
    assert source.columns.inputs == ("w", "h")
    assert source.read(0, 2).cells.tolist() == [[1, 2], [3, 4]]
    assert open_source(str(path), input_column="h").read(0, 2).cells.tolist() == [[2], [4]]


def test_image_folder(tmp_path):
    for name, value in (("cat", 10), ("dog", 200)):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(3):
            (tmp_path / "pets" / name / f"{i}.png").write_bytes(png(np.full((4, 4), value + i)))
    source = open_source(str(tmp_path / "pets"))
    assert source.class_names == ["cat", "dog"]
    block = source.read(0, 6)
    first = tmp_path / "pets" / "cat" / "0.png"
    assert block.hashes[0] == hash_bytes(first.read_bytes())


def test_the_hash_of_an_image_is_that_of_its_file(tmp_path):
    content = png(np.arange(16).reshape(4, 4))
    expected = int.from_bytes(hashlib.sha256(content).digest()[:8], "little")
    assert hash_bytes(content) == expected
    source = open_source(images(tmp_path / "i.parquet", [content, (4, 4)]))
    assert source.read(0, 1).hashes.tolist() == [expected]


def test_the_hash_of_numbers_sees_dtype_and_shape():
    values = np.arange(6, dtype=np.float32).reshape(1, 6)
    expected = hashlib.sha256(b"float32[6]" + values.tobytes()).digest()[:8]
    assert hash_arrays(values).tolist() == [int.from_bytes(expected, "little")]
    variants = [values, values.astype(np.float64), values.reshape(1, 2, 3), values + 1]
    assert len({int(hash_arrays(v)[0]) for v in variants}) == 4
    assert hash_arrays(values) == hash_arrays(values.astype(">f4"))
    assert hash_arrays(values.reshape(3, 2)).tolist() == [
        int(hash_arrays(row.reshape(1, 2))[0]) for row in values.reshape(3, 2)
    ]


def fingerprint(*blocks) -> str:
    found = Fingerprint()
    for block in blocks:
        found.update(*block)
    return str(found)


def test_fingerprint_does_not_depend_on_blocks_and_sees_everything():
    ids, hashes, labels = np.arange(10), np.arange(10).astype(np.uint64), np.arange(10) % 3
    whole = fingerprint((ids, hashes, labels))
    assert whole == fingerprint(
        (ids[:3], hashes[:3], labels[:3]), (ids[3:], hashes[3:], labels[3:])
    )
    swapped = np.array([1, 0, *range(2, 10)])
    for changed in ((ids[swapped], hashes, labels), (ids, hashes[swapped], labels),
                    (ids, hashes, labels[swapped])):  # fmt: skip
        assert fingerprint(changed) != whole


def test_text_ids_and_ids_twice(tmp_path):
    shapes = [(4, 4)] * 3
    source = open_source(
        images(tmp_path / "a.parquet", shapes, name=["a.b", "a.c", "x"]), id_column="name"
    )
    assert source.ids.tolist() == ["a.b", "a.c", "x"]
    twice = images(tmp_path / "b.parquet", shapes, name=["a", "b", "a"])
    with pytest.raises(SourceError, match="'a' comes 2 times"):
        _ = open_source(twice, id_column="name").ids


def test_wide_ids_stay_exact(tmp_path):
    big = [2**60 + 1, 2**60 + 2, 5]
    source = open_source(
        images(tmp_path / "a.parquet", [(4, 4)] * 3, number=big), id_column="number"
    )
    assert source.ids.tolist() == big


@pytest.mark.parametrize(
    ("data", "words", "message"),
    [
        ("no/such/place/here", {}, "no file or folder"),
        ("digits", {"split": "validation"}, "no split 'validation'"),
        ("digits", {"input_column": "img"}, r"no column 'img'; the data has image \(Image\)"),
        ("digits", {"label_column": "klass"}, "no column 'klass'"),
    ],
)
def test_what_can_not_be_opened(data, words, message):
    with pytest.raises(SourceError, match=message):
        open_source(data, **words)


def test_an_empty_folder_and_other_files(tmp_path):
    with pytest.raises(SourceError, match="empty folder"):
        open_source(str(tmp_path))
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(SourceError, match=r"ends in '\.txt'"):
        open_source(str(tmp_path / "a.txt"))


def test_a_choice_of_columns_is_not_guessed(tmp_path):
    features = datasets.Features(
        {"a": datasets.ClassLabel(names=["x"]), "b": datasets.ClassLabel(names=["y"]),
         "v": datasets.List(datasets.Value("float32"), length=2)}
    )  # fmt: skip
    content = {"a": [0], "b": [0], "v": [[1.0, 2.0]]}
    path = str(tmp_path / "d.parquet")
    datasets.Dataset.from_dict(content, features=features).to_parquet(path)
    with pytest.raises(SourceError, match="a, b; choose with --label-column"):
        open_source(path)
    assert open_source(path, label_column="b").class_names == ["y"]


def test_an_unreadable_image_names_its_row(tmp_path):
    path = images(tmp_path / "i.parquet", [(4, 4), b"no picture", (4, 4)], name=["a", "b", "c"])
    source = open_source(path, id_column="name")
    examples = Examples(source, choose(source, None).preprocess)
    assert examples.input_shape == [1, 4, 4]
    with pytest.raises(UnreadableInput, match="id b "):
        examples.gather(np.arange(3))


def test_images_of_two_sizes_need_preprocessing(tmp_path):
    source = open_source(images(tmp_path / "i.parquet", [(4, 4), (6, 5)]))
    with pytest.raises(SourceError, match="id 1 has the shape"):
        Examples(source, choose(source, None).preprocess).gather(np.arange(2))
    resized = Examples(source, Preprocess.parse("resize(3, 2)|scale(255)"))
    assert resized.gather(np.arange(2)).shape == (2, 1, 3, 2)


def test_colour_images(tmp_path):
    source = open_source(images(tmp_path / "i.parquet", [(4, 5, 3), (4, 5, 3)]))
    examples = Examples(source, Preprocess.parse("scale(255)|normalize((0.5, 0.4, 0.3), 2)"))
    assert examples.input_shape == [3, 4, 5]
    raw = examples.gather(np.array([1]))
    expected = (raw.numpy() / 255 - np.array([0.5, 0.4, 0.3])[None, :, None, None]) / 2
    np.testing.assert_allclose(examples.finish(raw).numpy(), expected, atol=1e-6)


def test_lists_of_other_lengths_name_their_row(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"x": [1.0] * n, "label": 0}) for n in (2, 2, 3)))
    with pytest.raises(SourceError, match="id 2 has another number of values"):
        open_source(str(path)).read(0, 3)
