"""What a training begins with: nothing, the state of an unfinished one, or a complete one."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from softlabels.errors import TrainingError, UsageError
from softlabels.models.causes import cause
from softlabels.models.checkpoint import Checkpoint
from softlabels.students.ranks import Ranks
from softlabels.students.state_file import StateFile, check_same
from softlabels.system.local_files import partial_path
from softlabels.system.progress import Progress
from softlabels.targets.mixed import DIGITS

# may differ between ranks; of a tokenizer the preprocessing has the hash
PLACES = ("dump", "data", "source", "out", "device", "keep", "cache", "tokenizer")
FREE = ("--resume", "--log-with")  # beside PLACES, what may differ when a training goes on


def beginning(
    out: str,
    resume: bool,
    facts: dict[str, Any],
    code: dict[str, Any],
    ranks: Ranks,
    progress: Progress,
) -> tuple[StateFile, dict[str, Any] | Checkpoint | None]:
    """The file for the state, and what training begins with: a state, the checkpoint of a complete
    training, to which nothing is left to do, or nothing.

    facts: what must be the same. code: what a state knows of a module beyond these.

    Raises UsageError for the state of another training, and for one that `--resume` does not ask
    for; TrainingError for a damaged one.
    """
    fixed = {name: value for name, value in facts.items() if name not in FREE}
    file = StateFile(out, fixed | code | {"number of processes": ranks.world})

    def find() -> dict[str, Any] | Checkpoint | None:
        if not resume:
            if file.exists():
                raise UsageError(
                    f"{file.path} is the state of an unfinished training. Add --resume to go on "
                    f"with it, choose another file with --out, or remove it"
                )
            return None
        return file.read() if file.exists() else finished(out, fixed)

    begin: dict[str, Any] | Checkpoint | None = ranks.on_first(find)
    if isinstance(begin, Checkpoint):
        progress.say(f"{out} is complete; nothing is left to do")
    elif begin is None and resume:
        progress.say(f"no {file.path}, so training begins anew")
    return file, begin


def elsewhere(state: dict[str, Any], ranks: Ranks) -> str:
    """Why the result may differ in rounding from that of an undisturbed training."""
    here = {"device": ranks.device.type, "torch": str(torch.__version__)}
    other = [f"{n} {state[n]}, now {here[n]}" for n in here if state[n] != here[n]]
    return f"; it began with {', '.join(other)}, which may round otherwise" if other else ""


def facts_of(
    options: dict[str, Any],
    *,
    data: dict[str, Any],
    identity: str,
    preprocess: str,
    state_dict: dict[str, Tensor],
) -> dict[str, Any]:
    """What decides the weights, by the names that messages give. data: of the checkpoint."""
    given = {
        f"--{name.replace('_', '-')}": value
        for name, value in options.items()
        if name not in (*PLACES, "mix_weights")
    }
    shapes = [[name, list(value.shape)] for name, value in state_dict.items()]
    learned = {"set of rows": identity} if data.get("mix") is None else _mixed(data, identity)
    return given | learned | {"preprocessing": preprocess, "model": shapes}


def _mixed(data: dict[str, Any], identity: str) -> dict[str, Any]:
    """What a mixture comes to, however its weights and the names of its dumps were written."""
    members = sorted(
        [one["plan"], round(one["weight"], DIGITS)]
        for one in data["teachers"].values()
        if one["weight"]
    )
    return {
        "first dump, whose rows these are": identity,
        "mixture, of other dumps or by other --mix-weights": members,
    }


def finished(out: str, facts: dict[str, Any]) -> Checkpoint | None:
    """The checkpoint that a complete training has written to `out`; None where there is none.
    Raises UsageError for that of another training."""
    try:
        content = torch.load(out, map_location="cpu", weights_only=True)
        checkpoint = Checkpoint.from_content(content, out)
    except FileNotFoundError:
        return None
    except Exception as error:  # --resume asks for what is there: it is not overwritten unread
        raise TrainingError(f"{out} can't be read: {cause(error)}. Move it away") from error
    options = dict(checkpoint.training)
    options.pop("started_from", None)
    if not options.pop("complete", False):
        return None
    theirs = facts_of(
        options,
        data=checkpoint.data,
        identity=checkpoint.data.get("identity", ""),
        preprocess=checkpoint.preprocess,
        state_dict=checkpoint.state_dict,
    )
    theirs = {name: value for name, value in theirs.items() if name not in FREE}
    check_same(facts, theirs, f"{out} is complete, and was made otherwise")
    return checkpoint


def check_out(out: str) -> None:
    """Raises UsageError where the checkpoint could not be written at the end."""
    path = Path(out)
    try:
        if path.is_dir():
            example = path / "s.pt"
            raise UsageError(f"--out is {out}, which is a folder; name a file, such as {example}")
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(partial_path(path))
        partial.touch()
        partial.unlink()
    except OSError as error:
        raise UsageError(
            f"--out is {out}; no file can be written there: {error.strerror}"
        ) from error
