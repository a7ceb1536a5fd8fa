"""Several columns of numbers, which a model takes by name, from one end to the other."""

import hashlib
import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import onnx
import pyarrow as pa
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn
from torch.utils.data import DataLoader

import softlabels
from softlabels.errors import AlignmentError, ExportError, SourceError, TeacherError, UsageError
from softlabels.inputs.opening import open_source
from softlabels.store.folder import Folder
from softlabels.store.reader import DumpReader
from tests.conftest import every

ROWS, NAMES = 60, ["a", "b", "job", "age"]


class Tabular(nn.Module):
    """Vectors, a category that is embedded, and one number."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.of_a, self.of_b, self.of_age = nn.Linear(8, 5), nn.Linear(3, 5), nn.Linear(1, 5)
        self.of_job, self.last = nn.Embedding(4, 5), nn.Linear(5, 3)

    def forward(self, b: Tensor, a: Tensor, age: Tensor, job: Tensor) -> Tensor:
        x = self.of_a(a) + self.of_b(b) + self.of_age(age[:, None]) + self.of_job(job)
        return self.last(x.relu()) * 3


def make_student(num_classes: int) -> nn.Module:
    """A factory of students."""
    return Tabular()


def numbers(rows: int = ROWS) -> dict[str, list]:
    random = np.random.default_rng(1)

    def normal(*size: int) -> list:  # as JSON writes it in ten digits
        return (np.round(random.normal(size=(rows, *size)) * 64) / 64 + 0).tolist()

    return {
        "a": normal(8),
        "b": normal(3),
        "job": random.integers(0, 4, rows).tolist(),
        "age": normal(),
        "label": random.integers(0, 3, rows).tolist(),
    }


def written(path: Path, columns: dict[str, Any]) -> str:
    table = datasets.Dataset(pa.table({n: pa.array(values) for n, values in columns.items()}))
    (table.to_json if path.suffix == ".jsonl" else table.to_parquet)(path)
    return str(path)


def alone(columns: dict[str, list], floats: tuple[str, ...] = ("a", "b", "age")) -> np.ndarray:
    """What the net says of the rows, by hand."""
    given = {
        n: torch.tensor(columns[n], dtype=torch.float32 if n in floats else None) for n in NAMES
    }
    with torch.no_grad():
        return Tabular().eval()(**given).numpy()


def stored(out: Any) -> np.ndarray:
    return every(DumpReader(Folder(str(out))))


@pytest.fixture(scope="module")
def dumped(tmp_path_factory) -> Path:
    """data.parquet, and its dumps: `none`, and `original` with inputs."""
    place = tmp_path_factory.mktemp("columns")
    data = written(place / "data.parquet", numbers())
    for inputs in ("none", "original"):
        softlabels.dump(
            teacher=Tabular(), data=data, input_column=NAMES, store_inputs=inputs, dtype="float32",
            shard_rows=25, batch_size=16, out=str(place / inputs),
        )  # fmt: skip
    return place


@pytest.mark.slow
def test_a_command_gives_the_columns_by_name(cli, tmp_path):
    written(tmp_path / "d.jsonl", numbers())
    flags = [word for name in NAMES for word in ("--input-column", name)]
    done = cli("dump", "--teacher", "tests.test_columns_road:Tabular", "--data", "d.jsonl", *flags,
               "--dtype", "float32", "--out", "d")  # fmt: skip
    assert done.code == 0, done.err
    assert "4 inputs a, age, b, job" in done.err
    assert "inputs by name a float32 [8], age float32 [], b float32 [3], job int64 []" in done.err
    np.testing.assert_allclose(stored(tmp_path / "d"), alone(numbers()), atol=1e-5)


def test_the_hash_is_of_the_columns_in_the_order_of_their_names(tmp_path):
    columns = numbers(3)
    one = open_source(written(tmp_path / "a.parquet", columns), input_column=NAMES)
    parts = [
        b'[["a","float32",[8]],["age","float32",[]],["b","float32",[3]],["job","int64",[]]]',
        np.float32(columns["a"][1]).tobytes(), np.float32(columns["age"][1]).tobytes(),
        np.float32(columns["b"][1]).tobytes(), np.int64(columns["job"][1]).tobytes(),
    ]  # fmt: skip
    digest = hashlib.sha256(b"".join(parts)).digest()
    assert one.read(0, 3).hashes[1] == int.from_bytes(digest[:8], "little")
    narrow = {"job": np.uint8(columns["job"]), "age": np.float64(columns["age"])}
    turned = dict(reversed((columns | narrow).items()))
    as_tensors = [{n: torch.tensor(v[i]) for n, v in columns.items()} for i in range(3)]
    for data in (
        written(tmp_path / "b.jsonl", columns), datasets.Dataset.from_dict(turned), as_tensors,
    ):  # fmt: skip
        assert open_source(data, input_column=NAMES[::-1]).fingerprint == one.fingerprint
    apart = open_source(written(tmp_path / "c.parquet", columns), input_column=["job", "age"])
    joined = open_source(str(tmp_path / "c.parquet"), input_column="job,age")
    assert apart.kind == "columns"
    assert joined.kind == "array"
    assert joined.read(0, 1).cells.tolist() == [[columns["job"][0], columns["age"][0]]]


def test_logits_are_the_modules_and_batches_give_the_columns_back(tmp_path, dumped):
    columns = numbers()
    plan = json.loads((dumped / "none" / "plan.json").read_text())
    assert plan["source"]["kind"] == "columns"
    assert plan["source"]["columns"]["inputs"] == ["a", "age", "b", "job"]
    other = written(tmp_path / "other.jsonl", columns)
    for out in ("none", "original"):
        np.testing.assert_allclose(stored(dumped / out), alone(columns), atol=1e-5)
        for source in (None, other):
            for streaming in (False, True):
                rows = softlabels.load(dumped / out, T=2, source=source, streaming=streaming)
                _check_batches(rows, columns)
    table = datasets.load_dataset(str(dumped / "original"), split="train")
    assert table.features["a"] == datasets.List(datasets.Value("float32"), length=8)
    assert {name: table[name][:] for name in NAMES} == {name: columns[name] for name in NAMES}
    joined = softlabels.with_soft_targets(table, dumped / "original", T=2)
    assert joined[7]["job"] == columns["job"][7]
    both = softlabels.load([dumped / "none", dumped / "original"])
    assert both[[5, 65]]["age"].tolist() == [columns["age"][5]] * 2
    changed = columns | {
        "job": [3 - one if i == 9 else one for i, one in enumerate(columns["job"])]
    }
    third = written(tmp_path / "third.parquet", changed)
    with pytest.raises(AlignmentError, match="1 of 60 inputs are not what the teacher saw"):
        softlabels.load(dumped / "none", source=third).take(range(ROWS))


def _check_batches(rows: Any, columns: dict[str, list]) -> None:
    """In every way in which a loop may ask for them."""
    for loader in (
        rows.batches(16, shuffle=True, seed=3), DataLoader(rows, 16, shuffle=True),
        DataLoader([rows[i] for i in range(ROWS)], 16),
    ):  # fmt: skip
        seen = []
        for batch in loader:
            assert set(batch["input"]) == set(NAMES)
            for name in NAMES:
                assert torch.equal(batch["input"][name], batch[name])
                dtype = torch.int64 if name == "job" else torch.float32
                expected = torch.tensor([columns[name][i] for i in batch["id"]], dtype=dtype)
                assert batch[name].dtype == dtype
                assert torch.equal(batch[name], expected)
            seen += batch["id"].tolist()
        assert sorted(seen) == list(range(ROWS))
    assert rows[5]["input"]["a"].tolist() == columns["a"][5]
    assert rows[5]["job"].item() == columns["job"][5]


def test_resume_replay_and_what_records_and_pages_say(tmp_path, dumped):
    data = str(dumped / "data.parquet")
    options = {"teacher": Tabular(), "data": data, "dtype": "float32", "shard_rows": 20,
               "store_inputs": "original", "out": str(tmp_path / "d")}  # fmt: skip
    softlabels.dump(**options, input_column=NAMES)
    first = stored(tmp_path / "d")
    (tmp_path / "d" / "softlabels.json").unlink()
    (tmp_path / "d" / "commits" / "00001.json").unlink()
    softlabels.dump(**options, input_column=NAMES[::-1], resume=True)
    np.testing.assert_array_equal(stored(tmp_path / "d"), first)
    checked = softlabels.verify(dump=options["out"], source=True, data=data, replay=40,
                                teacher=Tabular())  # fmt: skip
    assert checked.findings == []
    shown = softlabels.show(dump=options["out"], id=["7"])
    assert shown.as_json["rows"][0]["columns"]["b"] == numbers()["b"][7]
    assert f"job: {numbers()['job'][7]}" in str(shown)
    card = (tmp_path / "d" / "README.md").read_text()
    assert "input_column=['a', 'age', 'b', 'job']" in card
    assert "tabular-classification" in card
    assert "a, age, b, job" in softlabels.info(options["out"]).readable["columns"]
    assert (
        softlabels.plan(**options | {"out": str(tmp_path / "e")}, input_column=NAMES).rows == ROWS
    )


def test_logits_of_another_program(tmp_path, dumped):
    logits = alone(numbers())
    np.save(tmp_path / "l.npy", logits)
    softlabels.import_logits(file=str(tmp_path / "l.npy"), data=str(dumped / "data.parquet"),
                             input_column=NAMES, out=str(tmp_path / "d"))  # fmt: skip
    rows = softlabels.load(tmp_path / "d")
    np.testing.assert_array_equal(rows["logits"].numpy(), logits)
    assert rows["input"]["job"].tolist() == numbers()["job"]


@pytest.mark.slow
def test_students_get_the_columns_by_name(cli, tmp_path, dumped):
    data, out = str(dumped / "data.parquet"), str(tmp_path / "s.pt")
    for folder, streaming in (("none", False), ("original", True)):
        student = Tabular()
        trained = softlabels.train(
            dump=str(dumped / folder), T=2, student=student, epochs=3, batch_size=20, lr=3e-2,
            out=str(tmp_path / "m.pt"), streaming=streaming,
        )  # fmt: skip
        assert trained.metrics["held_out"]["kl"] < 1
    softlabels.train(dump=str(dumped / "none"), T=2, student="tests.test_columns_road:make_student",
                     epochs=1, out=out)  # fmt: skip
    model = ("--model", "tests.test_columns_road:make_student")
    done = cli("eval", out, "--split", "train", *model, "--against", dumped / "none", "--json")
    assert done.code == 0, done.err
    assert done.value["rows"] == ROWS
    direct = softlabels.evaluate(checkpoint=student, data=data, split="train", input_column=NAMES)
    assert direct["rows"] == ROWS
    fitted = softlabels.fit(data=data, model=make_student, input_column=NAMES, epochs=1,
                            out=str(tmp_path / "f.pt"))  # fmt: skip
    assert fitted.checkpoint.data["input_column"] == NAMES
    softlabels.dump(teacher=str(tmp_path / "f.pt"), model=model[1], out=str(tmp_path / "again"))
    assert softlabels.load(tmp_path / "again")[0]["job"].item() == numbers()["job"][0]
    with pytest.raises(UsageError, match="takes one vector: join the columns into one"):
        softlabels.train(dump=str(dumped / "none"), T=2, student="mlp:8", out=str(tmp_path / "x"))
    with pytest.raises(ExportError, match="takes the columns a, age, b, job by name"):
        softlabels.export(checkpoint=out, model=model[1], to="onnx")


def test_callables_factories_and_functions_of_a_row(tmp_path, dumped):
    data, module = str(dumped / "data.parquet"), Tabular().eval()
    options = {"data": data, "input_column": NAMES, "dtype": "float32"}
    for number, teacher in enumerate([
        lambda **columns: module(**columns), lambda job, a, b, age: module(b, a, age, job).numpy(),
    ]):  # fmt: skip
        out = tmp_path / f"d{number}"
        softlabels.dump(teacher=teacher, name="a", version="1", out=str(out), **options)
        np.testing.assert_allclose(stored(out), alone(numbers()), atol=1e-5)
    counted = softlabels.examples(
        data, input_column=NAMES, preprocess=lambda row: np.float32([row["a"][0], row["job"]])
    )
    assert counted[4]["input"].tolist() == [numbers()["a"][4][0], numbers()["job"][4]]


class Floats(nn.Module):
    """Takes no whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(2, 3)

    def forward(self, age: Tensor, job: Tensor) -> Tensor:
        return self.layer(torch.stack([age, job], 1))


class Doubles(Floats):
    def forward(self, age: Tensor, job: Tensor) -> Tensor:
        if job.dtype != torch.float32:
            raise TypeError(f"job is {job.dtype}")
        return super().forward(age, job)


def test_whole_numbers_stay_whole_unless_the_preprocessing_says_otherwise(tmp_path):
    data = written(tmp_path / "d.parquet", numbers())
    options = {"data": data, "input_column": ["age", "job"], "teacher": Doubles()}
    with pytest.raises(TeacherError, match=r"job is torch.int64.*--preprocess floats gives job as"):
        softlabels.dump(**options, out=str(tmp_path / "d"))
    for number, steps in enumerate(["floats", "floats(job)"]):
        out = str(tmp_path / str(number))
        softlabels.dump(**options, preprocess=steps, out=out)
        assert softlabels.load(out)[:2]["job"].dtype == torch.float32
        softlabels.train(dump=out, T=2, student=Doubles(), epochs=1, out=str(tmp_path / "s.pt"))
    for steps, message in (
        ("scale(2)", "the inputs are the columns age, job, which have no step in common"),
        ("floats(age)", "'age' is float32; name columns of whole numbers"),
        ("floats(a)", "'a' is no input"),
        ("floats(1)", "write names of columns"),
        ("floats|scale(2)", "floats stands alone"),
    ):
        with pytest.raises(UsageError, match=message):
            softlabels.dump(**options, preprocess=steps, out=str(tmp_path / "x"))
    with pytest.raises(UsageError, match="'floats', which is for columns that a model takes by na"):
        softlabels.examples(data, input_column="age,job", preprocess="floats")
    with pytest.raises(UsageError, match="works on pixels"):
        softlabels.dump(**options, preprocess="floats", augment="jitter(2)", views=2)


@pytest.fixture(scope="module")
def programs(tmp_path_factory) -> Path:
    """`Tabular` as every kind of program."""
    place, module = tmp_path_factory.mktemp("programs"), Tabular().eval()
    given = {"b": torch.rand(4, 3), "a": torch.rand(4, 8), "age": torch.rand(4),
             "job": torch.tensor([0, 1, 2, 3])}  # fmt: skip
    dims = {name: {0: torch.export.Dim("N")} for name in given}
    named = torch.export.export(module, (), given, dynamic_shapes=dims)
    torch.export.save(named, place / "named.pt2")
    torch.jit.script(module).save(place / "scripted.ts")
    axes = {name: {0: "N"} for name in given}
    torch.onnx.export(module, tuple(given.values()), place / "free.onnx", input_names=list(given),
                      dynamic_axes=axes, dynamo=False)  # fmt: skip
    return place


@pytest.mark.filterwarnings("ignore")  # of torch's exporters, about themselves
@pytest.mark.parametrize("name", ["named.pt2", "scripted.ts", "free.onnx"])
def test_programs_get_the_columns_by_name(tmp_path, dumped, programs, name):
    data = str(dumped / "data.parquet")
    softlabels.dump(teacher=str(programs / name), data=data, input_column=NAMES, dtype="float32",
                    batch_size=16, out=str(tmp_path / "d"))  # fmt: skip
    np.testing.assert_allclose(stored(tmp_path / "d"), alone(numbers()), atol=1e-5)
    with pytest.raises(TeacherError, match=r"b.*a.*age.*job|job.*age"):
        softlabels.dump(teacher=str(programs / name), data=data, input_column="a", out="x")


def test_a_graph_of_a_table_takes_single_numbers_as_columns_of_one(tmp_path, dumped):
    port, kind = helper.make_tensor_value_info, TensorProto.FLOAT
    ports = [port("job", kind, ["N", 1]), port("age", kind, ["N", 1])]
    node = helper.make_node("Concat", ["age", "job", "age"], ["y"], axis=1)
    graph = helper.make_graph([node], "g", ports, [port("y", kind, ["N", 3])])
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "t.onnx")
    softlabels.dump(
        teacher=str(tmp_path / "t.onnx"), data=str(dumped / "data.parquet"), dtype="float32",
        input_column=["age", "job"], out=str(tmp_path / "d"),
    )  # fmt: skip
    columns = numbers()
    expected = np.float32([columns[name] for name in ("age", "job", "age")]).T
    np.testing.assert_array_equal(stored(tmp_path / "d"), expected)


BAD = {
    "a missing cell": ({"b": [[1.0], None]}, "row with id 1 has an empty cell in the input column"),
    "a missing number": ({"b": [[1.0], [None]]}, "row with id 1 has an empty number in the column"),
    "another length": ({"b": [[1.0], [1.0, 2.0]]}, "row with id 1 has another number of values in"),
    "NaN": ({"b": [1.0, float("nan")]}, "row with id 1 has nan in 'b', which is no number that a"),
    "infinity": ({"b": [[1.0, 2.0], [1.0, float("-inf")]]}, "row with id 1 has -inf in 'b'"),
    "beyond float32": ({"b": [1.0, 1e39]}, r"row with id 1 has 1e\+39 in 'b', beyond float32"),
    "beyond 64 bits": ({"b": np.uint64([1, 2**63])}, "row with id 1 has 9223372036854775808 in"),
    "no numbers": ({"b": pa.array([[], []], pa.list_(pa.int8()))}, "row with id 0 has no number"),
    "texts": ({"b": ["x", "y"]}, r"'b' is text, and 'a' is float64; the inputs are numbers"),
    "a name of ours": ({"b": [1.0, 2.0], "view": [1.0, 2.0]}, "rows of a dump have a column 'vi"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_rows_that_do_not_fit_are_refused_before_anything_is_written(tmp_path, name):
    columns, message = BAD[name]
    whole = {"a": [0.5, 1.5], "label": [0, 1], **columns}
    data = written(tmp_path / "d.parquet", whole)
    named = [one for one in whole if one != "label"]
    with pytest.raises(SourceError, match=message):
        open_source(data, input_column=named).read(0, 2)
    np.save(tmp_path / "l.npy", np.float32([[4, -3], [-2, 5]]))
    with pytest.raises(SourceError, match=message):
        softlabels.import_logits(file=str(tmp_path / "l.npy"), data=data, input_column=named,
                                 out=str(tmp_path / "d"))  # fmt: skip
    assert not (tmp_path / "d" / "softlabels.json").exists()


def test_rows_of_a_later_block_have_the_shape_of_the_first(tmp_path):
    columns = {"a": [0.5] * 5000, "b": [[1.0]] * 4096 + [[1.0, 2.0]] * 904}
    source = open_source(written(tmp_path / "d.jsonl", columns), input_column=["a", "b"])
    with pytest.raises(SourceError, match=r"row with id 4096 has numbers of the shape \[2\] in"):
        source.read(4096, 5000)


def test_columns_and_models_that_do_not_fit_each_other_are_refused(tmp_path, dumped):
    data = str(dumped / "data.parquet")

    def dump(names: Any, teacher: Any = Tabular, **options: Any) -> None:
        softlabels.dump(teacher=teacher(), data=data, input_column=names, out=str(tmp_path / "d"),
                        **options)  # fmt: skip

    with pytest.raises(SourceError, match="--input-column: no column 'height'"):
        dump([*NAMES, "height"])
    with pytest.raises(TeacherError, match=r"needs job and takes the inputs b, a, age, job, and"):
        dump(["a", "b", "age"])
    with pytest.raises(TeacherError, match=r"takes no a, b.*: --input-column age --input-column"):
        dump(NAMES, Floats)
    with pytest.raises(TeacherError, match=r"needs the inputs age, job.*say --input-column age"):
        dump("age,job", Floats)
    with pytest.raises(SourceError, match=r"joined into one vector only if each.* --input-col"):
        dump("a,b")
    with pytest.raises(SourceError, match=r"several columns could be.*--input-column a --inp"):
        dump(())
    written(tmp_path / "codes.parquet", numbers() | {"logits_scale": [0.5] * ROWS})

    class Scaled(Floats):
        def forward(self, age, logits_scale):
            return super().forward(age, logits_scale)

    with pytest.raises(SourceError, match="rows stored by int8 have a column 'logits_sc"):
        softlabels.dump(teacher=Scaled(), data=str(tmp_path / "codes.parquet"), codec="int8",
                        input_column=["age", "logits_scale"], store_inputs="original",
                        out=str(tmp_path / "d"))  # fmt: skip
    assert not (tmp_path / "d").exists()
