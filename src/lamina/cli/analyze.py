"""`lamina analyze NAME`: the analyses of the catalog, each by its options to its files, page and table."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import field, make_dataclass
from typing import Annotated, Any

import tyro

from lamina.analyze.catalog import analysis
from lamina.cli.parse import parse


def analyze(name: str, args: Sequence[str]) -> int:
    """Run one analysis: parse its options, compute it, write files and page, print the main numbers."""
    row = analysis(name)
    models = tyro.conf.arg(metavar="MODEL ...", help=row.takes, help_behavior_hint="")
    arguments = make_dataclass(
        "Arguments",
        [
            ("models", Annotated[tuple[str, ...], tyro.conf.Positional, models]),
            ("fields", Annotated[row.options, tyro.conf.arg(name="")], field(default=row.options())),
        ],
        namespace={"__doc__": row.help},
    )
    given: Any = parse(arguments, args, f"lamina analyze {name}")

    from rich.table import Table
    from rich.text import Text

    from lamina.analyze.session import AnalysisSession
    from lamina.cli.progress import AnalysisBar
    from lamina.core.console import make_console
    from lamina.core.text import printable
    from lamina.report.page import write_page_of_analyses

    console = make_console(soft_wrap=True, width=None if sys.stdout.isatty() else 140)

    def say(line: str) -> None:
        console.print(printable(line), markup=False)

    with AnalysisBar() as bar:
        session = AnalysisSession(row, given.models, given.fields, bar, say)
        summary, files = session.run(shlex.join(["lamina", *sys.argv[1:]]))
    page = write_page_of_analyses(session.folder, session.run_analysed)
    table = Table(*summary.header, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for cells in summary.rows:
        table.add_row(*(Text(printable(cell)) for cell in cells))  # names are no markup
    console.print(table)
    for line in (*summary.notes, *map(str, (files.json, files.png, files.svg, page))):
        say(line)
    return 0
