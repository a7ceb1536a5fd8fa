"""What `export` writes is what the checkpoint gives: held against onnxruntime, torch.export and
transformers by hand."""

import json
import shutil

import numpy as np
import pytest
import torch
from torch import nn

import softlabels
from softlabels.errors import ExportError, MissingExtra, TeacherError, UsageError
from softlabels.inputs.preprocess import Preprocess
from softlabels.models.checkpoint import Checkpoint
from tests.students.test_real_students import HERE, Net, pictures, train  # noqa: F401

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


class Bessel(Net):
    def forward(self, x):
        return super().forward(torch.special.bessel_j0(x))


class Fixed(Net):
    """Its code knows how many rows it was first given."""

    rows = 2

    def forward(self, x):
        logits = super().forward(x)
        return logits if self.training else logits.reshape(2, -1)[:, :10] if len(x) == 2 else logits


class Branching(Net):
    def forward(self, x):
        return super().forward(x) if x.sum() > 0 else super().forward(-x)


class Noisy(Net):
    """It gives something else in each call."""

    def forward(self, x):
        logits = super().forward(x)
        return logits + torch.randn_like(logits)


class Output(Net):
    """Its logits are an item of a dict, beside others."""

    def forward(self, x):
        return {"features": x.flatten(1), "logits": super().forward(x)}


def by_hand(path: str, inputs: np.ndarray) -> torch.Tensor:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["logits"], {"input": inputs})[0])


def metadata(path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def test_onnx_takes_pixels_and_gives_what_the_checkpoint_gives(teacher, tmp_path, cli):
    done = cli("export", teacher, "--to", "onnx", "--out", "s.onnx", "--json")
    assert done.code == 0, done.err
    assert done.value["difference"] <= 1e-3 * done.value["spread"]
    assert done.value["inputs"] == "uint8 [N, 1, 8, 8], after upright"
    assert done.value["bytes"] == (tmp_path / "s.onnx").stat().st_size
    pixels = softlabels.examples("digits", preprocess="upright")["input"]
    checkpoint = Checkpoint.read(tmp_path.__class__(teacher))
    theirs = checkpoint.build()(pixels / 255).detach()
    ours = by_hand(str(tmp_path / "s.onnx"), pixels.to(torch.uint8).numpy())
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    known = metadata(tmp_path / "s.onnx")
    assert json.loads(known["class_names"]) == [str(n) for n in range(10)]
    assert known["softlabels_preprocess_before"] == "upright"
    assert known["softlabels_preprocess_inside"] == "scale(255)"
    assert str(tmp_path) not in str(onnx.load(tmp_path / "s.onnx"))


def test_a_file_that_is_there_is_overwritten_where_it_is_named_alone(teacher, tmp_path, cli):
    """`t.onnx` may be the teacher that `t.pt` was made from."""
    shutil.copy(teacher, tmp_path / "t.pt")
    (tmp_path / "t.onnx").write_bytes(b"a teacher")
    done = cli("export", "t.pt", "--to", "onnx")
    assert done.code == 2
    assert "t.onnx is there already; to overwrite it, name it with --out" in done.err
    assert (tmp_path / "t.onnx").read_bytes() == b"a teacher"
    assert cli("export", "t.pt", "--to", "onnx", "--out", "t.onnx").code == 0
    assert metadata(tmp_path / "t.onnx")["softlabels_preprocess_before"] == "upright"


@pytest.mark.parametrize("to", ["onnx", "pt2"])
def test_what_is_exported_is_a_teacher_that_knows_its_preprocessing(
    teacher, made, tmp_path, cli, to
):
    out = str(tmp_path / f"s.{to}")
    softlabels.export(checkpoint=teacher, to=to, out=out)
    done = cli("dump", "--teacher", out, "--data", "digits", "--out", "d", "--dtype", "float32")
    assert done.code == 0, done.err
    assert "preprocessing upright, from the teacher's own configuration" in done.err
    ours = softlabels.load(str(tmp_path / "d"), inputs=False)
    softlabels.dump(teacher=teacher, out=str(tmp_path / "e"), dtype="float32")
    theirs = softlabels.load(str(tmp_path / "e"), inputs=False)
    assert ours.class_names == theirs.class_names
    torch.testing.assert_close(ours["logits"], theirs["logits"], atol=1e-4, rtol=1e-4)
    found = softlabels.evaluate(checkpoint=out, data="digits")
    again = softlabels.evaluate(checkpoint=teacher)
    assert found["errors"] == again["errors"]


def test_numbers_and_tokens(vectors, tmp_path):
    softlabels.fit(data=vectors, model="mlp:8", epochs=1, preprocess="normalize(1, 2)",
                   out=str(tmp_path / "t.pt"))  # fmt: skip
    out = softlabels.export(checkpoint=str(tmp_path / "t.pt"), to="onnx")
    assert out.out == str(tmp_path / "t.onnx")
    assert out.inputs == "float32 [N, 6]"
    inputs = torch.randn(5, 6)
    theirs = Checkpoint.read(tmp_path / "t.pt").build()((inputs - 1) / 2).detach()
    torch.testing.assert_close(by_hand(out.out, inputs.numpy()), theirs)


@pytest.mark.parametrize("to", ["onnx", "pt2"])
def test_a_model_with_other_outputs_gives_its_logits_alone(dump_folder, tmp_path, to):
    train(dump_folder, tmp_path / "s.pt", Output, epochs=1, holdout=0)
    name = f"{__name__}:Output"
    with pytest.raises(UsageError, match=f"say so with --model {name}"):
        softlabels.export(checkpoint=str(tmp_path / "s.pt"), to=to)
    exported = softlabels.export(checkpoint=str(tmp_path / "s.pt"), to=to, model=name)
    assert exported.difference <= 1e-3 * exported.spread


@pytest.mark.parametrize(
    ("net", "to", "message"),
    [
        (
            Bessel,
            "onnx",
            r"uses the operator prims.bessel_j0, which torch can't write as ONNX: com",
        ),
        (Fixed, "onnx", "its code works with 2 rows at once alone; let it take their number from"),
        (Branching, "pt2", "can't be exported by torch.export: .*data-dependent"),
        (Noisy, "pt2", "as pt2, gives other logits than the checkpoint: they differ by up to"),
        (Net, "hf", "is no classifier of transformers, which --to hf is for; use --to onnx"),
    ],
)
def test_what_can_not_be_exported_is_said_and_leaves_no_file(
    dump_folder, tmp_path, net, to, message
):
    train(dump_folder, tmp_path / "s.pt", net, epochs=1, holdout=0)
    before = sorted(tmp_path.iterdir())
    model = f"{HERE if net is Net else __name__}:{net.__name__}"
    with pytest.raises(ExportError, match=message) as told:
        softlabels.export(checkpoint=str(tmp_path / "s.pt"), to=to, model=model)
    assert len(str(told.value)) < 500
    assert sorted(tmp_path.iterdir()) == before


def test_what_is_no_finished_checkpoint(teacher, dump_folder, made, tmp_path, monkeypatch):
    content = torch.load(teacher, weights_only=True)
    content["training"]["complete"] = False
    torch.save(content, tmp_path / "u.pt")
    with pytest.raises(ExportError, match=r"of an unfinished training, after epoch .* --resume"):
        softlabels.export(checkpoint=str(tmp_path / "u.pt"), to="onnx")
    torch.save(nn.Linear(2, 3).state_dict(), tmp_path / "w.pt")
    for path, message in (
        (dump_folder, "is a folder; export takes a checkpoint .* recipes of docs/exchange.md"),
        (tmp_path / "w.pt", "is no checkpoint of softlabels fit or train"),
        (tmp_path / "none.pt", "does not exist; export takes a checkpoint of fit or train"),
    ):
        with pytest.raises(TeacherError, match=message):
            softlabels.export(checkpoint=str(path), to="onnx")
    with pytest.raises(UsageError, match=r"--out is .*, which is a folder; name a file, such as"):
        softlabels.export(checkpoint=teacher, to="onnx", out=str(tmp_path))
    with pytest.raises(UsageError, match="to is 'torch'; use onnx, pt2 or hf"):
        softlabels.export(checkpoint=teacher, to="torch")
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(
        MissingExtra, match=r"onnxscript, which .* pip install 'softlabels\[onnx\]'"
    ):
        softlabels.export(checkpoint=teacher, to="onnx", out=str(tmp_path / "x.onnx"))


PROCESSED = {
    "upright|rgb|resize(32, 32)|scale(255)|normalize(0.5, 0.5)": True,
    "rgb|resize(36, bicubic)|center_crop(32, floor)|scale(255)": True,
    "rgb|resize(35)|center_crop(32)|scale(255)": False,  # rounds the other way
    "rgb|pad(300)|resize(32, 32)|scale(255)": False,
}


@pytest.mark.parametrize("words", PROCESSED)
def test_a_folder_of_transformers(pictures, tmp_path, words):  # noqa: F811
    """Class names, weights, and a processor where one does the same."""
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        patch_size=8, image_size=32)  # fmt: skip
    config.save_pretrained(tmp_path / "net")
    train(pictures / "d", tmp_path / "s.pt", str(tmp_path / "net"), epochs=1, holdout=0,
          preprocess=words)  # fmt: skip
    exported = softlabels.export(checkpoint=str(tmp_path / "s.pt"), to="hf")
    folder = tmp_path / "s-hf"
    model = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    assert model.config.id2label == {0: "cat", 1: "dog"}
    assert model.config.problem_type == "single_label_classification"
    has = (folder / "preprocessor_config.json").exists()
    assert has == PROCESSED[words]
    assert any("without preprocessor_config.json" in text for text in exported.remarks) != has
    checkpoint = Checkpoint.read(tmp_path / "s.pt")
    batch = softlabels.examples(str(pictures / "data"), preprocess=words)["input"]
    with torch.inference_mode():
        torch.testing.assert_close(model(batch).logits, checkpoint.build()(batch).logits)
    if has:
        found = softlabels.evaluate(checkpoint=str(folder), data=str(pictures / "data"),
                                    split="train")  # fmt: skip
        again = softlabels.evaluate(checkpoint=str(tmp_path / "s.pt"), split="train")
        assert found["nll"] == pytest.approx(again["nll"], rel=1e-3)
    with pytest.raises(UsageError, match="s-hf, which is there already; name another folder"):
        softlabels.export(checkpoint=str(tmp_path / "s.pt"), to="hf")
    shown = softlabels.export(checkpoint=str(tmp_path / "s.pt"), to="onnx")
    assert shown.inputs.startswith("uint8 [N, 3, 32, 32], after ")
    assert Preprocess.parse(metadata(shown.out)["softlabels_preprocess_before"]).picture
