"""The types of the fields of records, and their base class.

An error message about a value ends with the description of its type.
"""

from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError
from typing_extensions import TypeAliasType

from softlabels.errors import DamagedDump
from softlabels.store.json_objects import problem_of

FORMAT: Final = "softlabels/1"
INT64 = 2**63 - 1
# The characters of a name in a file's name: no punctuation, no spaces, none that control a text
LETTERS = r"[^\u0000-/:-@\[-^`{-\u00a0\u2000-\u206f\ufeff]+"
SPLIT = rf"{LETTERS}([.-]{LETTERS})*"

Count = TypeAliasType(
    "Count",
    Annotated[
        int,
        Field(ge=0, le=INT64, description="a whole number, 0 or more, written without a fraction"),
    ],
)
Size = TypeAliasType(
    "Size",
    Annotated[
        int,
        Field(ge=1, le=INT64, description="a whole number, 1 or more, written without a fraction"),
    ],
)
Rows = TypeAliasType(
    "Rows", Annotated[int, Field(ge=0, le=2**48, description="a whole number from 0 to 2^48")]
)
Int64 = TypeAliasType(
    "Int64", Annotated[int, Field(ge=-INT64 - 1, le=INT64, description="a whole number of 64 bits")]
)
Number = TypeAliasType(
    "Number",
    # the bounds refuse whole numbers that no float holds, which JSON may contain
    Annotated[
        float,
        Field(ge=-1.7976931348623157e308, le=1.7976931348623157e308, description="a finite number"),
    ],
)
Text = TypeAliasType("Text", Annotated[str, Field(description="text")])
Sha256 = TypeAliasType(
    "Sha256",
    Annotated[
        str,
        Field(
            pattern="^[0-9a-f]{64}$",
            max_length=64,
            description="the file's SHA-256, 64 small hex digits",
        ),
    ],
)
Hash = TypeAliasType(
    "Hash",
    Annotated[
        str,
        Field(
            pattern="^sha256:[0-9a-f]{64}$",
            max_length=71,
            description="sha256:HEX, with 64 small hex digits",
        ),
    ],
)
ShortHash = TypeAliasType(
    "ShortHash",
    Annotated[
        str, Field(pattern="^[0-9a-f]{16}$", max_length=16, description="16 small hex digits")
    ],
)
ShardFile = TypeAliasType(
    "ShardFile",
    Annotated[
        str,
        Field(
            pattern=rf"^data/{SPLIT}-[0-9]{{5,6}}-of-[0-9]{{5,6}}\.parquet$",
            max_length=160,
            description="data/SPLIT-SHARD-of-SHARDS.parquet, with numbers of five digits or more",
        ),
    ],
)
SideFile = TypeAliasType(
    "SideFile",
    Annotated[
        str,
        Field(
            pattern=r"^shared/[A-Za-z0-9_]+([.-][A-Za-z0-9_]+)*$",
            max_length=100,
            description="a file in shared/, of letters, digits and _, with single . or - between",
        ),
    ],
)
# Checking a list stops at its first wrong entry: a million errors would fill the memory.
Texts = TypeAliasType(
    "Texts", Annotated[list[Text], FailFast(), Field(description="a list of texts")]
)

Views = TypeAliasType(
    "Views",
    Annotated[
        list[Annotated[int, Field(ge=0, le=2**31 - 1)]],
        FailFast(),
        Field(
            min_length=1,
            max_length=10_000,
            description="the numbers of each input's views, ascending: 0 is the input as it is",
        ),
    ],
)
Shape = TypeAliasType(
    "Shape",
    Annotated[
        list[Annotated[int, Field(ge=1, le=2**16)]],
        FailFast(),
        Field(
            min_length=3,
            max_length=3,
            description="channels, height and width: three whole numbers from 1 to 65,536",
        ),
    ],
)


class Record(BaseModel):
    """The base of all records: values are checked and never converted, and fields never change."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False)

    @classmethod
    def parse(cls, value: Any, where: str) -> Self:
        """A record from JSON that a stranger may have written. where: its file, for errors.

        Raises DamagedDump that names the first field that is wrong, and what was expected.
        """
        if not isinstance(value, dict):
            raise DamagedDump(f"{where} is {type(value).__name__}, not an object")
        if "format" in cls.model_fields and value.get("format") != FORMAT:
            shown = str(value.get("format"))[:80]
            raise DamagedDump(f"{where} has the format {shown!r}; this softlabels reads {FORMAT}")
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise DamagedDump(f"{where}: {problem_of(error, cls)}") from error

    @property
    def as_json(self) -> dict[str, Any]:
        """The record as plain values, without the fields that have their defaults."""
        return self.model_dump(exclude_defaults=True)

    def replace(self, **changes: Any) -> Self:
        """A copy with other values, which are checked like those of a new record."""
        return type(self)(
            **{name: getattr(self, name) for name in type(self).model_fields} | changes
        )
