"""The processes that train one student together.

torchrun, Slurm or `accelerate launch` starts them and gives each its rank; `accelerate` joins them.
All ranks take the same steps, so that none waits for one that has left: scores, losses and
decisions are shared, and a rank that fails reports why before it exits.
"""

import atexit
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from datetime import timedelta
from functools import cache
from typing import Any

import accelerate
import torch
from torch import nn

from softlabels.errors import SoftlabelsError, TrainingError, UsageError
from softlabels.system.devices import resolve_device
from softlabels.system.environment import number_in_environment
from softlabels.system.humanize import counted

_runs = itertools.count()  # the same on every rank, as all call the same verbs


class Ranks:
    """This process, alone or as one of `world`.

    device: `--device`. With several processes only whether it is `cpu` counts: each takes its own
    GPU.
    precision: `--precision`, which a launcher must not contradict.
    trackers: names of those that log, as accelerate knows them.
    logs: the folder for what they write.

    Raises UsageError where some of the processes are missing, and for another precision of the
    launcher.
    """

    def __init__(
        self, device: str, precision: str, trackers: tuple[str, ...] = (), logs: str = ""
    ) -> None:
        _check_launcher(precision)
        self.device = resolve_device(device)
        expected = number_in_environment("WORLD_SIZE", 1, least=1)
        if expected > 1 and self.device.type == "cuda":
            _check_gpus()
        cpu = expected > 1 and self.device.type == "cpu"
        self.parallel = accelerate.DistributedDataParallelKwargs()
        try:
            self.accelerator = accelerate.Accelerator(
                cpu=cpu,
                device_placement=False,
                mixed_precision="no",  # the steps choose theirs, which a process may change
                kwargs_handlers=[self.parallel],
                log_with=list(trackers) or None,
                project_dir=logs if trackers else None,
            )
        except ValueError as error:  # of a program that has made another before
            raise UsageError(
                f"accelerate refuses to train here: {error} Train in a process that has made no "
                f"other Accelerator"
            ) from error
        self.rank, self.world = self.accelerator.process_index, self.accelerator.num_processes
        if self.world < expected:
            raise UsageError(
                f"WORLD_SIZE is {expected}, but `accelerate` joined {self.world} of them; start "
                f"them with torchrun, on the CPU with --device cpu"
            )
        self.store: Any = None
        if self.world > 1:
            self.device = self.accelerator.device

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def place(self) -> str:
        return f"{self.world} processes, {self.device}" if self.world > 1 else str(self.device)

    @contextmanager
    def together(self) -> Iterator[None]:
        """The block in which all ranks take the same steps.

        A rank that leaves it by an exception reports why; once its process has ended, the others
        raise TrainingError with that reason.
        """
        try:
            if self.world > 1:
                self._meet()
            yield
            _leave_at_exit()
        except BaseException as error:
            if self.world == 1:
                raise
            if is_lost_touch(error):
                raise TrainingError(self._reason(error)) from error
            if self.store is not None:
                with suppress(RuntimeError):
                    text = str(error) or "it was interrupted"
                    self.store.set(f"stopped/{self.rank}", text)
            raise

    def _meet(self) -> None:
        """Open the store in which a rank reports why it stops.

        No rank goes on before all have opened it: it lives in rank 0, and a rank that came after
        rank 0 had ended would try to reach it until the timeout.
        """
        store = next(torch.distributed.rendezvous("env://", timeout=timedelta(minutes=1)))[0]
        self.store = torch.distributed.PrefixStore(f"softlabels/train/{next(_runs)}", store)
        self.wait()

    def _reason(self, error: BaseException) -> str:
        with suppress(RuntimeError):
            for rank in range(self.world if self.store is not None else 0):
                if self.store.check([f"stopped/{rank}"]):
                    text = self.store.get(f"stopped/{rank}").decode()
                    return f"rank {rank} stopped: {text}"
        return (
            f"rank {self.rank} lost touch with the others, one of which has ended: "
            f"{str(error).splitlines()[0]}"
        )

    def wrap(self, model: nn.Module, use_differs: bool) -> nn.Module:
        """The model as each step runs it: it starts from rank 0's weights and averages gradients
        over ranks. use_differs: whether some steps use only some of its parameters."""
        self.parallel.find_unused_parameters = use_differs
        wrapped: nn.Module = self.accelerator.prepare_model(model, device_placement=False)
        return wrapped

    def check_same(self, facts: dict[str, Any]) -> None:
        """Raises UsageError on every rank unless all have the same facts."""
        first, *others = self.all(facts)
        for rank, theirs in enumerate(others, 1):
            for name in (name for name in first if theirs.get(name) != first[name]):
                raise UsageError(
                    f"{name} differs between ranks: rank {rank} has {_short(theirs.get(name))}, "
                    f"rank 0 has {_short(first[name])}; start all ranks with the same command and "
                    f"data"
                )

    def mean(self, value: float) -> float:
        """The mean of every rank's value, on every rank."""
        return value if self.world == 1 else sum(self.all(value)) / self.world

    def share(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""
        values = [value]
        if self.world > 1:
            torch.distributed.broadcast_object_list(values, 0)
        return values[0]

    @torch.no_grad()
    def align(self, model: nn.Module) -> None:
        """Give every rank rank 0's buffers, such as batch norm's statistics."""
        if self.world > 1:
            for buffer in model.buffers():
                torch.distributed.broadcast(buffer, 0)

    def wait(self) -> None:
        self.accelerator.wait_for_everyone()

    def on_first(self, work: Callable[[], Any]) -> Any:
        """What `work` returns on rank 0, on every rank. Raises its error on every rank."""
        result = error = None
        if self.is_first:
            try:
                result = work()
            except SoftlabelsError as raised:
                error = raised
        result, error = self.share((result, error))
        if error is not None:
            raise error
        return result

    @contextmanager
    def first_holds(self, held: AbstractContextManager[None]) -> Iterator[None]:
        """Rank 0 enters it for all. Raises its error on every rank."""
        with ExitStack() as stack:
            self.on_first(lambda: stack.enter_context(held))
            yield

    def all(self, value: Any) -> list[Any]:
        """Every rank's value, on every rank, in the order of ranks."""
        values: list[Any] = [value]
        if self.world > 1:
            values = [None] * self.world
            torch.distributed.all_gather_object(values, value)
        return values


@cache
def _leave_at_exit() -> None:
    """Leave the process group when the program ends, as NCCL asks. Not earlier: `accelerate` joins
    it once in a process, and a program may train again."""
    atexit.register(_leave)


def _leave() -> None:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _check_launcher(precision: str) -> None:
    """Raises UsageError where `accelerate launch`, or its configuration, says another precision."""
    theirs = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    ours = precision if precision in ("fp16", "bf16") else "no"
    if theirs not in (ours, "no"):
        raise UsageError(
            f"ACCELERATE_MIXED_PRECISION is {theirs}, and --precision is {precision}; use "
            f"--precision {theirs if theirs in ('fp16', 'bf16') else 'bf16'}, or "
            f"`accelerate launch --mixed_precision no`"
        )


def _check_gpus() -> None:
    """Raises UsageError where processes on this machine would share a GPU. NCCL, which averages the
    gradients, refuses that, but its error only speaks of a duplicate or an invalid device."""
    here = max(
        number_in_environment("LOCAL_WORLD_SIZE", 1, least=1),
        number_in_environment("LOCAL_RANK", 0) + 1,
    )
    gpus = torch.cuda.device_count()
    if here > gpus:
        raise UsageError(
            f"{here} processes train on this machine and it has {counted(gpus, 'GPU')}: each needs "
            f"its own. Start {gpus} (torchrun --nproc-per-node {gpus}), or use --device cpu"
        )


def is_lost_touch(error: BaseException) -> bool:
    """Whether a collective failed because another rank has ended. Some backends of torch raise
    DistError then; gloo raises a RuntimeError with its name in the message."""
    if isinstance(error, torch.distributed.DistError):
        return True
    return isinstance(error, RuntimeError) and "gloo" in str(error)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
