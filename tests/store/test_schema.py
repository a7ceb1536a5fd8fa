"""The schema of the records: made from the models, and read by jsonschema as they read."""

import copy
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import softlabels
from softlabels.errors import DamagedDump
from tests.make_schema import FILE, KINDS, as_text, make_schema

ROOT = Path(__file__).parents[2]
SCHEMA = make_schema()
NAMES = {"plan": "plan.json", "commit": "commits/00001.json", "manifest": "softlabels.json"}
OPTIONAL = {
    "shared",
    "pilot",
    "data_seed",
    "view_shape",
    "decoder",
    "memory_format",
    "compile",
}  # of plans
OPTIONAL |= {"at_once", "device"}  # of commits
SKIPPED = {"id": "a", "row": 3, "input_hash": 2**64 - 1, "label": -1, "reason": "broken"}

# what a schema can't say: records that are right one by one, and do not fit together
AGREEMENTS = ("source.rows is", "shard_inputs of", "views do not", "and views is",
              "source.shards has", "source.class_names has", "of all shards is", "can't be UTF-8",
              "no whole number of inputs")  # fmt: skip

# JSON Schema takes 1.0 for an integer; softlabels does not
Strict = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: type(value) is int
    ),
)
OTHERS = {
    name: Strict({**SCHEMA, "anyOf": [{"$ref": f"#/$defs/{kind.__name__}"}]})
    for name, kind in KINDS.items()
}


@pytest.fixture(scope="module")
def good(dump_folder) -> dict[str, Any]:
    """A plan, a commit and a manifest of a real dump, with a row that was left out."""
    found = {kind: json.loads(Path(dump_folder, name).read_text()) for kind, name in NAMES.items()}
    for kind in ("commit", "manifest"):
        found[kind]["skipped"] = [SKIPPED]
    return found


def test_the_schema_ships_with_the_package():
    assert files("softlabels.store").joinpath(FILE.name).read_text() == as_text(), (
        "the models have changed: python -m tests.make_schema"
    )
    wheel = pytest.importorskip("hatchling.builders.wheel")
    shipped = {
        file.distribution_path for file in wheel.WheelBuilder(str(ROOT)).recurse_included_files()
    }
    assert f"softlabels/store/{FILE.name}" in shipped


def test_it_is_a_schema_and_says_what_everything_is():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    for kind in KINDS.values():
        told = SCHEMA["$defs"][kind.__name__]
        assert set(told["required"]) == set(told["properties"]) - OPTIONAL

    def look(part: Any, place: str) -> None:
        for name, inner in part.get("properties", {}).items():
            assert "description" in inner or "$ref" in inner, f"{place}.{name}"
            look(inner, f"{place}.{name}")

    for name, inner in SCHEMA["$defs"].items():
        assert "description" in inner, name
        look(inner, name)


def test_what_is_written_is_good_for_any_validator(good):
    for kind, value in good.items():
        assert KINDS[kind].parse(value, "it").as_json == value
        assert OTHERS[kind].is_valid(value)
        jsonschema.validate(value, SCHEMA, jsonschema.Draft202012Validator)


def test_only_the_plan_refuses_what_it_does_not_know():
    closed = {
        name
        for name, inner in SCHEMA["$defs"].items()
        if inner.get("additionalProperties") is False
    }
    parts = {"SourceColumns", "SourceRecord", "TeacherRecord", "Pilot", "ErrorAt"}
    assert closed == {"Plan", *parts}


def places(value: Any, at: tuple = ()) -> list[tuple]:
    """Where the parts of a value are, and where one more could be."""
    inner: Any = ()
    if isinstance(value, dict):
        inner = [*value.items()]
    elif isinstance(value, list):
        inner = [*enumerate(value)]
    return [at] + [place for key, part in inner for place in places(part, (*at, key))]


def others(value: Any) -> st.SearchStrategy:
    """Values like this one, and values unlike it."""
    near: list[Any] = [None]
    if type(value) is int:
        near = [-value - 1, value + 1, 1.0, f"{value:x}", 2**48, 2**63, 10**400, bool(value)]
    elif isinstance(value, float):
        near = [0, 10**400, -(10**400), float("inf"), str(value)]
    elif isinstance(value, str):
        near = [value[:-1], value + "0", value.upper(), value + "é", f"../{value}", "x" * 200]
        near += [value.replace("-", "/"), value.replace("train", "entraînement.v2"), [value]]
    elif isinstance(value, list):
        near = [value[:-1], value * 2, dict(enumerate(map(str, value)))]
    elif isinstance(value, dict):
        near = [[*value], {}]
    anything = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False)
        | st.text(st.characters(exclude_characters="\n"), max_size=20),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
        max_leaves=3,
    )  # fmt: skip
    return st.sampled_from(near) | anything


@contextmanager
def suppress_agreements() -> Iterator[None]:
    try:
        yield
    except DamagedDump as error:
        if not any(told in str(error) for told in AGREEMENTS):
            raise


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_records_and_their_schema_agree_about_any_change(good, data):
    kind = data.draw(st.sampled_from([*KINDS]))
    value = copy.deepcopy(good[kind])
    for _ in range(data.draw(st.integers(1, 2))):
        place = data.draw(st.sampled_from(places(value)[1:]))
        *above, last = place
        part = value
        for key in above:
            part = part[key]
        how = data.draw(st.sampled_from(["replace", "replace", "drop", "add"]))
        if how == "drop":
            del part[last]
        elif how == "replace":
            part[last] = data.draw(others(part[last]))
        elif isinstance(part, dict):
            part[data.draw(st.sampled_from(["later", "format", "\ud800"]))] = 1
    if OTHERS[kind].is_valid(value):
        with suppress_agreements():
            KINDS[kind].parse(value, "it")
        return
    with pytest.raises(DamagedDump) as refused:
        KINDS[kind].parse(value, "it")
    assert len(str(refused.value)) < 700


FEW = {"rows": 5}
WHOLE = {"rows": 5, "labelled": 5, "correct": 5, "min": -1, "max": 1, "entropy": 0.1}
HUGE = WHOLE | {"mean": 10**400}
WRONG: dict[str, tuple[str, Any, str]] = {
    "text for a number": ("commit", {"rows": "many"}, 'rows is "many", expected the number of'),
    "a fraction": ("commit", {"bytes": 1.0}, "bytes is 1.0, expected .* without a fraction"),
    "true for a number": ("manifest", {"rows": True}, "rows is true, expected the rows of all"),
    "another hash": ("commit", {"sha256": "A" * 64}, 'sha256 is "AAA.*, expected .* hex digits'),
    "a hash, a newline": ("commit", {"sha256": "0" * 64 + "\n"}, "sha256 is .*, expected"),
    "a name that leads up": ("commit", {"file": "data/../x.parquet"}, "file is .*, expected data/"),
    "a split, a newline": ("plan", {"source": {"split": "train\n"}}, "source.split is .*expected"),
    "many digits": ("commit", {"statistics": HUGE}, "statistics.mean is 1000.* a finite number"),
    "too little": ("commit", {"statistics": FEW}, "statistics lacks labelled"),
    "a local time": ("manifest", {"created": "2026-01-31 12:00"}, "created is .* time in UTC"),
    "other versions": ("manifest", {"versions": {"x": 1}}, r"versions\.x is 1, expected text"),
    "a field of the future": ("plan", {"temperature": 4}, "temperature is unknown to this"),
    "a codec that is code": ("plan", {"codec": "a()"}, r'codec is "a\(\)", expected .* dense'),
    "an id that is a list": (
        "commit",
        {"skipped": [SKIPPED | {"id": []}]},
        r"skipped\[0\]\.id is a",
    ),
    "no number": ("commit", {"statistics": WHOLE | {"mean": float("nan")}}, "not JSON: NaN"),
}


@pytest.mark.parametrize("what", WRONG)
def test_verify_says_what_is_wrong_where_and_what_was_expected(what, good, dump_folder, tmp_path):
    kind, change, problem = WRONG[what]
    folder = Path(shutil.copytree(dump_folder, tmp_path / "copy"))
    path = folder / NAMES[kind]
    told = json.loads(path.read_text())
    for name, value in change.items():
        mixed = isinstance(value, dict) and name == "source"
        told[name] = told[name] | value if mixed else value
    path.write_text(json.dumps(told))
    verdict = softlabels.verify(dump=str(folder))
    found = [finding for finding in verdict.findings if finding.file == NAMES[kind]]
    assert len(found) == 1, verdict.findings
    assert re.search(problem, found[0].problem), found[0].problem
    (folder / "softlabels.json").unlink()
    again = [finding.file for finding in softlabels.verify(dump=str(folder)).findings]
    assert kind == "manifest" or NAMES[kind] in again


def test_unknown_fields_are_ignored_but_in_the_plan(dump_folder, tmp_path):
    folder = Path(shutil.copytree(dump_folder, tmp_path / "copy"))
    for name in ("softlabels.json", "commits/00000.json"):
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | {"later": {"a": [1]}}))
    assert softlabels.verify(dump=str(folder)).good
