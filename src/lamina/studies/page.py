"""The page of a study: its question, command, tables and figure, as Markdown beside the numbers as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from lamina.analyze.output import save_figure
from lamina.core.files import write_atomically
from lamina.core.intervals import seeds_of
from lamina.core.text import markdown_table
from lamina.runs.run import software


@dataclass(frozen=True)
class Table:
    """Rows of text under a header."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, title: str, rows: Sequence[Mapping[str, str]]) -> Table:
        """From one or more rows of cells by the names of their columns, which are the same in all rows."""
        return cls(title, tuple(rows[0]), tuple(tuple(row.values()) for row in rows))

    def markdown(self) -> str:
        """The title and the table, as GitHub reads it."""
        return f"**{self.title}**\n\n{markdown_table(self.header, self.rows)}"


@dataclass(frozen=True)
class StudyReport:
    """What a study says: tables, findings in a sentence each, and the figure."""

    tables: tuple[Table, ...]
    findings: tuple[str, ...]
    figure: Figure


def write_study(
    out: Path,
    name: str,
    question: str,
    report: StudyReport,
    settings: Mapping[str, Any],
    measured: Mapping[str, Sequence[Mapping[str, Any]]],
    command: str,
) -> Path:
    """README.md, result.json, figure.png and figure.svg in `out`; returns the page."""
    seeds = len(next(iter(measured.values())))
    result = {
        "study": name,
        "command": command,
        "settings": settings,
        "seeds": seeds,
        "environment": software(),
        "tables": [asdict(table) for table in report.tables],
        "findings": report.findings,
        "measured": measured,
    }
    write_atomically(out / "result.json", json.dumps(result, indent=1) + "\n")
    save_figure(report.figure, (out / "figure.png", out / "figure.svg"), command)
    page = out / "README.md"
    report = replace(report, findings=(*report.findings, *_remarks(measured)))
    write_atomically(page, _page(name, question, report, settings, seeds, command))
    return page


def _remarks(measured: Mapping[str, Sequence[Mapping[str, Any]]]) -> tuple[str, ...]:
    """The notes of the probes, and on how many runs each was made."""
    runs = [found for seeds in measured.values() for found in seeds]
    counts = Counter(remark for found in runs for remark in found.get("remarks", ()))
    return tuple(f"{remark} ({n} of {len(runs)} runs)." for remark, n in counts.items())


def _page(
    name: str, question: str, report: StudyReport, settings: Mapping[str, Any], seeds: int, command: str
) -> str:
    options, data = settings["options"], settings["data"]
    encoder = next(iter(settings["arms"].values()))["encoder"]
    height, width = encoder["image_size"]
    setting = (
        f"{data['images']:,} training images of {data['source']}, {height} x {width} px in patches of "
        f"{encoder['patch_size']} px; ViT of {encoder['width']} x {encoder['depth']}; {settings['steps']:,} "
        f"steps of {options['batch_size']} ({settings['epochs']:.1f} epochs); {seeds_of(seeds)}. Probes: "
        f"{options['bank']:,} labelled images to fit on, {options['test']:,} held-out ones to test on, mean-"
        "pooled patch tokens of the last layer. Mean and 95 % interval (Student's t, of shares on the logit "
        "scale) over seeds; differences are taken seed by seed."
    )
    parts = [f"# Study: {name}", question, f"    {command}" if command else "", setting]
    parts += [table.markdown() for table in report.tables]
    parts += ["\n".join(f"- {finding}" for finding in report.findings), "![The study's figure](figure.svg)"]
    return "\n\n".join(part for part in parts if part) + "\n"
