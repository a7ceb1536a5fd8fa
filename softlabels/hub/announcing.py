"""What a push will send, in words, and what a stranger will meet who has nothing but that."""

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
    """Lines to be said before anything is sent; those of which a stranger would suffer are
    warnings."""
    plan = reader.plan
    inputs = plan.with_inputs and include_inputs
    labels = " labels," if reader.labelled else ""
    yield (
        f"what goes to {at.repo}: the logits of {len(reader):,} rows and {plan.classes:,} classes,"
        f"{labels} ids and input hashes, {'and the inputs' if inputs else 'no inputs'}; the names "
        f"of the teacher, {plan.teacher.name!r}, and of the source, {plan.source.data!r}, "
        f"split {plan.source.split}; {_licence(reader.folder, license)}"
    )
    for what, text in _paths(reader):
        yield (
            f"warning: {what} looks like a path of a machine, {text[:100]!r}, and will be seen by "
            f"everybody; dump again without it if that is not meant"
        )
    if not inputs:
        yield from _unreachable(plan)


def _licence(folder: Folder, given: str | None) -> str:
    """The licence as the command or the dump's own card names it."""
    try:
        card = Path(folder.path(CARD)).read_text(encoding="utf-8")
        found = given or header_fields(card).get("license")
    except (OSError, ValueError, UsageError):
        found = given
    return f"licence {found}" if found else "no licence is named (--license names one)"


def _paths(reader: DumpReader) -> Iterator[tuple[str, str]]:
    plan = reader.plan
    texts = [("the teacher's name", plan.teacher.name), ("the source", plan.source.data),
             ("the teacher's model", str(plan.teacher.model))]  # fmt: skip
    texts += [("a class", name) for name in plan.source.class_names or []]
    if plan.ids == "string":
        texts += [("an id", id) for id in reader.ids.tolist()]
    seen = set()
    for what, text in texts:
        if what not in seen and LOCAL.fullmatch(text):
            seen.add(what)
            yield what, text


def _unreachable(plan: Plan) -> Iterator[str]:
    """A warning where nobody else can get the inputs."""
    data, origin = plan.source.data, plan.source.origin
    why = None
    if origin == "local":
        why = f"their source, {data!r}, is a file or folder of yours"
    elif origin == "hub":
        with translated(HubAddress(data)):
            try:
                if HfApi().dataset_info(data).private:
                    why = f"their source, {data}, is private on the Hub"
            except RepositoryNotFoundError:
                why = f"the Hub has no dataset {data} any more"
    if why:
        yield (
            f"warning: nobody else has the inputs: they are not sent, and {why}. Whoever trains "
            f"from this dump will be asked for --source with the very same rows. Dump with "
            f"--store-inputs original and push with --include-inputs, or publish the data and "
            f"give its Hub id as --data"
        )
