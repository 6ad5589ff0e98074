"""The files of a downstream comparison: a page, its table as Markdown, and all numbers as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lamina.core.files import json_text, write_atomically
from lamina.core.text import markdown_table
from lamina.evaluate.compare.table import Comparison
from lamina.evaluate.score import Score
from lamina.report.jinja import write_page
from lamina.runs.run import software


def write_comparison(
    scores: Mapping[str, Sequence[Score]], data: str, out: Path, command: str = ""
) -> tuple[Path, Path, Path]:
    """README.md, result.json and index.html in `out`, from the scores of each model.

    Raises:
        OSError: where they cannot be written.
    """
    table = Comparison.of(scores)
    result = {
        "data": data,
        "command": command,
        "environment": software(),
        **table.to_json(),
        "gains": table.gains(),
        "scores": {name: [score.to_json() for score in each] for name, each in scores.items()},
    }
    files = out / "README.md", out / "result.json", out / "index.html"
    write_atomically(files[0], _markdown(table, scores, data, command))
    write_atomically(files[1], json_text(result))
    groups = [(name, each) for name, each in scores.items() if each]
    page = {"table": table, "groups": groups, "data": data, "command": command}
    write_page(files[2], "comparison.html", page)
    return files


def _markdown(table: Comparison, scores: Mapping[str, Sequence[Score]], data: str, command: str) -> str:
    notes = list(
        dict.fromkeys(f"{s.protocol}: {n}" for each in scores.values() for s in each for n in s.notes)
    )
    seconds: dict[str, float] = {}
    for score in (score for each in scores.values() for score in each):
        seconds[score.protocol] = seconds.get(score.protocol, 0.0) + score.seconds
    took = ", ".join(f"{name} {value / 60:.1f}" for name, value in seconds.items())
    parts = [
        f"# Downstream: {' and '.join(table.columns)} on {data}",
        f"    {command}" if command else "",
        "Test metrics in percent. Over several seeds: mean and 95 % interval (Student's t on the logit "
        "scale); of one seed: its own interval, over test images or draws of labels. Bold where a model "
        "beats every other by more than the interval.",
        markdown_table(*table.table()),
        "\n".join(f"- {gain}" for gain in table.gains()),
        "\n".join(f"- {note}" for note in notes),
        f"Minutes in all: {took}.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"
