"""The command line."""

from softlabels.cli.app import main

__all__ = ["main"]
