"""`lamina analyze NAME`: the analyses of the catalog, each by its options to its files, page and table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field, make_dataclass
from typing import Annotated, Any

import tyro

from lamina.analyze.catalog import analysis
from lamina.cli.output import print_table, say, typed_command
from lamina.cli.parse import parse
from lamina.core.text import printable


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

    from lamina.analyze.session import AnalysisSession
    from lamina.cli.progress import AnalysisBar
    from lamina.report.page import write_page_of_analyses

    with AnalysisBar() as bar:
        session = AnalysisSession(row, given.models, given.fields, bar, say)
        summary, files = session.run(typed_command())
    page = write_page_of_analyses(session.folder, session.run_analysed)
    print_table(summary.header, summary.rows)
    for line in (*summary.notes, *map(str, (files.json, files.png, files.svg, page))):
        say(printable(line))
    return 0
