"""The docs say what is."""

import re
from dataclasses import fields
from pathlib import Path

from typer.main import get_command

from softlabels.cli.app import app
from tests import make_reference

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks").glob("*.md")]


def test_the_reference_is_the_command_line():
    assert make_reference.PAGE.read_text(encoding="utf-8") == make_reference.render()
    commands = get_command(app).commands
    assert set(commands) == set(make_reference.COMMANDS)
    for name, (_, options) in make_reference.COMMANDS.items():
        shown = {p.name for p in commands[name].params} - {"config", "json", "log_json", "debug"}
        flags = [field.name for field in fields(options) if not field.metadata["only_python"]]
        assert shown == set(flags)


def test_every_flag_in_the_docs_exists():
    known = {"--help", "--version", "--install-completion", "--no-isolation"}
    for command in get_command(app).commands.values():
        known |= {
            option
            for parameter in command.params
            for option in parameter.opts + parameter.secondary_opts
        }
    for page in PAGES:
        for line in page.read_text(encoding="utf-8").splitlines():
            words = line.partition("softlabels ")[2]
            if "benchmarks" not in line:
                assert set(re.findall(r"(?<!\S)--[\w-]+", words)) <= known, (page.name, line)


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert target.startswith("https://") or (page.parent / target).exists(), (page, target)


def test_the_fingerprint_in_the_docs_is_the_one_in_the_records(dump_folder):
    import hashlib
    import json

    import pyarrow.parquet as pq

    text = (ROOT / "docs" / "format.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(def fingerprint.*?)```", text, re.DOTALL)
    names: dict = {"hashlib": hashlib}
    exec(code[1], names)
    plan = json.loads(Path(dump_folder, "plan.json").read_text())
    table = pq.read_table(Path(dump_folder, "data"))
    assert names["fingerprint"](table, ["id", "label"]) == plan["source"]["fingerprint"]
    commit = json.loads(Path(dump_folder, "commits", "00001.json").read_text())
    shard = names["fingerprint"](table.slice(500, 500)).removeprefix("sha256:")
    assert shard.startswith(commit["fingerprint"])
    canonical = json.dumps(plan, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    manifest = json.loads(Path(dump_folder, "softlabels.json").read_text())
    assert manifest["plan_hash"] == "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()
