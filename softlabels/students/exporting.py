"""The verb `export`: from a checkpoint to a file for other programs, compared with it.

N inputs, C classes.
"""

import io
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from softlabels.errors import ExportError, TeacherError, UsageError
from softlabels.inputs.own_preprocessing import check_own_preprocessing
from softlabels.inputs.preprocess import Preprocess
from softlabels.models.checkpoint import Checkpoint
from softlabels.models.keywords import keywords_of
from softlabels.models.metadata import Metadata
from softlabels.models.model import Model
from softlabels.models.tokenizers import Tokenizer, open_tokenizer
from softlabels.models.tokens import IDS, KINDS, MASK
from softlabels.models.transformers import save_classifier, transformers_blueprint
from softlabels.options import ExportOptions, verb
from softlabels.students.programs import Numeric, Program, as_onnx, as_pt2, program_of
from softlabels.students.text_programs import TokenProgram, kinds_of
from softlabels.system.extras import need
from softlabels.system.humanize import few, size_words
from softlabels.system.local_files import appearing, partial_path
from softlabels.system.progress import Progress

ENDINGS = {"onnx": ".onnx", "pt2": ".pt2", "hf": "-hf"}
BATCHES = (1, 2, 7)  # rows of the random inputs
# The largest difference that is rounding, as a part of the spread of the logits: what
# `verify --replay` allows in float32, where other kernels add in another order.
ROUNDING = 1e-3


@dataclass(frozen=True)
class Exported:
    """What was written.

    out: the file or folder
    bytes: its size
    inputs: what it takes, for people
    difference: the largest between its logits and the checkpoint's, on `rows` random inputs
    spread: the standard deviation of these logits
    remarks: what it does not hold
    """

    checkpoint: str
    out: str
    bytes: int
    inputs: str
    classes: int
    difference: float
    spread: float
    rows: int = sum(BATCHES)
    remarks: list[str] = field(default_factory=list)

    @property
    def lines(self) -> list[str]:
        return [
            f"{self.out}: {size_words(self.bytes)}; takes {self.inputs}; gives logits [N, "
            f"{self.classes}]",
            f"largest difference from {self.checkpoint} on {self.rows} random inputs: "
            f"{self.difference:.2g}, of logits with a spread of {self.spread:.2g}",
            *self.remarks,
        ]

    def __repr__(self) -> str:
        return f"Exported({'; '.join(self.lines)})"


@verb(ExportOptions)
def export(options: ExportOptions, progress: Progress) -> Exported:
    """Write a checkpoint's model for other programs, and compare what it gives.

    The file takes decoded and resized pictures, uint8 [N, C, H, W], numbers, [N, …], or the tokens
    of texts, int64 [N, L], and any number of rows; the steps on numbers of the preprocessing are in
    it, and those before them stand in its metadata, with the names of the classes. Nothing is
    written unless its logits are the checkpoint's up to rounding.

    Raises ExportError where the model can't be written so, TeacherError for what is no checkpoint,
    and UsageError for a folder or a name that can't be written to.
    """
    path = Path(options.checkpoint).expanduser()
    checkpoint = _open(path, options.checkpoint)
    out = Path(options.out or path.with_name(path.stem + ENDINGS[options.to])).expanduser()
    if options.out is None and out.is_file():  # t.onnx may be the teacher that t.pt was made from
        raise UsageError(f"{out} is there already; to overwrite it, name it with --out {out}")
    _check_out(out, options.to)
    preprocess = Preprocess.parse(checkpoint.preprocess)
    title = f"the model {checkpoint.model} of {options.checkpoint}"
    module, classes = checkpoint.build(options.model), checkpoint.num_classes

    def around(module: nn.Module) -> TokenProgram | Numeric:
        if preprocess.keeps_tokens and not checkpoint.input_shape:
            kinds = _kinds_of_columns(checkpoint, module, title)
        elif preprocess.is_tokenizer:
            pairs = len(_inputs(checkpoint)) > 1
            kinds = kinds_of(checkpoint.own_tokenizer(options.checkpoint), module, pairs)
        else:
            return Numeric(module, preprocess, checkpoint.input_shape, classes, title)
        return TokenProgram(module, preprocess, kinds, classes, title)

    named, tokens = _inputs(checkpoint), preprocess.is_tokenizer or preprocess.keeps_tokens
    if len(named) > 1 and not tokens and not checkpoint.input_shape:
        raise ExportError(
            f"{title} takes the columns {', '.join(named)} by name, and a file "
            f"of export takes one tensor: write it with torch.export.export or torch.onnx.export, "
            f"whose programs softlabels opens with inputs by name"
        )
    model = around(module)
    if options.to == "hf":
        return _to_folder(options.checkpoint, checkpoint, model, around, out)
    try:
        program = program_of(model)
    except ExportError as error:
        if checkpoint.configuration is None:
            raise
        raise ExportError(f"{error}. --to hf writes it as transformers saves it") from error
    before = "|".join(map(str, preprocess.picture))
    metadata = Metadata(
        model=checkpoint.model,
        task=_task(checkpoint),
        before=before,
        inside="|".join(map(str, preprocess.numbers)),
        class_names=checkpoint.class_names,
    )
    if options.to == "onnx":
        content = as_onnx(program, model, metadata, title)
        run = _in_onnxruntime(content, model.names, title)
    else:
        content = as_pt2(program, metadata)
        run = torch.export.load(io.BytesIO(content)).module()
    difference, spread = _difference(model, run, f"{title}, as {options.to},")
    with appearing(out) as file:
        file.write(content)
    return Exported(
        checkpoint=options.checkpoint,
        out=str(out),
        bytes=len(content),
        inputs=model.describe_inputs(before),
        classes=classes,
        difference=difference,
        spread=spread,
    )


def _open(path: Path, text: str) -> Checkpoint:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        dump = " A dump is exported by the recipes of docs/exchange.md." * path.is_dir()
        raise TeacherError(f"{text} {what}; export takes a checkpoint of fit or train.{dump}")
    checkpoint = Checkpoint.read(path)
    if checkpoint is None:
        raise TeacherError(
            f"{text} is no checkpoint of softlabels fit or train, which export takes"
        )
    if not checkpoint.training.get("complete", False):
        raise ExportError(
            f"{text} is of an unfinished training, after epoch {checkpoint.metrics.get('epoch')}: "
            f"finish it with --resume"
        )
    return checkpoint


def _kinds_of_columns(checkpoint: Checkpoint, module: nn.Module, title: str) -> int:
    """As `kinds_of`, where the model learned from columns of tokens. Raises ExportError where it
    was given other columns, too."""
    names = _inputs(checkpoint) or [IDS]
    others = [name for name in names if name not in (IDS, KINDS, MASK)]
    if given := [name for name in others if keywords_of(module).takes(name)]:
        raise ExportError(
            f"{title} was given {few(given)} too, and a program takes {IDS}, {MASK} and {KINDS}"
        )
    return int(KINDS in names and keywords_of(module).takes(KINDS))


def _inputs(checkpoint: Checkpoint) -> list[str]:
    """The columns that it was told to learn from; empty where they were found by type."""
    named = checkpoint.data.get("input_column") or []
    return named.split(",") if isinstance(named, str) else list(named)


def _task(checkpoint: Checkpoint) -> str:
    return str(checkpoint.data.get("task", "classification"))


def _check_out(out: Path, to: str) -> None:
    if to == "hf":
        if out.is_file() or (out.is_dir() and any(out.iterdir())):
            raise UsageError(f"--out is {out}, which is there already; name another folder")
    elif out.is_dir():
        raise UsageError(
            f"--out is {out}, which is a folder; name a file, such as {out / 's'}.{to}"
        )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"--out is {out}; nothing can be written there: {error.strerror}"
        ) from error


def _in_onnxruntime(content: bytes, names: Sequence[str], title: str) -> Callable[..., Tensor]:
    runtime = need("onnxruntime", "onnx", f"the export of {title}, which is compared with it,")
    settings = runtime.SessionOptions()
    settings.log_severity_level = 4  # what goes wrong is raised too
    try:
        session = runtime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own kinds have no common base
        reason = " ".join(str(error).split())[:300]
        raise ExportError(f"onnxruntime can't run {title} as ONNX: {reason}") from error

    def run(*inputs: Tensor) -> Tensor:
        given = {name: values.numpy() for name, values in zip(names, inputs, strict=True)}
        return torch.from_numpy(session.run(None, given)[0])

    return run


@torch.no_grad()
def _difference(model: Program, run: Callable[..., Tensor], title: str) -> tuple[float, float]:
    """(The largest difference of logits, their spread) on random inputs. Raises ExportError where
    it is more than rounding."""
    ours, theirs = [], []
    for rows in BATCHES:
        inputs = model.draw(rows, seed=rows)
        ours.append(model(*(values.clone() for values in inputs)))
        theirs.append(run(*(values.clone() for values in inputs)))
    ours_NC, theirs_NC = torch.cat(ours), torch.cat(theirs)
    difference, spread = float((ours_NC - theirs_NC).abs().max()), float(ours_NC.std())
    if not difference <= ROUNDING * spread:  # nor NaN
        raise ExportError(
            f"{title} gives other logits than the checkpoint: they differ by up to "
            f"{difference:.2g} on random inputs, and rounding explains {ROUNDING * spread:.2g}; "
            f"nothing was written"
        )
    return difference, spread


def _to_folder(
    name: str,
    checkpoint: Checkpoint,
    model: TokenProgram | Numeric,
    around: Callable[[nn.Module], Program],
    out: Path,
) -> Exported:
    """As save_pretrained writes it: of pictures with a processor where one does what the
    preprocessing says, of texts with the tokenizer."""
    if checkpoint.configuration is None:
        raise ExportError(
            f"{model.title} is no classifier of transformers, which --to hf is for; use --to onnx "
            f"or --to pt2"
        )
    beside, names, task = Path(partial_path(out)), checkpoint.class_names, _task(checkpoint)
    try:
        if isinstance(model, Numeric):
            save_classifier(model.model, beside, names, task, model.preprocess)
            remarks = _check_processor(beside, model.preprocess)
            inputs = f"pixel_values [{', '.join(['N', *map(str, model.shape)])}]"
        else:
            save_classifier(model.model, beside, names, task, None)
            remarks, inputs = [], model.describe_inputs("")
            if checkpoint.tokenizer is not None:  # none made the columns of tokens that it read
                remarks = _save_tokenizer(beside, checkpoint.own_tokenizer(name), model)
                inputs = "texts, by its tokenizer"
        again = around(transformers_blueprint(str(beside)).pretrained().module)
        difference, spread = _difference(model, again, f"{model.title}, as a folder,")
        size = sum(file.stat().st_size for file in beside.iterdir())
        if out.is_dir():
            out.rmdir()
        beside.rename(out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return Exported(
        checkpoint=name,
        out=str(out),
        bytes=size,
        inputs=inputs,
        classes=model.classes,
        difference=difference,
        spread=spread,
        remarks=remarks,
    )


def _save_tokenizer(folder: Path, tokenizer: Tokenizer, model: TokenProgram) -> list[str]:
    """Save the tokenizer; where training cut texts, as its `model_max_length`. A remark about that.
    Raises ExportError where it makes other tokens when it is loaded again."""
    cut = model.preprocess.cut_at
    if cut is not None:
        tokenizer.tokenizer.model_max_length = cut
    tokenizer.tokenizer.save_pretrained(folder)
    again = open_tokenizer(str(folder))
    if again.hash != tokenizer.hash:
        raise ExportError(
            f"{model.title}: its tokenizer was {tokenizer.hash} and is {again.hash} when what was "
            f"saved is loaded again; nothing was written"
        )
    if cut is None:
        return []
    return [f"training cut texts at {cut:,} tokens: tokenize them with truncation=True"]


def _check_processor(folder: Path, preprocess: Preprocess) -> list[str]:
    """Hold the processor that was saved against the preprocessing, on pictures; one that does
    something else is removed, and a remark says so."""
    processor = folder / "preprocessor_config.json"
    if processor.exists():
        blueprint = transformers_blueprint(str(folder))
        try:
            if blueprint.transform is None:
                raise TeacherError(blueprint.unsaid)
            check_own_preprocessing(
                Model(name="processor", kind="transformers", module=torch.nn.Identity(),
                      preprocess=str(preprocess), transform=blueprint.transform)
            )  # fmt: skip
            return []
        except TeacherError:
            processor.unlink()
    return [
        f"warning: without {processor.name}: no processor of transformers does what {preprocess} "
        f"does"
    ]
