"""The command line: `lamina VERB`."""

from lamina.cli.entry import main

__all__ = ["main"]
