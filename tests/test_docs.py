"""The docs say what is."""

import re
from pathlib import Path

from typer.main import get_command

from softlabels.cli import app
from tests import make_reference

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks").glob("*.md")]


def test_the_reference_is_the_command_line():
    assert make_reference.PAGE.read_text(encoding="utf-8") == make_reference.render()
    commands = get_command(app).commands
    assert set(commands) == set(make_reference.COMMANDS)
    for name, (_, options) in make_reference.COMMANDS.items():
        shown = {p.name for p in commands[name].params} - {"config", "json", "debug"}
        assert shown == set(options.__dataclass_fields__)


def test_every_flag_in_the_docs_exists():
    known = {"--help", "--version", "--install-completion", "--no-isolation"}
    for command in get_command(app).commands.values():
        known |= {option for parameter in command.params for option in parameter.opts}
    for page in PAGES:
        for line in page.read_text(encoding="utf-8").splitlines():
            if "softlabels " in line and "accelerate" not in line and "benchmarks" not in line:
                assert set(re.findall(r"(?<!\S)--[\w-]+", line)) <= known, (page.name, line)


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert target.startswith("https://") or (page.parent / target).exists(), (page, target)
