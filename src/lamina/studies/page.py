"""The page of a study: its question, command, tables and figure, as Markdown beside the numbers as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from lamina.analyze.output import save_figure
from lamina.core.files import write_atomically
from lamina.core.intervals import seeds_of
from lamina.runs.run import environment


@dataclass(frozen=True)
class Table:
    """Rows of text under a header."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """As GitHub reads it."""
        lines = [
            f"**{self.title}**",
            "",
            f"| {' | '.join(self.header)} |",
            f"|{'|'.join(['---'] * len(self.header))}|",
        ]
        return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in self.rows)])


@dataclass(frozen=True)
class StudyReport:
    """What a study says: tables, findings in a sentence each, and the figure."""

    tables: tuple[Table, ...]
    findings: tuple[str, ...]
    figure: Figure


def write_study(
    out: Path,
    name: str,
    asks: str,
    told: StudyReport,
    settings: Mapping[str, Any],
    measured: Mapping[str, Sequence[Mapping[str, Any]]],
    command: str,
) -> Path:
    """README.md, result.json, figure.png and figure.svg in `out`; returns the page."""
    seeds = len(next(iter(measured.values())))
    made = environment()
    result = {
        "study": name,
        "command": command,
        "settings": settings,
        "seeds": seeds,
        "environment": {key: made[key] for key in ("python", "packages", "threads")},
        "tables": [{"title": t.title, "header": t.header, "rows": t.rows} for t in told.tables],
        "findings": told.findings,
        "measured": measured,
    }
    write_atomically(out / "result.json", json.dumps(result, indent=1) + "\n")
    save_figure(told.figure, (out / "figure.png", out / "figure.svg"), command)
    page = out / "README.md"
    told = replace(told, findings=(*told.findings, *_remarks(measured)))
    write_atomically(page, _page(name, asks, told, settings, seeds, command))
    return page


def _remarks(measured: Mapping[str, Sequence[Mapping[str, Any]]]) -> tuple[str, ...]:
    """What the probes said of themselves, and of how many runs."""
    runs = [found for seeds in measured.values() for found in seeds]
    said = Counter(remark for found in runs for remark in found.get("remarks", ()))
    return tuple(f"{remark} ({n} of {len(runs)} runs)." for remark, n in said.items())


def _page(
    name: str, asks: str, told: StudyReport, settings: Mapping[str, Any], seeds: int, command: str
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
    parts = [f"# Study: {name}", asks, f"    {command}" if command else "", setting]
    parts += [table.markdown() for table in told.tables]
    parts += ["\n".join(f"- {finding}" for finding in told.findings), "![The study's figure](figure.svg)"]
    return "\n\n".join(part for part in parts if part) + "\n"
