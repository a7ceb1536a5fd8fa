"""Writes docs/commands.md from the options. Run: python -m tests.make_reference"""

import inspect
from dataclasses import MISSING, fields
from pathlib import Path

from softlabels import options as known
from softlabels.cli import app, exchange, pages, publishing
from softlabels.options.verb import described

PAGE = Path(__file__).parents[1] / "docs" / "commands.md"
COMMANDS = {
    "demo": (app.demo, known.DemoOptions),
    "fit": (app.fit, known.FitOptions),
    "dump": (app.dump, known.DumpOptions),
    "plan": (app.plan, known.PlanOptions),
    "train": (app.train, known.TrainOptions),
    "sweep": (app.sweep, known.SweepOptions),
    "eval": (app.eval_, known.EvalOptions),
    "export": (exchange.export, known.ExportOptions),
    "ls": (app.ls, known.LsOptions),
    "info": (app.info, known.InfoOptions),
    "compare": (app.compare, known.CompareOptions),
    "show": (app.show, known.ShowOptions),
    "report": (pages.report, known.ReportOptions),
    "verify": (app.verify, known.VerifyOptions),
    "cache": (app.cache, known.CacheOptions),
    "push": (publishing.push, known.PushOptions),
    "pull": (publishing.pull, known.PullOptions),
    "import": (exchange.import_, known.ImportOptions),
}
INTRO = """# Commands

Written by `python -m tests.make_reference` from the options in `softlabels/options/`.

Every command also takes `--config FILE.yaml` (the same names; a flag beats the file), `--json` (one
JSON object on stdout), `--log-json` (messages and progress as JSON lines on stderr, for clusters),
`--debug` (tracebacks) and `--help`. Messages and bars go to stderr, results to stdout; without a
terminal, progress is one line a minute. An error goes to stderr only. Exit status: 0 done; 1 the
work failed, or `verify` found damage; 2 wrong usage; 130 after Ctrl-C; 143 after SIGTERM. Shell
completion: `softlabels --install-completion`.
"""


def render() -> str:
    return INTRO + "".join(section(name, *parts) for name, parts in COMMANDS.items())


def section(name: str, body: object, options: type) -> str:
    rows = [row(options, field) for field in fields(options) if not field.metadata["only_python"]]
    return (
        f"\n## softlabels {name}\n\n{inspect.getdoc(body)}\n\n"
        "| option | default | |\n|---|---|---|\n" + "\n".join(rows) + "\n"
    )


def row(options: type, field) -> str:
    flag = (field.metadata["flag"] or known.flag_of(field.name)).split()[0]
    name = field.name.upper() if field.metadata["positional"] else flag
    value = field.default
    if isinstance(value, tuple):
        value = ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in value) or None
    default = "required" if value is MISSING else "" if value is None else f"`{value}`"
    return f"| `{name}` | {default} | {described(options, field).replace('|', chr(92) + '|')} |"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
