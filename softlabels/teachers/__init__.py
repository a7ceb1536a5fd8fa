"""From what a person writes after --teacher to a `Teacher`. Another kind of teacher is another
entry in `resolving.LOADERS`."""

from softlabels.teachers.resolving import resolve
from softlabels.teachers.teacher import Teacher

__all__ = ["Teacher", "resolve"]
