"""What the format can't hold, refused before anything is written, also a claim on the folder."""

import json
from collections import Counter
from dataclasses import asdict, replace

from softlabels.capture.planning import Setup, draft
from softlabels.errors import DamagedDump, SourceError, UsageError
from softlabels.store.checking import make_record
from softlabels.store.json_objects import MAX_JSON_BYTES
from softlabels.store.records import Plan
from softlabels.system.humanize import size_words

SHARD_BYTES = 256  # of a shard's entry in the manifest, at most


def refuse_unstorable(setup: Setup) -> None:
    """Raises SourceError or UsageError for a plan that no reader would take."""
    plan = draft(setup)
    blank = {"fingerprint": f"sha256:{0:064}", "shards": [f"{0:016}"] * plan.shards}
    plan = replace(plan, source=plan.source | blank)
    _refuse_twins(plan.source["class_names"] or [])
    try:
        make_record(Plan, asdict(plan), "")
    except DamagedDump as error:
        problem = str(error).removeprefix(": ")
        if problem.startswith("source.split"):
            raise SourceError(_split_words(plan.source["split"])) from error
        raise UsageError(f"no dump can hold this: {problem}") from error
    size = len(json.dumps(asdict(plan))) + SHARD_BYTES * plan.shards
    if size > MAX_JSON_BYTES:
        raise UsageError(
            f"the records of this dump would take {size_words(size)}, and readers take up to "
            f"{size_words(MAX_JSON_BYTES)}: use larger --shard-rows, or shorter class names"
        )


def _refuse_twins(names: list[str]) -> None:
    name, count = max(Counter(names).items(), key=lambda item: item[1], default=("", 1))
    if count > 1:
        raise UsageError(
            f"the class {name[:100]!r} comes twice among the {len(names):,} class names; each "
            f"class needs a name of its own"
        )


def _split_words(split: str) -> str:
    words = (
        f"the split {split[:120]!r} can't be stored: its name stands in the names of files, and "
        f"has letters, digits and _, with single . or - between, at most 100 characters"
    )
    if any(sign in split for sign in "[+"):
        return (
            f"{words}. Save the rows that you mean first, with datasets.load_dataset(…, split=…)"
            f".to_parquet('part.parquet'), and name that file with --data"
        )
    return f"{words}. Rename it in the data"
