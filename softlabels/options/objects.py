"""Options that are an object in Python: a data set or a model in memory. On the command line and in
YAML files they are text, so there they have the type `str`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from softlabels.errors import UsageError

if TYPE_CHECKING:
    import datasets
    import torch


@dataclass(frozen=True)
class Objects:
    """What an option takes beside text.

    text: says so to people
    takes: whether an object may be one; the code that opens it says what is wrong with it
    types: the types for a signature; a function, since it imports large libraries
    reads: the object that a text stands for, given the option's name and the text; the text itself
        where it stands for none
    by_name: whether a mapping from names may be one, which a YAML file can hold too
    """

    text: str
    takes: Callable[[Any], bool]
    types: Callable[[], Any]
    reads: Callable[[str, str], Any] = lambda name, text: text
    by_name: bool = False

    def checked(self, name: str, value: Any) -> Any:
        """Raises UsageError for something else."""
        if not self.takes(value):
            shown = value if isinstance(value, int | float | bool) else f"a {type(value).__name__}"
            raise UsageError(f"{name} is {shown}; it must be text, or in Python {self.text}")
        return value


def _may_be_data(value: Any) -> bool:
    """Streams too, which are refused with a remedy where data is opened."""
    return not isinstance(value, bytes | bytearray | type) and (
        hasattr(value, "__getitem__") or hasattr(value, "__iter__")
    )


def _data_types() -> Any:
    import datasets
    import torch

    return str | Path | datasets.Dataset | datasets.DatasetDict | torch.utils.data.Dataset


def _function_types() -> Any:
    return str | Callable


# an option that is said again for each value; in Python one may stand alone
if TYPE_CHECKING:
    Names = str | Sequence[str]
else:
    Names = tuple[str, ...]


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


def _dumps_types() -> Any:
    return str | Path | Sequence[str | Path] | Mapping[str, str | Path]


# dumps of several teachers: a folder or address of each, in Python also by a name of each
if TYPE_CHECKING:
    Dumps = str | Path | Sequence[str | Path] | Mapping[str, str | Path]
else:
    Dumps = Annotated[
        tuple[str, ...],
        Objects("a mapping from names to dumps", _is_mapping, _dumps_types, by_name=True),
    ]


def _may_be_weights(value: Any) -> bool:
    return isinstance(value, Mapping) or (hasattr(value, "__len__") and hasattr(value, "__iter__"))


def _weights_types() -> Any:
    return str | Sequence[float] | Mapping[str, float]


def weights_by_name(name: str, text: str) -> str | dict[str, float]:
    """`vit=0.7,cnn=0.3` by name; a text without names as it is. Raises UsageError for a part
    without a name or a number, and for a name that comes twice."""
    if "=" not in text:
        return text
    found: dict[str, float] = {}
    for part in text.split(","):
        who, _, number = (word.strip() for word in part.rpartition("="))
        try:
            weight = float(number)
        except ValueError:
            weight = None
        if not who or weight is None or who in found:
            wrong = f"has {who!r} twice" if who in found else f"has {part!r}"
            raise UsageError(
                f"{name} is {text!r}, which {wrong}; write each teacher's name once with its "
                f"weight, such as vit=0.7,cnn=0.3"
            )
        found[who] = weight
    return found


if TYPE_CHECKING:
    MixWeights = str | Sequence[float] | Mapping[str, float]
else:
    MixWeights = Annotated[
        str,
        Objects("numbers, or a mapping from names to numbers", _may_be_weights, _weights_types,
                weights_by_name, by_name=True),
    ]  # fmt: skip

if TYPE_CHECKING:
    Preprocessing = str | Callable[[Any], Any]
else:
    Preprocessing = Annotated[
        str,
        Objects("a function from a picture or a row's numbers to an array", callable,
                _function_types),
    ]  # fmt: skip


def _may_be_teacher(value: Any) -> bool:
    return callable(value) and not isinstance(value, type)


def _teacher_types() -> Any:
    import torch

    return str | Path | torch.nn.Module | Callable


if TYPE_CHECKING:
    Teacher = str | Path | torch.nn.Module | Callable[[torch.Tensor], Any]
else:
    Teacher = Annotated[
        str,
        Objects("an nn.Module, or a callable from a batch to logits", _may_be_teacher,
                _teacher_types),
    ]  # fmt: skip


def _teachers_types() -> Any:
    return _teacher_types() | Sequence | Mapping


# one, several in order, or several by name
if TYPE_CHECKING:
    Teachers = Teacher | Sequence[Teacher] | Mapping[str, Teacher]
else:
    Teachers = Annotated[
        tuple[Teacher, ...],
        Objects("a teacher, several, or several by their names", _may_be_teacher, _teachers_types,
                by_name=True),
    ]  # fmt: skip


def _may_be_measured(value: Any) -> bool:
    if hasattr(value, "with_temperature"):
        raise UsageError(
            f"checkpoint is {value!r}, stored answers and no model; softlabels.info(dataset) "
            f"measures teachers by their answers, and their mixture"
        )
    return _may_be_teacher(value)


if TYPE_CHECKING:
    Measured = str | Path | torch.nn.Module | Callable[[torch.Tensor], Any]
else:
    Measured = Annotated[
        str,
        Objects("an nn.Module, or a callable from a batch to logits", _may_be_measured,
                _teacher_types),
    ]  # fmt: skip


def _tokenizer_types() -> Any:
    return str | Path | Callable


if TYPE_CHECKING:
    TextTokenizer = str | Path | Callable[..., Any]
else:
    TextTokenizer = Annotated[
        str, Objects("a tokenizer of transformers", _may_be_teacher, _tokenizer_types)
    ]


def _student_types() -> Any:
    import torch

    return str | torch.nn.Module | Callable


if TYPE_CHECKING:
    Trained = str | torch.nn.Module | Callable[..., torch.nn.Module]
else:
    Trained = Annotated[
        str,
        Objects("an nn.Module, which is trained itself, or a function that makes one", callable,
                _student_types),
    ]  # fmt: skip

if TYPE_CHECKING:
    Data = str | Path | datasets.Dataset | datasets.DatasetDict | torch.utils.data.Dataset[Any]
else:
    Data = Annotated[
        str,
        Objects("a datasets.Dataset or a torch data set with rows by number", _may_be_data,
                _data_types),
    ]  # fmt: skip
