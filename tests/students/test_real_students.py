"""Students that people bring: models of transformers, modules and factories in memory, weights
that they start with."""

import json
import shutil
from functools import partial
from pathlib import Path

import datasets
import pytest
import torch
from torch import nn

import softlabels
from softlabels.errors import TeacherError, UsageError
from softlabels.students import state_file
from tests.conftest import Lines, make_vectors
from tests.pictures import save_pictures

HERE = "tests.students.test_real_students"
PREPARED = "rgb|resize(32, 32)|scale(255)|normalize(0.5, 0.5)"


class Net(nn.Module):
    """Batch norm and dropout; its head is for any number of classes."""

    def __init__(self, num_classes: int = 7, width: int = 16) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.BatchNorm1d(width))
        self.head = nn.Sequential(nn.ReLU(), nn.Dropout(0.1), nn.Linear(width, num_classes))

    def forward(self, x):
        return self.head(self.body(x))


def ten() -> nn.Module:
    return Net(10)


def seven() -> nn.Module:
    return Net(7)


def no_module(num_classes: int) -> int:
    return num_classes


def needs_more(num_classes: int, depth: int) -> nn.Module:
    return Net(num_classes, depth)


def train(dump: object, out: Path, student: object, **options):
    lines = Lines()
    defaults = {"T": 2.0, "epochs": 2, "batch_size": 128, "lr": 1e-2, "alpha": 1.0}
    result = softlabels.train(progress=lines, dump=str(dump), student=student, out=str(out),
                              **(defaults | options))  # fmt: skip
    return result, str(lines)


def weights(path: object) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def same(a: dict, b: dict) -> bool:
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def test_a_module_is_trained_itself_and_holds_the_best_epochs_weights(dump_folder, tmp_path):

    class Souring(Net):
        """From the second epoch on its held-out answers are the worst."""

        turn = 0

        def forward(self, x):
            self.turn += not self.training
            return -super().forward(x) if 2 < self.turn <= 4 else super().forward(x)

    net = Souring(10).train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    result, said = train(dump_folder, tmp_path / "s.pt", net, epochs=3)
    assert "Souring, from the weights that it has, on cpu: " in said
    assert result.metrics["epoch"] == 1
    assert same(net.state_dict(), weights(tmp_path / "s.pt"))
    assert not same(net.state_dict(), before)
    assert (net.training, net.head[2].weight.grad) == (False, None)
    found = softlabels.evaluate(checkpoint=net, data="digits",
                                preprocess=result.checkpoint.preprocess)  # fmt: skip
    assert found["accuracy"] > 0.4


def test_the_weights_of_a_module_start_its_training(dump_folder, tmp_path):
    """With no step worth the name, it stays what it was."""
    net = Net(10)
    before = {name: tensor.clone() for name, tensor in net.named_parameters()}
    train(dump_folder, tmp_path / "s.pt", net, epochs=1, lr=1e-12)
    after = dict(net.named_parameters())
    torch.testing.assert_close({n: t.detach() for n, t in after.items()},
                               {n: t.detach() for n, t in before.items()})  # fmt: skip


def test_a_module_that_fails_midway_holds_the_best_so_far(dump_folder, tmp_path):
    class Tired(Net):
        turn = 0

        def forward(self, x):
            self.turn += not self.training
            if self.turn == 3:
                raise KeyboardInterrupt
            return super().forward(x)

    net = Tired(10)
    with pytest.raises(KeyboardInterrupt):
        train(dump_folder, tmp_path / "s.pt", net, epochs=3)
    assert same(net.state_dict(), weights(tmp_path / "s.pt"))


def test_a_checkpoint_of_a_module_opens_with_a_function_that_builds_it(dump_folder, tmp_path, cli):
    net = Net(10)
    trained, _ = train(dump_folder, tmp_path / "s.pt", net)
    done = cli("eval", tmp_path / "s.pt")
    assert done.code == 2
    assert f"a module in memory, a {HERE}.Net, and no record says how to build one" in done.err
    done = cli("eval", tmp_path / "s.pt", "--model", f"{HERE}:ten", "--json")
    assert done.code == 0, done.err
    prepared = trained.checkpoint.preprocess
    by_hand = softlabels.evaluate(checkpoint=net, data="digits", preprocess=prepared)
    assert done.value["nll"] == pytest.approx(by_hand["nll"])
    with pytest.raises(TeacherError, match=r"not those of .*:seven: size mismatch, head.2.weight"):
        softlabels.evaluate(checkpoint=str(tmp_path / "s.pt"), model=f"{HERE}:seven")
    out = str(tmp_path / "d")
    given = {"teacher": str(tmp_path / "s.pt"), "model": f"{HERE}:ten"}
    softlabels.dump(**given, out=out)
    assert softlabels.verify(dump=out, replay=20, **given).good
    assert f"--model {HERE}:ten" in (tmp_path / "d" / "README.md").read_text()


@pytest.mark.parametrize("student", [f"{HERE}:Net", Net, partial(Net, width=16)])
def test_a_factory_gets_the_number_of_classes_and_the_seed(dump_folder, tmp_path, student):
    torch.manual_seed(0)  # as the default --seed
    wish = Net(10).state_dict()
    options = {"epochs": 1, "lr": 1e-12, "batch_size": 2048, "holdout": 0}
    _, said = train(dump_folder, tmp_path / "s.pt", student, **options)
    assert ", from the weights that it makes, on cpu" in said
    first = weights(tmp_path / "s.pt")
    assert first["head.2.weight"].shape == (10, 16)
    torch.testing.assert_close(first["head.2.weight"], wish["head.2.weight"])
    train(dump_folder, tmp_path / "b.pt", student, **options, seed=1)
    assert not torch.allclose(weights(tmp_path / "b.pt")["head.2.weight"], wish["head.2.weight"])


def test_a_function_that_can_be_imported_is_known_by_its_name(dump_folder, tmp_path):
    train(dump_folder, tmp_path / "a.pt", ten, epochs=1)
    train(dump_folder, tmp_path / "b.pt", lambda num_classes: Net(num_classes), epochs=1)
    assert same(weights(tmp_path / "a.pt"), weights(tmp_path / "b.pt"))
    named, local = (torch.load(tmp_path / f"{n}.pt", weights_only=True)["model"] for n in "ab")
    assert named == f"{HERE}:ten"
    assert local.startswith(f"{HERE}.test_a_function")
    assert softlabels.evaluate(checkpoint=str(tmp_path / "a.pt"), model=named)["rows"] == 597


def meta() -> nn.Module:
    with torch.device("meta"):
        return Net(10)


@pytest.mark.parametrize(
    ("student", "options", "message"),
    [
        (Net(7), {}, r"Net gave \[2, 7\] for 2 inputs; expected \[2, 10\]"),
        (seven, {}, r":seven gave \[2, 7\] for 2 inputs; expected \[2, 10\]"),
        (meta(), {}, r"body.1.weight of model .*Net is on the device meta, so it has no numbers"),
        (meta, {}, "meta is on the device meta, so it has no numbers; load its weights first"),
        (nn.LazyLinear(10), {}, "weight of model .*LazyLinear is without a shape; run it once"),
        (no_module, {}, "no_module: it returned int, not a torch nn.Module"),
        (needs_more, {}, "TypeError, .*'depth'. It is called with num_classes=10 alone"),
        (Net(10), {"weights": "w.pt"}, "--weights is 'w.pt', for a model by name, and .*Net has"),
        (Net(10), {"dropout": 0.1}, "--dropout is for linear, mlp and cnn, and can't be put into"),
        (Net(10), {"rows": 1}, "a batch is one row, which batch norm can't train on"),
        (3, {}, "--student is 3; it must be text, or in Python an nn.Module, which is"),
        ("mlp:8", {"weights": "pretrained"}, "--weights is pretrained, and mlp:8 has no such"),
        (f"{HERE}:ten", {"weights": "pretrained"}, "is pretrained, and .*:ten makes its own"),
        ("resnet18", {}, "no model is called 'resnet18'; write linear, mlp:800x800, cnn:32x64, ti"),
        ("s.txt", {}, "s.txt is a path, and a model that is trained .* file with --weights"),
    ],
)
def test_what_can_not_be_a_student_is_refused_in_words(
    dump_folder, tmp_path, monkeypatch, student, options, message
):
    monkeypatch.chdir(tmp_path)
    Path("s.txt").write_text("")
    with pytest.raises(UsageError, match=message):
        train(dump_folder, tmp_path / "s.pt", student, **options)
    assert not Path("s.pt").exists()


@pytest.mark.parametrize(
    ("trained", "student", "problem"),
    [
        ("mlp:16x16x16", "mlp:16x16", r"layers\.3\.bias, \[10\] there, is not in the model"),
        ("mlp:16x16", "mlp:16x16x16", r"layers\.3\.bias, \[10\] in the model, is not there"),
    ],
)
def test_a_checkpoint_of_another_depth_is_refused_as_weights(
    dump_folder, tmp_path, trained, student, problem
):
    """Most of its tensors fit, and the others differ in their first size, as last layers do."""
    train(dump_folder, tmp_path / "w.pt", trained, epochs=1)
    with pytest.raises(TeacherError, match=f"are not those of {student}: {problem}"):
        train(dump_folder, tmp_path / "s.pt", student, weights=str(tmp_path / "w.pt"))


def test_weights_of_a_checkpoint_are_held_against_its_own_preprocessing(tmp_path):

    def remarks(preprocess: str, **others) -> str:
        lines = Lines()
        softlabels.fit(data="digits", model="cnn:4", epochs=1, preprocess=preprocess,
                       out=str(tmp_path / "t.pt"), progress=lines, **others)  # fmt: skip
        return str(lines)

    remarks("scale(16)")
    shutil.copy(tmp_path / "t.pt", tmp_path / "w.pt")
    start = {"weights": str(tmp_path / "w.pt")}
    assert "warning" not in remarks("scale(16)", **start)
    warning = "warning: the weights were trained on inputs prepared by scale(16); these are"
    assert f"{warning} prepared by scale(255)" in remarks("scale(255)", **start)


def test_weights_for_classes_of_other_names_are_kept_and_said(tmp_path):
    """As many classes: no shape shows that they are others."""
    data, still = make_vectors(tmp_path / "d.parquet", 60), {"epochs": 1, "holdout": 0}
    table = datasets.load_dataset("parquet", data_files=data, split="train")
    softlabels.fit(data=data, model="mlp:4", out=str(tmp_path / "w.pt"), **still)
    for names, expected in ((["a", "b", "c"], False), (["c", "b", "x"], True)):
        said, label = Lines(), datasets.ClassLabel(names=names)
        softlabels.fit(data=table.cast_column("label", label), model="mlp:4", progress=said,
                       weights=str(tmp_path / "w.pt"), out=str(tmp_path / "s.pt"),
                       **still)  # fmt: skip
        warning = "was trained to tell apart a, b, c; here the 3 classes are c, b, x, in this order"
        assert (warning in str(said)) == expected


def test_weights_to_start_from(dump_folder, teacher, tmp_path):
    """Of a checkpoint, and of a state dict of any program; a last layer for other classes stays
    random."""
    still = {"epochs": 1, "lr": 1e-12, "batch_size": 2048, "holdout": 0}
    _, said = train(dump_folder, tmp_path / "a.pt", "mlp:64", weights=teacher, **still)
    assert f"mlp:64, from the weights in {teacher}, on cpu: " in said
    torch.testing.assert_close(weights(tmp_path / "a.pt"), weights(teacher))
    torch.manual_seed(5)
    other = Net(1000)
    torch.save({"state_dict": {f"module.{n}": t for n, t in other.state_dict().items()}},
               tmp_path / "w.pt")  # fmt: skip
    _, said = train(dump_folder, tmp_path / "b.pt", f"{HERE}:Net", weights=str(tmp_path / "w.pt"),
                    **still)  # fmt: skip
    assert "head.2.weight, head.2.bias of tests.students.test_real_students:Net start at" in said
    assert "have none for these classes" in said
    torch.testing.assert_close(weights(tmp_path / "b.pt")["body.1.weight"], other.body[1].weight)
    with pytest.raises(TeacherError, match=r"are not those of mlp:65: layers.0.weight, \[65, 6"):
        train(dump_folder, tmp_path / "c.pt", "mlp:65", weights=teacher)
    with pytest.raises(TeacherError, match=r"--weights is '.*', which is no file"):
        train(dump_folder, tmp_path / "c.pt", "mlp:65", weights=str(tmp_path / "none.pt"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of pictures in two classes, and the dump of a small teacher over it."""
    folder = tmp_path_factory.mktemp("pictures")
    for name in ("cat", "dog"):
        (folder / "data" / name).mkdir(parents=True)
        save_pictures(folder / "data" / name)
    softlabels.fit(data=str(folder / "data"), model="linear", preprocess=PREPARED, epochs=2,
                   holdout=0, out=str(folder / "t.pt"))  # fmt: skip
    softlabels.dump(teacher=str(folder / "t.pt"), out=str(folder / "d"))
    return folder


def test_a_student_of_transformers_needs_its_folder_no_more(pictures, tmp_path, cli):
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        patch_size=8, image_size=32, num_labels=5)  # fmt: skip
    config.save_pretrained(tmp_path / "net")
    out = tmp_path / "s.pt"
    train(pictures / "d", out, f"hf:{tmp_path}/net/config.json", epochs=1, holdout=0)
    _, said = train(pictures / "d", tmp_path / "b.pt", str(tmp_path / "net"), epochs=1, holdout=0)
    assert "ViTForImageClassification, from random weights, on cpu" in said
    assert same(weights(out), weights(tmp_path / "b.pt"))
    (tmp_path / "net" / "config.json").unlink()
    content = torch.load(out, weights_only=True)
    assert (content["model"], content["num_classes"]) == ("ViTForImageClassification", 2)
    assert str(tmp_path) not in json.dumps(content["configuration"])
    done = cli("eval", out, "--split", "train", "--json")
    assert done.code == 0, done.err
    dump = {"teacher": str(out), "out": str(tmp_path / "e")}
    softlabels.dump(**dump, data=str(pictures / "data"))
    assert softlabels.load(dump["out"], inputs=False).class_names == ["cat", "dog"]
    replay = {"replay": 10, "data": str(pictures / "data"), "teacher": str(out)}
    assert softlabels.verify(dump=dump["out"], **replay).good


def test_a_module_of_transformers_opens_again_by_its_configuration(pictures, tmp_path):
    transformers = pytest.importorskip("transformers")
    net = transformers.AutoModelForImageClassification.from_config(
        transformers.DeiTConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
            patch_size=8, image_size=32, num_labels=2, architectures=["DeiTForImageClassificati"
            "onWithTeacher"]))  # fmt: skip
    assert type(net).__name__ == "DeiTForImageClassificationWithTeacher"
    train(pictures / "d", tmp_path / "s.pt", net, epochs=1, holdout=0)
    found = softlabels.evaluate(checkpoint=str(tmp_path / "s.pt"), split="train")
    again = softlabels.evaluate(checkpoint=net, data=str(pictures / "data"), split="train",
                                preprocess=PREPARED)  # fmt: skip
    assert found["nll"] == pytest.approx(again["nll"])


def test_pretrained_weights_of_a_folder(pictures, tmp_path):
    """A backbone without a head, and a classifier of other classes."""
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], num_labels=5)
    still = {"epochs": 1, "lr": 1e-12, "holdout": 0, "weights": "pretrained"}
    for kind, random in (
        (transformers.ResNetForImageClassification, "classifier.1.weight, classifier.1.bias of"),
        (transformers.ResNetModel, "classifier.1.weight, classifier.1.bias of"),
    ):
        torch.manual_seed(3)
        net = kind(config)
        net.save_pretrained(tmp_path / kind.__name__)
        transformers.ViTImageProcessorPil(size=32).save_pretrained(tmp_path / kind.__name__)
        _, said = train(pictures / "d", tmp_path / "s.pt", f"hf:{tmp_path / kind.__name__}",
                        **still)  # fmt: skip
        assert f"from the pretrained weights of {kind.__name__}, on cpu" in said
        assert random in said
        ours = weights(tmp_path / "s.pt")["resnet.embedder.embedder.convolution.weight"]
        theirs = getattr(net, "resnet", net).embedder.embedder.convolution.weight
        torch.testing.assert_close(ours, theirs)
        assert "the weights were trained on inputs prepared by" not in said
    _, said = train(pictures / "d", tmp_path / "s.pt", f"hf:{tmp_path / kind.__name__}", **still,
                    preprocess="rgb|resize(32, 32)|scale(255)")  # fmt: skip
    assert "warning: the weights were trained on inputs prepared by upright|rgb|resize(32" in said


def test_inputs_that_a_student_is_not_made_for(pictures, dump_folder, tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        patch_size=8, image_size=48)  # fmt: skip
    config.save_pretrained(tmp_path / "net")
    transformers.ViTImageProcessorPil(size=48).save_pretrained(tmp_path / "net")
    with pytest.raises(UsageError, match=r"can't take inputs of shape \[3, 32, 32\]: .*48.*48.*; i"
                       r"t is made for --preprocess 'upright\|rgb\|resize\(48, 48, b"):  # fmt: skip
        train(pictures / "d", tmp_path / "s.pt", str(tmp_path / "net"))
    with pytest.raises(UsageError, match=r"can't take inputs of shape \[1, 8, 8\]: .*channel"):
        train(dump_folder, tmp_path / "s.pt", str(tmp_path / "net"))
    train(pictures / "d", tmp_path / "s.pt", str(tmp_path / "net"), epochs=1, holdout=0,
          preprocess="rgb|resize(48, 48)|scale(255)")  # fmt: skip


def test_fit_has_the_same_door(pictures, tmp_path):
    net = Net(10)
    result = softlabels.fit(data="digits", model=net, epochs=2, lr=1e-2, out=str(tmp_path / "t.pt"))
    assert same(net.state_dict(), weights(tmp_path / "t.pt"))
    assert result.checkpoint.training["started_from"] == "the weights that it has"
    with pytest.raises(UsageError, match=r":seven gave \[2, 7\] for 2 inputs; expected \[2, 10\]"):
        softlabels.fit(data="digits", model=seven, out=str(tmp_path / "u.pt"))


class Interrupted(Net):
    """In its 15th step somebody presses Ctrl-C."""

    steps, at = 0, None

    def forward(self, x):
        self.steps += self.training
        if self.steps == self.at:
            raise KeyboardInterrupt
        return super().forward(x)


def seeded(at: int | None = None) -> Interrupted:
    torch.manual_seed(3)
    net = Interrupted(10)
    net.at = at
    return net


def test_a_module_goes_on_where_another_stopped(dump_folder, tmp_path, monkeypatch):
    """The state has its weights, so a new module, whatever its own are, ends as an undisturbed
    one; one of other code is refused; one of a finished training gets the weights."""
    monkeypatch.setattr(state_file, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(state_file, "MOST_SHARE", float("inf"))
    undisturbed = seeded()
    train(dump_folder, tmp_path / "a.pt", undisturbed)
    with pytest.raises(KeyboardInterrupt):
        train(dump_folder, tmp_path / "b.pt", seeded(at=15))
    other = seeded()
    other.head[1].p = 0.5
    with pytest.raises(UsageError, match="training made otherwise: another code of the model"):
        train(dump_folder, tmp_path / "b.pt", other, resume=True)
    again = Interrupted(10)
    _, said = train(dump_folder, tmp_path / "b.pt", again, resume=True)
    assert "goes on after " in said
    assert same(again.state_dict(), undisturbed.state_dict())
    third = Interrupted(10)
    train(dump_folder, tmp_path / "b.pt", third, resume=True)
    assert same(third.state_dict(), undisturbed.state_dict())
