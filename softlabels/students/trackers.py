"""What experiment trackers get, through accelerate: TensorBoard, Weights & Biases, MLflow, …"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from accelerate import tracking

from softlabels.errors import UsageError
from softlabels.models.causes import cause
from softlabels.students.ranks import Ranks
from softlabels.system.progress import Progress

LOG_STEPS = 50  # between two entries within an epoch
PROJECT = "softlabels"


def check_trackers(names: tuple[str, ...]) -> None:
    """Raises UsageError for a tracker that accelerate does not know or that is not installed, which
    accelerate would leave out without a word."""
    known = tracking.LOGGER_TYPE_TO_CLASS
    installed = {str(name) for name in tracking.get_available_trackers()}
    for name in names:
        if name not in known:
            raise UsageError(f"--log-with is {name!r}; accelerate knows {', '.join(known)}")
        is_own = known[name].__module__ != tracking.__name__  # one that the user has registered
        if name not in installed and not is_own:
            raise UsageError(f"--log-with {name}: {name} is not installed; pip install {name}")


def joined_ranks(device: str, precision: str, log_with: tuple[str, ...], out: str) -> Ranks:
    """The ranks of the training that writes `out`, with these trackers. Raises UsageError."""
    check_trackers(log_with)
    # a folder a run, since the curves of two runs in one are drawn as one
    logs = f"{out}.logs/{datetime.now():%Y-%m-%d-%H%M%S}"
    return Ranks(device, precision, log_with, logs)


class Trackers:
    """Those with which the ranks' accelerator was made; only rank 0's log. There may be none."""

    def __init__(self, ranks: Ranks, progress: Progress) -> None:
        self.accelerator, self.progress = ranks.accelerator, progress
        self.are_on = bool(self.accelerator.log_with)

    @contextmanager
    def running(self, options: Mapping[str, Any]) -> Iterator[None]:
        """Raises UsageError where one can't start."""
        if self.are_on:
            config = {
                name: value if isinstance(value, bool | int | float | str) else str(value)
                for name, value in options.items()
                if value is not None
            }
            try:
                self.accelerator.init_trackers(PROJECT, config=config)
            except Exception as error:  # of code that is not ours
                raise UsageError(f"--log-with can't start a tracker: {cause(error)}") from error
        try:
            yield
        finally:
            # not end_training, which may also end the process group
            for tracker in self.accelerator.trackers:
                with self._failing_alone():
                    tracker.finish()
            self.accelerator.trackers.clear()

    def log(self, step: int, group: str, values: Mapping[str, Any]) -> None:
        """The numbers among these values, named `group/name`."""
        if not self.are_on:
            return
        numbers = {f"{group}/{n}": v for n, v in values.items() if isinstance(v, int | float)}
        with self._failing_alone():
            self.accelerator.log(numbers, step=step)

    @contextmanager
    def _failing_alone(self) -> Iterator[None]:
        """A tracker that fails is no reason to stop a training."""
        try:
            yield
        except Exception as error:
            self.progress.say(f"warning: a tracker failed, and none gets more: {cause(error)}")
            self.are_on = False
