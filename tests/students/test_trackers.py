"""What trackers get, and the words about those that can't."""

import pytest
import torch
from accelerate import tracking

import softlabels
from softlabels.errors import UsageError
from tests.conftest import Lines


class Recorder(tracking.GeneralTracker):
    """A tracker of the user's own, which keeps what it gets."""

    name = "recorder"
    requires_logging_directory = False
    events: list = []  # noqa: RUF012
    fails = ""

    def __init__(self, run_name: str, **rest) -> None:
        super().__init__()

    @property
    def tracker(self) -> list:
        return self.events

    def start(self) -> None:
        self.events.clear()
        if self.fails == "start":
            raise ConnectionError("no server answers")

    def store_init_configuration(self, values: dict) -> None:
        self.events.append(("options", values))

    def log(self, values: dict, step: int | None = None, **rest) -> None:
        if self.fails == "log":
            raise ConnectionError("the server is gone")
        self.events.append((step, values))

    def finish(self) -> None:
        self.events.append(("finish", {}))


@pytest.fixture
def recorder(monkeypatch) -> type[Recorder]:
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "recorder", Recorder)
    monkeypatch.setattr(Recorder, "fails", "")
    return Recorder


def train(dump_folder, tmp_path, progress=None, **words):
    return softlabels.train(dump=dump_folder, student="mlp:8", T=2, epochs=2, batch_size=16,
                            device="cpu", out=str(tmp_path / "s.pt"), progress=progress or Lines(),
                            **words)  # fmt: skip


def test_a_tracker_gets_options_steps_epochs_and_scores(dump_folder, tmp_path, recorder):
    """68 steps an epoch: the 50th of each, and its end."""
    result = train(dump_folder, tmp_path, log_with="recorder")
    (name, options), *logged, last = recorder.events
    assert (name, options["T"], options["student"], last) == ("options", 2, "mlp:8", ("finish", {}))
    assert [step for step, _ in logged] == [50, 68, 68, 118, 136, 136]
    assert logged[0][1].keys() == {"train/loss", "train/learning_rate"}
    assert logged[1][1].keys() >= {"epoch/loss", "epoch/learning_rate", "epoch/rows_per_second"}
    assert logged[-1][1]["held_out/kl"] == result.metrics["held_out"]["kl"]
    assert torch.load(tmp_path / "s.pt", weights_only=True)["training"]["log_with"] == ["recorder"]


def test_a_tracker_that_fails_stops_no_training_once_it_runs(dump_folder, tmp_path, recorder):
    recorder.fails = "log"
    progress = Lines()
    assert train(dump_folder, tmp_path, progress, log_with="recorder").metrics["epoch"]
    warnings = [line for line in progress.lines if "a tracker failed" in line]
    assert len(warnings) == 1
    assert warnings[0].endswith("and none gets more: ConnectionError, the server is gone")
    recorder.fails = "start"
    with pytest.raises(UsageError, match=r"--log-with can't start a tracker: .* no server answers"):
        train(dump_folder, tmp_path, log_with="recorder")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("aim",), "--log-with aim: aim is not installed; pip install aim"),
        (("tensorbord",), "--log-with is 'tensorbord'; accelerate knows aim, comet_ml, mlflow"),
    ],
)
def test_trackers_that_can_not_log_are_refused_before_anything_is_done(tmp_path, names, message):
    progress = Lines()
    with pytest.raises(UsageError, match=message):
        softlabels.fit(data="digits", log_with=names, out=str(tmp_path / "t.pt"), progress=progress)
    assert not progress.lines
    assert not list(tmp_path.iterdir())


def test_tensorboard_draws_what_was_logged(dump_folder, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(dump_folder, tmp_path, log_with="tensorboard", clip_norm=1)
    (folder,) = (tmp_path / "s.pt.logs").glob("*/softlabels")
    events = EventAccumulator(str(folder))
    events.Reload()
    assert [entry.step for entry in events.Scalars("train/loss")] == [50, 118]
    assert [entry.step for entry in events.Scalars("held_out/accuracy")] == [68, 136]
