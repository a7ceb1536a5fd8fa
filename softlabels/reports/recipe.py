"""The command that makes a dump again, from its plan: every option that its rows depend on. Where
teacher or data were objects in memory, it is a call in Python."""

import shlex
from typing import Any

from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.views.augment import CLEAN
from softlabels.models.objects import OBJECTS
from softlabels.store.records import Plan

TEACHER = "TEACHER"  # stands for its file: records hold no paths
DATA = "DATA"  # stands for a data set in memory
FUNCTION = "FUNCTION"  # stands for a preprocessing that is one
NAMES = "NAMES"  # stands for a file of the class names that the plan holds
NAMED = {"factory", "timm", "torchvision"}  # kinds of teachers that their model's name gives again


def recipe(plan: Plan, skipped: bool = False, data: str | None = None) -> list[str]:
    """`softlabels dump` and its options, one with its value in an entry, each quoted for a shell.

    With the teacher's file in place of TEACHER, if there is one, and a list of the plan's class
    names in place of NAMES, it gives the same plan.

    skipped: whether rows were left out.
    data: where the source is, if its name does not say.
    """
    pairs, flags = _options(plan, skipped, data)
    return [
        "softlabels dump",
        *(f"--{name} {shlex.quote(str(each))}" for name, value in pairs.items()
          if value is not None for each in (value if isinstance(value, list) else [value])),
        *(f"--{name}" for name, is_set in flags.items() if is_set),
    ]  # fmt: skip


def call_of(plan: Plan, skipped: bool = False, data: str | None = None, **more: Any) -> list[str]:
    """The same in Python, an argument in an entry, where the teacher or the data were objects.

    more: further arguments, such as out.
    """
    pairs, flags = _options(plan, skipped, data)
    given = {name.replace("-", "_"): value for name, value in pairs.items() if value is not None}
    given |= {name.replace("-", "_"): True for name, is_set in flags.items() if is_set}
    for name in ("clean", "labels"):
        if given.pop(f"no_{name}", False):
            given[name] = False
    shown = {name: repr(value) for name, value in (given | more).items()}
    if spelling(plan) is None:
        shown["teacher"] = TEACHER
    if plan.source.class_names_from == "file":
        shown["class_names"] = NAMES
    if plan.source.origin == "live":
        shown["data"] = DATA
    if Preprocess.parse(plan.preprocess).is_opaque:
        shown["preprocess"] = FUNCTION
    return [f"{name}={value}" for name, value in shown.items()]


def is_live(plan: Plan) -> bool:
    """Whether the teacher, the data or the preprocessing were objects in memory."""
    opaque = Preprocess.parse(plan.preprocess).is_opaque
    return plan.source.origin == "live" or plan.teacher.kind in OBJECTS or opaque


def again(plan: Plan, skipped: bool, data: str | None, out: str) -> str:
    """In one line what redoes the damaged shards of the dump in `out`."""
    if is_live(plan):
        return f"softlabels.dump({', '.join(call_of(plan, skipped, data, out=out, resume=True))})"
    return " ".join([*recipe(plan, skipped, data), f"--out {shlex.quote(out)} --resume"])


def _options(plan: Plan, skipped: bool, data: str | None) -> tuple[dict[str, Any], dict[str, bool]]:
    teacher, source, columns = plan.teacher, plan.source, plan.source.columns
    kind, model, apart = teacher.kind, teacher.model, source.kind == "columns"
    built = model and (kind == "state_dict" or ":" in model.partition("(")[0])
    by_name, steps = spelling(plan), Preprocess.parse(plan.preprocess)
    pairs = {
        "teacher": by_name or TEACHER,
        "name": teacher.name,
        "model": model if built and not by_name else None,
        "key": teacher.key,
        "logits": teacher.logits,
        "outputs": teacher.outputs,
        "version": teacher.version,
        "data": data or source.data,
        "split": source.split,
        "revision": source.revision,
        "input-column": list(columns.inputs) if apart else ",".join(columns.inputs),
        "label-column": columns.label or columns.label_source,
        "id-column": columns.id,
        "class-names": NAMES if source.class_names_from == "file" else None,
        "preprocess": None if steps.is_tokenizer else plan.preprocess,
        "tokenizer": steps.other_tokenizer,
        "max-length": steps.cut_at,
        "precision": plan.precision,
        "memory-format": plan.memory_format or _contiguous(plan),
        "task": plan.task if plan.task != "classification" else None,
        "codec": None if plan.codec == "dense" else plan.codec,
        "dtype": plan.dtype,
        "views": max(plan.views) if plan.has_views else None,
        "augment": plan.augment,
        "data-seed": plan.data_seed,
        "shard-rows": plan.shard_inputs,
        "store-inputs": plan.store_inputs if plan.with_inputs else None,
        "on-error": "skip" if skipped else None,
        "batch-size": plan.batch_size,  # only where a row's logits depend on it
    }
    flags = {
        "no-labels": plan.label_column is None,
        "own-labels": columns.label_source is not None,
        "no-clean": plan.has_views and CLEAN not in plan.views,
        "trust-pickle": kind == "pickle",
        "compile": plan.compile,
        "allow-batch-dependence": plan.batch_size is not None,
    }
    if source.origin == "embedded":
        pairs |= {"input-column": None, "label-column": None, "id-column": None}
    return pairs, flags


def _contiguous(plan: Plan) -> str | None:
    """Where pictures did not have their channels last, though a GPU might choose that today."""
    chosen = plan.precision != "float32" and plan.source.kind is None and not plan.is_imported
    return "contiguous" if chosen else None


def what_is_teacher(plan: Plan) -> str:
    """What TEACHER stands for, in a sentence about the command; '' where it is not in there."""
    if spelling(plan):
        return ""
    kind = plan.teacher.kind
    return f", where {TEACHER} is the teacher's {'file' if kind not in OBJECTS else kind}"


def spelling(plan: Plan) -> str | None:
    """The name that gives the teacher, for --teacher; None for one of files, or of an import."""
    kind, model = plan.teacher.kind, plan.teacher.model
    from_hub = kind == "transformers" and model is not None and model.startswith("hf:")
    return model if kind in NAMED or from_hub else None


def as_block(plan: Plan, skipped: bool) -> str:
    """As an indented block of Markdown."""
    if is_live(plan):
        return "    softlabels.dump(\n        " + ",\n        ".join(call_of(plan, skipped)) + ")"
    return "    " + " \\\n        ".join(recipe(plan, skipped))
