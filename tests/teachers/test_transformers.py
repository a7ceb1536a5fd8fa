"""Image classifiers of transformers, built small from their configurations and saved: the same
logits as by hand, and every folder that is no such thing."""

import json
import os
import shutil

import pytest
import torch

import softlabels
from softlabels.errors import MissingExtra, PlanMismatch, TeacherError, UsageError
from softlabels.teachers import resolve
from tests.conftest import Lines
from tests.pictures import check_near, check_same, logits_of, read_pictures, save_pictures

transformers = pytest.importorskip("transformers")
NAMES = ["cat", "dog", "crane", "fox", "crane"]
SMALL = {"image_size": 32, "id2label": dict(enumerate(NAMES))}
CONFIGS = {
    "vit": lambda: transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        patch_size=8, **SMALL),
    "resnet": lambda: transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], **SMALL),
    "convnext": lambda: transformers.ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1],
                                                    num_stages=2, **SMALL),
}  # fmt: skip
PROCESSORS = {
    "vit": lambda: transformers.ViTImageProcessorPil(size=32),
    "vit grey": lambda: transformers.ViTImageProcessorPil(
        size=32, resample=3, do_rescale=False, image_mean=127.5, image_std=127.5),
    "clip": lambda: transformers.CLIPImageProcessorPil(size={"shortest_edge": 35}, crop_size=32),
    "deit": lambda: transformers.DeiTImageProcessorPil(size=37, crop_size=32, resample=1),
    "convnext": lambda: transformers.ConvNextImageProcessorPil(size={"shortest_edge": 32}),
    "poolformer": lambda: transformers.PoolFormerImageProcessorPil(
        size={"shortest_edge": 32}, crop_size=32),
    "efficientnet": lambda: transformers.EfficientNetImageProcessorPil(
        size=32, rescale_factor=1 / 127.5, rescale_offset=True),
}  # fmt: skip


def save(folder, kind="vit", processor="vit"):
    """A folder as save_pretrained writes it; the model, in eval mode."""
    torch.manual_seed(3)
    model = transformers.AutoModelForImageClassification.from_config(CONFIGS[kind]()).eval()
    for buffer in model.buffers():  # a batch norm's statistics, which random weights don't have
        if buffer.is_floating_point() and buffer.ndim:
            buffer.data = torch.rand_like(buffer) + 0.5
    model.save_pretrained(folder)
    if processor:
        PROCESSORS[processor]().save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return save_pictures(tmp_path_factory.mktemp("pictures"))


def by_hand(folder, model, pictures):
    """The logits of all files, in order, float32 [N, C]."""
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    with torch.inference_mode():
        inputs = [processor(image, return_tensors="pt") for image in read_pictures(pictures)]
        return torch.cat([model(**one).logits for one in inputs])


@pytest.mark.parametrize("kind", CONFIGS)
def test_logits_are_those_of_the_library_by_hand(tmp_path, pictures, kind):
    model = save(tmp_path / "teacher", kind)
    ours = logits_of(tmp_path / "teacher", pictures, tmp_path / "d", exact=True)
    check_same(ours, by_hand(tmp_path / "teacher", model, pictures), kind)


@pytest.mark.parametrize("name", PROCESSORS)
def test_processors_in_words(tmp_path, pictures, name):
    model = save(tmp_path / "teacher", processor=name)
    theirs = by_hand(tmp_path / "teacher", model, pictures)
    named = f"hf:{tmp_path / 'teacher'}"
    check_same(logits_of(named, pictures, tmp_path / "d", exact=True), theirs, name)
    check_near(logits_of(named, pictures, tmp_path / "e"), theirs, name)


def test_a_folder_is_known_without_its_prefix_and_told_in_records(tmp_path, pictures, cli):
    save(tmp_path / "net-7")
    done = cli("dump", "--teacher", "net-7", "--data", pictures, "--out", "d")
    assert done.code == 0, done.err
    words = "upright|rgb|resize(32, 32, bilinear, torch)|scale(255)|normalize((0.5, 0.5, 0"
    assert f"preprocessing {words}" in done.err
    assert ", from the teacher's own configuration: inputs [3, 32, 32]" in done.err
    assert "teacher net-7 (transformers, ViTForImageClassification, 5 classes)" in done.err
    info = cli("info", "d", "--json").value
    assert info["facts"]["teacher"] == "net-7 (transformers, ViTForImageClassification)"
    plan = json.loads((tmp_path / "d" / "plan.json").read_text())
    assert plan["source"]["class_names"] == ["cat", "dog", "crane (2)", "fox", "crane (4)"]
    assert plan["preprocess"].startswith(words)
    assert str(tmp_path) not in (tmp_path / "d" / "plan.json").read_text()
    card = (tmp_path / "d" / "README.md").read_text()
    assert "--teacher TEACHER" in card
    assert "--model" not in card
    done = cli("verify", "d", "--replay", "10", "--teacher", "hf:net-7", "--data", pictures)
    assert done.code == 0, done.err


def test_a_fingerprint_is_of_the_files_that_were_read(tmp_path, pictures):
    save(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b" / "training_args.bin").write_bytes(b"nothing that is read")
    one, two = (resolve(str(tmp_path / name)) for name in "ab")
    assert one.fingerprint == two.fingerprint
    assert {path.name for path in one.files} == {
        "config.json", "model.safetensors", "preprocessor_config.json"
    }  # fmt: skip
    logits_of(tmp_path / "a", pictures, tmp_path / "d")
    config = tmp_path / "b" / "config.json"
    config.write_text(config.read_text().replace("fox", "wolf"))
    assert resolve(str(tmp_path / "b")).fingerprint != one.fingerprint
    with pytest.raises(PlanMismatch, match=r"teacher.fingerprint is"):
        logits_of(tmp_path / "b", pictures, tmp_path / "d")


def test_weights_in_shards(tmp_path, pictures):
    model = save(tmp_path / "whole")
    model.save_pretrained(tmp_path / "shards", max_shard_size="5KB")
    shutil.copy(tmp_path / "whole" / "preprocessor_config.json", tmp_path / "shards")
    files = {path.name for path in resolve(str(tmp_path / "shards")).files}
    assert "model.safetensors.index.json" in files
    assert len(files) > 4
    ours = logits_of(tmp_path / "shards", pictures, tmp_path / "d", exact=True)
    check_same(ours, by_hand(tmp_path / "whole", model, pictures), "shards")


def test_weights_from_a_file(tmp_path, pictures):
    """Also where a training loop wrapped them, and of a net that was trained further."""
    model = save(tmp_path / "teacher")
    for name in tmp_path.glob("teacher/*.safetensors"):
        name.unlink()
    weights = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"model": weights, "epoch": 3}, tmp_path / "w.pt")
    words = {"weights": str(tmp_path / "w.pt")}
    ours = logits_of(tmp_path / "teacher", pictures, tmp_path / "d", exact=True, **words)
    check_same(ours, by_hand(tmp_path / "teacher", model, pictures), "file")
    named = f"hf:{tmp_path}/teacher"
    ours = logits_of(tmp_path / "w.pt", pictures, tmp_path / "e", exact=True, model=named)
    check_same(ours, by_hand(tmp_path / "teacher", model, pictures), "file, as --model")
    weights |= {
        "module.classifier.weight": torch.ones(7, 16),
        "module.classifier.bias": torch.arange(7.0),
    }
    torch.save(weights, tmp_path / "w.pt")
    found = resolve(str(tmp_path / "teacher"), **words)
    assert (found.name, found.kind, found.class_names) == ("teacher", "state_dict", None)
    assert found.logits(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    weights = {f"net.{name}": tensor for name, tensor in model.state_dict().items()}
    del weights["net.classifier.bias"], weights["net.vit.layernorm.bias"]
    torch.save(weights, tmp_path / "w.pt")
    with pytest.raises(
        TeacherError, match=r"2 of the model's \d+ tensors are missing \(vit.layern"
    ) as told:
        resolve(str(tmp_path / "teacher"), **words)
    assert "all of the file's names begin with net." in str(told.value)
    assert len(str(told.value)) < 500


def test_another_preprocessing_is_told(tmp_path, pictures):
    save(tmp_path / "teacher")
    lines = Lines()
    logits_of(tmp_path / "teacher", pictures, tmp_path / "d", progress=lines,
              preprocess="rgb|resize(32, 32)|scale(255)")  # fmt: skip
    assert (
        "warning: --preprocess is rgb|resize(32, 32, bilinear, torch)|scale(255), and the t"
        in str(lines)
    )
    lines = Lines()
    same = resolve(str(tmp_path / "teacher")).preprocess
    logits_of(tmp_path / "teacher", pictures, tmp_path / "e", progress=lines, preprocess=same)
    assert "the teacher's own" not in str(lines)


STRANGE = {
    "mobilevit": (lambda: transformers.MobileViTImageProcessorPil(size=35, crop_size=32),
                  "MobileViTImageProcessorPil does do_flip_channel_order"),
    "levit": (lambda: transformers.LevitImageProcessorPil(size=32, crop_size=32),
              "own library makes of a picture of 301×500 differ by up to"),
    "longest": (lambda: transformers.ViTImageProcessorPil(
                    size={"shortest_edge": 32, "longest_edge": 64}),
                "resizes to {'longest_edge': 64, 'shortest_edge': 32}"),
    "padded": (lambda: transformers.CLIPImageProcessorPil(size=20, crop_size=32),
               r"can't be applied to a picture: center_crop\(32, 32, floor\) is larger"),
}  # fmt: skip


@pytest.mark.parametrize("name", STRANGE)
def test_what_words_can_not_say_is_refused_and_named(tmp_path, pictures, name):
    make, message = STRANGE[name]
    save(tmp_path / "teacher", processor=None)
    make().save_pretrained(tmp_path / "teacher")
    with pytest.raises(TeacherError, match=message) as told:
        logits_of(tmp_path / "teacher", pictures, tmp_path / "d")
    assert "with --preprocess" in str(told.value)
    words = {"preprocess": "rgb|resize(32, 32)|scale(255)"}
    assert logits_of(tmp_path / "teacher", pictures, tmp_path / "d", **words).shape == (10, 5)


def test_a_configuration_says_that_there_are_several_labels(tmp_path, pictures):
    folder = tmp_path / "teacher"
    save(folder)
    config = json.loads((folder / "config.json").read_text())
    config["problem_type"] = "multi_label_classification"
    (folder / "config.json").write_text(json.dumps(config))
    given = {"teacher": str(folder), "data": pictures, "out": str(tmp_path / "d")}
    with pytest.raises(UsageError, match=r"trained for multilabel, .* Say --task multilabel"):
        softlabels.dump(**given, labels=False)
    softlabels.dump(**given, labels=False, task="multilabel")
    assert softlabels.info(given["out"])["facts"]["task"] == "multilabel"


def test_a_file_in_a_folder_points_to_the_folder(tmp_path):
    save(tmp_path / "teacher")
    with pytest.raises(TeacherError, match=r"bare state dict.*, or name its folder, .*teacher,"):
        resolve(str(tmp_path / "teacher" / "model.safetensors"))


def test_a_folder_without_a_processor(tmp_path, pictures):
    save(tmp_path / "teacher", processor=None)
    with pytest.raises(
        TeacherError, match=r"no image processor \(preprocessor_config.json\). Say w"
    ):
        logits_of(tmp_path / "teacher", pictures, tmp_path / "d")


def test_folders_that_are_no_classifier(tmp_path):
    folder = tmp_path / "x"
    with pytest.raises(TeacherError, match=r"x does not exist. A model is a file .*hf:ORG/NAME"):
        resolve(str(folder))
    folder.mkdir()
    with pytest.raises(TeacherError, match=r"x is a folder without config.json. A model is"):
        resolve(str(folder))
    (folder / "config.json").write_text("{")
    with pytest.raises(TeacherError, match=r"x can't be loaded .*not a valid JSON"):
        resolve(str(folder))
    (folder / "config.json").write_text('{"model_type": "no_such_model"}')
    with pytest.raises(TeacherError, match=r"x can't be loaded by transformers: .*no_such_model"):
        resolve(str(folder))
    of_timm = {"architecture": "resnet18", "num_classes": 7, "pretrained_cfg": {"tag": "a1_in1k"}}
    (folder / "config.json").write_text(json.dumps(of_timm))
    with pytest.raises(TeacherError, match=r"by timm; .* --teacher timm:resnet18 --weights FILE"):
        resolve(str(folder))
    text = transformers.BertConfig(architectures=["BertForMaskedLM"])
    text.save_pretrained(folder)
    with pytest.raises(TeacherError, match=r"x is BertForMaskedLM, an encoder of texts, without a"):
        resolve(str(folder))
    sound = transformers.EncodecConfig(architectures=["EncodecModel"])
    sound.save_pretrained(folder)
    with pytest.raises(TeacherError, match=r"x is EncodecModel, which classifies neither"):
        resolve(str(folder))
    CONFIGS["vit"]().save_pretrained(folder)
    with pytest.raises(TeacherError, match=r"x can't be loaded .* no file named model.safetensors"):
        resolve(str(folder))
    transformers.ViTModel(CONFIGS["vit"]()).save_pretrained(folder)
    with pytest.raises(TeacherError, match=r"2 of the 40 weights of a ViTForImageClassi"
                       r"fication are missing \(classifier.bias, classifier.weight\)"):  # fmt: skip
        resolve(str(folder))


def test_a_dump_is_no_teacher(dump_folder):
    with pytest.raises(
        TeacherError, match=r"is a dump, .*: a student learns from it, softlabels tr"
    ):
        resolve(dump_folder)


def test_a_name_of_the_hub_that_can_not_be_fetched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TeacherError, match=r"nobody/nothing can't be loaded by transformers: "):
        resolve("hf:nobody/nothing")
    os.mkdir("hf:nobody")
    with pytest.raises(UsageError, match=r"./hf:nobody for the path, hf://nobody for the name"):
        resolve("hf:nobody")


def test_without_transformers(tmp_path, monkeypatch):
    save(tmp_path / "x")
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(
        MissingExtra, match=r"transformers, .*: pip install 'softlabels\[transformers"
    ):
        resolve(str(tmp_path / "x"))


def test_a_module_in_memory_that_was_loaded_from_a_folder(tmp_path, pictures):
    """Its names are its configuration's, its preprocessing is that of the folder's processor."""
    model = save(tmp_path / "teacher", "vit", "clip")
    live = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "teacher")
    theirs = by_hand(tmp_path / "teacher", model, pictures)
    check_near(logits_of(live, pictures, tmp_path / "d"), theirs, "in memory")
    plan = json.loads((tmp_path / "d" / "plan.json").read_text())
    assert "center_crop(32, 32, floor)" in plan["preprocess"]
    assert plan["source"]["class_names"] == ["cat", "dog", "crane (2)", "fox", "crane (4)"]
    again = {"dump": str(tmp_path / "d"), "replay": 10, "data": str(pictures)}
    assert softlabels.verify(teacher=live, **again).good
    found = softlabels.evaluate(checkpoint=live, data=str(pictures), split="train", labels=False,
                                against=str(tmp_path / "d"))  # fmt: skip
    assert found["against"]["agreement"] == 1


def test_a_module_in_memory_that_no_processor_is_known_of(tmp_path, pictures):
    live = save(tmp_path / "teacher", processor=None)
    for model in (live, type(live).from_pretrained(tmp_path / "teacher")):
        with pytest.raises(UsageError, match="in memory and does not say how pictures become"):
            logits_of(model, pictures, tmp_path / "d")
    PROCESSORS["clip"]().save_pretrained(tmp_path / "teacher")
    strange = json.loads((tmp_path / "teacher" / "preprocessor_config.json").read_text())
    strange["size"] = {"shortest_edge": 32, "longest_edge": 64}
    (tmp_path / "teacher" / "preprocessor_config.json").write_text(json.dumps(strange))
    with pytest.raises(TeacherError, match="not say how pictures become its inputs in words that"):
        logits_of(type(live).from_pretrained(tmp_path / "teacher"), pictures, tmp_path / "d")


def test_the_processor_of_a_module_concerns_pictures_alone(tmp_path):
    save(tmp_path / "teacher")
    live = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "teacher")
    rows = [(torch.full((3, 32, 32), float(i)), i % 2) for i in range(8)]
    softlabels.dump(teacher=live, data=rows, labels=False, out=str(tmp_path / "d"))
    assert json.loads((tmp_path / "d" / "plan.json").read_text())["preprocess"] == ""
