"""What verbs print: lines, tables, and the scores of an evaluation."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from lamina.core.console import make_console
from lamina.core.errors import LaminaError
from lamina.core.files import check_writable
from lamina.core.terminal import why
from lamina.core.text import printable, without_secrets

if TYPE_CHECKING:
    from lamina.evaluate.score import Score

SCORE_COLUMNS = ("protocol", "metric", "value", "95 % interval", "train", "test")
# A table that goes to a file or a pipe may be as wide as it needs.
console = make_console(soft_wrap=True, width=None if sys.stdout.isatty() else 140)


def say(line: str) -> None:
    """Print a line as it is: brackets in it are no markup."""
    console.print(line, markup=False)


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]], gap: int = 2) -> None:
    """Print columns, so many spaces apart; names in them are no markup."""
    table = Table(*header, box=None, pad_edge=False, padding=(0, gap, 0, 0))
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    console.print(table)


def typed_command() -> str:
    """The command as it was typed, but for secrets in addresses, for the pages and pictures that it makes."""
    return shlex.join(["lamina", *map(without_secrets, sys.argv[1:])])


def check_json(file: Path | None) -> None:
    """Raise before any work where a result could not be written to this file after it."""
    if file is not None:
        check_writable(file)


def print_scores(scores: Sequence[Score], file: Path | None = None) -> None:
    """Print scores as a table, or the table of one probe; save a single score to a file where one is given,
    and write the run's report anew."""
    if file is not None:
        (score,) = scores
        score.save(file)
    if scores[0].rows:
        _print_probe(scores[0])
    else:
        print_table(
            ("protocol", "metric", "value", "95 % interval", "train", "test"), map(_row, scores), gap=3
        )
    for score in scores:
        for name, value in score.more.items():
            if not score.rows and not name.startswith("draw "):
                say(f"{name}: {100 * value:.1f} %")
        for note in (*score.notes, *(() if score.timing is None else (str(score.timing),))):
            say(note)
    refresh_report(scores[0].model)


def _print_probe(score: Score) -> None:
    largest = f"the largest with {100 * (score.majority or 0):.1f} % of the test images"
    classes = f"{len(score.classes)} classes, {largest}"
    if score.prevalence is not None:
        classes = f"{len(score.classes)} labels with a mean prevalence of {100 * score.prevalence:.1f} %"
    images = f"{score.n_train} training and {score.n_test} test images"
    say(f"{score.protocol} on {score.data}: {images}, {classes}")
    header, *rows = score.table()
    print_table(header, rows)
    for name, value in score.of_labels.items():
        say(f"{name}: {100 * value:.1f} %")


def _row(score: Score) -> tuple[str, ...]:
    interval = " to ".join(f"{100 * value:.1f}" for value in score.interval or ())
    value, counts = f"{100 * score.value:.1f} %", (str(score.n_train), str(score.n_test))
    return (score.protocol, score.metric, value, interval, *counts)


def refresh_report(model: str) -> None:
    """Write a run's report anew with a result that is on the disk by now: a report that cannot be written is
    no error, but is mentioned."""
    from lamina.report.page import write_report
    from lamina.runs.run import Run

    run = Run(model)
    if not run.exists():
        return
    try:
        say(f"report {write_report([run.path], run.report_file)}")
    except (OSError, LaminaError) as error:
        say(f"the run's report was not updated: {why(error)}")
