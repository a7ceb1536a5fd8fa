"""The dataset card on the Hub: the dump's own, beside what its owner wrote."""

from typing import Any

import datasets
import pyarrow.parquet as pq
import yaml

from softlabels.hub.calibration import Calibration
from softlabels.store.card import BEGIN, END, card_body, card_header, is_imported
from softlabels.store.folder import Folder
from softlabels.store.records import Manifest, Plan


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
    tags = [*(theirs.get("tags") or []), *ours["tags"]]
    header = theirs | ours | {"tags": list(dict.fromkeys(tags))}
    if license:
        header["license"] = license
    shown = f"\n![Calibration of the teacher, and softness of its targets]({picture})\n"
    more = f"""{shown if picture else ""}
{calibration.words}

## How it was made

{_made(manifest, plan)}
"""
    body = card_body(manifest, plan, repo, more)
    yaml_text = yaml.safe_dump(header, sort_keys=False, allow_unicode=True)
    return f"---\n{yaml_text}---\n\n{_replaced(text, body)}"


def split_header(card: str) -> tuple[dict[str, Any], str]:
    """A card's YAML and the text below it."""
    parts = card.split("---\n", 2)
    if len(parts) < 3 or parts[0].strip():
        return {}, card
    try:
        header = yaml.safe_load(parts[1])
    except yaml.YAMLError:
        return {}, parts[2]
    return header if isinstance(header, dict) else {}, parts[2]


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
