"""The dataset card: what a dump says of itself to `datasets`, the Hub and people."""

import math
from typing import Any

import datasets
import yaml

from softlabels.inputs.views.mixing import PARTNER, PARTNER_LABEL
from softlabels.reports.facts import describe, readable
from softlabels.reports.markdown import folded, shown, table
from softlabels.reports.recipe import DATA, NAMES, TEACHER, as_block, spelling
from softlabels.store.folder import Folder
from softlabels.store.json_objects import MAX_JSON_BYTES
from softlabels.store.names import CARD
from softlabels.store.records import Manifest, Plan
from softlabels.system.front_matter import read_front_matter
from softlabels.system.humanize import short

BEGIN = (
    "<!-- softlabels: written by the program, up to the end mark; what is elsewhere is yours -->"
)
END = "<!-- softlabels: end -->"
HASHES = ("teacher's fingerprint", "source's fingerprint", "plan")  # facts that are folded away
FEW = 20  # class names that a page shows


def render_card(
    manifest: Manifest, plan: Plan, features: datasets.Features, task: str | None = None
) -> str:
    """README.md: YAML that `datasets` and the Hub read, and a page for people.

    task: the Hub's name for the inputs' task, such as `image-classification`.
    """
    header = card_header(manifest, plan, features, task)
    return f"---\n{card_yaml(header)}---\n\n{card_body(manifest, plan, 'PATH')}"


def card_header(
    manifest: Manifest, plan: Plan, features: datasets.Features, task: str | None = None
) -> dict[str, Any]:
    """The part that `datasets` and the Hub read.

    It has the number of rows: without that, `datasets` would load a folder that lacks a shard and
    not notice.
    """
    split = plan.source.split
    files = [{"split": split, "path": f"data/{split}-*.parquet"}]
    fields = {
        "size_categories": [size_category(manifest.rows)],
        "source_datasets": [plan.source.data] if plan.source.origin == "hub" else None,
        "task_categories": [task] if task else None,
        "tags": ["soft-labels", "knowledge-distillation"],
        "configs": [{"config_name": "default", "data_files": files}],
    }
    header = {name: value for name, value in fields.items() if value is not None}
    splits = datasets.SplitDict()
    splits.add(datasets.SplitInfo(split, manifest.bytes, manifest.rows))
    info = datasets.DatasetInfo(
        features=features,
        splits=splits,
        download_size=manifest.bytes,
        dataset_size=manifest.bytes,
    )
    datasets.info.DatasetInfosDict(default=info).to_dataset_card_data(header)
    return header


class _OneLine(dict):
    """A mapping that is written on one line of YAML."""


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(
    _OneLine,
    lambda dumper, value: dumper.represent_mapping("tag:yaml.org,2002:map", value, flow_style=True),
)


def card_yaml(header: dict[str, Any]) -> str:
    """A header as YAML. Class names are on one line: there may be a thousand."""

    def walked(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: _OneLine(inner)
                if key == "names" and isinstance(inner, dict)
                else walked(inner)
                for key, inner in value.items()
            }
        return [walked(inner) for inner in value] if isinstance(value, list) else value

    return yaml.dump(
        walked(header), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=math.inf
    )


def card_body(
    manifest: Manifest,
    plan: Plan,
    path: str,
    more: str = "",
    call: str | None = None,
    facts: dict[str, str] | None = None,
) -> str:
    """The part for people, between two marks.

    path: the name by which readers load the dump.
    more: Markdown to stand before "How it was made".
    call: the Python call that loads it with `datasets`.
    facts: rows to add to the table of facts.
    """
    call = call or f'datasets.load_dataset("{path}")'
    known = readable(describe(manifest, plan)) | {"plan": plan.hash} | (facts or {})
    rows = [(name, shown(value)) for name, value in known.items() if name not in HASHES]
    rows = [(name, _classes_cell(plan) if name == "classes" else cell) for name, cell in rows]
    hashes = [(name, f"`{known[name]}`") for name in HASHES]
    teacher, source = shown(plan.teacher.name), shown(plan.source.data)
    return f"""{BEGIN}

# Soft targets of {teacher} on {source}

A teacher's raw logits, one row for each {_row_noun(plan)}.
No temperature is in them: apply any when loading.

{table(("fact", "value"), rows)}

{folded("Fingerprints", table(("of", "SHA-256"), hashes))}

{_inputs_paragraph(plan)}
{more}
## How it was made

{_origin_paragraph(manifest, plan)}

## Use

Train a student, with no teacher in memory (softlabels is on no package index yet: `pip install .`
in a checkout of it):

    softlabels train {path} --T 8

```python
import softlabels

dataset = softlabels.load("{path}", T=4)
dataset[0]["soft_target"]   # {_sums(plan)}
```

Without softlabels, `{call}` gives the same rows, and the soft targets at
temperature T are `{plan.link}(logits / T)`{_labels_sentence(plan)}.

{END}
"""


def _classes_cell(plan: Plan) -> str:
    """The number of classes and the first names; the header has all names."""
    names = [shown(short(name)) or '`""`' for name in plan.source.class_names or []]
    some = ", ".join(names if len(names) <= FEW else [*names[: FEW // 2], "…"])
    return f"{plan.classes:,}" + (f": {some}" if some else "")


def _sums(plan: Plan) -> str:
    one = "sums to 1" if plan.link == "softmax" else "each from 0 to 1"
    return f"float32 [{plan.classes}], {one}"


def _labels_sentence(plan: Plan) -> str:
    return "" if plan.link == "softmax" else ": the probability of each label, on its own"


def _row_noun(plan: Plan) -> str:
    return "example" if not plan.has_views else "view of each example"


def _inputs_paragraph(plan: Plan) -> str:
    if plan.with_inputs and plan.has_views:
        return (
            f"The inputs are in the column `input`, each once: in the row of its view "
            f"{plan.views[0]}, and empty in those of its other views. {_parameters_sentence(plan)}"
            f"{_resized_sentence(plan)}"
        )
    if plan.with_inputs:
        return f"The inputs are in the column `input`.{_resized_sentence(plan)}"
    source = shown(plan.source.data)
    where = f"Where your copy of {source} has another name, say `source=`, or `--source`."
    if plan.source.origin == "local":
        where = (
            f"It is {source}, a file or folder of who made this: whoever has the same rows says "
            f"where, with `source=`, or `--source`."
        )
    if plan.source.origin == "live":
        where = (
            f"It is {source}, a data set in the memory of who made this: whoever has the same rows "
            f"gives them, with `source=`, or `--source`."
        )
    return (
        f"The inputs are not here: rows join with their source by `id`, and `input_hash` proves "
        f"that they are the ones {_seen_by(plan)}. {where}"
        + (f" {_parameters_sentence(plan)}" if plan.has_views else "")
    )


def _resized_sentence(plan: Plan) -> str:
    if plan.stored is None:
        return ""
    size = "×".join(map(str, plan.stored.sizes))
    side = "resized to" if len(plan.stored.sizes) == 2 else "upright, their shorter side"
    return (
        f" They are the source's pictures, {side} {size}, as {plan.stored.file.upper()}: what is "
        f"decoded of them is what the teacher saw, and `stored_hash` proves them. `input_hash` is "
        f"that of the source's, with which rows join by `id`."
    )


def _seen_by(plan: Plan) -> str:
    if plan.is_imported:
        return "that the imported logits were matched with"
    return "the teacher saw"


def _parameters_sentence(plan: Plan) -> str:
    columns = ", ".join(f"`{name}`" for name in plan.parameters)
    text = f"How the teacher saw a row's input is in {columns}; sizes and places are in pixels."
    if plan.mixing is None:
        return text
    label = f", and `{PARTNER_LABEL}` its label" * plan.labelled
    return (
        f"{text} It is mixed with the input of the id in `{PARTNER}`, which is shown by its own "
        f"row of the same view{label}: the label of a mixed row alone is no right answer."
    )


def _origin_paragraph(manifest: Manifest, plan: Plan) -> str:
    """The command that made the dump, as far as the plan says."""
    versions = ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    if plan.is_imported:
        how = shown(plan.teacher.model or "logits of another program")
        return f"`softlabels import`, from a file of logits ({how}), with {versions}."
    named = spelling(plan)
    what = shown(named) if named else f"`{TEACHER}`"
    needs = f"{what} is the teacher, of the fingerprint above"
    if plan.source.class_names_from == "file":
        needs += f", `{NAMES}` a file with the names of the classes, one a line"
    if plan.source.origin == "local":
        needs += f", and it runs where {shown(plan.source.data)} lies"
    if plan.source.origin == "live":
        needs += f", and `{DATA}` {shown(plan.source.data)}, a data set in memory"
    command = as_block(plan, bool(manifest.skipped))
    return f"{command}\n\nwith {versions}. {needs}."


def size_category(rows: int) -> str:
    """The Hub's size category for this many rows."""
    steps = [(10**power, word) for power, word in zip(range(3, 12), SIZES, strict=False)]
    return next((word for limit, word in steps if rows < limit), SIZES[-1])


SIZES = ["n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B",
         "1B<n<10B", "10B<n<100B", "100B<n<1T"]  # fmt: skip


def card_is_good(folder: Folder, manifest: Manifest, plan: Plan) -> bool:
    """Whether the card's header lists this dump's files and rows, and no others. The card of a
    folder that came from the top of a repository may list dumps in its folders too. Text below the
    header is not checked."""
    try:
        if folder.size(CARD) > MAX_JSON_BYTES:
            return False
        with folder.open(CARD) as file:
            header = read_front_matter(file.read().decode())
        infos = header["dataset_info"]  # of one configuration; of several, ours is the default one
        if isinstance(infos, list):
            (infos,) = (info for info in infos if info["config_name"] == "default")
        splits = [(s["name"], s["num_examples"]) for s in infos["splits"]]
        files = [f["path"] for config in header["configs"] for f in config["data_files"]]
    except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError, yaml.YAMLError):
        return False
    split = plan.source.split
    own, path = (split, manifest.rows), f"data/{split}-*.parquet"
    if folder.origin.shared:
        return own in splits and [file for file in files if file.startswith("data/")] == [path]
    return splits == [own] and files == [path]
