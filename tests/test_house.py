"""The house: imports run downwards, one home of the softmax, light import, pinned names."""

import ast
import importlib
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import softlabels
from softlabels import errors
from tests.processes import start

ROOT = Path(softlabels.__file__).parent
FLOORS = {
    "errors": 1, "logits": 1, "label_spaces": 1, "config": 1, "spec": 1, "models": 1,
    "checkpoint": 1, "system": 1,
    "inputs": 2, "teachers": 2, "store": 2,
    "capture": 3, "targets": 3,
    "students": 4, "verification": 4, "hub": 4, "exchange": 4,
    "demo": 5, "flags": 5, "terminal": 5, "cli": 5, "cli_hub": 5,
    "cli_exchange": 5, "__main__": 5,
}  # fmt: skip
MODULES = sorted(ROOT.rglob("*.py"))
HEAVY = ["timm", "transformers", "onnxruntime", "ray", "matplotlib", "torch", "datasets", "pyarrow"]


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] + [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {n.split(".")[1] for n in names if n.startswith("softlabels.")}
    return found & set(FLOORS)


def test_every_room_has_a_floor():
    assert {room(path) for path in MODULES} - {"__init__"} == set(FLOORS)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_downwards(path: Path):
    here = room(path)
    if here == "__init__":
        return
    upward = {r for r in imported_rooms(path) if FLOORS[r] > FLOORS[here]}
    assert not upward, f"{here} (floor {FLOORS[here]}) imports {upward}"


def test_rooms_make_no_circle():
    arrows = {name: set() for name in FLOORS}
    for path in MODULES:
        if room(path) != "__init__":
            arrows[room(path)] |= imported_rooms(path) - {room(path)}
    while arrows:
        leaves = [name for name, targets in arrows.items() if not targets & set(arrows)]
        assert leaves, f"a circle among {sorted(arrows)}"
        for name in leaves:
            del arrows[name]


def test_any_room_may_be_the_first_to_be_imported():
    """A circle of imports within a room shows only where it is entered."""
    process = start(import_each_first)
    process.join(60)
    assert process.exitcode == 0


def import_each_first() -> None:
    for entered in set(FLOORS) - {"__main__"}:
        for name in [name for name in sys.modules if name.split(".")[0] == "softlabels"]:
            del sys.modules[name]
        importlib.import_module(f"softlabels.{entered}")


def test_softmax_has_one_home():
    words = {"softmax", "log_softmax", "logsumexp"}
    for path in MODULES:
        if room(path) == "logits":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            name = getattr(node, "attr", getattr(node, "id", None))
            assert name not in words, f"{path.name}:{node.lineno} uses {name}"


def test_public_names_are_pinned():
    assert softlabels.__all__ == [
        "DenseLogits", "SoftDataset", "SoftTargets", "SoftlabelsError", "Teacher", "__version__",
        "dump", "evaluate", "fit", "info", "kd_loss", "load", "plan", "pull", "push", "train",
        "verify",
        "with_soft_targets",
    ]  # fmt: skip
    for name in softlabels.__all__:
        assert getattr(softlabels, name) is not None
        assert name == "__version__" or getattr(softlabels, name).__doc__


def test_importing_is_light():
    code = (
        f"import sys, softlabels, softlabels.cli;print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_bad_option_is_told_before_torch_is_imported():
    code = f"""
import sys, softlabels.cli
try:
    softlabels.cli.app(["train", "x", "--alpha", "1.5"])
except SystemExit as stop:
    print(stop.code, [m for m in {HEAVY!r} if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "2 []"
    assert "--alpha is 1.5" in done.stderr


def test_running_the_stages_needs_no_extra():
    code = (
        "import sys, softlabels.capture, softlabels.students;"
        "print([m for m in ['timm', 'transformers', 'onnxruntime', 'ray', 'matplotlib'] "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_exception_tree_is_the_one_drawn():
    drawn = errors.__doc__ or ""
    for name, value in vars(errors).items():
        if isinstance(value, type):
            assert name in drawn
            assert issubclass(value, errors.SoftlabelsError)


def test_files_stay_small():
    long = {p.name: n for p in MODULES if (n := len(p.read_text().splitlines())) > 300}
    if long:  # split by idea, not by ruler
        warnings.warn(f"over 300 lines: {long}", stacklevel=1)
