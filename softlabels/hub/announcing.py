"""What `push` reports before it sends: what will be public, and what others will lack."""

import re
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError

from softlabels.errors import UsageError
from softlabels.hub.header import header_fields
from softlabels.places.hub_address import HubAddress, translated
from softlabels.store.folder import Folder
from softlabels.store.names import CARD
from softlabels.store.reader import DumpReader
from softlabels.store.records import Plan

LOCAL = re.compile(r"(?:~|file:/|[A-Za-z]:[\\/]|\\\\|/[^/]+/).*", re.DOTALL)  # a path from the top


def announcement(
    reader: DumpReader, at: HubAddress, include_inputs: bool, license: str | None
) -> Iterator[str]:
    """Lines that describe what a push to `at` sends; warnings where others could not use it, or
    would see a path of this machine."""
    plan = reader.plan
    inputs = plan.with_inputs and include_inputs
    labels = f" {plan.label_column}s," if plan.label_column else ""
    yield (
        f"push to {at.repo}: the logits of {len(reader):,} rows and {plan.classes:,} classes,"
        f"{labels} ids and input hashes, {'and the inputs' if inputs else 'without the inputs'}; "
        f"teacher {plan.teacher.name!r}, source {plan.source.data!r}, split {plan.source.split}; "
        f"{_licence(reader.folder, license)}"
    )
    for what, text in _paths(reader):
        yield (
            f"warning: {what} looks like a path of a machine, {text[:100]!r}, and will be public; "
            f"if that is not intended, dump again without it"
        )
    if not inputs:
        yield from _unreachable(plan)


def _licence(folder: Folder, given: str | None) -> str:
    """The licence that the command names, else the dump's own card."""
    try:
        card = Path(folder.path(CARD)).read_text(encoding="utf-8")
        name = given or header_fields(card).get("license")
    except (OSError, ValueError, UsageError):
        name = given
    return f"licence {name}" if name else "no licence is named (--license names one)"


def _paths(reader: DumpReader) -> Iterator[tuple[str, str]]:
    plan = reader.plan
    texts = [("the teacher's name", plan.teacher.name), ("the source", plan.source.data),
             ("the teacher's model", str(plan.teacher.model))]  # fmt: skip
    names = [*(plan.source.class_names or []), *(plan.source.label_source_names or [])]
    texts += [("a class", name) for name in names]
    if plan.ids == "string":
        texts += [("an id", id) for id in reader.ids.tolist()]
    seen = set()
    for what, text in texts:
        if what not in seen and LOCAL.fullmatch(text):
            seen.add(what)
            yield what, text


def _unreachable(plan: Plan) -> Iterator[str]:
    """A warning where others can't get the inputs."""
    data, origin = plan.source.data, plan.source.origin
    why = None
    if origin == "local":
        why = f"their source, {data!r}, is a file or folder of yours"
    elif origin == "live":
        why = f"their source, {data!r}, was a data set in the memory of your program"
    elif origin == "hub":
        with translated(HubAddress(data)):
            try:
                if HfApi().dataset_info(data).private:
                    why = f"their source, {data}, is private on the Hub"
            except RepositoryNotFoundError:
                why = f"the Hub has no dataset {data} any more"
    if why:
        yield (
            f"warning: others can't get the inputs: they are not sent, and {why}. To train from "
            f"this dump, others need --source with the same rows. Dump with --store-inputs "
            f"original and push with --include-inputs, or publish the data and dump with its Hub "
            f"id as --data"
        )
