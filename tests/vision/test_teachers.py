"""Teachers of timm and torchvision: the same logits as by hand, and every name that is no such
thing. Nothing is fetched: weights lie where the libraries keep what they fetched."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import softlabels
from softlabels.errors import PlanMismatch, TeacherError, UsageError
from softlabels.inputs.own_preprocessing import check_own_preprocessing
from softlabels.models.sources import find_blueprint
from softlabels.teachers import resolve
from softlabels.teachers.teacher import Teacher
from tests.conftest import Lines
from tests.pictures import check_near, check_same, logits_of, read_pictures, save_pictures

timm = pytest.importorskip("timm")
models = pytest.importorskip("torchvision.models")
NET, TAG = "test_resnet", "r160_in1k"
VISION, TAGGED = "shufflenet_v2_x0_5", "IMAGENET1K_V1"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return save_pictures(tmp_path_factory.mktemp("pictures"))


def with_weights(module: torch.nn.Module) -> torch.nn.Module:
    """In eval mode, with numbers for the statistics of batch norms."""
    torch.manual_seed(3)
    for name, tensor in module.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif name.endswith("running_mean"):
            tensor.normal_()
    return module.eval()


@pytest.fixture(scope="module")
def timm_net():
    return with_weights(timm.create_model(NET))


@pytest.fixture
def fetched(tmp_path, monkeypatch, timm_net):
    """The Hub's cache as timm leaves it, with the weights of `timm_net`."""
    repository = tmp_path / "cache" / f"models--timm--{NET}.{TAG}"
    commit = "0" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots" / commit).mkdir(parents=True)
    save_file(timm_net.state_dict(), repository / "snapshots" / commit / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def vision_net(tmp_path, monkeypatch):
    """torch's cache as torchvision leaves it; the model of these weights."""
    module = with_weights(models.get_model(VISION))
    url = models.get_model_weights(VISION)[TAGGED].url
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(module.state_dict(), tmp_path / "hub" / "checkpoints" / url.rpartition("/")[2])
    return module


def by_hand(module, transform, pictures: Path) -> torch.Tensor:
    with torch.inference_mode():
        return torch.cat([module(transform(image)[None]) for image in read_pictures(pictures)])


def timm_by_hand(module, pictures: Path) -> torch.Tensor:
    """As timm's documentation does it."""
    data = timm.data.resolve_model_data_config(module)
    return by_hand(module, timm.data.create_transform(**data, is_training=False), pictures)


def test_timm_from_the_cache(tmp_path, pictures, fetched, timm_net, monkeypatch):
    theirs = timm_by_hand(timm.create_model(f"{NET}.{TAG}", pretrained=True).eval(), pictures)
    lines = Lines()
    ours = logits_of(f"timm:{NET}", pictures, tmp_path / "d", progress=lines)
    check_near(ours, theirs, "timm")
    exact = logits_of(f"timm:{NET}", pictures, tmp_path / "exact", exact=True)
    check_same(exact, theirs, "timm")
    assert torch.equal(theirs, timm_by_hand(timm_net, pictures))
    assert f"teacher {NET}.{TAG} (timm, timm:{NET}.{TAG}, 1,000 classes)" in str(lines)
    plan = json.loads((tmp_path / "d" / "plan.json").read_text())
    assert plan["preprocess"] == (
        "rgb|resize(168, bilinear, torch)|center_crop(160)|scale(255)|"
        "normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))"
    )
    assert plan["teacher"]["model"] == f"timm:{NET}.{TAG}"
    names = plan["source"]["class_names"]
    assert names[0] == "tench, Tinca tinca"
    assert (names[134], names[517]) == ("crane (134)", "crane (517)")
    assert f"--teacher timm:{NET}.{TAG} " in (tmp_path / "d" / "README.md").read_text()
    replay = {"dump": str(tmp_path / "d"), "replay": 10, "data": str(pictures)}
    assert softlabels.verify(teacher=f"timm:{NET}", **replay).good
    torch.save(timm_net.state_dict() | {"fc.bias": torch.ones(1000)}, tmp_path / "w.pt")
    with pytest.raises(PlanMismatch, match=r"teacher.fingerprint is"):
        logits_of(f"timm:{NET}", pictures, tmp_path / "d", weights=str(tmp_path / "w.pt"))


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_timm_with_weights_from_a_file(tmp_path, pictures, timm_net, ending):
    path = str(tmp_path / f"w.{ending}")
    weights = timm_net.state_dict()
    save_file(weights, path) if ending == "safetensors" else torch.save(
        {"state_dict": weights}, path
    )
    ours = logits_of(f"timm:{NET}", pictures, tmp_path / "d", exact=True, weights=path)
    check_same(ours, timm_by_hand(timm_net, pictures), f"timm, {ending}")
    again = resolve(path, model=f"timm:{NET}.{TAG}")
    named = resolve(f"timm:{NET}", weights=path)
    assert (again.fingerprint, again.spec) == (named.fingerprint, named.spec)
    assert (again.preprocess, again.class_names) == (named.preprocess, named.class_names)
    assert (named.name, named.kind) == (f"{NET}.{TAG}", "state_dict")
    words = {"dump": str(tmp_path / "d"), "replay": 10, "data": str(pictures)}
    assert softlabels.verify(teacher=path, **words).good


def test_timm_nets_of_other_classes(tmp_path, pictures):
    module = with_weights(timm.create_model(NET, num_classes=7))
    torch.save({f"module.{n}": t for n, t in module.state_dict().items()}, tmp_path / "w.pt")
    path = str(tmp_path / "w.pt")
    ours = logits_of(f"timm:{NET}", pictures, tmp_path / "d", exact=True, weights=path)
    check_same(ours, timm_by_hand(module, pictures), "timm, 7 classes")
    assert resolve(f"timm:{NET}", weights=path).class_names is None


def test_weights_as_a_papers_authors_named_them_are_converted_by_timm(tmp_path, pictures):
    """ViTs before timm had a convolution for the patches kept its weights flat."""
    module = with_weights(timm.create_model("test_vit"))
    weights = dict(module.state_dict())
    weights["patch_embed.proj.weight"] = weights["patch_embed.proj.weight"].flatten(1)
    torch.save({"model": weights}, tmp_path / "w.pt")
    path = str(tmp_path / "w.pt")
    ours = logits_of("timm:test_vit", pictures, tmp_path / "d", exact=True, weights=path)
    check_same(ours, timm_by_hand(module, pictures), "timm, converted")


def test_a_module_of_timm_in_memory_says_its_own_preprocessing(tmp_path, pictures, timm_net):
    """Also changed since, as data_config of a user has it; names only for as many classes."""
    ours = logits_of(timm_net, pictures, tmp_path / "d")
    theirs = timm_by_hand(timm_net, pictures)
    check_near(ours, theirs, "timm, in memory")
    exact = logits_of(timm_net, pictures, tmp_path / "exact", exact=True)
    check_same(exact, theirs, "timm, in memory")
    plan = json.loads((tmp_path / "d" / "plan.json").read_text())
    assert "resize(168, bilinear, torch)|center_crop(160)" in plan["preprocess"]
    assert plan["source"]["class_names"][0] == "tench, Tinca tinca"
    again = {"dump": str(tmp_path / "d"), "replay": 10, "data": str(pictures)}
    assert softlabels.verify(teacher=timm_net, **again).good
    other = with_weights(timm.create_model(NET, num_classes=7, pretrained_cfg_overlay={
        "crop_pct": 0.8, "crop_mode": "squash", "mean": (0.1, 0.2, 0.3)}))  # fmt: skip
    ours = logits_of(other, pictures, tmp_path / "e", exact=True)
    check_same(ours, timm_by_hand(other, pictures), "timm, in memory, its own way")
    assert json.loads((tmp_path / "e" / "plan.json").read_text())["source"]["class_names"] is None


def test_torchvision_from_the_cache_and_from_a_file(tmp_path, pictures, vision_net):
    weights = models.get_model_weights(VISION)[TAGGED]
    theirs = by_hand(
        models.get_model(VISION, weights=weights).eval(), weights.transforms(), pictures
    )
    ours = logits_of(f"torchvision:{VISION}", pictures, tmp_path / "d")
    check_near(ours, theirs, "torchvision")
    assert torch.equal(theirs, by_hand(vision_net, weights.transforms(), pictures))
    [file] = (tmp_path / "hub" / "checkpoints").iterdir()
    cached = resolve(f"torchvision:{VISION}.{TAGGED}")
    given = resolve(f"torchvision:{VISION}", weights=str(file))
    assert cached.files == given.files == [file]
    assert cached.fingerprint == given.fingerprint
    assert cached.spec == given.spec == f"torchvision:{VISION}.{TAGGED}"
    assert cached.class_names == weights.meta["categories"]
    assert torch.equal(*(t.logits(torch.ones(2, 3, 64, 64)) for t in (cached, given)))
    ours = logits_of(
        f"torchvision:{VISION}", pictures, tmp_path / "e", exact=True, weights=str(file)
    )
    check_same(ours, theirs, "torchvision, file")


def test_torchvisions_inception_normalizes_with_weights_from_a_file_too(tmp_path):
    """No state dict holds that it does."""
    module = models.inception_v3(weights=None, init_weights=False, transform_input=True).eval()
    torch.save(module.state_dict(), tmp_path / "w.pt")
    found = resolve("torchvision:inception_v3", weights=str(tmp_path / "w.pt"))
    inputs = torch.randn(1, 3, 299, 299)
    with torch.inference_mode():
        assert torch.equal(found.logits(inputs), module(inputs))


def test_every_configuration_is_said_in_words():
    """Of all weights that the libraries publish, each preprocessing once."""
    names = [f"timm:{name}" for name in timm.list_pretrained()] + [
        f"torchvision:{name}.{tag}"
        for name in models.list_models(module=models)
        for tag in models.get_model_weights(name).__members__
    ]
    tried = set()
    for name in names:
        try:
            blueprint = find_blueprint(name)
        except TeacherError:  # it gives features
            continue
        if blueprint.preprocess not in tried:
            tried.add(blueprint.preprocess)
            check_own_preprocessing(
                Teacher(name=name, kind="x", module=torch.nn.Identity(), fingerprint="",
                        preprocess=blueprint.preprocess, transform=blueprint.transform),
                sizes=[(101, 168)],
            )  # fmt: skip
    print(f"{len(tried)} preprocessings of {len(names):,} names")
    assert len(tried) > 100


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:resnet5o", r"timm has no model 'resnet5o'; did you mean resnet50, "),
        ("timm:", r"timm has no model ''; timm.list_models\(\) lists them"),
        ("timm:resnet50.a1_in1", r"timm's resnet50 has no weights 'a1_in1'; there are a1_in1k, "),
        ("timm:vit_small_patch14_dinov2", r"gives features and no classes \(its num_classes is 0"),
        ("timm:resnet50", r"weights of timm:resnet50.a1_in1k \(timm/resnet50.a1_in1k\) are not on "
                          r"this disk and can't be fetched: .*--weights FILE"),
        ("timm:test_resnet.none", "there are r160_in1k"),
        ("torchvision:resnet5o", "torchvision has no classifier 'resnet5o'; did you mean resnet50"),
        ("torchvision:fcn_resnet50", "torchvision has no classifier 'fcn_resnet50'; did you mean"),
        ("torchvision:resnet50.V3", "has no weights 'V3'; there are IMAGENET1K_V1, IMAGENET1K_V2"),
    ],
)  # fmt: skip
def test_names_that_are_none(name, message):
    with pytest.raises((TeacherError, UsageError), match=message):
        resolve(name)


def test_torchvision_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", lambda *_: (_ for _ in ()).throw(OSError("no route")))
    with pytest.raises(TeacherError, match=r"resnet18-f37072fd.pth\) are not on this disk and can't"
                       r" be fetched: OSError, no route. Fetch them"):  # fmt: skip
        resolve("torchvision:resnet18")


def test_a_path_of_the_same_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("timm:resnet50").mkdir()
    with pytest.raises(UsageError, match=r"./timm:resnet50 for the path, timm://resnet50 for"):
        resolve("timm:resnet50")
    with pytest.raises(UsageError, match="timm has no model 'resnet5o'"):
        resolve("timm://resnet5o")


def test_weights_that_do_not_fit_are_told_in_one_line(tmp_path, timm_net):
    weights = {f"net.{name}": tensor for name, tensor in timm_net.state_dict().items()}
    del weights["net.fc.bias"], weights["net.fc.weight"]
    torch.save(weights, tmp_path / "w.pt")
    with pytest.raises(TeacherError) as told:
        resolve(f"timm:{NET}", weights=str(tmp_path / "w.pt"))
    text = str(told.value)
    assert "2 of the model's" in text
    assert (
        "tensors are missing (fc.weight, fc.bias); all of the file's names begin with net." in text
    )
    assert len(text) < 400
