"""A finished dump held against its source and its teacher. N rows, C classes."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from softlabels.errors import TeacherError, UsageError
from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.text_inputs import numbers_alone
from softlabels.inputs.token_inputs import TokenInputs
from softlabels.inputs.whereabouts import find_tokenizer
from softlabels.logits import DenseLogits, Logits
from softlabels.measures import agrees
from softlabels.models.objects import CALLABLE, OBJECTS
from softlabels.models.specs import is_factory
from softlabels.soft_targets import kl_of_change
from softlabels.store.inputs import open_inputs
from softlabels.store.reader import DumpReader
from softlabels.store.records import Plan
from softlabels.system.devices import CUDA_ALONE
from softlabels.system.progress import Progress
from softlabels.targets.joining import check_shows_views, find_inputs
from softlabels.teachers import Teacher, resolve
from softlabels.teachers.padding import choose_side
from softlabels.teachers.probing import MOST_REPLAYED, REPLAYED, difference, steady_limit
from softlabels.teachers.reading_columns import fit_to_columns
from softlabels.teachers.resolving import TeacherChoice

SIDE_ROWS = 256  # that padding is tried on


@dataclass(frozen=True)
class Replay:
    """Stored logits of some rows against those that the teacher gives now (live).

    drift: the largest |stored − live|.
    rounding: the largest error that storing explains.
    control: the largest |live − live|, with rows in other batches.
    allowed: the drift that is accepted beyond the rounding.
    wrong: the ids of rows that are farther away.
    steady: whether the teacher agrees with itself, by the limit of the probe of `dump`.
    kl: the mean KL(live ‖ stored) at T = 1, in nats.
    agreement: the share of positions with the same top class.
    """

    rows: int
    drift: float
    rounding: float
    control: float
    allowed: float
    wrong: list[Any]
    steady: bool
    kl: float
    agreement: float


@dataclass(frozen=True)
class Rerun:
    """How many rows are run through the teacher again, which ones, and how: options of these
    names."""

    replay: int
    seed: int
    batch_size: int
    device: str
    preprocess: Any


def replay(
    reader: DumpReader, chosen: TeacherChoice, rerun: Rerun, data: Any, progress: Progress
) -> Replay:
    """Run random rows through the teacher again. data: the source, if not where the dump says.

    Raises TeacherError for another teacher than the dump's.
    """
    plan = reader.plan
    source = open_inputs(reader, data, progress)
    preprocess = Preprocess.parse(plan.preprocess)
    if rerun.preprocess is not None:
        given = Preprocess.of(rerun.preprocess)
        if str(given) != plan.preprocess:
            raise UsageError(f"preprocess is {given}; the dump's is {plan.preprocess}")
        preprocess = given
    preprocess.check_here(str(reader.folder))
    check_shows_views(plan, preprocess, preprocess, str(reader.folder))
    if plan.stored is not None and data is None:
        preprocess = plan.stored.of_stored(preprocess)
    inputs = find_inputs(reader, source, preprocess, reader.hashes_of(data))
    tokens = preprocess.is_tokenizer or isinstance(inputs, TokenInputs)
    examples: Any = inputs if tokens else numbers_alone(inputs, "--replay")
    if plan.teacher.kind in OBJECTS and isinstance(chosen.teacher, str):
        raise TeacherError(
            f"the teacher of this dump, {plan.teacher.name}, was a {plan.teacher.kind} in memory, "
            f"and {chosen.teacher} is not it: replay it in Python, with softlabels.verify(dump=…, "
            f"replay=100, teacher=…{', version=…' * (plan.teacher.kind == CALLABLE)})"
        )
    teacher = resolve(
        chosen.teacher,
        model=_model_of(chosen, plan),
        input_shape=lambda: examples.input_shape,
        trust_pickle=chosen.trust_pickle,
        weights=chosen.weights,
        key=chosen.key or plan.teacher.key,
        logits=chosen.logits or plan.teacher.logits,
        name=plan.teacher.name,
        version=chosen.version,
    )
    device = teacher.device_for(rerun.device)
    precision = _precision_here(plan.precision, device, progress)
    teacher.to(device)
    teacher.lay_out(plan.memory_format == "channels_last")
    for remark in teacher.remarks:
        progress.say(remark)
    if teacher.fingerprint != plan.teacher.fingerprint:
        raise TeacherError(
            f"{_title(chosen, teacher)} is not this dump's teacher: its fingerprint is "
            f"{teacher.fingerprint}, that of the dump's {plan.teacher.fingerprint}"
        )
    own_side = "right"
    if preprocess.is_tokenizer:
        examples = _tokenized(examples, teacher, preprocess)
        own_side = examples.preprocess.tokenization[0].side
    elif source.is_by_name and not preprocess.is_opaque:
        fit_to_columns(teacher, source, preprocess)
    teacher.classes, teacher.binary = plan.classes, plan.teacher.outputs == "binary"
    teacher.link = plan.link
    count = min(rerun.replay, len(reader))
    rows = np.sort(np.random.default_rng(rerun.seed).choice(len(reader), count, replace=False))
    if tokens:
        some = examples.gather(rows[:SIDE_ROWS]).to(device)
        choose_side(teacher, some, own_side, precision, source.is_even)
    with progress.bar("replay", 2 * count, "rows") as advance:

        def live(order: np.ndarray, batch_size: int) -> Tensor:
            parts = []
            for start in range(0, count, batch_size):
                part = rows[order[start : start + batch_size]]
                parts.append(_forward(teacher, examples, part, device, precision))
                advance(len(part))
            return torch.cat(parts)[torch.from_numpy(np.argsort(order))]

        forwards = np.arange(count)
        live_NC = live(forwards, rerun.batch_size)
        other_NC = live(forwards[::-1].copy(), rerun.batch_size // 2 + 1)
    stored, which = reader.logits_of(rows)
    twice = difference("in other batches", live_NC, other_NC, plan.link)
    of_each = torch.from_numpy(which)
    compared = _compare(
        stored, live_NC[of_each], other_NC[of_each], reader.ids[rows][which],
        REPLAYED[plan.precision],
    )  # fmt: skip
    return replace(compared, rows=count, steady=twice.size <= steady_limit(teacher, plan.precision))


def _tokenized(inputs: Any, teacher: Teacher, plan: Preprocess) -> TokenInputs:
    """The texts as the dump's teacher read them. Raises TeacherError where its tokenizer is neither
    the teacher's own nor where it was last seen on this machine."""
    name, known, *_ = plan.picture[0].args
    tokenizer = None if teacher.own_tokenizer is None else teacher.own_tokenizer()
    if tokenizer is None or tokenizer.hash != known:
        theirs = "none" if tokenizer is None else tokenizer.hash
        tokenizer = find_tokenizer(known, [name] if "/" in name else [])
    if tokenizer is None:
        raise TeacherError(
            f"the tokenizer of {teacher.title} is {theirs}, and the dump was made with {name}, "
            f"{known}, which is not where it was, or was never, on this machine: put that one into "
            f"the teacher's folder to replay it"
        )
    teacher.pad = tokenizer.pad_of(teacher.module, teacher.title)
    own = replace(plan, tokenizer=tokenizer)
    return TokenInputs(inputs.source, own, inputs.positions, inputs.hashes)


def _model_of(chosen: TeacherChoice, plan: Plan) -> str | None:
    """The model of a bare state dict: the one that was named, else the one that the plan names.

    A plan may be a stranger's, so code that it names is run only where the user names it too.
    Raises UsageError otherwise.
    """
    model = plan.teacher.model
    if chosen.model or chosen.weights or plan.teacher.kind != "state_dict" or model is None:
        return chosen.model
    if is_factory(model):
        raise UsageError(
            f"this dump's teacher is built by {model}, which would be imported and run; if you "
            f"trust it, say so with --model {model}"
        )
    return model


def _title(chosen: TeacherChoice, teacher: Teacher) -> str:
    return chosen.teacher if isinstance(chosen.teacher, str) else teacher.title


def _precision_here(precision: str, device: torch.device, progress: Progress) -> str:
    """The dump's precision, or float32 where this device lacks it."""
    if precision not in CUDA_ALONE or device.type == "cuda":
        return precision
    progress.say(f"{device} has no {precision}: the teacher is replayed in float32")
    return "float32"


def _forward(
    teacher: Teacher, examples: Any, rows: np.ndarray, device: torch.device, precision: str
) -> Tensor:
    inputs = examples.finish(examples.gather_uncached(rows).to(device))
    return teacher.logits(inputs, precision).double().cpu()


def _compare(
    stored: Logits, live_MC: Tensor, other_MC: Tensor, ids: np.ndarray, tolerance: float
) -> Replay:
    """Of M positions. Where not all raw logits are stored, only KL and agreement are known."""
    control = float((live_MC - other_MC).abs().max())
    spread = float(live_MC.std(-1).mean()) if live_MC.shape[1] > 1 else float(live_MC.abs().mean())
    allowed = max(tolerance * spread, min(10 * control, MOST_REPLAYED * spread))
    targets, link = stored.temper(1), stored.link
    changed_MC = targets.log_probs()
    drift_MC = rounding_MC = torch.zeros_like(live_MC)
    if stored.is_dense:
        changed_MC, rounding_MC = stored.dense().double(), stored.rounding()
        drift_MC = (changed_MC - live_MC).abs()
    wrong_M = ((drift_MC - rounding_MC) > allowed).any(-1)
    return Replay(
        rows=len(ids),
        drift=float(drift_MC.max()),
        rounding=float(rounding_MC[rounding_MC.isfinite()].max()),
        control=control,
        allowed=allowed,
        wrong=np.unique(ids[wrong_M.numpy()]).tolist(),
        steady=True,
        kl=float(kl_of_change(live_MC, changed_MC.double(), 1, link).mean().clamp_min(0)),
        agreement=float(agrees(targets, DenseLogits(live_MC, link=link).temper(1)).mean()),
    )
