"""Students of timm and torchvision: built for the dump's classes, with random weights or with those
that are named, and opened again from their checkpoints."""

import pytest
import torch

import softlabels
from softlabels.errors import TeacherError, UsageError
from tests.students.test_real_students import pictures, same, train, weights  # noqa: F401
from tests.vision.test_teachers import (  # noqa: F401
    NET,
    TAG,
    TAGGED,
    VISION,
    fetched,
    timm_net,
    vision_net,
)  # fmt: skip

timm = pytest.importorskip("timm")
models = pytest.importorskip("torchvision.models")
STILL = {"epochs": 1, "lr": 1e-12, "holdout": 0, "batch_size": 10}
LARGER = "rgb|resize(64, 64)|scale(255)|normalize(0.5, 0.5)"


@pytest.mark.parametrize("name", [f"timm:{NET}", f"torchvision:{VISION}", "timm:test_vit"])
def test_a_checkpoint_opens_again_by_its_name(pictures, tmp_path, name, cli):  # noqa: F811
    size = "160, 160" if name == "timm:test_vit" else "64, 64"
    options = {"epochs": 1, "holdout": 0, "preprocess": f"rgb|resize({size})|scale(255)"}
    result, said = train(pictures / "d", tmp_path / "s.pt", name, **options)
    assert f"{name}, from random weights, on cpu: 20 rows to train on" in said
    assert "pretrained" not in said
    train(pictures / "d", tmp_path / "b.pt", name, **options)
    assert same(weights(tmp_path / "s.pt"), weights(tmp_path / "b.pt")), "by its seed"
    done = cli("eval", tmp_path / "s.pt", "--split", "train", "--json")
    assert done.code == 0, done.err
    assert done.value["rows"] == 20
    out = str(tmp_path / "e")
    given = {"teacher": str(tmp_path / "s.pt"), "data": str(pictures / "data")}
    softlabels.dump(**given, out=out)
    assert softlabels.verify(dump=out, replay=10, **given).good
    assert result.checkpoint.versions[name.partition(":")[0]]


def test_pretrained_weights_of_timm(pictures, tmp_path, fetched, timm_net):  # noqa: F811
    _, said = train(pictures / "d", tmp_path / "s.pt", f"timm:{NET}", weights="pretrained",
                    preprocess=LARGER, **STILL)  # fmt: skip
    assert f"timm:{NET}, from the pretrained weights of {NET}.{TAG}, on cpu" in said
    assert f"fc.weight, fc.bias of timm:{NET} start at random: the pretrained" in said
    ours, theirs = weights(tmp_path / "s.pt"), timm_net.state_dict()
    assert ours["fc.weight"].shape[0] == 2
    torch.testing.assert_close(ours["conv1.0.weight" if "conv1.0.weight" in ours else
                                    "conv1.weight"],
                               theirs["conv1.0.weight" if "conv1.0.weight" in ours else
                                      "conv1.weight"])  # fmt: skip
    assert "the weights were trained on inputs prepared by" not in said


def test_weights_of_a_file(pictures, tmp_path, vision_net):  # noqa: F811
    torch.save(vision_net.state_dict(), tmp_path / "w.pt")
    _, said = train(pictures / "d", tmp_path / "s.pt", f"torchvision:{VISION}",
                    weights=str(tmp_path / "w.pt"), preprocess=LARGER, **STILL)  # fmt: skip
    assert f"torchvision:{VISION}, from the weights in {tmp_path}/w.pt, on cpu" in said
    assert f"fc.weight, fc.bias of torchvision:{VISION} start at random" in said
    torch.testing.assert_close(weights(tmp_path / "s.pt")["conv1.0.weight"],
                               vision_net.state_dict()["conv1.0.weight"])  # fmt: skip
    assert "warning: the weights were trained on inputs prepared by rgb|resize(256" in said
    with pytest.raises(TeacherError, match=rf"don't fit --model timm:{NET}"):
        train(pictures / "d", tmp_path / "t.pt", f"timm:{NET}", weights=str(tmp_path / "w.pt"))


def test_a_backbone_without_classes_gets_a_head(pictures, tmp_path):  # noqa: F811
    with pytest.raises(UsageError, match=r"inputs of shape \[3, 32, 32\]: .*518.*; it is made for"):
        train(pictures / "d", tmp_path / "s.pt", "timm:vit_small_patch14_dinov2")
    with pytest.raises(TeacherError, match="weights of timm:vit_small_patch14_dinov2"):
        train(pictures / "d", tmp_path / "s.pt", "timm:vit_small_patch14_dinov2",
              weights="pretrained")  # fmt: skip


def test_auxiliary_logits_in_training_are_left_out(pictures, tmp_path):  # noqa: F811
    _, said = train(pictures / "d", tmp_path / "s.pt", "torchvision:googlenet", epochs=1, holdout=0,
                    batch_size=10, preprocess=LARGER)  # fmt: skip
    assert "warning: the logits of torchvision:googlenet do not use aux1.conv.conv.weight" in said
    found = softlabels.evaluate(checkpoint=str(tmp_path / "s.pt"), split="train")
    assert found["rows"] == 20


def test_a_live_module_of_a_library(pictures, tmp_path):  # noqa: F811
    net = timm.create_model(NET, num_classes=2)
    train(pictures / "d", tmp_path / "s.pt", net, preprocess=LARGER, epochs=1, holdout=0)
    assert same(net.state_dict(), weights(tmp_path / "s.pt"))
