"""A dump's stored teacher in the place of a live one: timm's own tasks and data, timm >= 1.0.29."""

import numpy as np
import pytest
import torch

import softlabels
from softlabels.errors import UsageError
from tests.test_loops import run

timm = pytest.importorskip("timm")
from timm import task as tasks  # noqa: E402
from timm.data import resolve_data_config  # noqa: E402
from timm.data.loader import PrefetchLoader  # noqa: E402

SIZE = {"input_size": (1, 8, 8)}


@pytest.fixture
def student() -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model("test_resnet", num_classes=10, in_chans=1).eval()


def test_the_loop_of_the_docs_learns_from_the_store(views_folder, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "digits-views").symlink_to(views_folder)
    monkeypatch.chdir(tmp_path)
    names = run("timm")
    rows = softlabels.examples("digits", "test")
    pixels = rows.examples.gather(np.arange(len(rows))).float()
    loader, model = names["loader"], names["model"].eval()
    with torch.inference_mode():
        logits = model((pixels - loader.mean) / loader.std)
    assert float((logits.argmax(1) == rows[:]["label"]).float().mean()) > 0.85


def test_a_loss_of_timm_is_that_of_its_stored_logits(views_folder, student):
    config = resolve_data_config(SIZE, model=student)
    loader = softlabels.TimmLoader(views_folder, config, 400, shuffle=False, epoch=1)
    task = tasks.LogitDistillationTask(student, loader.teacher, task_loss_weight=0.1, temperature=4)
    task.compile(backend="eager")
    batch = softlabels.load(views_folder).view(1)[:400]
    [pixels] = [(batch["input"] * 255).round().byte()]
    input, target = next(iter(loader))
    as_timm_does = PrefetchLoader(
        [(pixels, batch["label"])], config["mean"], config["std"], 1, torch.device("cpu")
    )
    [(normalised, label)] = as_timm_does
    assert torch.equal(input, normalised)
    assert torch.equal(target, label)
    result = task(input, target)
    ours = softlabels.kd_loss(result["output"], batch["targets"], target, T=4, alpha=1)
    torch.testing.assert_close(result["kd_loss"], ours, rtol=1e-4, atol=1e-5)
    result["loss"].backward()
    assert not list(loader.teacher.parameters())
    with pytest.raises(UsageError, match="no batch as TimmLoader gave it last"):
        task(input.flip(3), target)


@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_a_distilled_transformer_learns_from_the_store(views_folder, kind):
    model = timm.create_model("deit_tiny_distilled_patch16_224", img_size=8, patch_size=4, depth=1,
                              num_classes=10, in_chans=1)  # fmt: skip
    loader = softlabels.TimmLoader(views_folder, resolve_data_config(SIZE, model=model), 200)
    task = tasks.TokenDistillationTask(model, loader.teacher, distill_type=kind)
    task.train()
    input, target = next(iter(loader))
    assert torch.isfinite(task(input, target)["distill_loss"])


def test_a_store_has_no_features(views_folder, student):
    loader = softlabels.TimmLoader(views_folder, resolve_data_config(SIZE, model=student), 200)
    with pytest.raises(UsageError, match="is a store of logits, without a model and its features"):
        tasks.FeatureDistillationTask(student, loader.teacher)
