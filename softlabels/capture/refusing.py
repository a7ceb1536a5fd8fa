"""What the format can't hold, refused before anything is written, also a claim on the folder."""

import json
from collections import Counter

from pydantic import ValidationError

from softlabels.capture.planning import Setup, draft
from softlabels.errors import SourceError, UsageError
from softlabels.store.json_objects import MAX_JSON_BYTES, problem_of
from softlabels.store.records import Plan
from softlabels.system.humanize import size_words

SHARD_BYTES = 300  # of a shard's entry in the manifest, at most


def refuse_unstorable(setup: Setup) -> None:
    """Raises SourceError or UsageError for a plan that no reader would take."""
    _refuse_twins(setup.names.names or [])
    try:
        plan = draft(setup)
    except ValidationError as error:
        problem = problem_of(error, Plan)
        if problem.startswith("source.split"):
            raise SourceError(_bad_split(setup.source.split)) from error
        raise UsageError(f"no dump can hold this: {problem}") from error
    _refuse_clashes(plan)
    size = len(json.dumps(plan.as_json)) + SHARD_BYTES * plan.shards
    if size > MAX_JSON_BYTES:
        raise UsageError(
            f"the records of this dump would take {size_words(size)}, and readers take up to "
            f"{size_words(MAX_JSON_BYTES)}: use larger --shard-rows, or shorter class names"
        )


def _refuse_clashes(plan: Plan) -> None:
    """Raises SourceError where an input is stored under the name of a column of the codec."""
    ours = set(plan.make_codec().names) & set(plan.input_columns if plan.with_inputs else [])
    for name in sorted(ours):
        raise SourceError(
            f"--input-column: rows stored by {plan.codec} have a column {name!r} of their own, and "
            f"--store-inputs would write the input beside it: rename it in the data, or choose "
            f"another --codec"
        )


def _refuse_twins(names: list[str]) -> None:
    name, count = max(Counter(names).items(), key=lambda item: item[1], default=("", 1))
    if count > 1:
        raise UsageError(
            f"the class {name[:100]!r} comes twice among the {len(names):,} class names; each "
            f"class needs a name of its own, in the data or in a file for --class-names"
        )


def _bad_split(split: str) -> str:
    problem = (
        f"the split {split[:120]!r} can't be stored: its name stands in the names of files, and "
        f"has letters, digits and _, with single . or - between, at most 100 characters"
    )
    if any(sign in split for sign in "[+"):
        return (
            f"{problem}. Save the rows that you mean first, with datasets.load_dataset(…, split=…)"
            f".to_parquet('part.parquet'), and name that file with --data"
        )
    return f"{problem}. Rename it in the data"
