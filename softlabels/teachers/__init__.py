"""A model that is believed: its file has a fingerprint, and it is tried before its answers count.
What a file holds is opened in `models/`."""

from softlabels.teachers.resolving import resolve
from softlabels.teachers.teacher import Teacher

__all__ = ["Teacher", "resolve"]
