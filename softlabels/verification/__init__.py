"""Whether a dump is what it says: its files, its source, its teacher's answers."""

from softlabels.verification.verdict import Verdict, verify

__all__ = ["Verdict", "verify"]
