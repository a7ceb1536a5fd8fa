"""The command that makes a dump again, from its plan: every option that its rows depend on."""

import shlex

from softlabels.store.fields import CLEAN
from softlabels.store.records import Plan

TEACHER = "TEACHER"  # stands for its file: records hold no paths
NAMED = {"factory"}  # kinds of teachers that their model's name gives again


def recipe(plan: Plan, skipped: bool = False, data: str | None = None) -> list[str]:
    """`softlabels dump` and its options, one with its value in an entry, each quoted for a shell.

    With the teacher's file in place of TEACHER, if there is one, it gives the same plan.

    skipped: whether rows were left out.
    data: where the source is, if its name does not say.
    """
    teacher, source, columns = plan.teacher, plan.source, plan.source.columns
    kind, model = teacher.kind, teacher.model
    built = model and (kind == "state_dict" or ":" in model.partition("(")[0])
    by_name = spelling(plan)
    pairs = {
        "teacher": by_name or TEACHER,
        "name": teacher.name,
        "model": model if built and not by_name else None,
        "key": teacher.key,
        "data": data or source.data,
        "split": source.split,
        "revision": source.revision,
        "input-column": ",".join(columns.inputs),
        "label-column": columns.label,
        "id-column": columns.id,
        "preprocess": plan.preprocess,
        "precision": plan.precision,
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
        "no-clean": plan.has_views and CLEAN not in plan.views,
        "trust-pickle": kind == "pickle",
        "allow-batch-dependence": plan.batch_size is not None,
    }
    if source.origin == "embedded":
        pairs |= {"input-column": None, "label-column": None, "id-column": None}
    return [
        "softlabels dump",
        *(f"--{name} {shlex.quote(str(value))}" for name, value in pairs.items()
          if value is not None),
        *(f"--{name}" for name, is_set in flags.items() if is_set),
    ]  # fmt: skip


def spelling(plan: Plan) -> str | None:
    """The name that gives the teacher, for --teacher; None for one of files, or of an import."""
    return plan.teacher.model if plan.teacher.kind in NAMED else None


def as_block(command: list[str]) -> str:
    """As an indented block of Markdown."""
    return "    " + " \\\n        ".join(command)
