"""The dataset card on the Hub: the dump's own, beside what its owner wrote."""

import re

import datasets
import pyarrow.parquet as pq
import yaml

from softlabels.errors import UsageError
from softlabels.hub.calibration import Calibration
from softlabels.store.card import BEGIN, END, card_body, card_header, is_imported
from softlabels.store.folder import Folder
from softlabels.store.records import Manifest, Plan

HEADER = re.compile(
    r"\A\ufeff?\s*---[ \t]*\r?\n(.*?)^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE
)
FIELD = re.compile(r"([A-Za-z_][\w-]*):(?:\s|$)")


def render_page(
    folder: Folder,
    manifest: Manifest,
    plan: Plan,
    repo: str,
    license: str | None,
    calibration: Calibration,
    picture: str | None,
    before: str | None,
) -> str:
    """README.md for the repository `repo`, with the picture of that name. `before` is the one that
    stands there, or beside the dump: its text outside of our marks stays, and so do the fields of
    its header that are not ours."""
    path = folder.path(manifest.shards[0]["file"])
    features = datasets.Features.from_arrow_schema(pq.read_schema(path))
    ours = card_header(manifest, plan, features).to_dict()
    theirs, text = split_header(before or "")
    ours["tags"] = _together(theirs.pop("tags", ""), ours["tags"])
    if license:
        theirs["license"] = yaml.safe_dump({"license": license})  # kept by a push that names none
    kept = "".join(block for name, block in theirs.items() if name not in ours)
    header = kept + yaml.safe_dump(ours, sort_keys=False, allow_unicode=True)
    shown = f"\n![Calibration of the teacher, and softness of its targets]({picture})\n"
    more = f"""{shown if picture else ""}
{calibration.words}

## How it was made

{_made(manifest, plan)}
"""
    body = card_body(manifest, plan, repo, more)
    return f"---\n{header}---\n\n{_replaced(text, body)}"


def split_header(card: str) -> tuple[dict[str, str], str]:
    """The fields of a card's YAML, each with its lines as they are written, and the text below.

    Raises UsageError for a header that is no YAML mapping.
    """
    found = HEADER.match(card)
    if found is None:
        return {}, card.removeprefix("\ufeff")
    try:
        if not isinstance(yaml.safe_load(found[1]) or {}, dict):
            raise yaml.YAMLError("it is no mapping of names to values")
    except yaml.YAMLError as error:
        raise UsageError(
            f"the header of README.md can't be read, mend it first: {error}"
        ) from error
    blocks: dict[str, str] = {}
    name = ""
    for line in found[1].splitlines(keepends=True):
        if key := FIELD.match(line):
            name = key[1]
        blocks[name] = blocks.get(name, "") + line.rstrip("\r\n") + "\n"
    return blocks, card[found.end() :]


def _together(block: str, ours: list[str]) -> list[str]:
    """The owner's tags, and ours."""
    value = yaml.load(block, yaml.BaseLoader)["tags"] if block else []
    theirs = value if isinstance(value, list) else [value] if value else []
    if not all(isinstance(tag, str) for tag in theirs):
        raise UsageError(f"the tags in README.md's header are {theirs}; write words")
    return list(dict.fromkeys([*theirs, *ours]))


def _replaced(text: str, body: str) -> str:
    """`body` in the place of the one that stands in `text`; before it, if none does."""
    first, last = text.find(BEGIN), text.find(END)
    if 0 <= first < last:
        return (text[:first] + body.rstrip("\n") + text[last + len(END) :]).lstrip("\n")
    return body + (f"\n{text.strip()}\n" if text.strip() else "")


def _made(manifest: Manifest, plan: Plan) -> str:
    """The command, as far as the plan tells: where the teacher's file lay is nobody's business."""
    source = plan.source
    versions = ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    if is_imported(plan):
        how = plan.teacher["model"] or "logits of another program"
        return f"`softlabels import`, from a file of logits ({how}), with {versions}."
    words = ["softlabels dump", f"--teacher {plan.teacher['name']}", f"--data {source['data']}",
             f"--split {source['split']}"]  # fmt: skip
    if source.get("revision"):
        words.append(f"--revision {source['revision']}")
    if plan.preprocess:
        words.append(f"--preprocess '{plan.preprocess}'")
    words += [f"--precision {plan.precision}", f"--dtype {plan.dtype}"]
    words += ["--compact"] * plan.compact + ["--with-inputs"] * plan.with_inputs
    return "    " + " \\\n        ".join(words) + f"\n\nwith {versions}."
