"""The state of an unfinished training, from which `--resume` goes on: one file beside the
checkpoint.

The order of an epoch's rows is a function of (data seed, epoch), so a position is an epoch and a
number of steps. A state is taken between two steps, when there are no gradients.
"""

import json
import random
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from softlabels.errors import TrainingError, UsageError
from softlabels.models.causes import cause
from softlabels.students.ranks import Ranks
from softlabels.system.humanize import short
from softlabels.system.local_files import appearing

FORMAT = "softlabels-training/2"
SAVE_SECONDS = 30.0  # between two states within an epoch
EPOCH_SECONDS = 10.0  # before a state at the end of an epoch, and before the first one
MOST_SHARE = 0.02  # of the time that training takes, to save states
CHECK_SECONDS = 1.0  # between two questions whether to save, where ranks decide together


class StateFile:
    """`s.pt.state`, the state of the training that writes `s.pt`.

    facts: what must be the same for the training to go on, by the names that a message gives.
    """

    def __init__(self, out: str, facts: Mapping[str, Any]) -> None:
        self.path = Path(f"{out}.state")
        self.facts = json.loads(json.dumps(facts))

    def exists(self) -> bool:
        return self.path.exists()

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)

    def write(self, content: Mapping[str, Any]) -> None:
        """Raises OSError or RuntimeError where it can't be written; the file is then as before."""
        with appearing(self.path) as file:
            torch.save({"format": FORMAT, "facts": self.facts, **content}, file)

    def read(self) -> dict[str, Any]:
        """Raises TrainingError for a damaged file, UsageError for that of another training."""
        try:
            with zipfile.ZipFile(self.path) as whole:
                damaged = whole.testzip()  # torch does not compare the checksums that it writes
            if damaged:
                raise ValueError(f"{damaged} is not what was written")
            content = torch.load(self.path, map_location="cpu", weights_only=True)
            theirs = content["facts"]
            if content["format"] != FORMAT:
                raise ValueError(f"its format is {short(str(content['format']))!r}, not {FORMAT!r}")
        except Exception as error:
            raise TrainingError(
                f"{self.path}, the state of an unfinished training, can't be read: {cause(error)}. "
                f"Remove it and train again from the beginning"
            ) from error
        check_same(self.facts, theirs, f"{self.path} is the state of a training made otherwise")
        return dict(content)


def check_same(ours: Mapping[str, Any], theirs: Mapping[str, Any], problem: str) -> None:
    """Raises UsageError that names the facts that differ."""
    differing = [
        f"{name} is {_shown(ours.get(name))} and was {_shown(theirs.get(name))}"
        if name.startswith("--")
        else f"another {name}"
        for name in sorted({*ours, *theirs})
        if ours.get(name) != theirs.get(name)
    ]
    if differing:
        raise UsageError(
            f"{problem}: {'; '.join(differing)}. Resume with the same options and data, or write "
            f"another file with --out"
        )


def _shown(value: Any) -> str:
    return short(json.dumps(value, ensure_ascii=False))


class SaveTimes:
    """When to save a state: so rarely that saving takes at most MOST_SHARE of the time. Every rank
    gets the same answer, which is rank 0's."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.saved = self.began = time.monotonic()
        self.cost = 0.0
        self.steps, self.next_check = 0, 1

    def after_step(self) -> bool:
        """To be called after each step."""
        if self.ranks.world == 1:
            return self._is_time(SAVE_SECONDS)
        self.steps += 1
        if self.steps < self.next_check:
            return False
        pace = self.steps / (time.monotonic() - self.began)
        steps = max(1, int(pace * min(CHECK_SECONDS, SAVE_SECONDS)))
        is_time, steps = self.ranks.share((self._is_time(SAVE_SECONDS), steps))
        self.next_check = self.steps + steps
        return bool(is_time)

    @property
    def worth_it(self) -> bool:
        """Whether so much has been done that a state is saved when training is interrupted."""
        return time.monotonic() - self.began >= min(EPOCH_SECONDS, SAVE_SECONDS)

    def after_epoch(self) -> bool:
        return bool(self.ranks.share(self._is_time(min(EPOCH_SECONDS, SAVE_SECONDS))))

    def note(self, began: float) -> None:
        """A state has been saved, which began at this time."""
        self.saved = time.monotonic()
        self.cost = self.saved - began

    def _is_time(self, least: float) -> bool:
        return time.monotonic() - self.saved >= max(least, self.cost / MOST_SHARE)


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """All that a model remembers: its state_dict, and buffers that are not in it."""
    return {**dict(model.named_buffers()), **model.state_dict()}


@torch.no_grad()
def restore_tensors(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    here = tensors_of(model)
    for name, value in here.items():
        value.copy_(tensors[name])


def random_state(device: torch.device) -> dict[str, Any]:
    """This process's random generators, of types that `torch.load(weights_only=True)` takes."""
    name, keys, *rest = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
        device.type: None if device.type == "cpu" else _generator(device, "get_rng_state"),
    }


def restore_random(state: Mapping[str, Any], device: torch.device) -> None:
    """The generator of a device of another type stays as it is."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state.get(device.type) is not None:
        _generator(device, "set_rng_state", state[device.type])


def _generator(device: torch.device, verb: str, *values: Tensor) -> Any:
    where = () if device.type == "mps" else (device,)  # there is one
    return getattr(torch.get_device_module(device), verb)(*values, *where)
