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
ROOMS = """
errors
system spec soft_targets
schedules
logits
mixtures differences features
options label_spaces models probabilities measures multilabel
inputs
store teachers
places
reports
capture targets
students verification exchange
hub pages
__init__
cli
__main__
"""
INSIDE = {
    "inputs": """
texts
plain pointers label_lists resizing reading_errors class_names
hashing rows labels rendering functions
pictures
listed_labels crop_percentage
steps
preprocess views
tables cropping
cells hints whereabouts token_cells token_columns token_span decoding
number_cells number_columns
columns
sources
chosen_rows token_cache checked stored_pictures decoded_cache
kept
describing label_numbers examples
token_inputs
text_inputs tokenizing reading_tokens
reading_columns
opening preprocessing own_preprocessing viewed augmented shown
""",
    "inputs.views": """
chance beta batch_rows colours
augmentations
mixing recolouring
erasing
augment
""",
    "inputs.tables": """
identity live_cells
table folders
headers parquet text_files live opened
image_folders live_opening flag_columns
opening
""",
    "store": """
names pages json_objects shard_numbers bands
folder fields gathering
side_files pilots plan_parts
codecs
plan lives
label_columns
records claims
statistics footers
ledger shard_reader mapping left_out
reader writer shard_check
inputs
""",
    "models": """
causes outputs sniffing last_layers metadata named
compiling tokens limits
feeding masks keywords graphs pickles
lengths
tokenizers padding
specs model shards
naming blueprints
factories timm torchvision transformers
sources
torchscript exported onnx state_dicts objects hashes
checkpoint layers
weights
opening
starting
""",
    "places": """
hub_address remote_copies
hub_copies hub_files
folders newest
siblings
""",
    "reports": """
markdown recipe facts doubts choosing page confusions flips inputs
classes rows families contrast
survey ensemble wording
comparison
worst
info figures card
""",
    "reports.page": """
charts
blocks
rendering soft_rows paired_rows
""",
    "pages": """
portrait pictures earlier
measures classes example_rows comparison
dump
reporting comparing
""",
    "students.sweeps": """
grid
results
figure tables temperature_chart
folder
reading
curve_charts
page
""",
    "students.stack": """
layers adamw
convolutions optimization judging
trainer
running
""",
    "students.losses": """
hard
part
divergences matching decoupled relations
registry
checks chunked
blending
functions linear
""",
    "targets": """
batch orders joining holdout
turns
batches mapped_rows
streamed_rows
soft_dataset
concatenated mixed labelled same_rows streamed_together
weighting
side_by_side
loading
abreast transform timm_loader
describing comparing
""",
}
LAYERS = {"softlabels": ROOMS} | {f"softlabels.{room}": text for room, text in INSIDE.items()}
MODULES = sorted(ROOT.rglob("*.py"))
HEAVY = ["timm", "transformers", "onnxruntime", "ray", "matplotlib", "torch", "datasets", "pyarrow"]


def layers_of(place: str) -> dict[str, int]:
    """The layer of each name that lies directly in `softlabels` or a room."""
    lines = LAYERS[place].split("\n")
    return {name: layer for layer, line in enumerate(lines) for name in line.split()}


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """The dotted names that a module imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "a relative import hides where it leads"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("place", LAYERS)
def test_every_name_has_a_layer(place: str):
    entries = (ROOT / "/".join(place.split(".")[1:])).iterdir()
    names = {e.stem for e in entries if e.suffix == ".py" or (e / "__init__.py").exists()}
    assert names | {"__init__"} == set(layers_of(place)) | {"__init__"}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_downwards(path: Path):
    """A line above, never the same one, so there is no circle either. What is no name of a layer,
    as in `from softlabels import dump`, is got through the door, `__init__`."""
    own = ["softlabels", *path.relative_to(ROOT).with_suffix("").parts]
    for place in LAYERS:
        depth, layers = len(place.split(".")), layers_of(place)
        if own[:depth] != place.split(".") or own[depth] not in layers:
            continue
        for name in imported(path):
            parts = [*name.split("."), "__init__"]
            if parts[:depth] == place.split(".") and parts[depth] != own[depth]:
                layer = layers.get(parts[depth], layers.get("__init__", 0))
                assert layer < layers[own[depth]], f"{'.'.join(own)} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_hub_is_known_to_places_and_what_is_above(path: Path):
    layers = layers_of("softlabels")
    if layers[room(path)] >= layers["places"]:
        return
    assert not [name for name in imported(path) if name.split(".")[0] == "huggingface_hub"]
    assert "hf://" not in path.read_text()


def test_students_need_no_teacher():
    """Not even through what they import: opening a model is below, in `models`."""
    code = "import sys, softlabels.students; print([m for m in sys.modules if 'teachers' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    reached, waiting = set(), {"softlabels.students"}
    while waiting:
        reached |= waiting
        paths = [path for path in MODULES if dotted(path) in waiting]
        names = {name for path in paths for name in imported(path)}
        waiting = {module for module in map(dotted, MODULES) if is_entered(module, names)} - reached
    assert "softlabels.targets" in reached
    assert not [name for name in reached if name.startswith("softlabels.teachers")]


def dotted(path: Path) -> str:
    """The name of a module as an import has it."""
    return ".".join(["softlabels", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(
        ".__init__"
    )


def is_entered(module: str, names: set[str]) -> bool:
    """Whether importing one of these names runs the module, also in a function. The door is left
    out: it leads everywhere, when asked."""
    return module != "softlabels" and any(f"{name}.".startswith(f"{module}.") for name in names)


def test_options_stop_at_the_verbs():
    """A command's options become objects in its verb's module, or in the door that two verbs share;
    below, a function takes what it needs."""
    for path in MODULES:
        takes_options = any(name.startswith("softlabels.options") for name in imported(path))
        if takes_options and room(path) not in ("options", "cli") and path.stem != "preparing":
            assert "@verb(" in path.read_text(), f"{path} takes the options of a command"


def test_any_room_may_be_the_first_to_be_imported():
    """A circle of imports within a room shows only where it is entered."""
    process = start(import_each_first)
    process.join()
    assert process.exitcode == 0


def import_each_first() -> None:
    for entered in set(layers_of("softlabels")) - {"__init__", "__main__"}:
        for name in [name for name in sys.modules if name.split(".")[0] == "softlabels"]:
            del sys.modules[name]
        importlib.import_module(f"softlabels.{entered}")


def test_softmax_has_one_home():
    words = {"softmax", "log_softmax", "logsumexp"}
    for path in MODULES:
        if room(path) == "soft_targets":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            name = getattr(node, "attr", getattr(node, "id", None))
            assert name not in words, f"{path.name}:{node.lineno} uses {name}"


def test_public_names_are_pinned():
    assert softlabels.__all__ == [
        "DenseLogits", "FeatureLogits", "LinearHead", "SoftDataset", "SoftTargets",
        "SoftlabelsError", "Teacher", "TimmLoader", "__version__", "compare", "dist_loss",
        "dkd_loss", "dump", "evaluate", "examples", "export", "find_loss", "fit", "import_logits",
        "info", "js_loss", "kd_loss", "linear_kd_loss", "list_dumps", "load", "mse_loss", "plan",
        "pull", "push", "report", "reverse_kl_loss", "show", "standardised_kd_loss", "sweep",
        "temperature_schedule", "train", "verify", "with_soft_targets",
    ]  # fmt: skip
    for name in softlabels.__all__:
        assert getattr(softlabels, name) is not None
        assert name == "__version__" or getattr(softlabels, name).__doc__


def test_importing_is_light():
    shown = f"print([m for m in {HEAVY!r} if m in sys.modules])"
    code = f"import sys, softlabels, softlabels.cli; {shown}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_bad_option_is_told_before_torch_is_imported():
    code = f"""
import sys, softlabels.cli.app
try:
    softlabels.cli.app.app(["train", "x", "--alpha", "1.5"])
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
