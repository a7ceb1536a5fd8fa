"""What a dump says of itself: the dataset card, and the words of `softlabels info`."""

from typing import Any

import datasets
import yaml
from huggingface_hub import DatasetCardData

from softlabels.store.folder import Folder
from softlabels.store.json_objects import MAX_JSON_BYTES
from softlabels.store.manifest import CARD
from softlabels.store.records import Manifest, Plan


def render_card(manifest: Manifest, plan: Plan, features: datasets.Features) -> str:
    """README.md: YAML that `datasets` and the Hub read, and a page for people.

    The number of rows is in it, since `datasets` would load a folder without one of its shards
    in silence otherwise.
    """
    split = plan.source["split"]
    files = [{"split": split, "path": f"data/{split}-*.parquet"}]
    header = DatasetCardData(
        tags=["soft-labels", "knowledge-distillation"],
        configs=[{"config_name": "default", "data_files": files}],
    )
    splits = datasets.SplitDict()
    splits.add(datasets.SplitInfo(split, manifest.bytes, manifest.rows))
    info = datasets.DatasetInfo(
        features=features,
        splits=splits,
        download_size=manifest.bytes,
        dataset_size=manifest.bytes,
    )
    datasets.info.DatasetInfosDict(default=info).to_dataset_card_data(header)
    facts = "\n".join(f"| {name} | {value} |" for name, value in describe(manifest, plan).items())
    inputs = (
        "The inputs are in the column `input`."
        if plan.with_inputs
        else f"The inputs are not here: rows join with `{plan.source['data']}` by `id`, and "
        f"`input_hash` proves that they are the ones the teacher saw."
    )
    return f"""---
{header.to_yaml()}
---

# Soft targets of {plan.teacher["name"]} on {plan.source["data"]}

A teacher's raw logits, one row for each example. No temperature is in them: apply any when loading.

| | |
|---|---|
{facts}

{inputs}

```python
import softlabels

dataset = softlabels.load("PATH", T=4)   # dataset[0]["soft_target"] sums to 1
```

Without softlabels, `datasets.load_dataset("PATH")` gives the same rows, and the soft targets at
temperature T are `softmax(logits / T)`.
"""


def card_is_good(folder: Folder, manifest: Manifest, plan: Plan) -> bool:
    """Whether the card's header tells `datasets` of this dump's files and rows. What people wrote
    below it is theirs."""
    try:
        if folder.size(CARD) > MAX_JSON_BYTES:
            return False
        with folder.open(CARD) as file:
            _, header, _ = file.read().decode().split("---\n", 2)
        told = yaml.safe_load(header)
        splits = [(s["name"], s["num_examples"]) for s in told["dataset_info"]["splits"]]
        files = [f["path"] for config in told["configs"] for f in config["data_files"]]
    except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError, yaml.YAMLError):
        return False
    split = plan.source["split"]
    return splits == [(split, manifest.rows)] and files == [f"data/{split}-*.parquet"]


def describe(manifest: Manifest, plan: Plan) -> dict[str, Any]:
    """The facts of a dump, in the order in which a person asks for them."""
    statistics = manifest.statistics
    facts = {
        "rows": f"{manifest.rows:,}",
        "classes": plan.classes,
        "teacher": _teacher(plan),
        "teacher's file": plan.teacher["fingerprint"],
        "source": f"{plan.source['data']}, split {plan.source['split']}",
        "source's fingerprint": plan.source["fingerprint"],
        "views": ", ".join(plan.views),
        "preprocessing": plan.preprocess or "none",
        "logits": f"{plan.codec}, {plan.dtype}{', compact' * plan.compact}, teacher run in "
        f"{plan.precision}",
        "inputs stored": "yes" if plan.with_inputs else "no",
        "shards": f"{plan.shards}, {manifest.bytes / 1e6:,.1f} MB",
    }
    if statistics.get("labelled"):
        errors = statistics["labelled"] - statistics["correct"]
        facts["teacher's accuracy"] = f"{statistics['accuracy']:.4f} ({errors:,} errors)"
    if statistics.get("rows"):
        facts["mean entropy at T=1"] = f"{statistics['entropy']:.4f} nats"
        facts["range of logits"] = f"{statistics['min']:.3f} to {statistics['max']:.3f}"
    if manifest.skipped:
        facts["rows left out"] = f"{len(manifest.skipped)}, first id {manifest.skipped[0]['id']}"
    facts["made"] = f"{manifest.created}, softlabels {manifest.versions.get('softlabels', '?')}"
    return facts


def _teacher(plan: Plan) -> str:
    model = f", {plan.teacher['model']}" if plan.teacher["model"] else ""
    return f"{plan.teacher['name']} ({plan.teacher['kind']}{model})"
