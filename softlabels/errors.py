"""Every error that softlabels raises on purpose.

    SoftlabelsError                exit 1   the work failed
    ├── UsageError                 exit 2   an option or value is wrong
    ├── MissingExtra                        an optional library is not installed
    ├── SourceError                         the data can't be found or understood
    │   ├── UnreadableInput                 one row can't be decoded
    │   ├── LabelSpaceMismatch              its classes are not those of the model or the dump
    │   └── AlignmentError                  rows are not the ones that the teacher saw
    ├── TeacherError                        the teacher can't be loaded or run
    │   ├── OutOfMemory                     for so many rows at once
    │   └── UntrustedPickle                 loading the file could run code
    ├── TrainingError                       training went wrong
    ├── ExportError                         a model can't be written for other programs
    ├── LogitsError                         logits that must not be stored
    └── StoreError                          a dump's folder is not what it should be
        ├── PlanMismatch                    the folder holds a dump made otherwise
        ├── IncompleteDump                  shards are missing; the dump can be resumed
        ├── FolderInUse                     another dump writes there at this moment
        ├── DamagedDump                     files disagree with their records
        └── DiskFull                        no space left; what is committed is safe

A message gives the value, what was expected, and the remedy. Only the command line turns an error
into text and an exit code.
"""


class SoftlabelsError(Exception):
    """The base of all errors raised on purpose. `exit_code` is the command line's."""

    exit_code = 1


class UsageError(SoftlabelsError, ValueError):
    exit_code = 2


class MissingExtra(SoftlabelsError, ImportError):
    """reason: why the library can't be imported, if it is there all the same."""

    def __init__(self, library: str, extra: str, purpose: str, reason: str = "") -> None:
        problem = f"can't be imported ({reason})" if reason else "is not installed"
        super().__init__(
            f"{purpose} needs {library}, which {problem}: pip install 'softlabels[{extra}]'"
        )
        self._parts = library, extra, purpose, reason

    def __reduce__(self) -> tuple:
        return type(self), self._parts


class SourceError(SoftlabelsError):
    pass


class UnreadableInput(SourceError):
    pass


class LabelSpaceMismatch(SourceError):
    pass


class AlignmentError(SourceError):
    pass


class TeacherError(SoftlabelsError):
    pass


class OutOfMemory(TeacherError):
    pass


class UntrustedPickle(TeacherError):
    pass


class TrainingError(SoftlabelsError):
    pass


class ExportError(SoftlabelsError):
    pass


class LogitsError(SoftlabelsError):
    pass


class StoreError(SoftlabelsError):
    pass


class PlanMismatch(StoreError):
    pass


class IncompleteDump(StoreError):
    pass


class FolderInUse(StoreError):
    pass


class DamagedDump(StoreError):
    pass


class DiskFull(StoreError):
    pass
