"""The facts of a dump, from its records: as values, and as people read them."""

from collections.abc import Callable, Mapping
from typing import Any

from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.views.augment import CLEAN
from softlabels.store.pilots import Pilot
from softlabels.store.records import Manifest, Plan
from softlabels.system.humanize import few, size_words


def describe(manifest: Manifest, plan: Plan) -> dict[str, Any]:
    """The facts of a dump, the most asked for first: numbers as numbers, size in bytes, entropy in
    nats. `readable` gives them as text."""
    statistics, revision = manifest.statistics, plan.source.revision
    revision = f", revision {revision}" if revision else ""
    facts: dict[str, Any] = {
        "rows": manifest.rows,
        **({"inputs": manifest.inputs} if plan.has_views else {}),
        "classes": plan.classes,
        **_labels(plan),
        **({"task": plan.task} if plan.task != "classification" else {}),
        "teacher": _teacher(plan),
        "teacher's fingerprint": plan.teacher.fingerprint,
        "source": f"{plan.source.data}, split {plan.source.split}{revision}",
        "source's fingerprint": plan.source.fingerprint,
        **_inputs(plan),
        "views": _views(plan),
        "preprocessing": plan.preprocess or "none",
        "logits": f"{_stored(plan)}, {_made(plan)}",
        **_codec_error(manifest, plan),
        "inputs stored": plan.store_inputs,
        **batch_dependence(plan),
        "shards": plan.shards,
        "size": manifest.bytes,
    }
    if statistics and statistics.positives is not None and statistics.labelled:
        facts["labels of a row"] = statistics.positives / statistics.labelled
        facts["teacher's top label is one"] = statistics.accuracy
    elif statistics and statistics.accuracy is not None:
        facts["teacher's accuracy"] = statistics.accuracy
        facts["teacher's errors"] = statistics.labelled - statistics.correct
    if statistics:
        facts["mean entropy at T=1"] = statistics.entropy
    if statistics and statistics.min is not None:
        facts["range of logits"] = [statistics.min, statistics.max]
    if statistics and statistics.unturned:
        facts["pictures not turned"] = statistics.unturned
    if statistics and statistics.unmixed:
        facts["rows without a partner"] = statistics.unmixed
    if statistics and statistics.truncated:
        facts["texts cut"] = statistics.truncated
    if statistics and statistics.tokens:
        facts["padding"] = statistics.padded
    if manifest.skipped:
        what = "inputs" if plan.has_views else "rows"
        facts[f"{what} left out"] = len(manifest.skipped)
    facts["made"] = f"{manifest.created}, softlabels {manifest.versions.get('softlabels', '?')}"
    return facts


FORMATS: dict[str, Callable[[Any], str]] = {
    "codec's error": lambda value: f"KL(teacher, stored) {Pilot.model_validate(value)}",
    "codec's error, all rows": lambda value: (
        f"{value[0]:.1e} at T=1, at most {value[1]:.1e} in a shard"
    ),
    "size": size_words,
    "teacher's accuracy": lambda value: f"{value:.4f}",
    "mean average precision": lambda value: "unknown" if value is None else f"{value:.4f}",
    "labels of a row": lambda value: f"{value:.3g} on average",
    "teacher's top label is one": lambda value: f"in {value:.4f} of the rows with known labels",
    "mean entropy at T=1": lambda value: f"{value:.4f} nats",
    "range of logits": lambda value: f"{value[0]:.3f} to {value[1]:.3f}",
    "pictures not turned": lambda value: f"{value:,} with an EXIF orientation",
}


def readable(facts: Mapping[str, Any]) -> dict[str, str]:
    """Facts as people read them."""

    def text(name: str, value: Any) -> str:
        if name in FORMATS:
            return FORMATS[name](value)
        return f"{value:,}" if isinstance(value, int) else str(value)

    return {name: text(name, value) for name, value in facts.items()}


def _labels(plan: Plan) -> dict[str, str]:
    """A fact about labels of other classes than the teacher's."""
    if plan.label_column != "label_source":
        return {}
    names = plan.label_names or []
    of = f"the data's own {len(names):,} classes, {few(names)}" if names else "other classes"
    return {"labels": f"of {of}, in label_source; nothing is scored by them"}


def _codec_error(manifest: Manifest, plan: Plan) -> dict[str, Any]:
    """How far soft targets of the stored logits are from the teacher's: KL as the pilot measured
    it; over all rows, the mean KL at T = 1 in nats and the largest mean of a shard."""
    if plan.pilot is None:
        return {}
    facts: dict[str, Any] = {"codec's error": plan.pilot.as_json}
    statistics = manifest.statistics
    if statistics and statistics.kl is not None:
        facts["codec's error, all rows"] = [statistics.kl, statistics.kl_most]
    return facts


def _inputs(plan: Plan) -> dict[str, str]:
    """A fact about inputs that are texts, or columns that the teacher takes by name."""
    names = plan.source.columns.inputs
    if plan.source.kind == "tokens":
        return {"tokens": f"in {', '.join(names)}"}
    if plan.source.kind == "columns":
        return {"columns": ", ".join(names)}
    if plan.source.kind != "text":
        return {}
    texts = f"{'pairs' if len(names) > 1 else 'one a row'}, in {', '.join(names)}"
    return {"texts": texts} | _tokenizer(plan)


def _tokenizer(plan: Plan) -> dict[str, str]:
    """A fact about how the teacher's tokens were made of texts, if it read tokens."""
    steps = Preprocess.parse(plan.preprocess)
    if not steps.is_tokenizer:
        return {}
    name = steps.other_tokenizer or f"that of {plan.teacher.name}"
    most = "" if steps.most_tokens is None else f", at most {steps.most_tokens:,} tokens"
    cut = ", longer texts are cut" if steps.cut_at is not None else ""
    return {"tokenizer": f"{name}, {steps.picture[0].args[1]}{most}{cut}"}


def _views(plan: Plan) -> str:
    """Which views of each input there are."""
    if not plan.has_views:
        return "clean"
    clean, drawn = plan.views[0] == CLEAN, [view for view in plan.views if view != CLEAN]
    return f"{'clean and ' * clean}{len(drawn):,} of {plan.augment}, data seed {plan.data_seed}"


def _stored(plan: Plan) -> str:
    return plan.dtype if plan.codec == "dense" else f"codec {plan.codec} with {plan.dtype}"


def _made(plan: Plan) -> str:
    if plan.is_imported:
        return "imported"
    how = [plan.precision]
    how += [plan.memory_format] if plan.memory_format else []
    how += ["compiled"] if plan.compile else []
    return f"teacher run in {', '.join(how)}"


def _teacher(plan: Plan) -> str:
    teacher = plan.teacher
    parts = [teacher.kind]
    parts += [teacher.model] if teacher.model else []
    parts += [f"tensor {teacher.logits}"] if teacher.logits else []
    parts += ["one logit z as (0, z)"] if teacher.outputs == "binary" else []
    return f"{teacher.name} ({', '.join(parts)})"


def batch_dependence(plan: Plan) -> dict[str, str]:
    """A fact about a teacher whose answers depend on the whole batch."""
    if plan.batch_size is None:
        return {}
    return {"batches": f"of {plan.batch_size:,} rows; a row's logits may depend on those beside it"}
