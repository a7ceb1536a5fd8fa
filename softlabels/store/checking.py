"""Records from JSON that anybody may have written: names, types and sizes are checked first."""

import re
from collections.abc import Callable
from typing import Any, TypeVar, get_origin, get_type_hints

from softlabels.errors import DamagedDump
from softlabels.store.records import FORMAT, Commit, Manifest, Plan
from softlabels.store.statistics import check_statistics

Record = TypeVar("Record", bound="Plan | Commit | Manifest")

MAX_CLASSES, MAX_ROWS, MAX_SHARDS = 2**24, 2**48, 200_000
SHARD_FIELDS = ("file", "rows", "bytes", "sha256")
SPLIT = re.compile(r"(?=.{1,100}$)\w+([.-]\w+)*")
SHA256 = re.compile(r"[0-9a-f]{64}")


def make_record(kind: type[Record], value: Any, where: str) -> Record:
    """A record from JSON, its fields checked by name, type and range. Raises DamagedDump."""
    if not isinstance(value, dict):
        raise DamagedDump(f"{where} is {type(value).__name__}, not an object")
    if kind is not Commit and value.get("format") != FORMAT:
        shown = str(value.get("format"))[:80]
        raise DamagedDump(f"{where} has the format {shown!r}; this softlabels reads {FORMAT}")
    hints = get_type_hints(kind)
    if kind is Manifest and isinstance(value.get("shards"), list):
        value = value | {"shards": [_known(shard) for shard in value["shards"]]}
    try:
        record = kind(**{name: value[name] for name in hints if name in value})
    except TypeError as error:
        raise DamagedDump(f"{where} lacks fields: {error}") from error
    for name, hint in hints.items():
        held, wanted = getattr(record, name), get_origin(hint) or hint
        if type(held) is not wanted or (wanted is int and held < 0):
            raise DamagedDump(f"{where}: {name} is {str(held)[:80]!r}, expected {wanted.__name__}")
    try:
        CHECKS[kind](record, where)
    except (KeyError, TypeError, AttributeError) as error:
        raise DamagedDump(f"{where} lacks what a {kind.__name__.lower()} has: {error}") from error
    return record


def _known(shard: Any) -> Any:
    """A manifest's entry of a shard without fields of later versions."""
    return {n: shard[n] for n in SHARD_FIELDS if n in shard} if isinstance(shard, dict) else shard


def _check_plan(plan: Plan, where: str) -> None:
    source = plan.source
    columns = source["columns"]
    names = source["class_names"]
    rules = {
        "teacher": _texts(plan.teacher, "name", "kind", "fingerprint")
        and _text_or_none(plan.teacher["model"]),
        "source": _texts(source, "data", "fingerprint") and _text_or_none(source["revision"]),
        "source.split": isinstance(source["split"], str) and SPLIT.fullmatch(source["split"]),
        "source.columns": _all_text(columns["inputs"])
        and _text_or_none(columns["label"], columns["id"]),
        "source.class_names": names is None or (_all_text(names) and len(names) == plan.classes),
        "classes": 1 <= plan.classes <= MAX_CLASSES,
        "rows": plan.rows <= MAX_ROWS and source["rows"] == plan.rows,
        "shard_rows": plan.shard_rows >= 1,
        "group_rows": plan.group_rows >= 1,
        "views": _all_text(plan.views),
        "ids": plan.ids in ("int64", "string"),
    }
    _apply(rules, where)
    _apply({"shard_rows": plan.shards <= MAX_SHARDS}, where)
    _apply({"text": _is_utf8(plan)}, where)
    _apply({"source.shards": _all_text(source["shards"])
            and len(source["shards"]) == plan.shards}, where)  # fmt: skip


def _check_commit(commit: Commit, where: str) -> None:
    _apply({"sha256": SHA256.fullmatch(commit.sha256)}, where)
    check_statistics(commit.statistics, where)
    _check_skipped(commit.skipped, where)


def _check_manifest(manifest: Manifest, where: str) -> None:
    for index, shard in enumerate(manifest.shards):
        rules = {
            "file": isinstance(shard["file"], str),
            "rows": _count(shard["rows"]),
            "bytes": _count(shard["bytes"]),
            "sha256": isinstance(shard["sha256"], str) and SHA256.fullmatch(shard["sha256"]),
        }
        _apply(rules, f"{where}, shard {index}")
    sums = {
        "rows": manifest.rows == sum(shard["rows"] for shard in manifest.shards),
        "bytes": manifest.bytes == sum(shard["bytes"] for shard in manifest.shards),
        "versions": all(isinstance(v, str) for v in manifest.versions.values()),
    }
    _apply(sums, where)
    check_statistics(manifest.statistics, where)
    _check_skipped(manifest.skipped, where)


def _check_skipped(skipped: list[Any], where: str) -> None:
    for entry in skipped:
        _apply({
            "skipped": isinstance(entry["id"], str | int) and _count(entry["row"])
            and _count(entry["input_hash"]) and entry["input_hash"] < 2**64
            and type(entry["label"]) is int and isinstance(entry["reason"], str),
        }, where)  # fmt: skip


def _apply(rules: dict[str, Any], where: str) -> None:
    for name, fine in rules.items():
        if not fine:
            raise DamagedDump(f"{where}: {name} is not as the format wants it")


def _is_utf8(plan: Plan) -> bool:
    try:
        return bool(plan.hash)
    except UnicodeEncodeError:  # lone surrogates can stand in JSON
        return False


def _count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _texts(value: dict[str, Any], *names: str) -> bool:
    return all(isinstance(value[name], str) for name in names)


def _text_or_none(*values: Any) -> bool:
    return all(value is None or isinstance(value, str) for value in values)


def _all_text(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


CHECKS: dict[type, Callable[[Any, str], None]] = {
    Plan: _check_plan,
    Commit: _check_commit,
    Manifest: _check_manifest,
}
