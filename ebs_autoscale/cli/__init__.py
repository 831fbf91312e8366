"""The command line: verbs, options, exit codes."""

from ebs_autoscale.cli.parser import main

__all__ = ["main"]
