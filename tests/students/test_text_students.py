"""Students of texts: a row's logits are those of its text alone; a checkpoint opens anywhere."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import softlabels
from softlabels.store.folder import Folder
from softlabels.store.reader import DumpReader
from tests.conftest import Lines, every
from tests.inputs.test_texts import write
from tests.text_models import (
    CONFIGS,
    alone,
    save_classifier,
    sentences,
    transformers,
)

ROWS = 100
FAST = {"epochs": 2, "batch_size": 16, "lr": 1e-2, "T": 2.0}


def labels_of(texts: list[str]) -> list[str]:
    """Of a text the name of a class that its words decide."""
    return [
        "good" if "good" in t.split() else "bad" if "bad" in t.split() else "fair" for t in texts
    ]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """d.csv, a teacher `net` of two layers, and its dump; `small`, a configuration of one layer."""
    place = tmp_path_factory.mktemp("texts")
    texts = sentences(ROWS)
    write(place / "d.csv", uid=[f"r{row}" for row in range(ROWS)], text=texts,
          label=labels_of(texts))  # fmt: skip
    save_classifier(place / "net")
    config = CONFIGS["absolute"]()
    config.num_hidden_layers = 1
    config.architectures = ["BertForSequenceClassification"]
    config.save_pretrained(place / "small")
    softlabels.dump(teacher=f"hf:{place / 'net'}", data=str(place / "d.csv"), dtype="float32",
                    input_column="text", id_column="uid", out=str(place / "dump"))  # fmt: skip
    return place


@pytest.fixture(scope="module")
def trained(made) -> SimpleNamespace:
    """s.pt, a student of the dump, whose tokenizer is the teacher's."""
    lines = Lines()
    result = softlabels.train(dump=str(made / "dump"), student=f"hf:{made / 'small'}",
                              out=str(made / "s.pt"), progress=lines, **FAST)  # fmt: skip
    return SimpleNamespace(result=result, said=str(lines), place=made)


def rebuilt(checkpoint) -> torch.nn.Module:
    """The student as transformers alone makes it from what a checkpoint holds."""
    config = transformers.BertConfig.from_dict(checkpoint.configuration)
    config.num_labels = checkpoint.num_classes
    module = transformers.BertForSequenceClassification(config)
    module.load_state_dict(checkpoint.state_dict)
    return module.eval()


def test_a_student_without_a_tokenizer_reads_with_the_teachers(trained):
    assert "no tokenizer of its own: it reads with that of the teacher net" in trained.said
    assert "BertForSequenceClassification, from random weights, on cpu: 90 rows" in trained.said
    checkpoint = trained.result.checkpoint
    assert checkpoint.configuration["num_hidden_layers"] == 1
    assert checkpoint.tokenizer["name"] == "net"
    assert checkpoint.class_names == ["bad", "fair", "good"]
    # the measures are those of the texts one by one, by hand
    module, held = rebuilt(checkpoint), trained.result.metrics["held_out"]
    rows = np.random.default_rng([0, 0xDA7A]).permutation(ROWS)[:10]
    texts = [sentences(ROWS)[row] for row in rows]
    logits = alone(trained.place / "net", module, texts)
    names = ["bad", "fair", "good"]
    right = [names[best] == label for best, label in
             zip(logits.argmax(1), labels_of(texts), strict=True)]  # fmt: skip
    assert held["errors"] == 10 - sum(right) if "errors" in held else held["kl"] >= 0
    theirs = torch.from_numpy(every(DumpReader(Folder(str(trained.place / "dump"))))[rows])
    kl = torch.nn.functional.kl_div(torch.from_numpy(logits).log_softmax(1), theirs.softmax(1),
                                    reduction="batchmean")  # fmt: skip
    assert held["kl"] == pytest.approx(float(kl), rel=1e-3)


def test_its_checkpoint_is_measured_and_is_a_teacher_on_another_machine(trained, tmp_path, cli,
                                                                       monkeypatch):  # fmt: skip
    shutil.copy(trained.place / "s.pt", tmp_path)
    shutil.copy(trained.place / "d.csv", tmp_path)
    monkeypatch.setenv("SOFTLABELS_CACHE", str(tmp_path / "cache"))
    module, names = rebuilt(trained.result.checkpoint), ["bad", "fair", "good"]
    texts = sentences(ROWS)
    expected = alone(trained.place / "net", module, texts)
    labels = [names.index(label) for label in labels_of(texts)]
    nll = torch.nn.functional.cross_entropy(torch.from_numpy(expected), torch.tensor(labels))
    done = cli("eval", "s.pt", "--data", "d.csv", "--split", "train", "--input-column", "text",
               "--per-class", "--json")  # fmt: skip
    assert done.code == 0, done.err
    assert done.value["nll"] == pytest.approx(float(nll), rel=1e-4)
    assert done.value["errors"] == int((expected.argmax(1) != np.array(labels)).sum())
    assert [row["class"] for row in done.value["per_class"]] != []
    done = cli("dump", "--teacher", "s.pt", "--data", "d.csv", "--input-column", "text",
               "--id-column", "uid", "--dtype", "float32", "--out", "again")  # fmt: skip
    assert done.code == 0, done.err
    stored = every(DumpReader(Folder(str(tmp_path / "again"))))
    np.testing.assert_allclose(stored, expected, atol=2e-5, rtol=1e-4)


def test_the_rows_that_training_held_out_and_those_of_a_dump(trained):
    measured = softlabels.evaluate(checkpoint=str(trained.place / "s.pt"), holdout=True,
                                   against=str(trained.place / "dump"))  # fmt: skip
    held = trained.result.metrics["held_out"]
    assert measured["rows"] == 10
    assert measured["against"]["kl"] == pytest.approx(held["kl"], rel=1e-4)
    whole = softlabels.evaluate(checkpoint=str(trained.place / "s.pt"), labels=False, split="train",
                                against=str(trained.place / "dump"))  # fmt: skip
    assert whole["against"]["rows"] == ROWS


def test_rows_that_are_streamed(trained, tmp_path):
    result = softlabels.train(
        dump=str(trained.place / "dump"), student=f"hf:{trained.place / 'small'}", streaming=True,
        out=str(tmp_path / "s.pt"), **FAST,
    )  # fmt: skip
    measured = softlabels.evaluate(checkpoint=str(tmp_path / "s.pt"), holdout=True,
                                   against=str(trained.place / "dump"))  # fmt: skip
    assert measured["against"]["kl"] == pytest.approx(result.metrics["held_out"]["kl"], rel=1e-4)


@pytest.mark.parametrize("kind", ["offset", "relative", "decoder"])
def test_hard_labels_precision_and_the_averages_of_other_models(made, tmp_path, kind):
    save_classifier(tmp_path / "net", kind)
    result = softlabels.fit(model=f"hf:{tmp_path / 'net'}", data=str(made / "d.csv"), epochs=1,
                            input_column="text", precision="bf16", ema=0.5, accumulate=2,
                            batch_size=16, out=str(tmp_path / "t.pt"))  # fmt: skip
    measured = softlabels.evaluate(checkpoint=str(tmp_path / "t.pt"), holdout=True)
    held = result.metrics["held_out"]
    assert measured["nll"] == pytest.approx(held["nll"], rel=1e-4)
    assert measured["errors"] == held["errors"]


def test_it_is_exported_as_transformers_saves_it(trained, tmp_path, cli):
    shutil.copy(trained.place / "s.pt", tmp_path)
    done = cli("export", "s.pt", "--to", "hf", "--json")
    assert done.code == 0, done.err
    module, texts = rebuilt(trained.result.checkpoint), sentences(20, 3)
    expected = alone(trained.place / "net", module, texts)
    saved = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "s-hf")
    np.testing.assert_allclose(alone(tmp_path / "s-hf", saved.eval(), texts), expected, atol=1e-6)
    pipe = transformers.pipeline("text-classification", model=str(tmp_path / "s-hf"), top_k=None)
    probabilities = torch.from_numpy(expected).softmax(1)
    for row, answers in enumerate(pipe(texts)):
        given = {answer["label"]: answer["score"] for answer in answers}
        names = ["bad", "fair", "good"]
        assert given == pytest.approx(dict(zip(names, probabilities[row].tolist(), strict=True)),
                                      abs=1e-5)  # fmt: skip
    write(tmp_path / "new.csv", text=texts, label=labels_of(texts))
    softlabels.dump(teacher=f"hf:{tmp_path / 's-hf'}", data=str(tmp_path / "new.csv"),
                    dtype="float32", out=str(tmp_path / "d"))  # fmt: skip
    stored = every(DumpReader(Folder(str(tmp_path / "d"))))
    np.testing.assert_allclose(stored, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("to", [pytest.param("onnx", marks=pytest.mark.slow), "pt2"])
def test_it_is_exported_as_a_program_of_tokens_and_their_mask(trained, tmp_path, to):
    pytest.importorskip(to if to == "onnx" else "torch")
    done = softlabels.export(checkpoint=str(trained.place / "s.pt"), to=to,
                             out=str(tmp_path / "s"))  # fmt: skip
    assert (
        "input_ids, attention_mask, int64 [N, L] with L up to 24, after tokenizer(own"
        in done.inputs
    )
    texts = sentences(5, 3)
    tokenizer = transformers.AutoTokenizer.from_pretrained(trained.place / "net")
    given = tokenizer(texts, padding=True, return_tensors="pt")
    names = ("input_ids", "attention_mask")
    if to == "onnx":
        runtime = pytest.importorskip("onnxruntime")
        session = runtime.InferenceSession(str(tmp_path / "s"))
        logits = session.run(["logits"], {name: given[name].numpy() for name in names})[0]
    else:
        program = torch.export.load(tmp_path / "s").module()
        logits = program(*(given[name] for name in names)).detach().numpy()
    expected = alone(trained.place / "net", rebuilt(trained.result.checkpoint), texts)
    np.testing.assert_allclose(logits, expected, atol=1e-5, rtol=1e-4)
