"""The command line as a person or a script meets it: real processes."""

import json
import os
import pty
import re
import subprocess
import sys
from dataclasses import fields
from functools import partial
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import softlabels
from softlabels import options as known
from softlabels.cli.app import app
from softlabels.cli.flags import load_config, unexpected
from softlabels.errors import StoreError, UsageError
from softlabels.system.humanize import elapsed_words
from softlabels.teachers.teacher import suggest_name

COMMANDS = ["demo", "fit", "dump", "plan", "train", "eval", "ls", "info", "verify"]


def test_help_names_every_command_and_every_flag_has_help(cli):
    done = cli("--help")
    assert done.code == 0
    assert all(f" {name} " in done.out for name in COMMANDS)
    for name in COMMANDS:
        shown = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200"}).output
        assert "Example" in shown
    for options in (known.FitOptions, known.DumpOptions, known.TrainOptions, known.EvalOptions,
                    known.InfoOptions, known.DemoOptions, known.VerifyOptions):  # fmt: skip
        assert all(f.metadata["help"].endswith(".") for f in fields(options))


def test_the_two_lines_of_the_readme(cli, tmp_path):
    assert cli("fit", "--data", "digits", "--out", "t.pt", "--epochs", 5).code == 0
    dumped = cli("dump", "--teacher", "t.pt")
    assert (dumped.code, dumped.out.split(":")[0]) == (0, "data/digits-t")
    trained = cli("train", "--T", 8, "--epochs", 2)
    assert trained.code == 0
    model, held, took = trained.out.splitlines()
    assert re.fullmatch(r"s.pt: epoch \d, loss \d.\d{4}", model)
    assert re.fullmatch(
        r"held out: \d+ errors? of 120 rows; agreement with the teacher \d.\d{4}; KL \d.\d{4} nats",
        held,
    )
    for last in (took, dumped.out, cli("verify", "data/digits-t").out):
        assert re.search(r"\btook (\d+ min )?[\d.]+ s\n?$", last)
    assert "is 't', after its file; give another with --name" in dumped.err
    assert "after its file" not in cli("dump", "--teacher", "t.pt", "--name", "mlp").err
    assert (tmp_path / "s.pt").exists()
    measured = cli("eval", "s.pt", "--against", "data/digits-t", "--json").value
    assert measured["rows"] == 597
    assert cli("info", "data/digits-t").out.startswith("rows")


def test_results_on_stdout_words_on_stderr_json_alone(cli, dump_folder):
    done = cli("info", dump_folder, "--json")
    assert done.value["facts"]["classes"] == 10
    assert done.err == ""
    train = cli("train", dump_folder, "--student", "linear", "--epochs", 1, "--json")
    assert set(train.value) >= {"out", "epoch", "loss", "held_out"}
    assert train.err.count("\n") == 4, "no bar where there is no terminal"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["dump"], 2, "Missing option '--teacher'"),
        (["dump", "--teacher", "none.pt"], 1, "none.pt does not exist. A model is a file"),
        (["train", "--T", "hot"], 2, "'hot' is not a valid number"),
        (["train", "x", "--T", "0"], 2, "T is 0"),
        (["train", "x", "--T", "nan"], 2, "T is nan"),
        (["train", "x", "--T", "-2"], 2, "T is -2"),
        (["train", "x", "--alpha", "1.5"], 2, "--alpha is 1.5"),
        (["train", "x"], 1, "x does not exist"),
        (["fit", "--data", "digits", "--epochs", "0"], 2, "--epochs is 0"),
        (["fit", "--data", "digits", "--nonsense"], 2, "No such option"),
        (["nonsense"], 2, "No such command"),
        (
            ["dump", "--teacher", "x", "--dtype", "int8"],
            2,
            "'int8' is not one of 'float16', 'float32'",
        ),
        (
            ["dump", "--teacher", "x", "--store-inputs", "shrunk(256)"],
            2,
            "--store-inputs is 'shrunk(256)'; use none, original, resized(256)",
        ),
        (["info", "."], 1, "is no dump, and holds none"),
    ],
)
def test_errors_have_their_exit_code_and_no_traceback(cli, words, code, message):
    done = cli(*words)
    assert done.code == code, done.err
    assert message in " ".join(done.err.replace("│", " ").split())
    assert "Traceback" not in done.err
    assert done.out == ""


def test_debug_shows_the_traceback(cli):
    done = cli("info", ".", "--debug")
    assert done.code == 1
    assert "Traceback" in done.err


def test_a_file_beats_the_default_and_a_flag_beats_the_file(cli, tmp_path):
    path = tmp_path / "fit.yaml"
    path.write_text(yaml.safe_dump({"data": "digits", "model": "linear", "batch-size": 100,
                                    "epochs": 2, "out": "a.pt"}))  # fmt: skip
    import torch

    assert cli("fit", "--config", "fit.yaml").code == 0
    training = torch.load(tmp_path / "a.pt", weights_only=True)["training"]
    assert (training["batch_size"], training["epochs"], training["seed"]) == (100, 2, 0)
    assert cli("fit", "--config", "fit.yaml", "--epochs", 1, "--out", "b.pt").code == 0
    assert torch.load(tmp_path / "b.pt", weights_only=True)["training"]["epochs"] == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochz: 3", "no option 'epochz'; did you mean 'epochs'?"),
        ("nonsense: 3", "no option 'nonsense'; there are data, model"),
        ("- a\n- b", "holds list"),
        ("a: [", "can't read"),
        ("epochs: many", "'many' is not a valid integer"),
        ("epochs: {a: 1}", "epochs is a mapping; write one value"),
    ],
)
def test_bad_config_files(cli, tmp_path, text, message):
    (tmp_path / "c.yaml").write_text(text)
    done = cli("fit", "--config", "c.yaml", "--data", "digits")
    assert done.code == 2
    assert message in " ".join(done.err.replace("│", " ").split())
    assert cli("fit", "--config", "none.yaml", "--data", "digits").code == 2


def test_recipes_are_known_words_and_open_with_their_command():
    for path in (Path(__file__).parents[1] / "configs").rglob("*.yaml"):
        text = path.read_text()
        assert text.startswith("# ")
        named = f"--config configs/{path.parent.name}/{path.name}"
        (line,) = (line for line in text.splitlines() if named in line)
        command = line.split("softlabels ")[1].split()[0]
        options = {"fit": known.FitOptions, "dump": known.DumpOptions,
                   "train": known.TrainOptions, "sweep": known.SweepOptions}[command]  # fmt: skip
        assert load_config(str(path), [one.name for one in fields(options)])


def test_a_bar_shows_in_a_terminal_with_rows_speed_and_eta(teacher, tmp_path):
    reading, writing = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "softlabels", "dump", "--teacher", teacher, "--out", "d"],
        cwd=tmp_path, stderr=writing, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "120"},
    )  # fmt: skip
    os.close(writing)
    shown = b""
    while True:
        try:
            part = os.read(reading, 65536)
        except OSError:
            break
        if not part:
            break
        shown += part
    assert done.returncode == 0
    assert "1,200/1,200" in shown.decode()
    assert "rows/s" in shown.decode()
    assert done.stdout.startswith("d: 1,200 rows")


@pytest.mark.parametrize(
    ("line", "completions"),
    [
        ("tr", ["train"]),
        ("dump --dtype ", ["float16", "float32"]),
        ("train --keep ", ["auto", "gpu", "disk"]),
        ("import x.npy --on-missing s", ["stop", "skip"]),
    ],
)
def test_commands_and_choices_complete_in_the_shell(line, completions):
    asked = {"_SOFTLABELS_COMPLETE": "complete_bash", "COMP_WORDS": f"softlabels {line}"}
    done = subprocess.run(
        [sys.executable, "-m", "softlabels"],
        env=os.environ | asked | {"COMP_CWORD": str(len(line.split(" ")))},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.split() == completions


@pytest.mark.parametrize("columns", [80, 120])
def test_help_shows_examples_first_and_choices(columns):
    width = {"COLUMNS": str(columns), "TERMINAL_WIDTH": str(columns)}
    shown = CliRunner().invoke(app, ["dump", "--help"], env=width).output
    assert shown.index("Examples") < shown.index("─ Options") < shown.index("─ Data")
    assert "--allow-batch-dependence" in shown, "no flag is cut short"
    text = " ".join(shown.replace("│", " ").split())
    assert "offset of int8. One of float16, float32. Default: float16." in text
    assert "tf32 and fp16 on CUDA. One of float32, bf16, tf32, fp16. Default: float32." in text


def test_version(cli):
    assert cli("--version").out.startswith("softlabels 0.")


@pytest.mark.parametrize("epochs", [2, pytest.param(None, marks=pytest.mark.slow)])
def test_demo_tells_what_it_shows_and_can_run_again(cli, tmp_path, monkeypatch, epochs):
    if epochs is not None:
        for name in ("fit", "train"):
            verb = getattr(softlabels, name)
            briefly = partial(lambda verb, **options: verb(**options | {"epochs": epochs}), verb)
            monkeypatch.setattr(softlabels, name, briefly)
    done = cli("demo", "--seeds", 1, "--rows", 60, "--out", "d", "--json")
    assert done.code == 0
    value = done.value
    assert [line["T"] for line in value["students"]] == [None, 1, 2, 4, 8, 20]
    assert all(0 < line["mean"] < (300 if epochs is None else 597) for line in value["students"])
    assert (tmp_path / value["plot"]).read_bytes()[:4] == b"\x89PNG"
    assert json.loads((tmp_path / "d" / "demo.json").read_text())["rows"] == 60
    from softlabels.cli.demo import Line, _table
    from softlabels.options import DemoOptions

    text = _table([Line("hard labels", None, [9]), Line("T = 1", 1.0, [8])], value,
                  DemoOptions(seeds=1))  # fmt: skip
    assert "over 1 seed:" in text
    assert "softlabels train d/digits-teacher --T 8" in text.partition("next:")[2]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "precious").write_text("x")
    refused = cli("demo", "--out", "other")
    assert refused.code == 1
    assert "holds something else" in refused.err


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError(13, "Permission denied", "/proc/x"), "/proc/x: Permission denied"),
        (RuntimeError("can't allocate memory: you tried to allocate 9 bytes"),
         "out of memory: can't allocate memory: you tried to allocate 9 bytes. A smaller"),
        (KeyError("x"), "a bug in softlabels: KeyError, 'x'. --debug shows where"),
        (ValueError("cell " * 1000), "a bug in softlabels: ValueError, cell cell"),
    ],
)  # fmt: skip
def test_what_no_verb_has_words_for_is_no_bare_exception(error, words):
    assert unexpected(error).startswith(words)
    assert len(unexpected(error)) < 500


@pytest.mark.parametrize("flag", ["--T", "-T", "--temperature"])
def test_the_temperature_has_the_names_that_people_try(flag):
    done = CliRunner().invoke(app, ["train", "nowhere", flag, "0"])
    assert done.exit_code == 2 or "nowhere" in done.output
    assert "No such option" not in done.output


@pytest.mark.parametrize("value", [0, 1.5, float("nan"), float("inf"), 2**63, "8", True - 1])
def test_numbers_that_are_not_whole_or_too_large_are_refused_in_words(value):
    with pytest.raises(UsageError, match=r"--batch-size is .*; it must be a whole number, 1 or"):
        known.EvalOptions(checkpoint="s.pt", batch_size=value)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (3.72, "3.7 s"), (59.96, "1 min 0 s"), (725, "12 min 5 s"),
     (3599.6, "1 h 0 min"), (9660, "2 h 41 min")],
)  # fmt: skip
def test_how_long_it_took_in_words(seconds, text):
    assert elapsed_words(seconds) == text


@pytest.mark.parametrize(
    ("name", "plain"),
    [("logits", True), ("model", True), ("pytorch_model", True), ("Model_best", True), ("t", True),
     ("resnet50", False), ("t2", False), ("bert-base-model", False)],
)  # fmt: skip
def test_names_that_say_nothing_of_a_teacher(name, plain):
    assert bool(suggest_name(name)) == plain


def test_dumps_below_a_folder_are_listed_with_how_far_they_are(cli, made, tmp_path):
    import shutil

    for name in ("a", "b", "c"):
        shutil.copytree(made / "digits-t", tmp_path / "data" / "deep" / name)
    (tmp_path / "data" / "deep" / "b" / "softlabels.json").unlink()
    (tmp_path / "data" / "deep" / "b" / "commits" / "00001.json").unlink()
    (tmp_path / "data" / "deep" / "c" / "softlabels.json").write_text("{}")
    (tmp_path / "data" / "deep" / "c" / "plan.json").write_text("{")
    head, *lines = cli("ls").out.splitlines()
    assert head.split() == ["dump", "rows", "classes", "teacher", "codec", "size", "state"]
    assert [line.split()[:5] for line in lines[:2]] == [
        ["data/deep/a", "1,200", "10", "t", "dense"], ["data/deep/b", "1,200", "10", "t", "dense"],
    ]  # fmt: skip
    assert lines[0].endswith("complete")
    assert lines[1].endswith("2 of 3 shards")
    assert "plan.json" in lines[2]
    listed = cli("ls", "data/deep", "--json").value["dumps"]
    assert [one["done"] for one in listed] == [3, 2, 0]
    assert listed[0]["bytes"] == json.loads(
        (tmp_path / "data" / "deep" / "a" / "softlabels.json").read_text())["bytes"]  # fmt: skip
    assert cli("ls", "data/deep/a").out.splitlines()[1].startswith("data/deep/a")
    assert "none.d is not a folder on this disk" in cli("ls", "none.d").err
    (tmp_path / "empty").mkdir()
    assert cli("ls", "empty").out == "no dump below empty\n"
    assert cli("info", "data").out.splitlines() == [head, *lines]
    assert json.loads(cli("info", "data/deep", "--json").out) == listed
    nothing = cli("info", "empty")
    assert nothing.code == 1
    assert "empty is no dump, and holds none: neither it nor a folder below it has" in nothing.err
    with pytest.raises(StoreError, match=r"holds 3 dumps, which softlabels.list_dumps"):
        softlabels.info(tmp_path / "data")
