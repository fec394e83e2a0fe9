"""The command line: one module a command."""

from htcgrid.cli.main import main

__all__ = ["main"]
