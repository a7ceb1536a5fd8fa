"""Records from JSON that anybody may have written: held against the schema first, and then against
what a schema can't say: numbers that have to agree with each other, and text that is UTF-8."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

from softlabels.errors import DamagedDump
from softlabels.store.records import FORMAT, Commit, Manifest, Plan
from softlabels.store.schema import read_schema, record_check

Record = TypeVar("Record", bound="Plan | Commit | Manifest")

MAX_SHARDS: int = read_schema()["$defs"]["manifest"]["properties"]["shards"]["maxItems"]
SHARD_FIELDS = ("file", "rows", "bytes", "sha256")


def make_record(kind: type[Record], value: Any, where: str) -> Record:
    """A record from JSON, its fields checked by name, type, range and agreement.

    Raises DamagedDump that names the first field that is wrong, and what was expected.
    """
    if not isinstance(value, dict):
        raise DamagedDump(f"{where} is {type(value).__name__}, not an object")
    if kind is not Commit and value.get("format") != FORMAT:
        shown = str(value.get("format"))[:80]
        raise DamagedDump(f"{where} has the format {shown!r}; this softlabels reads {FORMAT}")
    problem = record_check(kind.__name__.lower())(value)
    if problem is not None:
        raise DamagedDump(f"{where}: {problem}")
    if kind is Manifest:
        shards = [{name: shard[name] for name in SHARD_FIELDS} for shard in value["shards"]]
        value = value | {"shards": shards}
    record = kind(**{field.name: value[field.name] for field in fields(kind)})
    AGREEMENTS[kind](record, where)
    return record


def _check_plan(plan: Plan, where: str) -> None:
    source, names = plan.source, plan.source["class_names"]
    if not _is_utf8(plan):
        raise DamagedDump(f"{where} has text that can't be UTF-8")
    if source["rows"] != plan.rows:
        raise DamagedDump(f"{where}: rows is {plan.rows}, and source.rows is {source['rows']}")
    if plan.shards > MAX_SHARDS:
        raise DamagedDump(f"{where}: shard_rows of {plan.shard_rows} give {plan.shards} shards")
    for name, values, count in (
        ("source.shards", source["shards"], plan.shards),
        ("source.class_names", names, plan.classes),
    ):
        if values is not None and len(values) != count:
            raise DamagedDump(f"{where}: {name} has {len(values)} entries, expected {count}")


def _check_manifest(manifest: Manifest, where: str) -> None:
    for name in ("rows", "bytes"):
        told, total = getattr(manifest, name), sum(shard[name] for shard in manifest.shards)
        if told != total:
            raise DamagedDump(f"{where}: {name} is {told}, and that of all shards is {total}")


def _is_utf8(plan: Plan) -> bool:
    try:
        return bool(plan.hash)
    except UnicodeEncodeError:  # lone surrogates can stand in JSON
        return False


AGREEMENTS: dict[type, Callable[[Any, str], None]] = {
    Plan: _check_plan,
    Commit: lambda commit, where: None,
    Manifest: _check_manifest,
}
