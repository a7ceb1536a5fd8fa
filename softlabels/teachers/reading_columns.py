"""A teacher that takes its data's columns by name: held against what it takes, before it runs."""

from softlabels.inputs import reading_columns
from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.sources import Source
from softlabels.teachers.teacher import Teacher


def fit_to_columns(teacher: Teacher, source: Source, given: Preprocess | None = None) -> Preprocess:
    """How the teacher reads the rows of a source of columns, as `reading_columns.fit_to` has it;
    what there is to say of it goes to the teacher's remarks."""
    preprocess, remarks = reading_columns.fit_to(teacher.module, teacher.title, source, given)
    teacher.remarks += remarks
    teacher.pad = preprocess.pad or 0
    return preprocess
