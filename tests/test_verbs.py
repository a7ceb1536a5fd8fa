"""The Python door: verbs are keyword functions that say what they take."""

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from typer.main import get_command

import softlabels
from softlabels import options as known
from softlabels.cli.app import app
from softlabels.errors import UsageError

VERBS = {
    "dump": known.DumpOptions, "plan": known.PlanOptions, "fit": known.FitOptions,
    "train": known.TrainOptions, "evaluate": known.EvalOptions, "verify": known.VerifyOptions,
    "push": known.PushOptions, "pull": known.PullOptions, "import_logits": known.ImportOptions,
}  # fmt: skip
COMMANDS = {"evaluate": "eval", "import_logits": "import"}


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_shows_every_option_with_its_default_and_what_it_does(name):
    verb = getattr(softlabels, name)
    shown = inspect.signature(verb).parameters
    assert all(one.kind is inspect.Parameter.KEYWORD_ONLY for one in shown.values())
    defaults = {one.name: one.default for one in shown.values() if one.name != "progress"}
    written = {one.name: one.default for one in fields(VERBS[name])}
    assert defaults == {
        name: inspect.Parameter.empty if default is MISSING else default
        for name, default in written.items()
    }
    flags = {one.name: one for one in get_command(app).commands[COMMANDS.get(name, name)].params}
    text = " ".join(inspect.getdoc(verb).split())
    for one in fields(VERBS[name]):
        if one.metadata["only_python"]:
            assert one.name not in flags
            assert f"{one.name}: {one.metadata['help']}" in text
        else:
            assert f"{one.name}: {flags[one.name].help}" in text
    assert str(shown["progress"]).endswith("= Progress()")


def test_an_option_that_takes_an_object_says_so():
    shown = inspect.signature(softlabels.dump).parameters
    taken = [str, Path, torch.nn.Module, Callable, Sequence, Mapping]
    assert list(typing.get_args(shown["teacher"].annotation)) == taken
    assert datasets.Dataset in typing.get_args(shown["data"].annotation)
    assert typing.get_type_hints(softlabels.dump)["teacher"] == shown["teacher"].annotation


def test_what_stands_by_place_at_the_command_line_may_do_so_in_python():
    shown = inspect.signature(softlabels.compare).parameters
    by_place = [one.name for one in shown.values() if one.kind is one.POSITIONAL_OR_KEYWORD]
    assert by_place == ["a", "b"]
    assert "Options:\n    a: The reference" in inspect.getdoc(softlabels.compare)


def test_choices_and_numbers_are_in_the_signature_as_types():
    shown = inspect.signature(softlabels.dump).parameters
    assert str(shown["dtype"]) == "dtype: Literal['float16', 'float32'] = 'float16'"
    trained = inspect.signature(softlabels.train).parameters
    assert str(trained["batch_size"]) == "batch_size: int = 256"
    assert shown["batch_size"].annotation == int | typing.Literal["auto"]
    assert next(iter(shown)) == "teacher", "what must be given comes first"
    assert inspect.signature(softlabels.train).return_annotation.__name__ == "TrainResult"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: softlabels.train(epoch=3), r"no option 'epoch'; did you mean 'epochs'\?"),
        (lambda: softlabels.verify(zzz=3), "no option 'zzz'; there are dump, source, data"),
        (lambda: softlabels.dump(data="digits"), "teacher is missing: A checkpoint of"),
        (lambda: softlabels.compare("data/d"), "b is missing: What is compared with it"),
        (lambda: softlabels.train("data/d"), "train takes keywords alone; name what 'data/d' is"),
        (lambda: softlabels.dump(teacher="t", dtype="int8"),
         "--dtype is 'int8'; use float16 or float32"),
        (lambda: softlabels.train(precision="half"),
         "--precision is 'half'; use float32, bf16, fp16 or tf32"),
        (lambda: softlabels.train(keep=None), "--keep is None; use auto, gpu or disk"),
        (lambda: softlabels.train(lr=0), "--lr is 0; it must be a finite number above 0"),
        (lambda: softlabels.train(lr="1e-3"), "--lr is '1e-3'; it must be a finite number above 0"),
        (lambda: softlabels.train(alpha=1.5), "--alpha is 1.5; it must be a number from 0 to 1"),
        (lambda: softlabels.train(holdout=1), "--holdout is 1; .* up to but not including 1"),
        (lambda: softlabels.train(weight_decay=-1), "--weight-decay is -1; .*, 0 or more"),
        (lambda: softlabels.train(epochs=True), "--epochs is True; .* a whole number, 1 or more"),
        (lambda: softlabels.train(seed=-1), "--seed is -1; .* a whole number, 0 or more"),
        (lambda: softlabels.train(seed=2**63), "--seed is 9223372036854775808; .* and below 2⁶³"),
        (lambda: softlabels.dump(teacher="t", resume=1), "--resume is 1; it must be True or False"),
        (lambda: softlabels.dump(teacher=7), "--teacher is 7; it must be text"),
        (lambda: softlabels.dump(teacher="t", out=""), "--out is empty; write what is meant"),
        (lambda: softlabels.dump(teacher="t\0"), "no name has a zero byte"),
    ],
)  # fmt: skip
def test_what_a_verb_does_not_take_is_refused_in_words(call, message):
    with pytest.raises(UsageError, match=message):
        call()


def test_paths_and_numbers_of_other_types_are_taken():
    options = known.TrainOptions(dump=Path("data") / "d", epochs=np.int64(3), rows=8.0, T=8)
    assert (options.dump, options.epochs, options.rows, options.T) == (("data/d",), 3, 8, 8.0)
    assert [type(value) for value in (options.epochs, options.rows, options.T)] == [int, int, float]
    assert "progress" not in vars(options)
