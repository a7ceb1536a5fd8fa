"""A training that is stopped and goes on: the same weights, history and chosen epoch."""

import json
import os
import random
import shutil
import signal
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from PIL import Image
from torch import nn

import softlabels
from softlabels.errors import SoftlabelsError, TrainingError, UsageError
from softlabels.students import state_file
from softlabels.system.progress import SILENT
from softlabels.system.sole_writer import sole_writer
from tests.conftest import Lines
from tests.processes import kill, start, wait_for
from tests.students.test_ranks import free_port

HERE = "tests.students.test_resume"
EPOCHS, STEPS = 6, 17


class Net(nn.Sequential):
    """Draws by chance in each step, and remembers more than its parameters: statistics of batch
    norm, and a buffer that its state_dict leaves out."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.Dropout(0.3),
                         nn.Linear(32, 10))  # fmt: skip
        self.register_buffer("turns", torch.zeros(()), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.turns += 1
            if os.environ.get("INTERRUPT_AT") == str(int(self.turns)):
                os.kill(os.getpid(), signal.SIGINT)
            x = x + 1e-3 * self.turns * torch.rand_like(x) * random.random()
        return super().forward(x)


def options(dump_folder: str, out: Path, **others) -> dict:
    return {"dump": dump_folder, "student": f"{HERE}:Net", "T": 2.0, "epochs": EPOCHS,
            "batch_size": 64, "lr": 1e-2, "device": "cpu", "out": str(out)} | others  # fmt: skip


def train(**words) -> None:
    """As `softlabels.train`, but it saves its state after each step."""
    state_file.SAVE_SECONDS, state_file.MOST_SHARE = 0.0, float("inf")
    softlabels.train(**words)


def steps_in(out: Path) -> int:
    """How many steps the saved state stands for."""
    path = Path(f"{out}.state")
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    return (state["epoch"] - 1) * STEPS + state["step"]


def history(out: Path) -> list[dict]:
    lines = [json.loads(line) for line in Path(f"{out}.history.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "rows_per_second"} for line in lines]


def assert_same_training(one: Path, two: Path) -> None:
    a, b = (torch.load(path, weights_only=True) for path in (one, two))
    assert a["state_dict"].keys() == b["state_dict"].keys()
    assert all(
        torch.equal(a["state_dict"][name], b["state_dict"][name]) for name in a["state_dict"]
    )
    assert a["metrics"] == b["metrics"]
    assert history(one) == history(two)
    assert [line["epoch"] for line in history(two)] == list(range(1, len(history(two)) + 1))
    files = {f"{name}{end}" for name in (one.name, two.name) for end in ("", ".history.jsonl")}
    assert {path.name for path in one.parent.iterdir()} == files, "nothing else is left"


@pytest.fixture
def undisturbed(dump_folder, tmp_path) -> Path:
    softlabels.train(**options(dump_folder, tmp_path / "calm.pt"))
    return tmp_path / "calm.pt"


def test_two_trainings_do_not_write_one_checkpoint(dump_folder, tmp_path, undisturbed):
    out = tmp_path / "s.pt"
    process = start(train, **options(dump_folder, out))
    wait_for(lambda: steps_in(out) >= 2)
    for resume in (False, True):
        with pytest.raises(UsageError, match=r"another training is writing .*--out"):
            softlabels.train(**options(dump_folder, out), resume=resume)
    assert kill(process), "it went on meanwhile"
    softlabels.train(**options(dump_folder, out), resume=True)
    assert_same_training(undisturbed, out)
    assert not list(tmp_path.glob(".*.lock"))


def test_temperatures_are_not_tried_for_a_checkpoint_that_another_training_writes(
    dump_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr("softlabels.students.training.with_best", lambda *_: pytest.fail("tried"))
    words = options(dump_folder, tmp_path / "s.pt") | {"T": "auto"}
    with (
        sole_writer(tmp_path / "s.pt", "training", SILENT),
        pytest.raises(UsageError, match=r"another training is writing .*--out"),
    ):
        softlabels.train(**words)


def test_a_training_that_is_killed_over_and_over_ends_as_an_undisturbed_one(
    dump_folder, tmp_path, undisturbed
):
    """Killed after the steps that chance has chosen, and each time somewhere within a step."""
    out, chance, kills = tmp_path / "rough.pt", random.Random(3), 0
    while kills < 5:
        before = steps_in(out)
        process = start(train, **options(dump_folder, out), resume=True)
        goal = before + chance.randrange(1, 16)
        wait_for(lambda: steps_in(out) >= goal or not process.is_alive())  # noqa: B023
        assert kill(process), "5 times 16 steps at most are fewer than all"
        kills += 1
        assert steps_in(out) >= before
    softlabels.train(**options(dump_folder, out), resume=True)
    assert_same_training(undisturbed, out)


@pytest.fixture(scope="module")
def stopped(dump_folder, tmp_path_factory) -> Path:
    """The folder of a training that Ctrl-C has reached within step 40, in the third epoch. Not to
    be changed."""
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INTERRUPT_AT", "40")
        patch.setattr(state_file, "EPOCH_SECONDS", 0)  # it has done little, but is worth a state
        progress = Lines()
        with pytest.raises(KeyboardInterrupt):
            softlabels.train(**options(dump_folder, folder / "s.pt"), progress=progress)
    assert "stopped: the best so far, epoch 2, is saved" in progress.lines
    assert progress.lines[-1] == "--resume goes on with this training"
    return folder


@pytest.fixture
def out(stopped, tmp_path) -> Path:
    for path in stopped.iterdir():
        shutil.copy(path, tmp_path)
    return tmp_path / "s.pt"


def test_ctrl_c_within_a_step_ends_after_it_and_training_goes_on(dump_folder, out, undisturbed):
    assert steps_in(out) == 40
    progress = Lines()
    softlabels.train(**options(dump_folder, out), resume=True, progress=progress)
    assert "goes on after epoch 3 of 6, step 6 of 17" in progress.lines
    assert_same_training(undisturbed, out)


@pytest.mark.parametrize(
    "how",
    [
        {"ema": 0.9, "accumulate": 3, "clip_norm": 0.5, "precision": "bf16"},
        # a rate that rises to where students fail: the best epoch, the second, is before the stop
        {"lr": 3.0, "warmup": 0.95, "patience": 2, "epochs": 9},
        {"shuffle": "blocks(8, 16)", "max_norm": 1.0},
    ],
)
def test_other_ways_to_train_go_on_too(dump_folder, tmp_path, monkeypatch, how):
    calm = softlabels.train(**options(dump_folder, tmp_path / "calm.pt") | how)
    with monkeypatch.context() as patch:
        patch.setenv("INTERRUPT_AT", "59")
        patch.setattr(state_file, "EPOCH_SECONDS", 0)
        with pytest.raises(KeyboardInterrupt):
            softlabels.train(**options(dump_folder, tmp_path / "rough.pt") | how)
    softlabels.train(**options(dump_folder, tmp_path / "rough.pt") | how, resume=True)
    assert_same_training(tmp_path / "calm.pt", tmp_path / "rough.pt")
    assert calm.metrics["epoch"] == 2 or "patience" not in how


def test_what_an_early_ctrl_c_stops_leaves_no_state_in_the_way(dump_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("INTERRUPT_AT", "5")
    with pytest.raises(KeyboardInterrupt):
        softlabels.train(**options(dump_folder, tmp_path / "s.pt"))
    monkeypatch.delenv("INTERRUPT_AT")
    assert not list(tmp_path.iterdir())
    softlabels.train(**options(dump_folder, tmp_path / "s.pt"))


class Losing(nn.Sequential):
    """After its first epoch the pictures are gone, as a disk that is unplugged takes them along."""

    folder: ClassVar[Path]

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(192, 2))
        self.scored = 0

    def train(self, mode: bool = True) -> "Losing":
        self.scored += not mode
        if mode and self.scored == 2:  # the first time a model is only tried
            shutil.rmtree(Losing.folder)
        return super().train(mode)


def test_data_that_goes_away_ends_a_training_whose_best_epoch_is_saved(tmp_path):
    Losing.folder = tmp_path / "photos"
    for i in range(20):
        (Losing.folder / f"class{i % 2}").mkdir(parents=True, exist_ok=True)
        Image.effect_noise((12, 12), 50).save(Losing.folder / f"class{i % 2}" / f"{i}.png")
    progress = Lines()
    with pytest.raises(SoftlabelsError):
        softlabels.fit(data=str(Losing.folder), model=f"{HERE}:Losing", epochs=3,
                       preprocess="rgb|resize(8)|scale(255)", augment="random_resized_crop(8)",
                       device="cpu", out=str(tmp_path / "s.pt"), progress=progress)  # fmt: skip
    assert "stopped: the best so far, epoch 1, is saved" in progress.lines
    saved = torch.load(tmp_path / "s.pt", weights_only=True)
    assert (saved["metrics"]["epoch"], saved["training"]["complete"]) == (1, False)


def test_a_module_of_which_other_layers_are_frozen_does_not_go_on(
    dump_folder, tmp_path, monkeypatch
):
    frozen = Net()
    frozen[1].requires_grad_(False)
    monkeypatch.setenv("INTERRUPT_AT", "3")
    monkeypatch.setattr(state_file, "EPOCH_SECONDS", 0)
    with pytest.raises(KeyboardInterrupt):
        softlabels.train(**options(dump_folder, tmp_path / "s.pt", student=frozen))
    with pytest.raises(UsageError, match="made otherwise: another choice of trained parameters"):
        softlabels.train(**options(dump_folder, tmp_path / "s.pt", student=Net()), resume=True)


def test_an_unfinished_training_is_not_overwritten(dump_folder, out):
    before = out.read_bytes()
    with pytest.raises(
        UsageError, match=r"s\.pt\.state is .* an unfinished training\. Add --resume"
    ):
        softlabels.train(**options(dump_folder, out))
    assert out.read_bytes() == before
    assert steps_in(out) == 40


@pytest.mark.parametrize(
    ("others", "named"),
    [
        ({"lr": 0.02}, "--lr is 0.02 and was 0.01. Resume with"),
        ({"T": 3, "alpha": 1.0}, "--T is 3.0 and was 2.0; --alpha is 1.0 and was 0.9. Resume"),
        ({"epochs": 7, "data_seed": 1}, "--data-seed is 1 and was 0; --epochs is 7 and was 6. "),
        ({"student": "linear"}, f'--student is "linear" and was "{HERE}:Net"; another model. '),
        ({"shards": "0-1"}, '--shards is "0-1" and was null; another set of rows. Resume with'),
        ({"preprocess": "scale(16)"}, '--preprocess is "scale(16)" and was null; another prep'),
    ],
)
def test_a_resume_with_other_options_is_refused_and_names_them(dump_folder, out, others, named):
    with pytest.raises(UsageError) as refused:
        softlabels.train(**options(dump_folder, out) | others, resume=True)
    assert f"s.pt.state is the state of a training made otherwise: {named}" in str(refused.value)
    assert steps_in(out) == 40


def test_a_resume_with_another_dump_is_refused(teacher, dump_folder, out, tmp_path):
    softlabels.dump(teacher=teacher, out=str(tmp_path / "other"), dtype="float32")
    with pytest.raises(UsageError, match="made otherwise: another set of rows"):
        softlabels.train(**options(str(tmp_path / "other"), out), resume=True)


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    place = len(content) // 3
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def replaced(content: bytes) -> bytes:
    return b"no state"


@pytest.mark.parametrize("harm", [cut, flipped, replaced])
def test_a_damaged_state_is_refused(dump_folder, out, harm):
    path = Path(f"{out}.state")
    path.write_bytes(harm(path.read_bytes()))
    with pytest.raises(TrainingError, match=r"\.state, the state of an .* can't be read: .*Remove"):
        softlabels.train(**options(dump_folder, out), resume=True)


def test_a_resume_of_nothing_begins_and_one_of_a_complete_training_does_nothing(
    dump_folder, tmp_path
):
    words, progress = options(dump_folder, tmp_path / "s.pt", resume=True), Lines()
    first = softlabels.train(**words, progress=progress)
    assert f"no {tmp_path / 's.pt'}.state, so training begins anew" in progress.lines
    before = (tmp_path / "s.pt").read_bytes()
    again = softlabels.train(**words, progress=progress)
    assert progress.lines[-1] == f"{tmp_path / 's.pt'} is complete; nothing is left to do"
    assert again.metrics == first.metrics
    with pytest.raises(UsageError, match=r"is complete, and was made otherwise: --lr is 0\.5 and"):
        softlabels.train(**words | {"lr": 0.5})
    assert (tmp_path / "s.pt").read_bytes() == before


def test_fit_goes_on_too(tmp_path, monkeypatch):
    words = {
        "data": "digits",
        "model": f"{HERE}:Net",
        "epochs": 4,
        "batch_size": 64,
        "augment": "jitter(1)",
    }
    softlabels.fit(**words, out=str(tmp_path / "calm.pt"))
    monkeypatch.setenv("INTERRUPT_AT", "30")
    monkeypatch.setattr(state_file, "EPOCH_SECONDS", 0)
    with pytest.raises(KeyboardInterrupt):
        softlabels.fit(**words, out=str(tmp_path / "rough.pt"))
    softlabels.fit(**words, out=str(tmp_path / "rough.pt"), resume=True)
    assert_same_training(tmp_path / "calm.pt", tmp_path / "rough.pt")


def test_a_state_for_which_there_is_no_room_is_said_and_training_goes_on(small_disk, monkeypatch):
    monkeypatch.setattr(state_file, "SAVE_SECONDS", 0)
    progress = Lines()
    result = softlabels.fit(data="digits", model="mlp:1500", epochs=1, out=str(small_disk / "t.pt"),
                            progress=progress)  # fmt: skip
    assert "t.pt.state can't be written: " in str(progress)
    assert result.metrics["epoch"] == 1
    assert {path.name for path in small_disk.iterdir()} == {"t.pt", "t.pt.history.jsonl"}


@pytest.mark.slow
def test_two_ranks_go_on_as_undisturbed_ones(dump_folder, tmp_path):
    """Each rank draws its own random numbers, and has its own losses of the epoch."""

    def begin(out: Path, work=train, **others) -> list:
        port = free_port()
        return [
            start(work, {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2",
                         "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port},
                  **options(dump_folder, out), **others)
            for rank in range(2)
        ]  # fmt: skip

    for process in begin(tmp_path / "calm.pt", softlabels.train):
        process.join(60)
        assert process.exitcode == 0
    out = tmp_path / "rough.pt"
    for goal in (5, 30, 34, 61):
        both = begin(out, resume=True)
        wait_for(lambda: steps_in(out) >= goal or not both[0].is_alive())  # noqa: B023
        assert kill(both[0])
        kill(both[1])
    with pytest.raises(UsageError, match="made otherwise: another number of processes"):
        softlabels.train(**options(dump_folder, out), resume=True)
    for process in begin(out, resume=True):
        process.join(60)
        assert process.exitcode == 0
    assert_same_training(tmp_path / "calm.pt", out)
