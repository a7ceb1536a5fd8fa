"""Batches for a training script of timm, and a teacher for its tasks that answers from the store.

Shapes: N rows of a batch, C classes.
"""

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from softlabels.errors import UsageError
from softlabels.inputs.label_lists import LabelLists
from softlabels.inputs.views.mixing import PARTNER_LABEL, WEIGHT
from softlabels.system.extras import need
from softlabels.targets.batch import Batch
from softlabels.targets.loading import load
from softlabels.targets.mixed import Mixed, Trainable
from softlabels.targets.side_by_side import SideBySide
from softlabels.targets.soft_dataset import Dump, OneView, SoftDataset
from softlabels.targets.turns import TURN

RECENT = 2  # batches that the teacher answers: a script may have one read ahead
OWN_LOOP = "train with softlabels.kd_loss in a loop of your own"


class TimmLoader:
    """Over a dump what `timm.data.create_loader` is over a data set: a pass over it gives the
    batches of an epoch, pairs (input, target); `len()` is their number.

        data_config = timm.data.resolve_model_data_config(model)
        loader = softlabels.TimmLoader("data/d", data_config, batch_size=256, device=device)
        task = timm.task.LogitDistillationTask(model, loader.teacher, temperature=4, device=device)

    input: `dtype` [N, C, H, W] on `device`, the pictures as the teacher saw them, normalised with
    the student's mean and std. target: the labels, int64 [N], on `device`; of a dump with views by
    mixup or cutmix float32 [N, C], for a loss such as timm's SoftTargetCrossEntropy.

    `teacher` goes where timm's tasks take one, and answers with the stored logits. Each pass is the
    next epoch, from `epoch` on; `set_epoch`, also of `loader.sampler`, chooses another.

    dataset: a dump's folder or address, or what `load` gave, with any of its options, or a mixture
        of several teachers by "logit"
    data_config: the student's, of which input_size, mean and std are used
    batch_size: rows of this process in a step; the last may have fewer, or one or two more where
        a row would be alone, unless drop_last
    shuffle, seed, workers: as those of `SoftDataset.batches`; without workers a thread reads ahead
    views: as there, too; by default an epoch shows one view of each input, the next epoch the next
    rank, world: this process's share; by default as torch.distributed says, where it is initialised

    Raises UsageError for a dump whose rows timm's tasks can't take, and inputs that the student
    can't.
    """

    mixup_enabled = False  # which scripts ask for and set to False

    def __init__(
        self,
        dataset: SoftDataset | str | Path,
        data_config: Mapping[str, Any],
        batch_size: int,
        *,
        shuffle: bool | str = True,
        seed: int = 0,
        epoch: int = 0,
        views: int | str = TURN,
        rank: int | None = None,
        world: int | None = None,
        drop_last: bool = False,
        workers: int = 0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        channels_last: bool = False,
    ) -> None:
        self.device, self.dtype = torch.device(device), dtype
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        opened = load(dataset, device=str(device)) if isinstance(dataset, str | Path) else dataset
        whole = _whole_of(opened)
        _check_targets(whole)
        dump = whole.base
        mean, std = _pixel_statistics(dump, data_config)
        self.mean, self.std = (
            torch.tensor(values, device=self.device, dtype=dtype).view(1, -1, 1, 1)
            for values in (mean, std)
        )
        is_running = torch.distributed.is_available() and torch.distributed.is_initialized()
        if rank is None:
            rank = torch.distributed.get_rank() if is_running else 0
        if world is None:
            world = torch.distributed.get_world_size() if is_running else 1
        self.dataset = opened
        self.batches = opened.batches(
            batch_size,
            shuffle=shuffle,
            seed=seed,
            epoch=epoch,
            views=views,
            rank=rank,
            world=world,
            drop_last=drop_last,
            workers=workers,
        )
        # workers read ahead themselves, and a live data set's code runs in this thread alone
        assert dump.examples is not None, "its pictures were checked"
        self.reads_ahead = not workers and not dump.examples.source.runs_code
        self._recent: deque[_Given] = deque(maxlen=RECENT)
        self._is_used = False  # whether a pass over this epoch has begun

    def __len__(self) -> int:
        return len(self.batches)

    @property
    def epoch(self) -> int:
        return self.batches.epoch

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next pass: its order, and the view whose turn it is."""
        self.batches.set_epoch(epoch)
        self._is_used = False

    @property
    def sampler(self) -> "TimmLoader":
        """Itself: scripts call `loader.sampler.set_epoch`."""
        return self

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self._is_used:
            self.set_epoch(self.epoch + 1)
        self._is_used = True
        self._recent.clear()
        return self._pairs(self._read_ahead() if self.reads_ahead else iter(self.batches))

    def _pairs(self, batches: Iterator[Batch]) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in batches:
            here = batch.to(self.device, non_blocking=True)
            inputs = self._normalised(here.columns["input"])
            self._recent.append(_Given(inputs, here["logits"]))
            yield inputs, _target(here)

    def _read_ahead(self) -> Iterator[Batch]:
        """The batches, each read while the one before it is trained on."""
        batches = iter(self.batches)
        with ThreadPoolExecutor(1, thread_name_prefix="ahead") as pool:
            coming = pool.submit(next, batches, None)
            while (batch := coming.result()) is not None:
                coming = pool.submit(next, batches, None)
                yield batch.pin_memory() if self.device.type == "cuda" else batch

    @torch.inference_mode(False)  # whose tensors don't count changes, by which `_Given` sees them
    def _normalised(self, pixels_NCHW: Tensor) -> Tensor:
        """As timm's PrefetchLoader does it."""
        inputs = pixels_NCHW.to(self.device, self.dtype, memory_format=self.format)
        return inputs.sub_(self.mean).div_(self.std)

    @cached_property
    def teacher(self) -> nn.Module:
        """A `timm.task.DistillationTeacher` whose answers are the stored logits, float32 [N, C], of
        the batch that this loader has just given. It has no features, so it serves
        LogitDistillationTask and TokenDistillationTask.

        Raises MissingExtra without timm; when it is asked about other inputs, UsageError.
        """
        return _stored_teacher(self)

    def answer(self, inputs: Tensor) -> Tensor:
        """The stored logits, float32 [N, C], of one of the last batches, which these inputs are.
        Raises UsageError for any others."""
        for given in reversed(self._recent):
            if given.is_same(inputs):
                return given.logits_NC.to(torch.float32)
        raise UsageError(
            f"the teacher is asked about inputs {list(inputs.shape)} that are no batch as "
            f"TimmLoader gave it last, and its logits are stored for that alone. Leave out what "
            f"mixes, erases or crops pictures after the loader, and let the teacher answer such "
            f"views: softlabels dump --views 4 --augment '…'"
        )


def _target(batch: Batch) -> Tensor:
    """The labels, or of mixed inputs their shares [N, C], as timm's own Mixup gives them."""
    label_N = batch["label"]
    if WEIGHT not in batch:
        return label_N
    weight_N = batch[WEIGHT]
    share_NC = weight_N.new_zeros(len(label_N), batch["targets"].classes)
    for labels_N, part_N in ((label_N, weight_N), (batch[PARTNER_LABEL], 1 - weight_N)):
        known_N = labels_N >= 0
        share_NC.scatter_add_(1, labels_N.clamp_min(0)[:, None], (part_N * known_N)[:, None])
    return share_NC


class _Given:
    """A batch that a script was given."""

    def __init__(self, inputs: Tensor, logits_NC: Tensor) -> None:
        self.inputs, self.logits_NC = inputs, logits_NC
        self.version = inputs._version

    def is_same(self, inputs: Tensor) -> bool:
        """Whether these are its inputs, perhaps in another layout or dtype, and unchanged."""
        ours = self.inputs
        if ours.shape != inputs.shape or ours._version != self.version:
            return False
        if ours.data_ptr() == inputs.data_ptr() and ours.stride() == inputs.stride():
            return ours.dtype == inputs.dtype
        return torch.equal(inputs, ours.to(inputs.dtype))


def _whole_of(dataset: SoftDataset) -> Trainable:
    """The dump or mixture that the rows are of. Raises UsageError for those of several, or of
    none."""
    whole = dataset.whole if isinstance(dataset, OneView) else dataset
    if isinstance(whole, Trainable):
        return whole
    mixes = isinstance(whole, SideBySide)
    remedy = "mix its teachers, with .mix('logit')" if mixes else "load one alone"
    raise UsageError(f"TimmLoader takes one dump, and this is {dataset!r}: {remedy}, or {OWN_LOOP}")


def _check_targets(whole: Trainable) -> None:
    """Raises UsageError unless timm's tasks can use them: all logits, and one label a row."""
    dump = whole.base
    plan, where = dump.reader.plan, dump.reader.folder
    if plan.task != "classification" or dump.reader.codec.positions != 1:
        raise UsageError(
            f"timm's distillation compares one softmax and one label a picture, and {where} has "
            f"others: {OWN_LOOP}"
        )
    if not whole.columns(np.zeros(1, np.int64), inputs=False)["targets"].is_dense:
        if isinstance(whole, Mixed):
            raise UsageError(
                f"timm's distillation takes the softmax of logits itself, and {whole.title} has "
                f"none: mix by 'logit', or {OWN_LOOP}"
            )
        raise UsageError(
            f"timm's distillation compares all logits, and the codec of {where}, {plan.codec}, "
            f"does not store them all: {OWN_LOOP}, which takes any codec"
        )
    labels = dump.reader.labels
    unknown = len(dump)
    if labels is not None and not isinstance(labels, LabelLists):
        unknown = int((labels < 0).sum())
    if unknown:
        raise UsageError(
            f"timm's distillation compares each row with a label, and {unknown:,} of {len(dump):,} "
            f"rows of {where} have none: {OWN_LOOP}, with alpha=1"
        )


def _pixel_statistics(
    dump: Dump, data_config: Mapping[str, Any]
) -> tuple[list[float], list[float]]:
    """Mean and std of each channel as the student expects them, in levels of the stored pixels.
    Raises UsageError for inputs that are not pictures of its size."""
    where, examples = dump.reader.folder, dump.examples
    if examples is None:
        raise UsageError(f"{where} was loaded without inputs; leave out inputs=False")
    pixels = examples.sample(1)
    if not isinstance(pixels, Tensor) or pixels.ndim != 4 or pixels.dtype != torch.uint8:
        raise UsageError(
            f"TimmLoader normalises pictures, uint8 [C, H, W], and the inputs of {where} are "
            f"others: {OWN_LOOP}"
        )
    size, ours = list(data_config["input_size"]), list(pixels.shape[1:])
    if size != ours:
        raise UsageError(
            f"data_config['input_size'] is {size}, and the pictures of {where} are {ours} as the "
            f"teacher saw them. Give the student's configuration that size, and make the student "
            f"for it: data_config | {{'input_size': {tuple(ours)}}}"
        )
    white = 255.0 if examples.source.kind == "image" else _white_of_arrays(dump)
    mean, std = (_of_channels(data_config[name], ours[0]) for name in ("mean", "std"))
    return [white * value for value in mean], [white * value for value in std]


def _white_of_arrays(dump: Dump) -> float:
    """What the preprocessing divides by. Raises UsageError where it doesn't say, or where pixels
    are larger: steps such as scale(127.5)|normalize(1, 1) mean another white."""
    remedy = (
        "load it with preprocess='scale(255)', or another number that is white, and give "
        "TimmLoader what that returns"
    )
    scales = [step for step in dump.preprocess.numbers if step.name == "scale"]
    if not scales:
        raise UsageError(
            f"nothing says which number is white in the pictures of {dump.reader.folder}: {remedy}"
        )
    assert dump.examples is not None, "its pictures were asked for"
    white, some = math.prod(step.args[0] for step in scales), dump.examples.sample(64)
    assert isinstance(some, Tensor), "they were checked"
    if (largest := int(some.max())) > white:
        raise UsageError(
            f"pixels of {dump.reader.folder} are up to {largest}, and "
            f"{'|'.join(map(str, scales))} says that {white:g} is white: {remedy}"
        )
    return white


def _of_channels(values: Sequence[float], channels: int) -> list[float]:
    """One a channel; as timm has it, their average where they are made for another number."""
    return list(values) if len(values) == channels else [sum(values) / len(values)] * channels


def _stored_teacher(loader: TimmLoader) -> nn.Module:
    """See `TimmLoader.teacher`. Its class is made here, since its base is timm's."""
    base: Any = need("timm.task", "timm", "TimmLoader.teacher").DistillationTeacher

    class StoredTeacher(base):
        """Has no weights, and nothing to be normalised or compiled for."""

        def __init__(self) -> None:
            nn.Module.__init__(self)

        @property
        def model(self) -> nn.Module:
            raise UsageError(
                "the teacher of TimmLoader is a store of logits, without a model and its features: "
                "use LogitDistillationTask or TokenDistillationTask"
            )

        def compile(self, **_: Any) -> nn.Module:
            return self

        def normalize_input(self, input: Tensor, *_: Tensor) -> Tensor:
            return input

        @torch.compiler.disable
        def forward(self, input: Tensor, return_features: bool = False) -> Tensor:
            if return_features:
                _ = self.model  # says that there is none
            return loader.answer(input)

    return StoredTeacher()
