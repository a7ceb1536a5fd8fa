"""Columns of token ids from one end to the other: each row's logits are those of the row alone and
unpadded, and batches give the tokens back, wherever these are stored."""

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

import softlabels
from softlabels.errors import AlignmentError, SourceError, TeacherError, UsageError
from softlabels.store.folder import Folder
from softlabels.store.reader import DumpReader
from tests.conftest import Lines, every
from tests.text_models import (
    CONFIGS,
    LONGEST,
    NAMES,
    alone,
    make_tokenizer,
    save_classifier,
    sentences,
)

ROWS = 60
LABELS = [list(NAMES.values())[row % 3] for row in range(ROWS)]


def encoded(side: str = "", pad: int = 0) -> dict[str, list]:
    """The texts' tokens, ragged, or padded to one length on a side, with their mask."""
    tokenizer = make_tokenizer(side or "right")
    padding: dict[str, Any] = {"padding": "max_length", "max_length": LONGEST} if side else {}
    columns = dict(tokenizer(sentences(ROWS), return_attention_mask=bool(side), **padding))
    if pad:
        columns["input_ids"] = [[token or pad for token in row] for row in columns["input_ids"]]
    return columns


def written(path: Path, columns: dict[str, list], **more: list) -> str:
    table = datasets.Dataset.from_dict({"label": LABELS, **columns, **more})
    (table.to_json if path.suffix == ".jsonl" else table.to_parquet)(path)
    return str(path)


def dumped(place: Path, teacher: Any, data: Any, **options) -> np.ndarray:
    """The logits of a dump, in the source's order."""
    words = {"batch_size": 4, "dtype": "float32", "out": str(place / "dump")}
    softlabels.dump(teacher=teacher, data=data, **words | options)
    return every(DumpReader(Folder(str(words["out"] if "out" not in options else options["out"]))))


@pytest.fixture(scope="module")
def nets(tmp_path_factory) -> Path:
    """A folder of each kind of classifier, and what it says of each text alone."""
    place = tmp_path_factory.mktemp("nets")
    for kind in CONFIGS:
        model = save_classifier(place / kind, kind)
        np.save(place / f"{kind}.npy", alone(place / kind, model, sentences(ROWS)))
    return place


@pytest.mark.parametrize("side", ["", "right", "left"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_logits_are_those_of_each_row_alone(tmp_path, nets, kind, side):
    pad = 1 if kind == "offset" else 0  # RoBERTa's
    path = written(tmp_path / "d.parquet", encoded(side, pad))
    stored = dumped(tmp_path, f"hf:{nets / kind}", path)
    np.testing.assert_allclose(stored, np.load(nets / f"{kind}.npy"), atol=2e-4, rtol=1e-4)


def test_padded_rows_join_unpadded_ones_and_batches_give_the_tokens_back(tmp_path, nets):
    columns = encoded()
    types = [[0] * len(row) for row in columns["input_ids"]]
    plain = written(tmp_path / "a.jsonl", columns, token_type_ids=types)
    padded = encoded("left") | {"token_type_ids": [[0] * LONGEST] * ROWS}
    other = written(tmp_path / "b.parquet", padded)
    for stored in ("none", "original"):
        out = str(tmp_path / stored)
        dumped(tmp_path, f"hf:{nets / 'absolute'}", plain, out=out, shard_rows=25,
               store_inputs=stored)  # fmt: skip
        for source in (None, other):
            for streaming in (False, True):
                rows = softlabels.load(out, T=2, source=source, streaming=streaming)
                check_batches(rows, columns["input_ids"])
        checked = softlabels.verify(dump=out, source=True, data=other)
        assert checked.findings == []
    plan = json.loads((tmp_path / "none" / "plan.json").read_text())
    assert plan["source"]["kind"] == "tokens"
    assert plan["source"]["columns"]["inputs"] == ["input_ids", "token_type_ids"]
    assert plan["preprocess"] == "tokens(0)"
    table = datasets.load_dataset(str(tmp_path / "original"), split="train")
    assert table["input_ids"][:] == columns["input_ids"]
    assert table.features["input_ids"] == datasets.List(datasets.Value("int32"))
    joined = softlabels.with_soft_targets(table, tmp_path / "original", T=2)
    assert joined[7]["input_ids"] == columns["input_ids"][7]
    assert joined[7]["soft_target"].sum() == pytest.approx(1)
    changed = encoded("left")
    changed["input_ids"][9][-1] = 5
    third = written(tmp_path / "c.parquet", changed | {"token_type_ids": padded["token_type_ids"]})
    with pytest.raises(AlignmentError, match="1 of 60 inputs are not what the teacher saw"):
        softlabels.load(tmp_path / "none", source=third).take(range(ROWS))


def check_batches(rows: Any, expected: list[list[int]]) -> None:
    """In every way in which a loop may ask for them."""
    loaders = [
        rows.batches(16, shuffle=True, seed=3),
        DataLoader(rows, 16, shuffle=True),
        DataLoader(Subset(rows, range(ROWS)), 16),
        DataLoader([rows[i] for i in range(ROWS)], 16),
    ]
    for loader in loaders:
        seen = []
        for batch in loader:
            assert set(batch["input"]) == {"input_ids", "attention_mask", "token_type_ids"}
            for name, values in batch["input"].items():
                assert torch.equal(values, batch[name])
                assert values.dtype == torch.int64
            assert batch["input_ids"].shape[1] == batch["attention_mask"].sum(1).max()
            columns = (batch[name] for name in ("id", "input_ids", "attention_mask"))
            for id, row, mask in zip(*columns, strict=True):
                assert row[mask == 1].tolist() == expected[int(id)]
                assert not row[mask == 0].any()
                seen.append(int(id))
        assert sorted(seen) == list(range(ROWS))
    assert rows[5]["input"]["input_ids"].tolist() == expected[5]
    assert rows[5]["attention_mask"].tolist() == [1] * len(expected[5])


def test_workers_give_padded_batches(tmp_path, nets):
    columns = encoded()
    dumped(tmp_path, f"hf:{nets / 'absolute'}", written(tmp_path / "a.parquet", columns))
    rows = softlabels.load(tmp_path / "dump")
    for loader in (DataLoader(rows, 16, num_workers=1), rows.batches(16, workers=1)):
        batch = list(loader)[1]
        pairs = zip(batch["input_ids"], batch["attention_mask"], strict=True)
        kept = [row[mask == 1].tolist() for row, mask in pairs]
        assert kept == columns["input_ids"][16:32]


def test_resume_replay_and_what_records_and_pages_say(tmp_path, nets):
    path, net = written(tmp_path / "d.jsonl", encoded("right")), f"hf:{nets / 'decoder'}"
    options = {"shard_rows": 20, "store_inputs": "original", "out": str(tmp_path / "d")}
    first = dumped(tmp_path, net, path, **options)
    (tmp_path / "d" / "softlabels.json").unlink()
    (tmp_path / "d" / "commits" / "00001.json").unlink()
    np.testing.assert_array_equal(dumped(tmp_path, net, path, resume=True, **options), first)
    found = softlabels.verify(dump=options["out"], source=True, replay=40, teacher=net)
    assert found.findings == []
    shown = softlabels.show(dump=options["out"], rows=2)
    ids = encoded()["input_ids"]
    assert shown.as_json["rows"][1]["tokens"] == {"input_ids": ids[59]}
    assert f"input_ids: {' '.join(map(str, ids[0][:16]))}" in str(shown)
    card = (tmp_path / "d" / "README.md").read_text()
    assert "--input-column input_ids" in card
    assert "text-classification" in card
    assert softlabels.plan(teacher=net, data=path, out=str(tmp_path / "e")).rows == ROWS


def test_logits_of_another_program_and_no_labels(tmp_path, nets):
    path = written(tmp_path / "d.parquet", encoded("right"))
    logits = np.load(nets / "absolute.npy")
    np.save(tmp_path / "l.npy", logits)
    out = str(tmp_path / "d")
    softlabels.import_logits(file=str(tmp_path / "l.npy"), data=path, out=out, labels=False)
    rows = softlabels.load(out)
    np.testing.assert_array_equal(rows["logits"].numpy(), logits)
    assert (
        rows[:3]["input_ids"][0, : len(encoded()["input_ids"][0])].tolist()
        == (encoded()["input_ids"][0])
    )
    assert rows[0]["label"] == -1


class Mean(nn.Module):
    """The mean of embeddings; padding counts where no mask tells it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.last = nn.Embedding(24, 8), nn.Linear(8, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        x_NLD = self.embed(input_ids)
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        return self.last((x_NLD * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)) * 4


class Unmasked(Mean):
    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x)


def rows_alone(module: nn.Module) -> np.ndarray:
    rows = encoded()["input_ids"]
    with torch.no_grad():
        return torch.cat([module.eval()(torch.tensor([row])) for row in rows]).numpy()


def test_modules_and_callables_get_the_columns_by_name(tmp_path):
    path, expected = written(tmp_path / "d.parquet", encoded("right")), rows_alone(Mean())
    module = Mean().eval()

    def answer(attention_mask, input_ids):
        return module(input_ids, attention_mask)

    for number, (teacher, options) in enumerate([
        (Mean(), {}), (answer, {"name": "a", "version": "1"}),
        (lambda **columns: module(**columns), {"name": "b", "version": "1"}),
    ]):  # fmt: skip
        out = str(tmp_path / f"d{number}")
        stored = dumped(tmp_path, teacher, path, out=out, **options)
        np.testing.assert_allclose(stored, expected, atol=1e-5)


@pytest.fixture(scope="module")
def programs(tmp_path_factory) -> Path:
    """`Mean` as every kind of program, with lengths that may change or are fixed."""
    place, module = tmp_path_factory.mktemp("programs"), Mean().eval()
    ids, mask = torch.randint(0, 24, (4, LONGEST)), torch.ones(4, LONGEST, dtype=torch.long)
    names = ["input_ids", "attention_mask"]
    dims = {name: {0: torch.export.Dim("N"), 1: torch.export.Dim("L")} for name in names}
    ways = {"place": ((ids, mask), {}), "mixed": ((ids,), {"attention_mask": mask})}
    for name, (given, named) in ways.items():
        program = torch.export.export(module, given, named, dynamic_shapes=dims)
        torch.export.save(program, place / f"{name}.pt2")
    torch.export.save(torch.export.export(module, (ids, mask)), place / "fixed.pt2")
    torch.jit.trace(module, (ids, mask)).save(place / "traced.ts")
    free = {name: {0: "N", 1: "L"} for name in names}
    for name, axes in (("free", free), ("fixed", {})):
        torch.onnx.export(module, (ids, mask), place / f"{name}.onnx", input_names=names,
                          dynamic_axes=axes, dynamo=False)  # fmt: skip
    del free["attention_mask"]
    torch.onnx.export(Unmasked().eval(), (ids,), place / "unmasked.onnx", input_names=names[:1],
                      dynamic_axes=free, dynamo=False)  # fmt: skip
    return place


PROGRAMS = ["place.pt2", "mixed.pt2", "fixed.pt2", "traced.ts", "free.onnx", "fixed.onnx",
            "unmasked.onnx"]  # fmt: skip


@pytest.mark.filterwarnings("ignore")  # of torch's exporters, about themselves
@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_get_the_columns_by_name(tmp_path, programs, name):
    path = written(tmp_path / "d.parquet", encoded("left"))
    stored = dumped(tmp_path, str(programs / name), path)
    np.testing.assert_allclose(stored, rows_alone(Mean()), atol=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["fixed.onnx", "place.pt2"])
def test_programs_of_several_inputs_refuse_one(programs, vectors, name):
    with pytest.raises(TeacherError, match=r"takes 2 inputs, input_ids, attention_mask, and is gi"):
        dumped(programs, str(programs / name), vectors)


def test_a_module_without_a_mask_gets_no_padded_row(tmp_path):
    path, said = written(tmp_path / "d.parquet", encoded("left")), Lines()
    stored = dumped(tmp_path, Unmasked(), path, progress=said)
    np.testing.assert_allclose(stored, rows_alone(Mean()), atol=1e-5)
    assert "takes no attention_mask: rows of one length alone are answered together" in str(said)


def test_inputs_that_do_not_fit_are_refused(tmp_path, nets):
    net, columns = f"hf:{nets / 'absolute'}", encoded()
    path = written(tmp_path / "d.parquet", columns)
    long = [*columns["input_ids"][:-1], [5] * 40]
    large = [*columns["input_ids"][:-1], [2, 24, 3]]
    for ids, message in (
        (long, "row with id 59 has 40 tokens, and the teacher absolute takes 24"),
        (large, "row with id 59 has the token 24 in input_ids, and .* knows 24, from 0 to 23"),
    ):
        bad = written(tmp_path / "bad.parquet", {"input_ids": ids})
        with pytest.raises(SourceError, match=message):
            dumped(tmp_path, net, bad)
    unmasked = written(tmp_path / "e.parquet", {"input_ids": encoded("right")["input_ids"]})
    with pytest.raises(TeacherError, match="rows begin or end with the token 0, with which"):
        dumped(tmp_path, net, unmasked)
    with pytest.raises(UsageError, match=r"--truncate is for texts, and the inputs of .* are tok"):
        dumped(tmp_path, net, path, truncate=True)
    with pytest.raises(UsageError, match=r"--augment is 'flip', .* pixels; these are tokens"):
        dumped(tmp_path, net, path, views=1, augment="flip")
    extra = written(tmp_path / "f.parquet", columns, extra=columns["input_ids"])
    with pytest.raises(TeacherError, match="takes no extra; its inputs are input_ids"):
        dumped(tmp_path, Mean(), extra, input_column="input_ids,extra")

    class Other(Mean):
        def forward(self, input_ids, lengths):
            return super().forward(input_ids)

    with pytest.raises(TeacherError, match="needs lengths and takes the inputs input_ids, lengths"):
        dumped(tmp_path, Other(), path)
    bad = written(tmp_path / "bad.parquet", {"input_ids": large})
    with pytest.raises(TeacherError, match=r"index out of range.*id 59, which has the largest tok"):
        dumped(tmp_path, Mean(), bad, out=str(tmp_path / "other"))
    said = Lines()
    dumped(tmp_path, Mean(), unmasked, progress=said)
    assert "begin or end with several of the token 0, as padded rows do" in str(said)
    save_classifier(tmp_path / "bare", "decoder", pad_token_id=None)
    with pytest.raises(TeacherError, match="names no pad token"):
        dumped(tmp_path, f"hf:{tmp_path / 'bare'}", path, out=str(tmp_path / "other"))
    assert not (tmp_path / "other").exists()
